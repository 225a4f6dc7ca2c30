"""Statistics of lines that are compared on the same documents with the same seeds.

Two sources of chance are kept apart. Other *documents*: `interval`, a paired bootstrap in which the
trained models, all seeds of both lines, stay as they are. Other *seeds*: `paired_t`, a test on the
seeds' scores of the same documents. Seeds are not resampled: three of them, drawn with replacement,
have two thirds of the variance they should.
"""

from collections.abc import Callable, Sequence

import numpy as np

RESAMPLES = 10_000
MOST_DOCUMENTS = 5_000  # of an interval: a resample of each needs memory
LEVEL = 0.95
ALPHA = 0.05


def resamples(documents: int, number: int = RESAMPLES) -> np.ndarray:
  """weights_RD: how often each of `number` resamples draws each document, always the same draws."""
  equal_D = np.full(documents, 1 / documents)
  return np.random.default_rng(0).multinomial(documents, equal_D, size=number)


def score(
  top: np.ndarray, size: np.ndarray, link: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
  """Mean over seeds of link(sum over documents of top / sum of size): [..., S, D] -> [...].

  This is the score that tables print.
  """
  return link(top.sum(-1) / size.sum(-1)).mean(-1)


def interval(
  line: tuple[np.ndarray, np.ndarray],
  baseline: tuple[np.ndarray, np.ndarray],
  link: Callable[[np.ndarray], np.ndarray],
  weights_RD: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
  """Percentile interval at `LEVEL` of score(line) - score(baseline): paired bootstrap of documents.

  A resample draws the same documents for both lines and every seed, and takes the difference of
  their `score`s. Efron and Tibshirani 1993, chapter 13; with few documents it is a little too
  narrow, as any percentile interval.

  Args:
    line, baseline: (top, size), each [..., S, D]: sums over documents of these are divided once.
    link: function of a ratio, such as np.exp for perplexity.
    weights_RD: from `resamples(D)`.
  Returns:
    (low, high), each [...].
  """
  weights_DR = weights_RD.T.astype(float)

  def scores(top, size):
    return link(np.tensordot(top, weights_DR, 1) / np.tensordot(size, weights_DR, 1)).mean(-2)

  tail = (1 - LEVEL) / 2
  low, high = np.quantile(scores(*line) - scores(*baseline), [tail, 1 - tail], axis=-1)
  return low, high


def paired_t(line_S: Sequence[float], baseline_S: Sequence[float]) -> float | None:
  """p of the paired two-sided t-test over seeds.

  None for fewer than two seeds, or where the differences have no spread.
  """
  from scipy import stats  # takes half a second, and most users of this module test nothing

  difference_S = np.subtract(line_S, baseline_S)
  if len(difference_S) < 2 or np.ptp(difference_S) <= 1e-12 * np.max(np.abs([line_S, baseline_S])):
    return None
  return float(stats.ttest_rel(line_S, baseline_S).pvalue)


def holm(ps: Sequence[float | None]) -> list[float | None]:
  """p-values corrected for their number by Holm's method (1979).

  If all hypotheses below ALPHA are rejected, the chance that a true one is among them is at most
  ALPHA. None, a hypothesis that was not tested, stays None and does not count.
  """
  corrected, highest = list(ps), 0.0
  tested = sorted((i for i, p in enumerate(ps) if p is not None), key=lambda i: ps[i])
  for rank, i in enumerate(tested):
    highest = max(highest, min(1.0, (len(tested) - rank) * ps[i]))
    corrected[i] = highest
  return corrected


def ranks(values: Sequence[float], best: Callable) -> list[float]:
  """1 for the best (`best` is min or max); ties share the mean of their ranks."""
  from scipy import stats

  return stats.rankdata(values if best is min else np.negative(values)).tolist()
