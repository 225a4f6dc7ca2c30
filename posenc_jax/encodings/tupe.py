"""Positions correlated apart from content."""

import jax.numpy as jnp
from flax import nnx
from jax import lax

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.parameters import normal
from posenc_jax.encodings.t5 import bucket_row


class TUPE(Encoding):
  """s_ij = [q_i . k_j + (p_i U_Q) . (p_j U_K)] / sqrt(2K) (+ b[bucket(j - i), h]): TUPE-A (TUPE-R)
  of Ke et al. 2020.

  p is a learned position after a LayerNorm; it and its projections are shared by all layers. The
  two products are one: p U is set beside q and k. With fewer key/value heads U_K has as many.
  `affine` adds what the released code has and the paper's formula has not: gain and offset of the
  LayerNorm, biases of the projections (that of U_K, alike for all keys, changes no softmax and is
  left out). TUPE-R adds T5's buckets, half of them for later keys, unscaled. What the paper does
  for [CLS] is not in it. Rows past the table are NaN: an index is never clamped.
  """

  paper = 'Ke et al. 2020, arXiv:2006.15595'
  weights = 'a row a position, two projections'
  claims = 'none: its table ends'
  relative = False

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    max_length: int | None = None,
    affine: bool = False,
    buckets: int = 0,
    max_distance: int = 128,
  ):
    """`max_length`: rows of p, the training length if None; `buckets`: of TUPE-R (published: 32), 0
    for TUPE-A.
    """
    super().__init__(dims, rngs)
    D, self.max_length = dims.model_dim, dims.train_length if max_length is None else max_length
    if self.max_length < 1:
      raise ValueError(f'tupe: max_length={max_length} must be at least 1')
    if buckets and (buckets < 8 or buckets % 4 or max_distance <= buckets // 4):
      raise ValueError(
        f'tupe: buckets={buckets} must be a multiple of 4 from 8 to below 4 max_distance, or 0'
      )
    self.affine, self.side, self.max_distance = affine, buckets // 2, max_distance
    self.rows = normal(rngs, (self.max_length, D), D**-0.5)
    self.u_q = normal(rngs, (D, dims.heads, dims.head_dim), D**-0.5)
    self.u_k = normal(rngs, (D, dims.kv_heads, dims.head_dim), D**-0.5)
    if affine:
      self.gain, self.offset = (
        nnx.Param(jnp.ones(D, jnp.float32)),
        nnx.Param(jnp.zeros(D, jnp.float32)),
      )
      self.b_q = nnx.Param(jnp.zeros((dims.heads, dims.head_dim), jnp.float32))
    if buckets:
      self.bias, self.reach, self.bias_in_scale = (
        normal(rngs, (buckets, dims.heads), 0.02),
        max_distance,
        False,
      )
    else:
      self.score = None

  def scale(self, head_dim: int) -> float:
    return (2 * head_dim) ** -0.5

  def transform(self, q_BTHK, k_BSGK, i, j):
    centred = self.rows[...] - self.rows[...].mean(axis=-1, keepdims=True)
    p_LD = centred * lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + 1e-5)
    if self.affine:
      p_LD = p_LD * self.gain[...][None] + self.offset[...][None]
    queries, keys = (jnp.einsum('ld,dhk->lhk', p_LD, u[...]) for u in (self.u_q, self.u_k))
    if self.affine:
      queries += self.b_q[...][None]

    def beside(x, table_LHK, position):
      rows = jnp.take(
        table_LHK, position.astype(jnp.int32), axis=0, mode='fill', fill_value=jnp.nan
      )
      rows = jnp.broadcast_to(jnp.repeat(rows, x.shape[2] // rows.shape[2], axis=2), x.shape)
      return jnp.concatenate([x, rows.astype(x.dtype)], axis=-1)

    return beside(q_BTHK, queries, i), beside(k_BSGK, keys, j)

  def tables(self, r_R):
    if self.score is None:
      return ()
    row = jnp.asarray(bucket_row(self.side, self.max_distance))
    bucket_R = row[jnp.minimum(jnp.abs(r_R), self.max_distance)] + jnp.where(r_R < 0, self.side, 0)
    return self.bias[...][bucket_R]

  def score(self, s_BHTS, q_BTHK, k_BSHK, block):
    return s_BHTS + block.tables
