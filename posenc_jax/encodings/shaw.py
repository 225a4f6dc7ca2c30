"""Relative position representations on keys and values."""

import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_at_least
from posenc_jax.encodings.core.parameters import normal


class Shaw(Encoding):
  """Clipped relative vectors added to projected keys and values, alike for all heads.

    s_ij = q_i . (k_j + A^K[c]) / sqrt(K),   o_i = sum_j p_ij (v_j + A^V[c])
    c = clip(j - i, -m, m) + m

  Shaw et al. 2018, eqs. 3 to 5; m is `max_distance`. Every layer has its own tables A^K and A^V,
  whose entries start from N(0, 1/K). The vectors are added after the projections, as in the paper.
  All distances beyond m, also those past the training length, share one vector on each side. The
  Music Transformer and most ports leave A^V out. With `key_query` the scores have
  k_j . A^K[c] / sqrt(K) too: method 4 of Huang et al. 2020 (arXiv:2009.13658), `relative_key_query`
  of BERT in Hugging Face transformers.
  """

  paper = 'Shaw et al. 2018, arXiv:1803.02155'
  parameter_summary = 'two tables a layer, or one'
  bias_in_scale = True
  reads_qk = True
  per_layer = ('keys', 'values')

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    max_distance: int = 16,
    value_rows: bool = True,
    key_query: bool = False,
  ):
    """Draws the tables.

    Args:
      max_distance: greater distances have its vector; each table has 2 max_distance + 1 rows.
      value_rows: whether there is A^V.
      key_query: whether keys meet A^K as queries do.
    """
    super().__init__(dims, rngs)
    check_at_least(1, max_distance=max_distance)
    self.max_distance = self.max_relative_distance = max_distance
    terms = {'relative_queries': key_query, 'relative_values': value_rows}
    self.switched_off = tuple(hook for hook, is_on in terms.items() if not is_on)
    shape, std = (2 * max_distance + 1, dims.head_dim), dims.head_dim**-0.5
    self.keys = normal(rngs, shape, std)
    if value_rows:
      self.values = normal(rngs, shape, std)

  def relative_keys(self, r_R):
    return self._rows(self.keys, r_R)

  def relative_queries(self, r_R):
    return self._rows(self.keys, r_R)

  def relative_values(self, r_R):
    return self._rows(self.values, r_R)

  def _rows(self, table, r_R):
    most = self.max_distance
    return table[...][jnp.clip(-r_R, -most, most) + most][:, None]
