"""ALiBi's form (its table 5): training lengths down, evaluation lengths across."""

from collections import defaultdict
from collections.abc import Iterable

from posenc_jax.reporting.metrics import DASH
from posenc_jax.reporting.scores.collecting import collect
from posenc_jax.reporting.scores.score import SCORED, Scores
from posenc_jax.reporting.table import Cell, RowGroup, Table, cells, from_scores, kinds_of
from posenc_jax.reporting.table_forms.published import published

TRAINED_THERE = 'trained at the evaluation length'


def training_lengths(
  rows: Iterable[dict],
  runs: Iterable[str] = (),
  protocols: Iterable[str] | None = None,
  metric: str = 'ppl',
  controls: bool = False,
  reference: Iterable[dict] = (),
) -> list[Table]:
  """A group of lines for each encoding, one line a training length.

  The last line of a group is the diagonal: at each length, the model that was trained at it. Runs
  of different lengths may have different numbers of steps (of equal tokens); where those of one
  length have several, each is a line.
  """
  rows, made, steps_of = list(rows), [], defaultdict(set)
  for row in rows:
    steps_of[row['label'], row['train_length']].add(row['step'])

  def label_of(row: dict) -> str:
    label = f'{row["label"]}, L = {row["train_length"]}'
    has_several = len(steps_of[row['label'], row['train_length']]) > 1
    return f'{label}, {row["step"]} steps' if has_several else label

  for scores in collect(
    rows,
    runs,
    protocols,
    metric,
    controls,
    label_of=label_of,
    group_fields=SCORED,
    is_expected=lambda row, length: length >= row['train_length'],
  ):
    rows_of = scores.exemplar_row
    kinds = kinds_of(scores)
    cells_of = dict(zip(scores.lines, cells(scores, kinds), strict=True))
    groups = []
    for label in dict.fromkeys(row['label'] for row in rows_of.values()):
      lines = [line for line, row in rows_of.items() if row['label'] == label]
      lines.sort(key=lambda line: (rows_of[line]['train_length'], rows_of[line]['step']))
      body = [[Cell(line.removeprefix(f'{label}, ')), *cells_of[line]] for line in lines]
      groups.append(RowGroup(label, [*body, [Cell(TRAINED_THERE), *_diagonal(scores, lines)]]))
    title = 'Training by evaluation length'
    table = from_scores(scores, kinds, title, 'training length', groups)
    table.header[1:] = map(str, scores.columns)
    made.append(table)
  return made + published(reference)


def _diagonal(scores: Scores, lines: list[str]) -> Iterable[Cell]:
  """At each length, the score of the line that was trained at it; a dash for none or several."""
  for length in scores.columns:
    there = [line for line in lines if scores.exemplar_row[line]['train_length'] == length]
    is_one = len(there) == 1
    yield Cell(scores.metric.text(scores.seed_scores(there[0], length)) if is_one else DASH)
