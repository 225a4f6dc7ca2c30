"""The extrapolation table: encodings down, evaluation lengths across."""

import math
from collections.abc import Iterable

from posenc_jax.reporting.comparisons.compare import compare_all
from posenc_jax.reporting.comparisons.difference_tables import difference_tables
from posenc_jax.reporting.metrics import MARGIN
from posenc_jax.reporting.scores.collecting import collect, windows_of
from posenc_jax.reporting.scores.score import Scores
from posenc_jax.reporting.table import RANGE_END, Cell, RowGroup, Table, cells, from_scores
from posenc_jax.reporting.table_forms.effective_lengths import OF_LINE
from posenc_jax.reporting.table_forms.published import published
from posenc_jax.reporting.tasks.chance import chance_lines


def lengths(
  rows: Iterable[dict],
  runs: Iterable[str] = (),
  protocols: Iterable[str] | None = None,
  metric: str = 'bpb',
  controls: bool = True,
  baseline: str | dict[str, str] | None = None,
  margin: float = MARGIN,
  reference: Iterable[dict] = (),
  score_to_keep: str = OF_LINE,
) -> list[Table]:
  """A table for each protocol and control, each followed by its differences.

  `baseline` is the label of the line that others are compared with, or {label: its baseline},
  `margin` what makes two of them equivalent; `reference` see `published`; `score_to_keep` is for
  the table of effective lengths that follows. Columns of by_position are ranges of positions.
  """
  del score_to_keep
  notes, made = [], []
  rows, runs = _with_ranges(list(rows), list(runs), notes)
  column_of = lambda row: row.get(RANGE_END, row['length'])
  found = collect(rows, runs, protocols, metric, hidden=('receptive_field',), column_of=column_of)
  found[0].notes += notes
  for comparison in compare_all(found, controls, baseline, margin):
    made.append(extrapolation_table(rows, comparison.scores))
    made += difference_tables(comparison)
  return made + published(reference)


def extrapolation_table(rows: list[dict], scores: Scores, sentences: str = '') -> Table:
  """The table of one protocol and control, with the line 'chance' of a task."""
  line_cells = zip(scores.lines, cells(scores, scores.lines), strict=True)
  lines = [[Cell(scores.label(line)), *some] for line, some in line_cells]
  group = RowGroup('', lines + chance_lines(rows, scores))
  return from_scores(scores, 'Extrapolation', 'encoding', [group], sentences)


def _with_ranges(
  rows: list[dict], runs: list[str], notes: list[str]
) -> tuple[list[dict], list[str]]:
  """The rows, those of `by_position` with the end of their range: L, 2 L, 4 L, ...; and the runs
  that should be there.

  Of these, rows of the longest windows that most runs have stay, from position L / 2 on, where L is
  the shortest training length; all go where none begins at L: then no range ends there. `notes` say
  what has gone.
  """
  by_position = [row for row in rows if row['protocol'] == 'by_position']
  others = [row for row in rows if row['protocol'] != 'by_position']
  if not by_position:
    return others, runs
  near = min(row['train_length'] for row in by_position)
  longest, of_longest, runs, lacking = windows_of(by_position, runs)
  if not any(row['position'] == near for row in of_longest):
    notes.append(f'by_position has no column: no row begins at L = {near}')
    return others, runs
  notes += lacking
  with_ranges = [
    row | {RANGE_END: min(longest, near * 2 ** (1 + math.floor(math.log2(row['position'] / near))))}
    for row in of_longest
    if 2 * row['position'] >= near
  ]
  return others + with_ranges, runs
