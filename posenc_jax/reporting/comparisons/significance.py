"""Other seeds: tests of differences over the seeds of trainings, and what they can find.

A test sees a difference, its standard error over seeds and the degrees of freedom of that. Where
all lines spread alike, at the training length, the variance is pooled over lines, what a seed does
to all of them alike is taken out, and the family of all comparisons with a baseline is Dunnett's
(1955). A line that spreads more than the others is not of that family. Past that length spreads
differ by a hundred times, so that every difference has its own (Welch 1947), and the family is
Holm's (1979).
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

ALPHA = 0.05
POWER = 0.8
QUADRATURE = np.polynomial.legendre.leggauss(64)  # nodes and weights over -1 to 1
MOST_FREEDOM = 1e6  # a t with as many is normal
ROUNDING = 1e-12  # scores that differ by less are the same


class Estimate(NamedTuple):
  """A difference over seeds, its standard error, and the degrees of freedom of that."""

  mean: float
  error: float
  freedom: float


def paired(difference_S: Sequence[float]) -> Estimate | None:
  """The estimate from the differences that seeds have by themselves, each from its own model.

  None where fewer than two seeds, or no spread, leave nothing to test; a difference that is 0 in
  every seed has been found to be 0.
  """
  number = len(difference_S)
  if number < 2:
    return None
  if np.max(np.abs(difference_S)) <= ROUNDING:
    return Estimate(0.0, ROUNDING, number - 1)
  if _is_flat(difference_S):
    return None
  error = np.std(difference_S, ddof=1) / number**0.5
  return Estimate(float(np.mean(difference_S)), float(error), number - 1)


def welch(line_S: Sequence[float], reference_S: Sequence[float]) -> Estimate | None:
  """The estimate from two lines of different models and spreads; None as in `paired`."""
  both = (line_S, reference_S)
  if min(map(len, both)) < 2:
    return None
  squares = [float(np.var(some, ddof=1)) / len(some) for some in both if not _is_flat(some)]
  freedoms = [len(some) - 1 for some in both if not _is_flat(some)]
  if not squares:
    return None
  square = sum(squares)
  freedom = square**2 / sum(s**2 / f for s, f in zip(squares, freedoms, strict=True))
  return Estimate(float(np.mean(line_S) - np.mean(reference_S)), square**0.5, freedom)


def pooled(
  lines: Sequence[Sequence[float]], baseline_S: Sequence[float], shares_seeds: bool
) -> list[Estimate]:
  """The estimate of each line from the baseline, with the variance that all of them share.

  [] where no line has two seeds, or none has any spread.

  Args:
    shares_seeds: whether all have the same seeds, in one order, so that what a seed does to all of
      them alike is no part of the variance.
  """
  every = [np.asarray(some, float) for some in (*lines, baseline_S)]
  rest = [some - some.mean() for some in every]
  freedom = sum(len(some) - 1 for some in every)
  if shares_seeds:
    rest = np.subtract(rest, np.mean(rest, 0))
    freedom -= len(baseline_S) - 1
  if all(np.max(np.abs(some)) <= ROUNDING for some in rest):
    return []
  variance = sum(np.sum(some**2) for some in rest) / freedom
  return [
    Estimate(
      float(some.mean() - every[-1].mean()),
      float((variance * (1 / len(some) + 1 / len(baseline_S))) ** 0.5),
      freedom,
    )
    for some in every[:-1]
  ]


def cochran_outlier(lines: Sequence[Sequence[float]]) -> int | None:
  """The number of the line whose variance over seeds is too large for the others' to be the same:
  Cochran's test (1941) at ALPHA, which is the largest of as many F-tests. None: there is none.
  """
  from scipy import special

  sizes_L = np.array([len(line) - 1 for line in lines])
  squares_L = np.array([np.var(line) * len(line) for line in lines])
  rest_L, freedom_L = squares_L.sum() - squares_L, sizes_L.sum() - sizes_L
  if len(lines) < 2 or not squares_L.any():
    return None
  ps_L = np.ones(len(lines))
  for n in np.flatnonzero((sizes_L > 0) & (freedom_L > 0)):
    spread = squares_L[n] / sizes_L[n]
    ratio = spread / (rest_L[n] / freedom_L[n]) if rest_L[n] > ROUNDING**2 else np.inf
    ps_L[n] = special.fdtrc(sizes_L[n], freedom_L[n], ratio)
  found = int(np.argmin(ps_L))
  return found if len(lines) * ps_L[found] < ALPHA else None


def _is_flat(values: Sequence[float]) -> bool:
  return bool(np.ptp(values) <= ROUNDING)


def two_sided(estimate: Estimate) -> float:
  """p of the two-sided t-test that the difference is 0."""
  from scipy import special  # takes half a second, and most users of this module test nothing

  return float(2 * special.stdtr(estimate.freedom, -abs(estimate.mean) / estimate.error))


def with_examples(
  estimate: Estimate, shares: Iterable[float], examples: Iterable[int | None]
) -> Estimate:
  """The estimate of a difference of two shares, with the error that other examples would make, too.

  All seeds have the same examples, so that their spread says nothing of it: three seeds that have
  all of 220 examples right do not spread, and may yet be wrong in one of 100. The error is that of
  a difference of two shares with a right and a wrong example added to each (Agresti and Caffo 2000,
  The American Statistician 54, 280), and at least so much that of n examples, all right, up to
  3 / n may be wrong at the level ALPHA (the rule of three, Hanley and Lippman-Hand 1983, JAMA 249,
  1743). That two lines tend to fail in the same examples is left out, and so is that several
  answers of an example tell more than one, both of which make the error smaller.

  Args:
    shares: the share of each of the two, a mean over seeds.
    examples: their numbers of examples; None: that is not known, and the error has no bound.
  """
  from scipy import special

  variance, examples = 0.0, list(examples)
  if None in examples:
    return estimate._replace(error=math.inf)
  for share, number in zip(shares, examples, strict=True):
    padded = (share * number + 1) / (number + 2)
    variance += padded * (1 - padded) / (number + 2)
  three = -math.log(ALPHA)
  least = three / min(examples) / float(special.ndtri(1 - ALPHA))
  square = estimate.error**2 + max(variance, least**2)
  # as Welch: the error of examples is known, so it has degrees of freedom without end
  freedom = estimate.freedom * (square / estimate.error**2) ** 2
  return Estimate(estimate.mean, square**0.5, min(freedom, MOST_FREEDOM))


def equivalence(estimate: Estimate, margin: float) -> float:
  """p of two one-sided tests that the difference is `margin` or more, up or down.

  It is the larger of the two (Schuirmann 1987).
  """
  from scipy import special

  return float(special.stdtr(estimate.freedom, (abs(estimate.mean) - margin) / estimate.error))


def holm(ps: Sequence[float]) -> list[float]:
  """p-values corrected for their number by Holm's method (1979).

  If all hypotheses below ALPHA are rejected, the chance that a true one is among them is at most
  ALPHA.
  """
  corrected, highest = list(ps), 0.0
  for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
    highest = max(highest, min(1.0, (len(ps) - rank) * ps[i]))
    corrected[i] = highest
  return corrected


class Dunnett:
  """Two-sided comparisons of several lines with one baseline, all with the pooled variance.

  Args:
    sizes: the number of seeds of each line.
    baseline_size: that of the baseline.
    freedom: degrees of freedom of the variance.
  """

  def __init__(self, sizes: Sequence[int], baseline_size: int, freedom: float):
    sizes_U, self._counts_U = np.unique(sizes, return_counts=True)
    # Two lines correlate by the product of their loadings, because they share the baseline.
    self._loading_U = np.sqrt(sizes_U / (sizes_U + baseline_size))
    self._tests, self._freedom = len(sizes), freedom
    self._spread_N, self._spread_weight_N = _spreads(freedom, *QUADRATURE)
    node_N, weight_N = QUADRATURE
    self._normal_N = 9 * node_N
    self._normal_weight_N = 9 * weight_N * np.exp(-(self._normal_N**2) / 2) / np.sqrt(2 * np.pi)

  def exceeds(self, limit: float) -> float:
    """The chance, where no line differs, that any |t| is above `limit`."""
    from scipy import special

    inside_NN = 1.0
    for loading, count in zip(self._loading_U, self._counts_U, strict=True):
      shared_N = loading * self._normal_N
      rest = np.sqrt(1 - loading**2)
      ends_NN = limit * self._spread_N[:, None] / rest
      both_NN = special.ndtr(shared_N / rest + ends_NN) - special.ndtr(shared_N / rest - ends_NN)
      inside_NN = inside_NN * both_NN**count
    return float(1 - self._spread_weight_N @ inside_NN @ self._normal_weight_N)

  def p(self, estimate: Estimate) -> float:
    """p of a line, corrected for all."""
    t = abs(estimate.mean) / estimate.error
    # 1 less a sum near 1: of what is smaller, the digits are rounding, and processors round apart
    exceeds = round(self.exceeds(t), 12)
    # that of the line alone is lower, up to rounding where both are next to nothing
    return min(1.0, max(exceeds, two_sided(estimate)))

  def limit(self) -> float:
    """The |t| from which a line is marked."""
    from scipy import optimize, special

    # that of a line alone, and Bonferroni's, which is as large as any
    low, high = (
      -float(special.stdtrit(self._freedom, ALPHA / tests / 2)) for tests in (1, self._tests)
    )
    if self._tests == 1:
      return low
    return optimize.brentq(lambda t: self.exceeds(t) - ALPHA, low - 1e-6, high + 1e-6)


def smallest_detectable(estimate: Estimate, limit: float) -> float:
  """The smallest true difference that is marked, where |t| is at least `limit`, with the chance
  POWER. It takes the estimated error for the true one.
  """
  from scipy import optimize, special

  # An experiment estimates an error that is `spread` times the true one.
  spread_N, weight_N = _spreads(estimate.freedom, *QUADRATURE)
  limit_N = limit * spread_N

  def lack(shift):
    found_N = special.ndtr(shift - limit_N) + special.ndtr(-shift - limit_N)
    return float(weight_N @ found_N) - POWER

  return estimate.error * optimize.brentq(lack, 0, limit_N.max() + 10)


def smallest_between(lines: Iterable[Sequence[float]]) -> float | None:
  """The smallest difference between the means of two lines that a t-test marks with the chance
  POWER, both of the median spread over seeds and of the usual number of seeds.

  None where no line spreads. Lines without a spread, those in which every seed answers all, tell
  nothing of others and are left out.
  """
  from scipy import special

  spreading = [line for line in lines if len(line) > 1 and not _is_flat(line)]
  if not spreading:
    return None
  number = statistics.mode(map(len, spreading))
  # the median of what few seeds estimate lies below what they estimate: 0.69 of it with three
  below = 2 * special.gammaincinv((number - 1) / 2, 0.5) / (number - 1)
  variance = statistics.median(map(statistics.variance, spreading)) / below
  estimate = Estimate(0.0, (variance * 2 / number) ** 0.5, 2 * (number - 1))
  return smallest_detectable(estimate, Dunnett([number], number, estimate.freedom).limit())


def fewest_fewer(number: int) -> int | None:
  """By how many seeds a line must fall behind one in which all `number` do something for Fisher's
  exact test (1935) to mark it; None: so few seeds are never marked.
  """
  for fewer in range(1, number + 1):
    # of the tables with as many in all these two, either line behind, are the least likely
    if 2 * math.comb(number, fewer) / math.comb(2 * number, fewer) < ALPHA:
      return fewer
  return None


def _spreads(
  freedom: float, node_N: np.ndarray, weight_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """(spread_N, weight_N): quadrature over estimated / true standard error, chi / sqrt(freedom)."""
  from scipy import special

  # Quantiles of chi-square, far into both tails: the square root makes of it what is estimated.
  low, high = (np.sqrt(2 * q) for q in special.gammaincinv(freedom / 2, [1e-14, 1 - 1e-14]))
  chi_N = low + (high - low) * (node_N + 1) / 2
  half = freedom / 2
  log_density_N = (
    (1 - half) * np.log(2) + (freedom - 1) * np.log(chi_N) - chi_N**2 / 2 - special.gammaln(half)
  )
  return chi_N / np.sqrt(freedom), (high - low) / 2 * weight_N * np.exp(log_density_N)
