"""Statistics of lines that are compared on the same documents with the same seeds: intervals,
tests, corrections.

Two sources of chance are kept apart. Other *documents*: `interval`, a paired bootstrap in which the
trained models, all seeds of both lines, stay as they are. Other *seeds*: `paired_t`, over the
seeds' scores on the same documents. Seeds are not resampled: three of them, drawn with replacement,
have two thirds of the variance they should.
"""

from collections.abc import Callable, Sequence

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95
ALPHA = 0.05


def resamples(documents: int, number: int = RESAMPLES) -> np.ndarray:
  """weights_RD: how often each of `number` resamples draws each document. The same at every
  call.
  """
  return np.random.default_rng(0).multinomial(
    documents, np.full(documents, 1 / documents), size=number
  )


def score(
  top: np.ndarray, size: np.ndarray, link: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
  """Mean over seeds of link(sum over documents of top / sum of size): [..., S, D] -> [...], as
  tables print it.
  """
  return link(top.sum(-1) / size.sum(-1)).mean(-1)


def interval(
  line: tuple[np.ndarray, np.ndarray],
  baseline: tuple[np.ndarray, np.ndarray],
  link: Callable[[np.ndarray], np.ndarray],
  weights_RD: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
  """Percentile interval at `LEVEL` of score(line) - score(baseline), by a paired bootstrap over
  documents.

  A resample draws the same documents for both lines and every seed, and takes the difference of
  their `score`s. Efron and Tibshirani 1993, chapter 13; with few documents it is a little too
  narrow, as any percentile interval.

  Args:
    line, baseline: (top, size), each [..., S, D]: what is summed over documents and divided once.
    link: of a ratio, such as np.exp for perplexity.
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
  """p of the paired two-sided t-test over seeds; None for fewer than two, or where the differences
  have no spread.
  """
  from scipy import stats  # takes half a second, and most that import this module test nothing

  difference_S = np.subtract(line_S, baseline_S)
  if len(difference_S) < 2 or np.ptp(difference_S) <= 1e-12 * np.max(np.abs([line_S, baseline_S])):
    return None
  return float(stats.ttest_1samp(difference_S, 0).pvalue)


def holm(ps: Sequence[float | None]) -> list[float | None]:
  """p-values corrected for their number: below ALPHA, a true hypothesis is among them at most so
  often (Holm 1979).

  None, a hypothesis that was not tested, stays None and does not count.
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
