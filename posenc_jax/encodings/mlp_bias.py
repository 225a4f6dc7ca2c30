"""A bias by distance that a small network computes."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_at_least
from posenc_jax.encodings.core.parameters import uniform, zeros
from posenc_jax.xla_ops import exact_matmul

EPSILON = 1e-5  # of the norms


class MLPBias(Encoding):
  """s_ij = q_i . k_j / sqrt(K) + f(u)_h, f: an MLP 1 -> hidden -> .. -> H with SiLU, u = i - j.

    with `log`:   u = sign(i - j) log(1 + |i - j|)

  Dynamic position bias, as x-transformers has it for text. CrossFormer (Wang et al. 2021) has it
  for images, with norms and ReLU; the logarithm is Swin V2's (Liu et al. 2021). All layers share
  one MLP. Weights start from U(-1/sqrt(fan-in), 1/sqrt(fan-in)) as there. The bias of its last
  layer is left out: alike for all keys, it changes no softmax. With `norm` the units of each hidden
  layer are normalized before SiLU, to mean 0 and variance 1, and multiplied by learned gains; in
  all but the first offsets are added. So it is there.

  Distances are tokens, as there, and not divided by anything. So an untrained f is nearly linear,
  by about 0.1 a token, and up in about half of the heads: these prefer what is far.
  """

  paper = 'Wang et al. 2021, arXiv:2108.00154; Liu et al. 2021, arXiv:2111.09883'
  parameter_summary = 'an MLP'
  reported_extrapolation = 'to 8 L from 128, better without log (E. Engelhart, in x-transformers)'
  limit = (
    'without `log` and `norm` biases grow with distance: untrained, to 2e4 at 1e5, rounded to 0.005'
  )
  bias_in_scale = False
  parameters_depend_on = ('log',)

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    hidden: int | None = None,
    depth: int = 2,
    log: bool = False,
    norm: bool = False,
  ):
    """Draws the MLP.

    Args:
      hidden: width of its hidden layers; None: D // 4.
      depth: how many hidden layers it has.
      log: whether it gets logarithms of distances.
      norm: whether hidden units are normalized.
    """
    super().__init__(dims, rngs)
    check_at_least(1, hidden=hidden, depth=depth)
    self.log, self.norm = log, norm
    F = max(dims.model_dim // 4, 1) if hidden is None else hidden
    draw = lambda *shape: uniform(rngs, shape, -(F**-0.5), F**-0.5)
    self.w_in, self.b_in = (uniform(rngs, (F,), -1.0, 1.0) for _ in range(2))
    if depth > 1:
      self.w_hidden, self.b_hidden = draw(depth - 1, F, F), draw(depth - 1, F)
    self.w_out = draw(F, dims.heads)
    self.depth = depth
    if norm:
      self.gains = nnx.Param(jnp.ones((depth, F), jnp.float32))
      if depth > 1:
        self.offsets = zeros(depth - 1, F)

  def bias(self, r_R):
    u_R = r_R.astype(jnp.float32)
    if self.log:
      u_R = jnp.sign(u_R) * jnp.log1p(jnp.abs(u_R))
    # Distances have no bound, so products at a lower precision would be off by whole units.
    x_RF = self._activated(jnp.multiply.outer(u_R, self.w_in[...]) + self.b_in[...][None], 0)
    for n in range(self.depth - 1):
      x_RF = exact_matmul(x_RF, self.w_hidden[n]) + self.b_hidden[n][None]
      x_RF = self._activated(x_RF, n + 1)
    return exact_matmul(x_RF, self.w_out[...])

  def _activated(self, x_RF, n: int):
    """The units of the hidden layer n, counted from 0."""
    if self.norm:
      x_RF -= x_RF.mean(axis=-1, keepdims=True)
      x_RF *= lax.rsqrt((x_RF**2).mean(axis=-1, keepdims=True) + EPSILON)
      x_RF = x_RF * self.gains[n][None] + (self.offsets[n - 1][None] if n else 0.0)
    return jax.nn.silu(x_RF)
