"""Products of learned positions beside those of content."""

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_at_least
from posenc_jax.encodings.core.parameters import normal
from posenc_jax.encodings.tupe import beside


class DietAbs(Encoding):
  """s_ij = q_i . k_j / sqrt(K) + P_h[i] . Q_h[j], with learned rows of `rank` numbers, not scaled.

  DIET-ABS of Chen et al. 2021, eq. 1, without what it says of segments of an input; there P is P_Q
  and Q is P_K. All layers share both, as in their best models, whose rank was 2 K; with
  `model.share_encoding` 'none' each has its own. With fewer key/value heads Q has as many. Where
  rows start is not said; here at N(0, 1/rank), and so the products. Positions outside the tables
  give NaN. DIET-REL is `t5` with `buckets` 2 (c - 1) and `max_distance` c, a table a layer:
  `model.share_encoding` 'none'.
  """

  paper = 'Chen et al. 2021, arXiv:2104.08698'
  parameter_summary = 'two rows a position and head'
  reported_extrapolation = 'none: its tables end'
  relative = False
  applies_scale = True
  needs_unscaled_queries = True
  reads_own_queries = True

  def __init__(self, dims: Dims, rngs, *, rank: int | None = None, max_length: int | None = None):
    """Draws the rows.

    Args:
      rank: width of a row; None: K, by which queries and keys are twice as wide as without, where
        2 K makes them three times as wide.
      max_length: rows of a head; the training length if None.
    """
    super().__init__(dims, rngs)
    self.max_length = dims.train_length if max_length is None else max_length
    rank = dims.head_dim if rank is None else rank
    check_at_least(1, max_length=self.max_length, rank=rank)
    self.qk_width_factor = 1 + rank / dims.head_dim
    self.queries = normal(rngs, (self.max_length, dims.heads, rank), rank**-0.5)
    self.keys = normal(rngs, (self.max_length, dims.kv_heads, rank), rank**-0.5)

  def transform_qk(self, q_BTHK, k_BSGK, i, j):
    queries_LHr = self.queries[...] / self.scale(self.dims.head_dim)
    return beside(q_BTHK, queries_LHr, i), beside(k_BSGK, self.keys[...], j)
