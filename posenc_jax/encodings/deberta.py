"""Disentangled attention: content and position projected apart."""

import jax.numpy as jnp
import numpy as np

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_at_least, check_unread
from posenc_jax.encodings.core.parameters import normal


def log_bucket_row(buckets: int, max_distance: int) -> np.ndarray:
  """Buckets of the distances 0..max_distance, int32, as released with DeBERTa-v2.

  Up to m = buckets // 2 each distance has its own; above, m + ceil(ln(n/m) / ln((max_distance-1)/m)
  (m - 1)). Computed by integers: exact where a float logarithm may round the other way.
  """
  exact = buckets // 2
  row, step = [], 0
  for n in range(max_distance + 1):  # buckets only rise
    if n > exact:
      while (
        step < exact
        and (max_distance - 1) ** step * exact ** (exact - 1) < n ** (exact - 1) * exact**step
      ):
        step += 1
    row.append(min(n, exact) + step)
  return np.array(row, np.int32)


class DeBERTa(Encoding):
  """Content and position projected apart (He et al. 2020, eq. 4, and their code).

    s_ij = [q_i . k_j + q_i . K^r[d] + k_j . Q^r[d]] / sqrt(3K)
    d = clamp(i - j + span, 0, 2 span - 1),   K^r = P W_(K,r),   Q^r = P W_(Q,r)

  P is shared by all layers and read with unit variance, its two projections are each layer's. The
  position-to-content term gathers delta(i, j), as the released code does. With one of the two terms
  switched off the scale is 1/sqrt(2K), as in the code.

  With `buckets` these are the log buckets of DeBERTa-v2 and v3 (He et al. 2021, and their code):
  d = clamp(sign(i - j) b(|i - j|) + buckets, 0, 2 buckets - 1), b as in `log_bucket_row`; theirs
  are 256 to the distance 512. What else is new there is not here: P has no layer norm, and
  W_(K,r) and W_(Q,r) are no content projections, which an encoding does not see.
  """

  paper = 'He et al. 2020, arXiv:2006.03654; He et al. 2021, arXiv:2111.09543'
  parameter_summary = 'a table, two projections a layer'
  bias_in_scale = True
  reads_qk = True
  per_layer = ('w_k', 'w_q')
  parameters_depend_on = ('buckets',)

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    span: int | None = None,
    buckets: int = 0,
    max_distance: int | None = None,
    c2p: bool = True,
    p2c: bool = True,
  ):
    """Builds the table and its projections.

    Args:
      span: distances are clamped to [-span, span - 1]; the training length if None.
      buckets: on either side, in the place of a span; 0: every distance has its own row.
      max_distance: M, with `buckets`; 512 if None. Up to m = buckets // 2 each distance has a row,
        above that r has m + ceil(ln(r / m) / ln((M - 1) / m) (m - 1)). Later keys share the last
        row from the distance M on, earlier keys from the first distance above
        m ((M - 1) / m)^((m - 2) / (m - 1)): from 506 for 256 buckets and M = 512.
      c2p, p2c: whether there is the content-to-position, the position-to-content term.
    """
    super().__init__(dims, rngs)
    if buckets and (buckets < 4 or buckets % 2):
      raise ValueError(f'buckets={buckets}; allowed: 0, or even and at least 4')
    if buckets and span is not None:
      raise ValueError(f'span={span} and buckets={buckets}; allowed: one of them')
    if not buckets:
      check_unread('there are buckets', max_distance=max_distance)
    max_distance = 512 if max_distance is None else max_distance
    if buckets:
      check_at_least(buckets // 2 + 2, max_distance=max_distance)
    self.span = buckets or (dims.train_length if span is None else span)
    check_at_least(1, span=self.span)
    if not (c2p or p2c):
      raise ValueError('c2p=False and p2c=False leave no position term; use the encoding nope')
    self.c2p, self.p2c = c2p, p2c
    self.buckets, self.max_distance = buckets, max_distance
    self.max_relative_distance = max_distance if buckets else self.span
    terms = {'relative_keys': c2p, 'relative_queries': p2c}
    self.switched_off = tuple(hook for hook, is_on in terms.items() if not is_on)
    projection = (dims.model_dim, dims.heads, dims.head_dim)
    self.rows = normal(rngs, (2 * self.span, dims.model_dim), dims.model_dim**-0.5)
    if c2p:
      self.w_k = normal(rngs, projection, dims.model_dim**-0.5)
    if p2c:
      self.w_q = normal(rngs, projection, dims.model_dim**-0.5)

  def scale(self, head_dim: int) -> float:
    return ((1 + self.c2p + self.p2c) * head_dim) ** -0.5

  def relative_keys(self, r_R):
    return self._projected(self.w_k, r_R)

  def relative_queries(self, r_R):
    return self._projected(self.w_q, r_R)

  def _projected(self, w_DHK, r_R):
    if self.buckets:
      row = jnp.asarray(log_bucket_row(self.buckets, self.max_distance))
      r_R = jnp.sign(r_R) * row[jnp.minimum(jnp.abs(r_R), self.max_distance)]
    index_R = jnp.clip(r_R + self.span, 0, 2 * self.span - 1)
    rows_RHK = jnp.einsum('rd,dhk->rhk', self.rows[...], w_DHK[...])
    return rows_RHK[index_R] * self.dims.model_dim**0.5
