"""Relative position representations on keys and values."""

import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.parameters import normal


class Shaw(Encoding):
  """Clipped relative vectors added to projected keys and values, alike for all heads (Shaw et al.
  2018, eqs. 3 to 5).

    s_ij = q_i . (k_j + A^K[c]) / sqrt(K), o_i = sum_j p_ij (v_j + A^V[c]), c = clip(j - i, -clip,
    clip) + clip

  Every layer has its own tables. The vectors are added after the projections, as in the paper. The
  Music Transformer and most ports leave A^V out. With `key_query` the scores have k_j . A^K[c] /
  sqrt(K) too: method 4 of Huang et al. 2020 (arXiv:2009.13658), `relative_key_query` of BERT in
  Hugging Face transformers.
  """

  paper = 'Shaw et al. 2018, arXiv:1803.02155'
  weights, claims = 'two tables a layer, or one', None
  bias_in_scale = True
  per_layer = ('keys', 'values')

  def __init__(
    self, dims: Dims, rngs, *, clip: int = 16, values: bool = True, key_query: bool = False
  ):
    """`clip`: distances beyond it share a vector; each table has 2 clip + 1 rows. `values`: whether
    there is A^V.

    `key_query`: keys meet A^K as queries do.
    """
    super().__init__(dims, rngs)
    if clip < 1:
      raise ValueError(f'shaw: clip={clip} must be at least 1')
    self.key_query, self.clip, self.reach = key_query, clip, clip
    shape, std = (2 * clip + 1, dims.head_dim), dims.head_dim**-0.5
    self.keys = normal(rngs, shape, std)
    if values:
      self.values = normal(rngs, shape, std)
    else:
      self.value = None

  def tables(self, r_R):
    row_R = jnp.clip(-r_R, -self.clip, self.clip) + self.clip
    read = lambda table: table[...][row_R][:, None]
    keys_R1K = read(self.keys) * self.scale(self.dims.head_dim)
    return (keys_R1K,) if self.value is None else (keys_R1K, read(self.values))

  def score(self, s_BHTS, q_BTHK, k_BSHK, block):
    s_BHTS += block.query_dot(q_BTHK, block.tables[0])
    return s_BHTS + block.key_dot(k_BSHK, block.tables[0]) if self.key_query else s_BHTS

  def value(self, p_BHTS, block):
    return block.sum_by_distance(p_BHTS, block.tables[1])
