"""A prior over keys that is trained: waves of the distance, and a bias of each place."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax.encodings.alibi import slopes
from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_above, check_at_least, check_unread
from posenc_jax.encodings.core.parameters import normal, zeros
from posenc_jax.xla_ops import exact_matmul, outer

UNITS = 4  # of the network, as released


class GOAT(Encoding):
  """s_ij = q_i . k_j / sqrt(K) + sum_r (a_hr cos w_r d + b_hr sin w_r d) - m_h d + u_h(j).

    d = i - j,   u_h(j) = g_h f(j) . w_out + e_h [j = 0]
    f(j) = SiLU([cos v j | sin v j | j / L | log(1 + max(j, 0)) / log(1 + L)] w_in + b_in)

  Attention with trainable priors, Litman and Guo 2026: waves and a recency bias of the distance,
  and a sink of the key's place. w_r = base^(-r/(R - 1)), r < R = `waves`, and so v of `sink_waves`.
  As released, every layer has its own parameters; a, b, m > 0, g and e are a head's (a key/value
  head's where there are fewer), f is one. a starts from N(0, 0.01^2), b at 0, m at the slopes of
  `alibi`, weights of f from N(0, 0.001^2), its bias at 0, g at 1 and e at 0.

  In the released code, which the weights of this prior were compared with, the prior takes 2R + 1
  of the channels of q and k of each head, and K counts the others; here heads keep all channels for
  q . k. f has no bias after w_out: alike for all keys, it changes no softmax. The released preset
  for GPT is waves=0 with sink_waves=8. Its positions rise: where they do not, a key at a later one
  gets m_h a position more. max(j, 0) is ours, of positions below 0.
  """

  paper = 'Litman and Guo 2026, arXiv:2601.15380'
  parameter_summary = '2R + 3 numbers a head and an MLP a layer'
  bias_in_scale = False
  relative = False
  causal_only = True
  per_layer = ('cosines', 'sines', 'slopes', 'gains', 'first', 'w_in', 'b_in', 'w_out')

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    waves: int = 4,
    sink_waves: int | None = None,
    base: float = 10_000.0,
    sink: bool = True,
    length: int | None = None,
  ):
    """Draws the prior; its numbers of waves are those of the paper's language models.

    Args:
      waves: R, of the distance; 0, with a sink alone: none.
      sink_waves: how many waves of the key's place f has; 4 if None.
      base: of the frequencies of both.
      sink: whether there are u and, with it, the recency bias; else waves of the distance alone.
      length: L in tokens, of the place; None: the training length.
    """
    super().__init__(dims, rngs)
    if not sink:
      check_unread('there is a sink', sink_waves=sink_waves, length=length)
    sink_waves = 4 if sink_waves is None else sink_waves
    self.length = dims.train_length if length is None else length
    check_at_least(0 if sink else 1, waves=waves)
    check_at_least(1, sink_waves=sink_waves, length=self.length)
    check_above(1, base=base)
    self.waves, self.sink_waves, self.base = waves, sink_waves, base
    self.relative, self.causal_only = not sink, sink
    self.switched_off = () if sink else ('score',)
    G = dims.kv_heads
    if waves:
      self.cosines, self.sines = normal(rngs, (waves, G), 1e-2), zeros(waves, G)
    if sink:
      self.slopes = nnx.Param(jnp.log(jnp.expm1(jnp.array(slopes(G), jnp.float32))))
      self.gains, self.first = nnx.Param(jnp.ones(G, jnp.float32)), zeros(G)
      self.w_in, self.b_in = normal(rngs, (2 * sink_waves + 2, UNITS), 1e-3), zeros(UNITS)
      self.w_out = normal(rngs, (UNITS,), 1e-3)

  def bias(self, r_R):
    r_R = r_R.astype(jnp.float32)
    bias_RG = jnp.zeros((len(r_R), self.dims.kv_heads), jnp.float32)
    if self.waves:
      cos_RW, sin_RW = _waves(r_R, self.waves, self.base)
      bias_RG += exact_matmul(cos_RW, self.cosines[...]) + exact_matmul(sin_RW, self.sines[...])
    if self.has('score'):
      bias_RG -= jnp.multiply.outer(r_R, jax.nn.softplus(self.slopes[...]))
    return self._of_queries(bias_RG)

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    """u, float32 [B|1, S, H], where there is one."""
    j_BS = position_ids.astype(jnp.float32)
    if not self.has('score'):
      return j_BS
    shares = [j_BS / self.length, jnp.log1p(jnp.maximum(j_BS, 0.0)) / math.log1p(self.length)]
    waves = _waves(j_BS, self.sink_waves, self.base)
    features_BSF = jnp.concatenate([*waves, jnp.stack(shares, axis=-1)], axis=-1)
    units_BSF = jax.nn.silu(exact_matmul(features_BSF, self.w_in[...]) + self.b_in[...][None, None])
    u_BSG = outer(exact_matmul(units_BSF, self.w_out[...]), self.gains[...])
    u_BSG += outer((j_BS == 0).astype(jnp.float32), self.first[...])
    return self._of_queries(u_BSG)

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    return s_BHTS + tile.j.swapaxes(1, 2)[:, :, None]

  def _of_queries(self, x_G):
    """For each head of queries what its key/value head has, on the last axis."""
    return jnp.repeat(x_G, self.dims.heads // self.dims.kv_heads, axis=-1)


def _waves(t, count: int, base: float):
  """cos and sin of t times each frequency: [..., count] each."""
  frequencies = base ** (-np.arange(count) / max(count - 1, 1))
  angles = outer(t, jnp.asarray(frequencies, jnp.float32))
  return jnp.cos(angles), jnp.sin(angles)
