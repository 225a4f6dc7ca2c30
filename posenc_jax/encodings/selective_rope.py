"""Rotary embedding by angles that tokens choose."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.bounds import check_above, check_at_least
from posenc_jax.encodings.core.parameters import normal, uniform, zeros
from posenc_jax.encodings.core.running_sums import causal_conv, running_angle
from posenc_jax.encodings.core.scaling.formulas import rope_frequencies
from posenc_jax.encodings.rope import ByAngles, check_rotary
from posenc_jax.xla_ops import exact_matmul

TAPS = 4


class SelectiveRoPE(ByAngles):
  """Pair m of q and k rotates by base^(-2m/K) sum_(l <= t) f_lm, f = conv(W_2 W_1 x^), as released.

  ICLR 2026. x^ is the layer's normalized input cut into H slices, each divided by its Euclidean
  norm; conv, depthwise and causal over 4 tokens, does not reach back into the segment before. Every
  layer has its own. With fewer key/value heads there are as many sets of angles. Weights start at
  fan-in scale, those of conv from U(-1/2, 1/2); theirs all from N(0, 0.02^2), where f is next to
  nothing and the model starts as NoPE (`std`), and released configs have rank 32. `bias` adds
  exp(c) to f, c = 0 at the start: with conv zero that is RoPE. `gate` multiplies f by
  sigmoid(W_g x^ + b_g), a number a head. The code norms queries and keys after rotating them;
  `qk_norm` of the model does before.
  """

  paper = 'Movahedi et al. 2025, arXiv:2511.17388'
  parameter_summary = 'two projections and a convolution a layer'
  position_kind = None
  causal_only = True
  needs_inputs = True
  per_layer = ('w_1', 'w_2', 'conv', 'c', 'w_g', 'b_g')

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    base: float = 500_000.0,
    rank: int = 16,
    bias: bool = False,
    gate: bool = False,
    std: float | None = None,
    turn_values: bool = False,
  ):
    """Draws the projections and the convolution.

    Args:
      base: as for `rope`.
      rank: of the projection to f.
      bias: whether f has the term exp(c).
      gate: whether f is multiplied by a sigmoid for each head.
      std: weights start at N(0, std^2), those of conv, too; 0.02 in released configs. None: at
        fan-in scale.
      turn_values: whether values rotate, too, and outputs back by the angles of their queries
        (arXiv:2606.24975).
    """
    super().__init__(dims, rngs, turn_values=turn_values)
    check_rotary(dims.head_dim, base)
    if dims.model_dim % dims.heads:
      raise ValueError(f'heads={dims.heads}; allowed: divisors of model_dim={dims.model_dim}')
    check_at_least(1, rank=rank)
    check_above(0, std=std)
    self.base, self.has_offset, self.has_gate = base, bias, gate
    D, G, half = dims.model_dim, dims.kv_heads, dims.head_dim // 2
    self.w_1 = normal(rngs, (D, rank), std or D**-0.5)
    self.w_2 = normal(rngs, (rank, G, half), std or rank**-0.5)
    taps = TAPS, G, half
    self.conv = normal(rngs, taps, std) if std else uniform(rngs, taps, -0.5, 0.5)
    if bias:
      self.c = zeros(G, half)
    if gate:
      self.w_g, self.b_g = normal(rngs, (D, G), std or D**-0.5), zeros(G)

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    """Angles in (-pi, pi]: float32 [B, S, G, K/2]."""
    x_BSHX = x_BSD.astype(jnp.float32).reshape(*x_BSD.shape[:2], self.dims.heads, -1)
    norm = lax.rsqrt((x_BSHX**2).sum(axis=-1, keepdims=True) + 1e-6)
    x_BSD = (x_BSHX * norm).reshape(x_BSD.shape)
    low_BSR, (rank, G, M) = exact_matmul(x_BSD, self.w_1[...]), self.w_2.shape
    f_BSGM = exact_matmul(low_BSR, self.w_2[...].reshape(rank, G * M))
    f_BSGM = f_BSGM.reshape(*low_BSR.shape[:2], G, M)
    f_BSGM = causal_conv(f_BSGM, self.conv[...], index_BS)
    if self.has_offset:
      f_BSGM += jnp.exp(self.c[...])[None, None]
    if self.has_gate:
      gate_BSG = jax.nn.sigmoid(exact_matmul(x_BSD, self.w_g[...]) + self.b_g[...][None, None])
      f_BSGM *= gate_BSG[..., None]
    turns = rope_frequencies(self.dims.head_dim, self.base) / (2 * math.pi)
    turns = jnp.asarray(turns, jnp.float32)
    return running_angle(f_BSGM * turns[None, None, None], index_BS)
