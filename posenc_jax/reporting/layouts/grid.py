"""Forms with two kinds of lines: ALiBi's grid of training and evaluation lengths, PI's and YaRN's
methods by window.
"""

from collections.abc import Iterable

from posenc_jax.reporting import differences
from posenc_jax.reporting.layouts.lengths import published
from posenc_jax.reporting.metrics import DASH
from posenc_jax.reporting.scores import VARIANT, Scores, collect
from posenc_jax.reporting.table import (
  Block,
  Field,
  Table,
  bold,
  every_seed,
  fields,
  header,
  records,
)

TRAINED_THERE = 'trained at the evaluation length'
# what of `overrides` is a method, and not another question
METHOD = ('encoding.', 'attention.', 'model.')
PLAIN = 'as trained'


def grid(
  rows: Iterable[dict],
  runs: Iterable[str] = (),
  protocols: Iterable[str] | None = None,
  metric: str = 'ppl',
  controls: bool = False,
  reference: Iterable[dict] = (),
) -> list[Table]:
  """Training lengths down, evaluation lengths across, as ALiBi prints it (its table 5): a block for
  each encoding.

  The last line of a block is the diagonal: at each length, the model that was trained at it. Runs
    of another length may
  have another number of steps (of equal tokens).
  """
  name = lambda row: f'{row["label"]}, L = {row["train_length"]}'
  made = []
  asked = lambda row, length: length >= row['train_length']
  for scores in collect(
    rows, runs, protocols, metric, controls, name=name, variant=_variant(), asked=asked
  ):
    blocks = []
    for label in dict.fromkeys(row['label'] for row in scores.first.values()):
      lines = [line for line, row in scores.first.items() if row['label'] == label]
      lines.sort(key=lambda line: scores.first[line]['train_length'])
      of_lines = zip(lines, fields(scores, lines, {}), strict=True)
      body = [[Field(line.removeprefix(f'{label}, ')), *of_line] for line, of_line in of_lines]
      blocks.append(Block(label, [*body, [Field(TRAINED_THERE), *_diagonal(scores, lines)]]))
    title, caption = (
      f'Training by evaluation length, {scores.title}',
      scores.caption + bold(scores.metric, 'column'),
    )
    head, every = ['training length', *map(str, scores.columns)], every_seed(scores)
    made.append(
      Table(title, caption, head, blocks, scores.notes, every=every, records=records(scores))
    )
  return made + published(reference)


def _diagonal(scores: Scores, lines: list[str]) -> Iterable[Field]:
  """At each length, the lines' score that was trained at it; a dash where that is none, or not
  one.
  """
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
  """Methods of context extension down, evaluation windows across, as PI and YaRN print it (YaRN's
  table 1).

  A block is a training: its length and its steps. A line is a label, with what evaluation overrode
    in its model.
  `baseline` is a line as 'every seed' names it: 'rope, L = 128, 600 steps', with or without 'as
  trained'.
  """
  rows = list(rows)
  if any(_method(row) for row in rows):  # or else a line is a label and nothing more
    rows = list(map(_with_method, rows))
  training = lambda row: f'L = {row["train_length"]}, {row["step"]} steps'
  name = lambda row: f'{row["label"]}, {training(row)}'
  names = lambda row: (name(row), name(row).replace(f', {PLAIN}', ''))
  made = []
  found = collect(rows, runs, protocols, metric, controls, name=name, variant=_variant())
  for scores, base in zip(found, differences.baselines(found, baseline, names), strict=True):
    compared = differences.compare(scores, base) if base else {}
    said = differences.sentence(scores, base) if base else ''
    of_lines = zip(
      scores.lines, fields(scores, scores.lines, differences.marks(scores, compared)), strict=True
    )
    blocks = {training(row): Block(training(row), []) for row in scores.first.values()}
    for line, of_line in of_lines:
      block = blocks[training(scores.first[line])]
      block.lines.append([Field(line.replace(f', {block.name}', '')), *of_line])
    title, caption = (
      f'Context extension, {scores.title}',
      f'{scores.caption}{bold(scores.metric, "column")}{said}',
    )
    head, every = ['method', *header(scores)], every_seed(scores)
    blocks = list(blocks.values())
    made.append(
      Table(title, caption, head, blocks, scores.notes, every=every, records=records(scores))
    )
    made += [differences.table(scores, base, compared)] if compared else []
  return made + published(reference)


def _method(row: dict) -> str:
  """What evaluation overrode in the model: 'rope_type=yarn, factor=4', or ''."""
  short = lambda key: key.removeprefix('encoding.').removeprefix('scaling.')
  changed = row['overrides'] or {}
  return ', '.join(
    f'{short(key)}={value}' for key, value in changed.items() if key.startswith(METHOD)
  )


def _with_method(row: dict) -> dict:
  """The row with its method in its label, and no longer in its overrides."""
  others = {
    key: value for key, value in (row['overrides'] or {}).items() if not key.startswith(METHOD)
  }
  return row | {'label': f'{row["label"]}, {_method(row) or PLAIN}', 'overrides': others or None}


def _variant() -> tuple[str, ...]:
  """What must be equal along a line whose name says its training."""
  return tuple(field for field in VARIANT if field not in ('train_length', 'step'))
