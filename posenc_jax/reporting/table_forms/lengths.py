"""The extrapolation table: encodings down, evaluation lengths across."""

from collections.abc import Iterable

from posenc_jax.protocols import POSITIONAL
from posenc_jax.reporting.comparisons.compare import compare_all
from posenc_jax.reporting.comparisons.difference_tables import difference_tables
from posenc_jax.reporting.scores.collecting import collect, no_score_of_a_length
from posenc_jax.reporting.scores.score import Scores
from posenc_jax.reporting.table import Cell, RowGroup, Table, cells, from_scores, kinds_of
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
  reference: Iterable[dict] = (),
  score_to_keep: str = OF_LINE,
) -> list[Table]:
  """A table for each protocol and control, each followed by its differences.

  `baseline` is the label of the line that others are compared with, or {label: its baseline};
  `reference` see `published`; `score_to_keep` is for the table of effective lengths that follows.
  """
  del score_to_keep
  rows, made = list(rows), []
  if told_apart := [name for name in protocols or () if name in POSITIONAL]:
    raise no_score_of_a_length(told_apart)
  found = collect(rows, runs, protocols, metric)
  for comparison in compare_all(found, controls, baseline):
    made.append(extrapolation_table(rows, comparison.scores))
    made += difference_tables(comparison)
  return made + published(reference)


def extrapolation_table(rows: list[dict], scores: Scores, sentences: str = '') -> Table:
  """The table of one protocol and control, with the line 'chance' of a task."""
  kinds = kinds_of(scores)
  line_cells = zip(scores.lines, cells(scores, kinds), strict=True)
  lines = [[Cell(scores.label(line)), *some] for line, some in line_cells]
  group = RowGroup('', lines + chance_lines(rows, scores))
  return from_scores(scores, kinds, 'Extrapolation', 'encoding', [group], sentences)
