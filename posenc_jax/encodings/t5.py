"""A learned bias per bucket of distances."""

import jax.numpy as jnp
import numpy as np

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_even
from posenc_jax.encodings.core.parameters import normal


def bucket_row(buckets: int, max_distance: int) -> np.ndarray:
  """Buckets of the distances 0..max_distance, int32.

  Below e = buckets // 2 each distance has its own; above, floor(e + ln(n/e) / ln(max_distance/e)
  (buckets - e)). Computed by integers: exact where a float logarithm may round the other way.
  """
  exact = buckets // 2
  logarithmic = buckets - exact
  row, step = [*range(exact)], 0
  bound = max_distance * exact ** (logarithmic - 1)  # the least power in the next bucket
  for n in range(exact, max_distance):  # buckets only rise
    power = n**logarithmic
    while bound <= power:
      bound = bound // exact * max_distance
      step += 1
    row.append(exact + step)
  return np.array([*row, buckets - 1], np.int32)


def buckets_of(r_R, side: int, max_distance: int, bidirectional: bool):
  """The bucket of each distance i - j: int32 [R].

  Args:
    r_R: distances of either sign.
    side: buckets of earlier keys; with `bidirectional` as many follow for later keys, else those
      are at the distance 0.
    max_distance: see `bucket_row`; the last bucket has no end.
  """
  distance_R = jnp.abs(r_R) if bidirectional else jnp.maximum(r_R, 0)
  row = jnp.asarray(bucket_row(side, max_distance))
  bucket_R = row[jnp.minimum(distance_R, max_distance)]
  return bucket_R + jnp.where(r_R < 0, side, 0) if bidirectional else bucket_R


class BucketTable(Encoding):
  """A table, shared by all layers, of a number for each bucket of distances and head."""

  parameters_depend_on = ('bidirectional',)

  def __init__(
    self,
    dims: Dims,
    rngs,
    std: float,
    *,
    buckets: int = 32,
    max_distance: int = 128,
    bidirectional: bool = False,
  ):
    """Draws the table from N(0, std^2).

    Args:
      buckets: rows of the table.
      max_distance: M. Of n buckets a side, e = n // 2 have one distance r each; above, r has the
        bucket floor(e + ln(r / e) / ln(M / e) (n - e)). The last has all from
        e (M / e)^(1 - 1 / (n - e)) on: from 113 by default.
      bidirectional: whether half the buckets are for later keys; else these, where a query sees
        any, have the bias of distance 0.
    """
    super().__init__(dims, rngs)
    self.side = buckets // 2 if bidirectional else buckets
    check_even(4, buckets=buckets)
    if max_distance <= self.side // 2:
      raise ValueError(
        f'max_distance={max_distance}; allowed: more than the {self.side // 2} exact buckets'
      )
    self.max_distance = self.max_relative_distance = max_distance
    self.bidirectional = bidirectional
    self.table = normal(rngs, (buckets, dims.heads), std)

  def rows(self, r_R):
    """The numbers of the buckets of these distances, [R, H]."""
    return self.table[...][buckets_of(r_R, self.side, self.max_distance, self.bidirectional)]


class T5(BucketTable):
  """s_ij = q_i . k_j + B[bucket(i - j), head], without 1/sqrt(K) (Raffel et al. 2020, sec. 2.1).
  B is the parameter `table` times sqrt(K).

  One table for all layers. Values start as in their code: table entries from N(0, 1/D), queries
  smaller by sqrt(K) in place of the scale. Steps differ: T5 trains with Adafactor, whose steps are
  relative to a parameter's size. For Adam the initial sizes become factors: K^-1/2 on queries of
  usual size (`query_scale`), and K^1/2 on a smaller table as in x-transformers and GPT-NeoX.
  Without them a small model hardly leaves NoPE's plateau; LOG/074 and LOG/082 have figures.

  With `buckets` 2 (c - 1) and `max_distance` c each distance below c has a number of its own, and
  those from c on share one: DIET-REL of Chen et al. 2021 (arXiv:2104.08698), clipped at c. Its
  authors recommend a table a layer, `model.share_encoding` 'none'. With `bidirectional` `buckets`
  is 4 (c - 1).
  """

  paper = 'Raffel et al. 2020, arXiv:1910.10683'
  parameter_summary = 'a table'
  reads_window_alone = True
  reported_extrapolation = 'best near 2 L (Press et al. 2021)'
  bias_in_scale = False

  def __init__(self, dims: Dims, rngs, **buckets):
    super().__init__(dims, rngs, (dims.model_dim * dims.head_dim) ** -0.5, **buckets)
    self.query_scale = dims.head_dim**-0.5

  def scale(self, head_dim: int) -> float:
    return 1.0

  def bias(self, r_R):
    return self.dims.head_dim**0.5 * self.rows(r_R)
