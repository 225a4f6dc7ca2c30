"""Temperatures: factors on the queries, to be chained with encodings that say where tokens are."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax.encodings.core.base import Dims, Encoding


def times(q_BTHK, factor):
  """Queries times a factor [B|1, T, H|1], in float32."""
  return (q_BTHK.astype(jnp.float32) * factor[..., None]).astype(q_BTHK.dtype)


def log_n(i_BT):
  """log of the number of keys that a query sees under a causal mask, itself included, as [B|1, T,
  1].
  """
  return jnp.log1p(i_BT)[..., None]


class LogN(Encoding):
  """q_i max(floor, log(i + 1) / log L): logits grow with the log of the keys past the training
  length (Su 2021).

  So that the entropy of attention does not grow with the length; after Chiang and Cholak 2022, who
  multiply logits by log n. The number n = i + 1 of visible keys is counted by positions: right in
  packed rows, too large under a window, whose queries see no more keys than it holds, and where
  positions are drawn with gaps. What other encodings add to the scores is not multiplied.
  """

  paper = 'Su 2021, kexue.fm/archives/8823; Chiang and Cholak 2022, arXiv:2202.12172'
  weights, claims = 'none', None
  relative = False
  causal_only = True

  def __init__(self, dims: Dims, rngs, *, length: int | None = None, floor: float = 1.0):
    """`length`: L, where the factor is 1; None: the training length. `floor` 0: the ratio, below 1
    before it.
    """
    super().__init__(dims, rngs)
    self.length, self.floor = dims.train_length if length is None else length, floor
    if self.length < 2 or floor < 0:
      raise ValueError(
        f'logn: length={self.length} must be at least 2 and floor={floor} at least 0'
      )

  def transform(self, q_BTHK, k_BSGK, i, j):
    return times(q_BTHK, jnp.maximum(log_n(i) / np.log(self.length), self.floor)), k_BSGK


class SSMax(Encoding):
  """softmax(s_h log(n) z_i) with z_ij = q_i . k_j / sqrt(K), n = i + 1 and a learned s a head a
  layer (Nakanishi 2025).

  Queries are multiplied, so what other encodings add to the scores is not; n is counted as for
  `logn`. With `bias` the factor is s_h log(n) + b_h, a variant of the paper; b starts at 0. Here s
  starts at 1 over the mean of log n in training, so that logits start as large as without.
  """

  paper = 'Nakanishi 2025, arXiv:2501.19399'
  weights, claims = 'a number a head a layer, or two', None
  relative = False
  causal_only = True
  per_layer = ('s',)

  def __init__(self, dims: Dims, rngs, *, start: float | None = None, bias: bool = False):
    """`start`: where s starts; None: L / log(L!), 0.168 at L = 1024."""
    super().__init__(dims, rngs)
    if start is None:
      start = 1 / np.log(np.arange(1, max(dims.train_length, 2) + 1)).mean()
    self.bias, self.per_layer = bias, ('s', 'b') if bias else ('s',)
    self.s = nnx.Param(jnp.full(dims.heads, start, jnp.float32))
    if bias:
      self.b = nnx.Param(jnp.zeros(dims.heads, jnp.float32))

  def transform(self, q_BTHK, k_BSGK, i, j):
    factor_BTH = self.s[...][None, None] * log_n(i)
    return times(q_BTHK, factor_BTH + self.b[...][None, None] if self.bias else factor_BTH), k_BSGK


class NoPEScale(Encoding):
  """s_ij = scale_h q_i . k_j / sqrt(K), for models without positions beyond their training length
  (Wang et al. 2024).

  One number (UniformScale), to be laid over a run of `nope` at evaluation: trained with it, it only
  starts logits larger. Or, `learned`, one a head a layer, kept at 1 and above (HeadScale): the
  paper trains these alone, in a trained model, for 200 steps; here they train with all the rest.
  """

  paper = 'Wang et al. 2024, arXiv:2404.12224'
  weights, claims = 'none, or a number a head a layer', None

  def __init__(self, dims: Dims, rngs, *, scale: float = 1.2, learned: bool = False):
    """`scale`: the factor, or where factors start; the best depends on the length."""
    super().__init__(dims, rngs)
    if scale <= 0:
      raise ValueError(f'nope_scale: scale={scale} must be greater than 0')
    self.factor, self.learned, self.per_layer = scale, learned, ('scales',) if learned else ()
    if learned:
      self.scales = nnx.Param(jnp.full(dims.heads, scale, jnp.float32))

  def transform(self, q_BTHK, k_BSGK, i, j):
    return times(
      q_BTHK, self.scales[...][None, None] if self.learned else jnp.full((1, 1, 1), self.factor)
    ), k_BSGK

  def project(self):
    return jax.tree.map(lambda x: jnp.maximum(x, 1.0), self)
