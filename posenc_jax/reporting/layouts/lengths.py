"""The extrapolation table: encodings down, evaluation lengths across."""

from collections.abc import Iterable

from posenc_jax.reporting import comparisons
from posenc_jax.reporting.chance import chance_lines
from posenc_jax.reporting.layouts.published import published
from posenc_jax.reporting.scores import Scores, collect
from posenc_jax.reporting.table import Cell, RowGroup, Table, cells, from_scores


def lengths(
  rows: Iterable[dict],
  runs: Iterable[str] = (),
  protocols: Iterable[str] | None = None,
  metric: str = 'bpb',
  controls: bool = True,
  baseline: str | None = None,
  reference: Iterable[dict] = (),
) -> list[Table]:
  """A table for each protocol and control, followed by its differences from the baseline.

  `baseline` is the label of the line that others are compared with; `reference` see `published`.
  """
  rows, made = list(rows), []
  for comparison in comparisons.compare_all(
    collect(rows, runs, protocols, metric, controls), baseline
  ):
    scores = comparison.scores
    made.append(extrapolation_table(rows, scores, comparison.marks, comparison.sentence))
    made += comparison.tables()
  return made + published(reference)


def extrapolation_table(
  rows: list[dict], scores: Scores, marks: dict[tuple, str], sentences: str
) -> Table:
  """The table of one protocol and control, with the line 'chance' of a task."""
  of_lines = zip(scores.lines, cells(scores, scores.lines, marks), strict=True)
  lines = [[Cell(scores.label(line)), *some] for line, some in of_lines]
  group = RowGroup('', lines + chance_lines(rows, scores))
  return from_scores(scores, 'Extrapolation', 'encoding', [group], sentences)
