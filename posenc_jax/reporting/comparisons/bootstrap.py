"""Other documents: how far scores and their differences would move with them.

The trained models, all seeds of every line, stay as they are. Documents that are alike are drawn
together, as one *cluster* (`rows.clusters`).
"""

import functools
from collections.abc import Callable

import numpy as np

MOST = 5_000  # clusters of an interval: more need much memory, so that several are drawn together
MOST_RESAMPLES = 40_000
ENTRIES = 20_000_000  # at most, of the array that says how often each cluster is drawn
LEVEL = 0.95


def number_of_resamples(clusters: int) -> int:
  """How many are drawn: as many as memory allows, since other draws would move the ends of an
  interval, with 40,000 by 1.4 % of the standard error of the score, with 4,000 by 4.5 %, and by
  2.3 % and 7.3 % where there are eight clusters, whose ends lie farther out.
  """
  drawn = min(clusters, MOST)  # more share places
  return min(ENTRIES // drawn, MOST_RESAMPLES)


@functools.lru_cache(maxsize=2)  # they take seconds where there are thousands of clusters
def resamples(clusters: int) -> np.ndarray:
  """weights_CR: how often each resample draws each cluster, always the same draws."""
  equal_C = np.full(clusters, 1 / clusters)
  number = number_of_resamples(clusters)
  weights_RC = np.random.default_rng(0).multinomial(clusters, equal_C, size=number)
  weights_CR = weights_RC.T.astype(float)
  weights_CR.setflags(write=False)  # all callers have the same array
  return weights_CR


def resampled(
  top: np.ndarray,
  size: np.ndarray,
  link: Callable[[np.ndarray], np.ndarray],
  weights_CR: np.ndarray,
) -> np.ndarray:
  """The score in each resample: mean over seeds of link(sum over clusters of top / sum of size).

  Args:
    top: [..., S, C], sums of each seed and cluster.
    size: [..., 1, C], what the sums of every seed are divided by.
    link: function of a ratio, such as np.exp for perplexity.
    weights_CR: from `resamples(C)`.
  Returns:
    [..., R].
  """
  return link((top @ weights_CR) / (size @ weights_CR)).mean(-2)


def interval(difference_R: np.ndarray, clusters: int) -> tuple[np.ndarray, np.ndarray]:
  """Interval at `LEVEL` from the differences [..., R] of two scores in the same resamples.

  The percentile interval (Efron and Tibshirani 1993, chapter 13) takes z where t belongs and
  divides by C where C - 1 belongs; its percentiles are moved outward by both (the "expanded"
  interval of Hesterberg 2015, arXiv:1411.5279).

  Returns:
    (low, high), each [...].
  """
  from scipy import special

  tail = special.ndtr(-_outward(clusters))
  low, high = np.quantile(difference_R, [tail, 1 - tail], axis=-1)
  return low, high


def _outward(clusters: int) -> float:
  """How many standard deviations from the middle the ends of an interval at `LEVEL` lie."""
  from scipy import stats

  return np.sqrt(clusters / (clusters - 1)) * stats.t.isf((1 - LEVEL) / 2, clusters - 1)


def limit_of_all(difference_LR: np.ndarray, clusters: int) -> float:
  """How many standard deviations to both sides cover the differences of all lines together at
  `LEVEL`: as far as the largest of them lies from its mean, each in standard deviations (the
  single-step "max-t" of Westfall and Young 1993), and outward as in `interval`.

  Args:
    difference_LR: each line's difference in the same resamples; each varies.
  """
  from scipy import stats

  centered_LR = difference_LR - difference_LR.mean(-1, keepdims=True)
  largest_R = np.abs(centered_LR / difference_LR.std(-1, keepdims=True)).max(0)
  of_one = stats.norm.isf((1 - LEVEL) / 2)
  return float(np.quantile(largest_R, LEVEL) * _outward(clusters) / of_one)


def standard_error(
  top: np.ndarray, size: np.ndarray, link: Callable[[np.ndarray], np.ndarray]
) -> float:
  """Standard error of a score over clusters, by leaving out one after another (the jackknife).

  Args:
    top: [S, C]. size: [1 or S, C]. link: as in `resampled`.
  """
  clusters = top.shape[-1]
  without_SC = link((top.sum(-1, keepdims=True) - top) / (size.sum(-1, keepdims=True) - size))
  return float(np.sqrt((clusters - 1) * without_SC.mean(0).var()))
