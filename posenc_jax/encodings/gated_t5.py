"""A learned bias per bucket of distances, which the query's token makes larger or smaller."""

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.parameters import normal, zeros
from posenc_jax.encodings.t5 import BucketTable

UNITS = 4  # outputs of W that are summed to one gate


class GatedT5(BucketTable):
  """s_ij = q_i . k_j / sqrt(K) + g_ih B[bucket(i - j), h], g = a (b c_h - 1) + 2.

  Gated relative position bias of XLM-E, as WavLM has released it (Chen et al. 2021). u_ih is the
  h-th of H equal slices of x_i, the layer's input that queries are projections of: y = W u + w in
  R^8, a = sigmoid(y_1 + .. + y_4), b = sigmoid(y_5 + .. + y_8), W and w shared by the heads of a
  layer. The factor g lies between 1 and 2 while c is 1, its initial value. Slices have K channels
  if D = H K, as it is there. All layers share one table B, and each has its own W, w and c. As in
  the released code B and W start from N(0, 0.02^2) and w at 0. Its 320 buckets for both directions
  and its `max_distance` of 800 have to be said: here the defaults are those of `t5`.
  """

  paper = 'Chi et al. 2021, arXiv:2106.16138; Chen et al. 2021, arXiv:2110.13900'
  parameter_summary = 'a table, and a gate a layer'
  bias_in_scale = False
  needs_inputs = True
  per_layer = ('w_g', 'b_g', 'c')

  def __init__(self, dims: Dims, rngs, **buckets):
    super().__init__(dims, rngs, 0.02, **buckets)
    if dims.model_dim % dims.heads:
      raise ValueError(f'heads={dims.heads}; allowed: divisors of model_dim={dims.model_dim}')
    self.w_g = normal(rngs, (dims.model_dim // dims.heads, 2 * UNITS), 0.02)
    self.b_g = zeros(2 * UNITS)
    self.c = nnx.Param(jnp.ones(dims.heads, jnp.float32))

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    """g: float32 [B, S, H]."""
    slices_BSHU = x_BSD.astype(jnp.float32).reshape(*x_BSD.shape[:2], self.dims.heads, -1)
    y_BSHY = jnp.einsum('bshu,uy->bshy', slices_BSHU, self.w_g[...])
    y_BSHY += self.b_g[...][None, None, None]
    a_BSH, b_BSH = (jax.nn.sigmoid(half.sum(axis=-1)) for half in jnp.split(y_BSHY, 2, axis=-1))
    return a_BSH * (b_BSH * self.c[...][None, None] - 1) + 2

  def tables(self, r_R):
    return self.rows(r_R)

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    return s_BHTS + tile.i.swapaxes(1, 2)[..., None] * tile.tables
