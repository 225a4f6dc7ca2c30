"""Relative position representations on keys and values."""

import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_at_least, check_one_of
from posenc_jax.encodings.core.parameters import normal

BEYOND = ('zero', 'clip')


def rows_of(table_NX, n_R, beyond: str):
  """The rows n of a table; past its ends zeros, or (`beyond` 'clip') its first and last row."""
  last = len(table_NX) - 1
  rows_RX = table_NX[jnp.clip(n_R, 0, last)]
  if beyond == 'clip':
    return rows_RX
  is_row_R = (n_R >= 0) & (n_R <= last)
  return jnp.where(is_row_R.reshape(-1, *[1] * (table_NX.ndim - 1)), rows_RX, 0.0)


class Shaw(Encoding):
  """Clipped relative vectors added to projected keys and values, alike for all heads.

    s_ij = q_i . (k_j + A^K[c]) / sqrt(K),   o_i = sum_j p_ij (v_j + A^V[c])
    c = clip(j - i, -m, n) + m

  Shaw et al. 2018, eqs. 3 to 5; m is `max_distance`, and n, `max_later`, is m there. Every layer
  has its own tables A^K and A^V, whose entries start from N(0, 1/K). The vectors are added after
  the projections, as in the paper. All distances beyond m, also those past the training length,
  share one vector on each side, or have none with beyond='zero', as within the 4 tokens of VITS
  (Kim et al. 2021). w2v-BERT 2.0 looks less far ahead than back, m = 64 and n = 8, without A^V. The
  Music Transformer and most ports leave A^V out. With `key_query` the scores have
  k_j . A^K[c] / sqrt(K) too: method 4 of Huang et al. 2020 (arXiv:2009.13658), `relative_key_query`
  of BERT in Hugging Face transformers.
  """

  paper = 'Shaw et al. 2018, arXiv:1803.02155'
  parameter_summary = 'two tables a layer, or one'
  bias_in_scale = True
  reads_qk = True
  per_layer = ('keys', 'values')
  parameters_depend_on = ('max_distance',)  # the row of distance 0

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    max_distance: int = 16,
    max_later: int | None = None,
    beyond: str = 'clip',
    value_rows: bool = True,
    key_query: bool = False,
  ):
    """Draws the tables.

    Args:
      max_distance: m; each table has a row for 0 and for each distance up to it.
      max_later: n, the same of keys behind the query, to which it adds so many rows; m if None.
      beyond: which vector greater distances have, one of BEYOND.
      value_rows: whether there is A^V.
      key_query: whether keys meet A^K as queries do.
    """
    super().__init__(dims, rngs)
    max_later = max_distance if max_later is None else max_later
    check_at_least(1, max_distance=max_distance)
    check_at_least(0, max_later=max_later)
    check_one_of(BEYOND, beyond=beyond)
    self.max_distance, self.beyond = max_distance, beyond
    self.max_relative_distance = max(max_distance, max_later) + (beyond == 'zero')
    terms = {'relative_queries': key_query, 'relative_values': value_rows}
    self.switched_off = tuple(hook for hook, is_on in terms.items() if not is_on)
    shape, std = (max_distance + 1 + max_later, dims.head_dim), dims.head_dim**-0.5
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
    return rows_of(table[...], self.max_distance - r_R, self.beyond)[:, None]
