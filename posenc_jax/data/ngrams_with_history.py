"""What the history of a document is worth: bits a token of an n-gram model of the training split to
which the counts of the last W tokens before each target are added (a cache; Kuhn and De Mori 1990).

A corpus in which W pays is one in which encodings can be told apart by what they read far away.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from posenc_jax.data.ngrams import NGrams

WIDTHS = (0, 64, 128, 256, 512, 1024, 2048, 4096)  # tokens of history
CACHE_CONTEXT = 9  # tokens of the longest context that is counted in the history
SPAN = 200  # tokens of a text that are scored
WEIGHTS = (0.1, 0.3, 1.0, 3.0)  # of a count in the history; a count in the training split has 1


class Counted(NamedTuple):
  """Counts for each target: of its context of k tokens in the training split, and in the history of
  each width.

  Attributes:
    counts_NK, totals_NK, types_NK: what `ngrams.Found` says, 0 where a context was not seen.
    cache_counts_NKW, cache_totals_NKW: the same of the history.
  """

  counts_NK: np.ndarray
  totals_NK: np.ndarray
  types_NK: np.ndarray
  cache_counts_NKW: np.ndarray
  cache_totals_NKW: np.ndarray


def bits_by_width(
  model: NGrams,
  tuning: Sequence[np.ndarray],
  texts: Sequence[np.ndarray],
  num_documents: int = 40,
  span: int = SPAN,
) -> dict[int, float]:
  """Returns {width: mean bits of a token} of `span` tokens of each of `num_documents` texts, spread
  evenly over those that are long enough. Widths that no text is long enough for are left out.

  Args:
    model: a Witten-Bell model of the training split.
    tuning: texts tokens_T of another split; for each width the weight of the cache is the one that
      is best there, or, where they are too short, on `texts`.
    texts: tokens_T to score.
  """
  widths = [width for width in WIDTHS if reaches(texts, width, span)]
  if not widths:
    return {}
  few = max(1, num_documents // 4)  # one number is tuned
  tuned_on = _targets(tuning, widths, few, span) or _targets(texts, widths, few, span)
  tuned = counted(model, tuned_on, widths)
  scored = counted(model, _targets(texts, widths, num_documents, span), widths)
  return {
    width: _bits(scored, w, min(WEIGHTS, key=lambda weight: _bits(tuned, w, weight, model)), model)
    for w, width in enumerate(widths)
  }


def reaches(texts: Sequence[np.ndarray], width: int, span: int = SPAN) -> bool:
  """Whether a text is long enough to score `span` tokens with a history of this width."""
  return any(len(text) >= width + CACHE_CONTEXT + span for text in texts)


def _targets(
  texts: Sequence[np.ndarray], widths: Sequence[int], num_documents: int, span: int
) -> list[tuple[np.ndarray, range]]:
  """(tokens_T, places of the targets) of documents spread evenly over those that are long enough:
  in the middle of what has the widest history before it.
  """
  first = max(widths) + CACHE_CONTEXT
  long_enough = [text for text in texts if len(text) >= first + span]
  count = min(num_documents, len(long_enough))
  chosen = [long_enough[(2 * i + 1) * len(long_enough) // (2 * count)] for i in range(count)]
  starts = [first + (len(text) - first - span) // 2 for text in chosen]
  return [(text, range(start, start + span)) for text, start in zip(chosen, starts, strict=True)]


def counted(
  model: NGrams, targets: Sequence[tuple[np.ndarray, range]], widths: Sequence[int]
) -> Counted:
  """Counts the contexts of all targets, (tokens_T, places) each."""
  levels = max(model.context, CACHE_CONTEXT) + 1
  static, cached = [], []
  for text, places in targets:
    window = np.asarray(text[places.start - model.context : places.stop], np.int64)
    found = np.zeros((3, len(places), levels))
    for k, level in enumerate(model.find(window[None])):
      rows = level.counts, level.totals, level.types
      found[:, :, k] = [row[0, model.context :] for row in rows]
    static.append(found)
    cached += [_of_history(text, place, levels, widths) for place in places]
  in_cache = np.array(cached)
  return Counted(*np.concatenate(static, axis=1), in_cache[:, 0], in_cache[:, 1])


def _of_history(text: np.ndarray, place: int, levels: int, widths: Sequence[int]) -> np.ndarray:
  """(counts, totals) [2, K, W]: how often the context of k tokens before `place` stands within the
  last W tokens, followed by the token at `place`, and by any.
  """
  lows = place - np.array(widths)
  found = np.zeros((2, levels, len(widths)))
  ends = np.arange(lows.min(), place)  # where a token stands that follows the context
  for k in range(min(levels, CACHE_CONTEXT + 1)):
    if k:
      ends = ends[ends >= lows.min() + k]
      ends = ends[text[ends - k] == text[place - k]]
    inside_WE = ends >= (lows + k)[:, None]
    found[1, k] = inside_WE.sum(1)
    found[0, k] = inside_WE[:, text[ends] == text[place]].sum(1)
    if not len(ends):
      break
  return found


def _bits(found: Counted, w: int, weight: float, model: NGrams) -> float:
  """The mean bits of a target with the history of the width number `w`: Witten-Bell over the sums
  of both counts; a context that the history alone has counts as one with one type.
  """
  p_N = np.full(len(found.counts_NK), 1 / (model.vocab - 1))
  for k in range(found.counts_NK.shape[1]):
    cached_N = weight * found.cache_totals_NKW[:, k, w]
    counts_N = found.counts_NK[:, k] + weight * found.cache_counts_NKW[:, k, w]
    totals_N = found.totals_NK[:, k] + cached_N
    types_N = np.where(cached_N > 0, np.maximum(found.types_NK[:, k], 1), found.types_NK[:, k])
    is_known = totals_N > 0
    mixed_N = (counts_N + types_N * p_N) / np.where(is_known, totals_N + types_N, 1)
    p_N = np.where(is_known, mixed_N, p_N)
  return float(-np.log2(p_N).mean())
