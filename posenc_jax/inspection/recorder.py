"""The scores that attention takes the softmax of, as `dense` makes them."""

from collections.abc import Callable

import jax.numpy as jnp

from posenc_jax.attention import attend
from posenc_jax.encodings import Encoding
from posenc_jax.encodings.core.base import LOWEST_SEEN, MASKED, delegate_to_inner


class Recorder(Encoding):
  """The encoding `inner`; `record(scores)` is called with the scores of each tile, MASKED where a
  mask hides a key.
  """

  needs_all_queries = False  # scores are those of each query

  def __init__(self, inner: Encoding, record: Callable):
    self.inner, self.dims, self.record = inner, inner.dims, record

  def has(self, hook: str) -> bool:
    return hook == 'score' or self.inner.has(hook)

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    if self.inner.has('score'):
      s_BHTS = self.inner.score(s_BHTS, q_BHTK, k_BGSK, tile)
    self.record(jnp.where(tile.mask[:, None], s_BHTS, MASKED))
    return s_BHTS


delegate_to_inner(Recorder, ('score', 'needs_all_queries'))


def recorded_scores(enc: Encoding, q_BTHK, k_BSGK, **options):
  """The scores [B, H, T, S] that `attend` takes the softmax of, float32; NaN for hidden keys.

  Queries and keys are those behind the outer hooks; `options` are other arguments of `attend`.
  Raises ValueError for more scores than `dense` makes at once, unless they are those of one query
  or of as many as there are keys.
  """
  recorded, v_BSGK = [], jnp.zeros_like(k_BSGK)
  options |= {'backend': 'dense', 'outer_hooks_applied': True}
  recorder = Recorder(enc, recorded.append)
  # No loop over blocks of them, from which nothing could be recorded.
  recorder.needs_all_queries = q_BTHK.shape[1] == k_BSGK.shape[1]
  attend(q_BTHK, k_BSGK, v_BSGK, recorder, **options)
  (scores_BHTS,) = recorded
  T, S = q_BTHK.shape[1], k_BSGK.shape[1]
  if scores_BHTS.shape[2] < T:  # of a block in a loop
    problem = f'{T} queries for {S} keys have too many scores'
    raise ValueError(f'{problem}; allowed: fewer of either, one query or {S}')
  return jnp.where(scores_BHTS > LOWEST_SEEN, scores_BHTS, jnp.nan)
