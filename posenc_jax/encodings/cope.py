"""Contextual position encoding: a position counts the tokens that the query lets count."""

import jax
import jax.numpy as jnp

from posenc_jax.distributed.mesh import devices_of_batch
from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_at_least
from posenc_jax.encodings.core.parameters import zeros


class CoPE(Encoding):
  """s_ij = z_ij + q_i . e[p_ij], z_ij = q_i . k_j / sqrt(K) (Golovneva et al. 2024).

    p_ij = min(sum_(t=j..i) sigmoid(z_it), positions - 1)

  A position counts the visible tokens j..i that the query opens a gate for; between whole numbers
  q_i . e[p] is interpolated. The gates read the scaled, masked scores; e is zero at the start, one
  table a layer for all heads. This is the paper's listing and the port in x-transformers: the
  positional term is not scaled. The authors' release scales it too, (q_i . k_j + q_i . e[p_ij]) /
  sqrt(K), unless its flag `--cope-nodiv` is set: `bias_in_scale`. Not built: gates of a projection
  of keys of their own (its `--cope-sep-key`), and gates of q_i . v_j (`--cope-val-gates`).
  """

  paper = 'Golovneva et al. 2024, arXiv:2405.18719'
  parameter_summary = 'a table a layer'
  position_kind = None
  bias_in_scale = False
  causal_only = True
  reads_qk = True
  needs_unscaled_queries = True
  scans_keys = ((),)
  per_layer = ('rows',)

  def __init__(self, dims: Dims, rngs, *, positions: int = 64, bias_in_scale: bool = False):
    """Makes the table.

    Args:
      positions: rows of e; larger counts share the last row.
      bias_in_scale: 1/sqrt(K) multiplies q_i . e[p_ij] too, as in the authors' release.
    """
    super().__init__(dims, rngs)
    check_at_least(2, positions=positions)
    self.bias_in_scale = self.applies_scale = bias_in_scale
    self.rows = zeros(positions, dims.head_dim)

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    last = self.rows.shape[0] - 1
    rows_PK = self.rows[...].astype(q_BHTK.dtype)
    by_row_BHTP = jnp.einsum('bhtk,pk->bhtp', q_BHTK, rows_PK, preferred_element_type=jnp.float32)
    if self.bias_in_scale:
      by_row_BHTP = self.scale(self.dims.head_dim) * by_row_BHTP

    def near():
      counts_BHTS = tile.suffix_sum(jax.nn.sigmoid(s_BHTS))
      return interpolate(by_row_BHTP, jnp.minimum(counts_BHTS, last))

    def far():
      return jnp.broadcast_to(by_row_BHTP[..., last:], s_BHTS.shape)

    return s_BHTS + tile.cond_saturated(last, near, far)


@jax.custom_vjp
def interpolate(f_P, p_S):
  """f at the places p in [0, P - 1], linear between whole numbers: [..., P], [..., S] -> [..., S].

  The gradient for f is one flat scatter of pairs, where autodiff of the two lookups scatters twice
  by four indices each; where devices share the batch, one for each of its rows.
  """
  return _interpolate_forward(f_P, p_S)[0]


def _interpolate_forward(f_P, p_S):
  below = jnp.floor(p_S).astype(jnp.int32)
  low = jnp.take_along_axis(f_P, below, axis=-1)
  above = jnp.minimum(below + 1, f_P.shape[-1] - 1)
  slope = jnp.take_along_axis(f_P, above, axis=-1) - low
  return low + (p_S - jnp.floor(p_S)) * slope, (f_P, p_S, slope)


def _interpolate_backward(residuals, d_S):
  f_P, p_S, slope_S = residuals
  P = f_P.shape[-1]
  below, share = jnp.floor(p_S).astype(jnp.int32), p_S - jnp.floor(p_S)
  pairs = jnp.stack([d_S * (1 - share), d_S * share], axis=-1)

  def sums_of(below_S, pairs_S):
    rows = below_S.size // below_S.shape[-1]
    place = below_S.reshape(rows, -1) + P * jnp.arange(rows)[:, None]
    sums = jnp.zeros((rows * P, 2), d_S.dtype)
    return sums.at[place.ravel()].add(pairs_S.reshape(-1, 2), mode='promise_in_bounds')

  if devices_of_batch() > 1:  # in one scatter each would gather the pairs of all
    sums_of = jax.vmap(sums_of)
  sums = sums_of(below, pairs).reshape(-1, 2)
  here, above = sums[:, 0].reshape(f_P.shape), sums[:, 1].reshape(f_P.shape)
  # The last place has nothing above it.
  return here.at[..., 1:].add(above[..., :-1]), slope_S * d_S


interpolate.defvjp(_interpolate_forward, _interpolate_backward)
