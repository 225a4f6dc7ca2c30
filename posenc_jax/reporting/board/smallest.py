"""The smallest differences that columns of the board can tell, and the line that says them."""

import statistics
from collections.abc import Iterable, Sequence

from posenc_jax.reporting.board.lines import Line
from posenc_jax.reporting.comparisons import significance
from posenc_jax.reporting.comparisons.contrast import EQUIVALENT, Difference
from posenc_jax.reporting.metrics import DASH
from posenc_jax.reporting.table import Cell

SMALLEST_SHOWN = 'smallest shown'  # the line of the smallest differences that columns can tell
# What that line says in tables of recall and of tasks.
SMALLEST_BETWEEN = (
  f'"{SMALLEST_SHOWN}": the smallest difference of two means that a t-test finds in four of five '
  'cases, both of the median spread over seeds among lines that spread, uncorrected for the number '
  'of lines; of counts, by how many seeds a line must fall behind one that all seeds count for.'
)


def smallest_marked(of_corpus: Iterable[Line]) -> float | None:
  """The smallest difference from ROPE at L that seeds mark in four of five cases, the median
  over lines; None: they mark none.
  """
  of_lines = [line.at_L.smallest for line in of_corpus if line.at_L]
  marked = [smallest for smallest in of_lines if smallest is not None]
  return statistics.median(marked) if marked else None


def smallest_shown(differences: Iterable[Difference | None]) -> float | None:
  """The smallest change whose interval over documents leaves out 0 in four of five cases, the
  median over differences; None: they have no intervals. What is EQUIVALENT to 0 tells nothing of
  others and is left out: lines that look no farther back have intervals of no width.
  """
  normal = statistics.NormalDist()
  half = normal.inv_cdf(1 - significance.ALPHA / 2)
  factor = 1 + normal.inv_cdf(significance.POWER) / half
  telling = [some for some in differences if some is not None and some.mark != EQUIVALENT]
  intervals = [some.interval for some in telling if some.interval is not None]
  shown = [factor * (upper - lower) / 2 for lower, upper in intervals]
  return statistics.median(shown) if shown else None


def smallest_text(scores_of_lines: Iterable[Sequence[float]], form: str) -> str:
  """The cell of SMALLEST_SHOWN below scores over seeds, those of each line."""
  least = significance.smallest_between(scores_of_lines)
  return DASH if least is None else form.format(least)


def fewest_text(seeds_of_lines: Iterable[int]) -> str:
  """The cell of SMALLEST_SHOWN below counts of seeds: by how many a line must fall behind one that
  all seeds count for; `seeds_of_lines`: the number of seeds that each line has.
  """
  numbers = list(seeds_of_lines)
  number = statistics.mode(numbers) if numbers else 0
  fewest = significance.fewest_fewer(number)
  return DASH if fewest is None else f'{fewest} of {number}'


def smallest_line(texts: Sequence[str]) -> list[list[Cell]]:
  """The line of SMALLEST_SHOWN with these cells, in a list; [] where it can tell nothing."""
  return [[*map(Cell, (SMALLEST_SHOWN, *texts))]] if {*texts} - {DASH, ''} else []
