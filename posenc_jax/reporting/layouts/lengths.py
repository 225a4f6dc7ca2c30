"""The extrapolation table: encodings down, evaluation lengths across."""

from collections.abc import Iterable

from posenc_jax.reporting import comparisons
from posenc_jax.reporting.chance import chance_lines
from posenc_jax.reporting.layouts.published import published
from posenc_jax.reporting.scores import collect
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
    of_lines = cells(scores, scores.lines, comparison.marks)
    lines = [[Cell(line), *some] for line, some in zip(scores.lines, of_lines, strict=True)]
    group = RowGroup('', lines + chance_lines(rows, scores))
    made.append(from_scores(scores, 'Extrapolation', 'encoding', [group], comparison.sentence))
    made += comparison.tables()
  return made + published(reference)
