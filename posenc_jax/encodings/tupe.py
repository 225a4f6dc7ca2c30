"""Positions correlated apart from content."""

import jax.numpy as jnp
from flax import nnx
from jax import lax

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_at_least, check_unread
from posenc_jax.encodings.core.parameters import normal, zeros
from posenc_jax.encodings.learned import rows_at
from posenc_jax.encodings.t5 import buckets_of


class TUPE(Encoding):
  """s_ij = [q_i . k_j + (p_i U_Q) . (p_j U_K)] / sqrt(2K) (+ b[bucket(i - j), h]).

  TUPE-A (TUPE-R) of Ke et al. 2020. p is a learned position after a LayerNorm; it and its
  projections are shared by all layers. The two products are one: p U is set beside q and k. With
  fewer key/value heads U_K has as many. Entries start from N(0, 1/D), those of p before its
  LayerNorm and those of U_Q and U_K, and those of b from N(0, 0.02^2). `affine` adds what the
  released code has and the paper's formula has not: gain and offset of the LayerNorm, biases of the
  projections (that of U_K, alike for all keys, changes no softmax and is left out). TUPE-R adds
  T5's buckets, half of them for later keys, unscaled. What the paper does for [CLS] is not in it.
  Positions outside the table give NaN.
  """

  paper = 'Ke et al. 2020, arXiv:2006.15595'
  parameter_summary = 'a row a position, two projections'
  reported_extrapolation = 'none: its table ends'
  relative = False
  qk_width_factor = 2
  reads_own_queries = True

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    max_length: int | None = None,
    affine: bool = False,
    buckets: int = 0,
    max_distance: int | None = None,
  ):
    """Draws positions and projections.

    Args:
      max_length: rows of p; the training length if None.
      affine: whether the released code's gains and biases are there.
      buckets: of TUPE-R (published: 32); 0 for TUPE-A.
      max_distance: as for `t5`, with `buckets`; 128 if None.
    """
    super().__init__(dims, rngs)
    D, H, G, K = dims.model_dim, dims.heads, dims.kv_heads, dims.head_dim
    self.max_length = dims.train_length if max_length is None else max_length
    check_at_least(1, max_length=self.max_length)
    if not buckets:
      check_unread('there are buckets', max_distance=max_distance)
    max_distance = 128 if max_distance is None else max_distance
    if buckets and (buckets < 8 or buckets % 4 or max_distance <= buckets // 4):
      allowed = 'a multiple of 4 from 8 to below 4 max_distance, or 0'
      raise ValueError(f'buckets={buckets}; allowed: {allowed}')
    self.affine, self.side, self.max_distance = affine, buckets // 2, max_distance
    self.rows = normal(rngs, (self.max_length, D), D**-0.5)
    self.u_q = normal(rngs, (D, H, K), D**-0.5)
    self.u_k = normal(rngs, (D, G, K), D**-0.5)
    if affine:
      self.gain = nnx.Param(jnp.ones(D, jnp.float32))
      self.offset = zeros(D)
      self.b_q = zeros(H, K)
    if buckets:
      self.table = normal(rngs, (buckets, H), 0.02)
      self.max_relative_distance = max_distance
      self.bias_in_scale = False
    else:
      self.switched_off = ('bias',)

  def scale(self, head_dim: int) -> float:
    return (2 * head_dim) ** -0.5

  def transform_qk(self, q_BTHK, k_BSGK, i, j):
    centered = self.rows[...] - self.rows[...].mean(axis=-1, keepdims=True)
    p_LD = centered * lax.rsqrt(jnp.mean(centered**2, axis=-1, keepdims=True) + 1e-5)
    if self.affine:
      p_LD = p_LD * self.gain[...][None] + self.offset[...][None]
    queries_LHK, keys_LGK = (jnp.einsum('ld,dhk->lhk', p_LD, u[...]) for u in (self.u_q, self.u_k))
    if self.affine:
      queries_LHK += self.b_q[...][None]
    return beside(q_BTHK, queries_LHK, i), beside(k_BSGK, keys_LGK, j)

  def bias(self, r_R):
    return self.table[...][buckets_of(r_R, self.side, self.max_distance, bidirectional=True)]


def beside(x_BSHK, table_LGn, positions):
  """x with the rows of a table at integer positions beside it, in each of its heads."""
  rows = rows_at(table_LGn, positions.astype(jnp.int32))
  rows = jnp.repeat(rows, x_BSHK.shape[2] // rows.shape[2], axis=2)
  rows = jnp.broadcast_to(rows, (*x_BSHK.shape[:3], rows.shape[3]))
  return jnp.concatenate([x_BSHK, rows.astype(x_BSHK.dtype)], axis=-1)
