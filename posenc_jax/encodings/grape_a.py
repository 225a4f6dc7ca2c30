"""A linear bias whose slope queries and keys choose."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from posenc_jax.encodings.alibi import slopes
from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_one_of
from posenc_jax.encodings.core.parameters import normal

GATES = ('query_key', 'query', 'key')


class GrapeA(Encoding):
  """s_ij = q_i . k_j / sqrt(K) - |i - j| softplus(omega_h) m_h (g(v_h, q_i) + g(u_h, k_j)).

  GRAPE-A, gated, Zhang et al. 2025, as released: g(u, k) = softplus(u . k / (|u| sqrt(K))), m are
  ALiBi's slopes, and softplus(omega) is 1 at the start. `gate` leaves one of the two terms out.
  Every layer has its own omega, u and v, and entries of u and v start from N(0, 1/K). Behind `rope`
  the gates read rotated queries and keys, and depend on absolute positions.
  """

  paper = 'GRAPE, ICLR 2026, arXiv:2512.07805'
  parameter_summary = 'two vectors and a number a head a layer'
  position_kind = 'floats'
  bias_in_scale = False
  reads_qk = True
  per_layer = ('omega', 'u', 'v')

  def __init__(self, dims: Dims, rngs, *, gate: str = 'query_key'):
    """`gate`: one of GATES: what the slope depends on."""
    super().__init__(dims, rngs)
    self.needs_unscaled_queries = gate != 'key'
    check_one_of(GATES, gate=gate)
    self.omega = nnx.Param(jnp.full(dims.heads, jnp.log(jnp.expm1(1.0)), jnp.float32))
    shape = dims.heads, dims.head_dim
    if gate != 'query':
      self.u = normal(rngs, shape, dims.head_dim**-0.5)
    if gate != 'key':
      self.v = normal(rngs, shape, dims.head_dim**-0.5)

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    rates_BHTS = 0.0
    if hasattr(self, 'v'):
      rates_BHTS += _gate(self.v[...], q_BHTK)[..., None]
    if hasattr(self, 'u'):
      k_BHSK = jnp.repeat(k_BGSK, self.dims.heads // self.dims.kv_heads, axis=1)
      rates_BHTS += _gate(self.u[...], k_BHSK)[:, :, None]
    slopes_H = jax.nn.softplus(self.omega[...]) * jnp.asarray(slopes(self.dims.heads), jnp.float32)
    distance_BHTS = jnp.abs(tile.distance)[:, None].astype(jnp.float32)
    return s_BHTS - slopes_H[None, :, None, None] * distance_BHTS * rates_BHTS


def _gate(vector_HK, x_BHTK):
  """softplus(v . x / (|v| sqrt(K))): float32 [B, H, T]."""
  square_H1 = (vector_HK**2).sum(axis=-1, keepdims=True)
  unit_HK = vector_HK * lax.rsqrt(jnp.maximum(square_H1, 1e-12))  # finite gradients at 0, too
  logits_BHT = _head_dot(unit_HK, x_BHTK.astype(jnp.float32))
  return jax.nn.softplus(logits_BHT * x_BHTK.shape[-1] ** -0.5)


def _head_dot(v_HK, x_BHTK):
  """v_h . x of each head: [B, H, T]."""

  def by_product(v_HK, x_BHTK):
    return jnp.einsum('hk,bhtk->bht', v_HK, x_BHTK)

  def by_sum(v_HK, x_BHTK):  # Mosaic has no product whose gradient is a single row
    return (v_HK[None, :, None] * x_BHTK).sum(axis=-1)

  return lax.platform_dependent(v_HK, x_BHTK, cpu=by_product, default=by_sum)
