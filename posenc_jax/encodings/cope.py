"""Contextual position encoding."""

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.encodings.core.base import Dims, Encoding


class CoPE(Encoding):
  """s_ij = z_ij + q_i . e[p_ij], z_ij = q_i . k_j / sqrt(K) (Golovneva et al. 2024).

    p_ij = min(sum_(t=j..i) sigmoid(z_it), positions - 1)

  A position counts the visible tokens j..i that the query opens a gate for; between whole numbers
  q_i . e[p] is interpolated. As in the port in x-transformers the gates read the scaled, masked
  scores, the positional term is not scaled, and e is zero at the start, one table a layer for all
  heads.
  """

  paper = 'Golovneva et al. 2024, arXiv:2405.18719'
  weights, claims = 'a table a layer', None
  bias_in_scale = False
  causal_only = True
  per_layer = ('rows',)

  def __init__(self, dims: Dims, rngs, *, positions: int = 64):
    """`positions`: rows of e; larger counts share the last."""
    super().__init__(dims, rngs)
    if positions < 2:
      raise ValueError(f'cope: positions={positions} must be at least 2')
    self.rows = nnx.Param(jnp.zeros((positions, dims.head_dim), jnp.float32))

  def score(self, s_BHTS, q_BTHK, k_BSHK, block):
    last = self.rows.shape[0] - 1
    rows_PK = self.rows[...].astype(q_BTHK.dtype)
    by_row_BHTP = jnp.einsum('bthk,pk->bhtp', q_BTHK, rows_PK, preferred_element_type=jnp.float32)

    def near():
      return interpolate(by_row_BHTP, jnp.minimum(block.suffix_sum(jax.nn.sigmoid(s_BHTS)), last))

    def far():
      return jnp.broadcast_to(by_row_BHTP[..., last:], s_BHTS.shape)

    return s_BHTS + block.unless(last, near, far)


@jax.custom_vjp
def interpolate(f_P, p_S):
  """f at the places p in [0, P - 1], linear between whole numbers: [..., P], [..., S] -> [..., S].

  Its own gradient for f: one flat scatter of pairs. Autodiff of the two lookups scatters twice by
    four indices each.
  """
  return _interpolate(f_P, p_S)[0]


def _interpolate(f_P, p_S):
  below = jnp.floor(p_S).astype(jnp.int32)
  low = jnp.take_along_axis(f_P, below, axis=-1)
  slope = jnp.take_along_axis(f_P, jnp.minimum(below + 1, f_P.shape[-1] - 1), axis=-1) - low
  return low + (p_S - below) * slope, (f_P, p_S, slope)


def _interpolate_backward(residuals, d_S):
  f_P, p_S, slope_S = residuals
  P, below = f_P.shape[-1], jnp.floor(p_S).astype(jnp.int32)
  place = below.reshape(-1, below.shape[-1]) + P * jnp.arange(f_P.size // P)[:, None]
  pairs = jnp.stack([d_S * (1 - (p_S - below)), d_S * (p_S - below)], axis=-1).reshape(-1, 2)
  sums = jnp.zeros((f_P.size, 2), d_S.dtype).at[place.ravel()].add(pairs, mode='promise_in_bounds')
  # nothing is above the last
  here, above = sums[:, 0].reshape(f_P.shape), sums[:, 1].reshape(f_P.shape)
  return here.at[..., 1:].add(above[..., :-1]), slope_S * d_S


interpolate.defvjp(_interpolate, _interpolate_backward)
