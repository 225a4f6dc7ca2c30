"""Relative keys that each head has of its own."""

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_at_least, check_one_of
from posenc_jax.encodings.core.parameters import normal
from posenc_jax.encodings.shaw import BEYOND, rows_of


class MusicTransformer(Encoding):
  """s_ij = q_i . (k_j + E[h, i - j]) / sqrt(K), a vector for every head and distance.

  Huang et al. 2018. Shaw's relative keys without the values, with tables that the heads do not
  share, for attention to the past alone; every layer has its own. As in tensor2tensor E starts from
  N(0, 1/K), and distances past its end have no vector (`beyond='zero'`); Shaw's rule, the last
  vector again, is `beyond='clip'`.
  """

  paper = 'Huang et al. 2018, arXiv:1809.04281'
  parameter_summary = 'a table a layer'
  bias_in_scale = True
  causal_only = True
  reads_qk = True
  per_layer = ('rows',)

  def __init__(self, dims: Dims, rngs, *, max_distance: int | None = None, beyond: str = 'zero'):
    """Draws the table.

    Args:
      max_distance: E has a row for each distance below it; the training length if None.
      beyond: which vector distances from `max_distance` on have, one of BEYOND.
    """
    super().__init__(dims, rngs)
    if max_distance is None:
      max_distance = dims.train_length
    check_at_least(1, max_distance=max_distance)
    check_one_of(BEYOND, beyond=beyond)
    self.beyond, self.max_relative_distance = beyond, max_distance
    self.rows = normal(rngs, (max_distance, dims.heads, dims.head_dim), dims.head_dim**-0.5)

  def relative_keys(self, r_R):
    return rows_of(self.rows[...], r_R, self.beyond)
