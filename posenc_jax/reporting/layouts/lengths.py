"""The extrapolation table: encodings down, evaluation lengths across."""

from collections.abc import Iterable

from posenc_jax.reporting.comparisons.compare import compare_all
from posenc_jax.reporting.layouts.differences import difference_tables
from posenc_jax.reporting.layouts.position_columns import column_of, with_columns
from posenc_jax.reporting.layouts.published import published
from posenc_jax.reporting.metrics import MARGIN
from posenc_jax.reporting.scores import Scores, collect
from posenc_jax.reporting.table import Cell, RowGroup, Table, cells, from_scores
from posenc_jax.reporting.tasks.chance import chance_lines


def lengths(
  rows: Iterable[dict],
  runs: Iterable[str] = (),
  protocols: Iterable[str] | None = None,
  metric: str = 'bpb',
  controls: bool = True,
  baseline: str | None = None,
  margin: float = MARGIN,
  reference: Iterable[dict] = (),
) -> list[Table]:
  """A table for each protocol and control, each followed by its differences.

  `baseline` is the label of the line that others are compared with, `margin` what makes two of them
  equivalent; `reference` see `published`. Columns of by_position are ranges of positions.
  """
  notes, made = [], []
  rows = with_columns(list(rows), notes)
  found = collect(rows, runs, protocols, metric, hidden=('receptive_field',), column_of=column_of)
  found[0].notes += notes
  for comparison in compare_all(found, controls, baseline, margin):
    made.append(extrapolation_table(rows, comparison.scores))
    made += difference_tables(comparison)
  return made + published(reference)


def extrapolation_table(rows: list[dict], scores: Scores, sentences: str = '') -> Table:
  """The table of one protocol and control, with the line 'chance' of a task."""
  of_lines = zip(scores.lines, cells(scores, scores.lines), strict=True)
  lines = [[Cell(scores.label(line)), *some] for line, some in of_lines]
  group = RowGroup('', lines + chance_lines(rows, scores))
  return from_scores(scores, 'Extrapolation', 'encoding', [group], sentences)
