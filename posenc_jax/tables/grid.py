"""Forms with two kinds of lines: ALiBi's grid of training and evaluation lengths, PI's and YaRN's methods by window."""

from collections.abc import Iterable

from posenc_jax.tables import differences
from posenc_jax.tables.lengths import published
from posenc_jax.tables.metrics import DASH
from posenc_jax.tables.page import Block, Field, Table, bold, every_seed, fields, header, records
from posenc_jax.tables.scores import VARIANT, Scores, collect

TRAINED_THERE = 'trained at the evaluation length'
METHOD = ('encoding.', 'attention.', 'model.')  # what of `overrides` is a method, and not another question
PLAIN = 'as trained'


def grid(
  rows: Iterable[dict],
  runs: Iterable[str] = (),
  protocols: Iterable[str] | None = None,
  metric: str = 'ppl',
  controls: bool = False,
  reference: Iterable[dict] = (),
) -> list[Table]:
  """Training lengths down, evaluation lengths across, as ALiBi prints it (its table 5): a block for each encoding.

  The last line of a block is the diagonal: at each length, the model that was trained at it. Runs of another length may
  have another number of steps (of equal tokens).
  """
  name = lambda row: f'{row["label"]}, L = {row["train_length"]}'
  variant = tuple(field for field in VARIANT if field not in ('train_length', 'step'))
  made = []
  asked = lambda row, length: length >= row['train_length']
  for scores in collect(rows, runs, protocols, metric, controls, name=name, variant=variant, asked=asked):
    blocks = []
    for label in dict.fromkeys(row['label'] for row in scores.first.values()):
      lines = [line for line, row in scores.first.items() if row['label'] == label]
      lines.sort(key=lambda line: scores.first[line]['train_length'])
      of_lines = zip(lines, fields(scores, lines, {}), strict=True)
      body = [[Field(line.removeprefix(f'{label}, ')), *of_line] for line, of_line in of_lines]
      blocks.append(Block(label, [*body, [Field(TRAINED_THERE), *_diagonal(scores, lines)]]))
    title, caption = f'Training by evaluation length, {scores.title}', scores.caption + bold(scores.metric, 'column')
    head, every = ['training length', *map(str, scores.columns)], every_seed(scores)
    made.append(Table(title, caption, head, blocks, scores.notes, every=every, records=records(scores)))
  return made + published(reference)


def _diagonal(scores: Scores, lines: list[str]) -> Iterable[Field]:
  """At each length, the lines' score that was trained at it; a dash where that is none, or not one."""
  for length in scores.columns:
    there = [line for line in lines if scores.first[line]['train_length'] == length]
    yield Field(scores.metric.text(scores.of(there[0], length)) if len(there) == 1 else DASH)


def methods(
  rows: Iterable[dict],
  runs: Iterable[str] = (),
  protocols: Iterable[str] | None = None,
  metric: str = 'ppl',
  controls: bool = False,
  baseline: str | None = None,
  reference: Iterable[dict] = (),
) -> list[Table]:
  """Models with methods of context extension down, evaluation windows across, as PI and YaRN print it (YaRN's table 1).

  A method is what evaluation overrode in a trained model's encoding, attention or model. `baseline` is a line as notes
  and 'every seed' name it: 'rope, as trained'.
  """
  made = []
  for scores in collect(map(_with_method, rows), runs, protocols, metric, controls):
    compared = differences.compare(scores, baseline) if baseline else {}
    said = differences.sentence(scores, baseline) if baseline else ''
    lines = sorted(scores.lines, key=lambda line: scores.first[line]['method'] != PLAIN)
    of_lines = dict(zip(lines, fields(scores, lines, differences.marks(scores, compared)), strict=True))
    blocks = []
    for model in dict.fromkeys(row['model'] for row in scores.first.values()):
      mine = [line for line in lines if scores.first[line]['model'] == model]
      blocks.append(Block(model, [[Field(line.removeprefix(f'{model}, ')), *of_lines[line]] for line in mine]))
    title, caption = f'Context extension, {scores.title}', f'{scores.caption}{bold(scores.metric, "column")}{said}'
    head, every = ['method', *header(scores)], every_seed(scores)
    made.append(Table(title, caption, head, blocks, scores.notes, every=every, records=records(scores)))
    made += [differences.table(scores, baseline, compared)] if compared else []
  return made + published(reference)


def _with_method(row: dict) -> dict:
  """The row with 'rope, rope_type=yarn, factor=4' or 'rope, as trained' for a label, and no more in its overrides."""
  changed, method = row['overrides'] or {}, []
  for key, value in changed.items():
    if key.startswith(METHOD):
      method.append(f'{key.removeprefix("encoding.").removeprefix("scaling.")}={value}')
  others = {key: value for key, value in changed.items() if not key.startswith(METHOD)}
  method = ', '.join(method) or PLAIN
  return row | {
    'label': f'{row["label"]}, {method}',
    'model': row['label'],
    'method': method,
    'overrides': others or None,
  }
