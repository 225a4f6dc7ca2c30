"""Forms with lengths and lines: the extrapolation table, KERPLE's, and what is published beside
them.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable

from posenc_jax.errors import UserError
from posenc_jax.reporting import differences
from posenc_jax.reporting.captions import caption
from posenc_jax.reporting.metrics import DASH
from posenc_jax.reporting.scores import Scores, collect, notes_of
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


def lengths(
  rows: Iterable[dict],
  runs: Iterable[str] = (),
  protocols: Iterable[str] | None = None,
  metric: str = 'bpb',
  controls: bool = True,
  baseline: str | None = None,
  reference: Iterable[dict] = (),
) -> list[Table]:
  """Encodings down, evaluation lengths across: a table for each protocol and control, its
  differences after it.

  `baseline` is the label of the line that the others are compared with; `reference` see
  `published`.
  """
  rows, made = list(rows), []
  of_all = collect(rows, runs, protocols, metric, controls)
  for scores, base in zip(of_all, differences.baselines(of_all, baseline), strict=True):
    found = differences.compare(scores, base) if base else {}
    said = differences.sentence(scores, base) if base else ''
    of_lines = fields(scores, scores.lines, differences.marks(scores, found))
    lines = [[Field(line), *some] for line, some in zip(scores.lines, of_lines, strict=True)]
    blocks = [Block('', lines + chance_line(rows, scores))]
    said = f'{scores.caption}{bold(scores.metric, "column")}{said}'
    head, every_line = ['encoding', *header(scores)], every_seed(scores)
    title = f'Extrapolation, {scores.title}'
    made.append(
      Table(title, said, head, blocks, scores.notes, every=every_line, records=records(scores))
    )
    if found:
      made.append(differences.table(scores, base, found))
  return made + published(reference)


def chance(rows: Iterable[dict], scores: Scores) -> dict[int, float | None]:
  """{length: what chance scores in a task}, of the rows that say it; None where they disagree. {}
  without such rows.
  """
  names = ('metric', 'protocol', 'control')
  by_run = defaultdict(lambda: defaultdict(list))
  for row in rows:
    if tuple(row[name] for name in names) == (
      scores.metric.chance,
      scores.protocol,
      scores.control,
    ):
      by_run[row['length']][row['run']].append(row['value'])
  means = {
    length: [statistics.fmean(some) for some in of_runs.values()]
    for length, of_runs in by_run.items()
  }
  return {
    length: some[0] if math.isclose(min(some), max(some)) else None
    for length, some in sorted(means.items())
  }


def chance_line(rows: list[dict], scores: Scores) -> list[list[Field]]:
  """The line of chance, if there is one."""
  found = chance(rows, scores)
  text = lambda value: DASH if value is None else scores.metric.form.format(value)
  return (
    [[Field('chance'), *(Field(text(found.get(length))) for length in scores.columns)]]
    if found
    else []
  )


def columns(
  rows: Iterable[dict],
  runs: Iterable[str] = (),
  protocols: Iterable[str] | None = None,
  metric: str = 'ppl',
  controls: bool = False,
  baseline: str | None = None,
  by: str = 'protocol',
  reference: Iterable[dict] = (),
) -> list[Table]:
  """Evaluation lengths down, encodings across, as KERPLE prints it (its table 1): a block for each
  value of `by`.

  Args:
    by: 'protocol' or 'corpus'.
  """
  if by not in ('protocol', 'corpus'):
    raise UserError(f'table: by={by!r}; allowed: protocol, corpus')
  found = collect(rows, runs, protocols, metric, controls, by_corpus=by == 'corpus')
  found.sort(key=lambda scores: scores.corpus or '')
  lines = list(dict.fromkeys(line for scores in found for line in scores.lines))
  blocks, differences_of = [], []
  for scores, base in zip(found, differences.baselines(found, baseline), strict=True):
    compared = differences.compare(scores, base) if base else {}
    marks = differences.marks(scores, compared)
    blocks.append(
      Block(scores.title, [_line(scores, lines, length, marks) for length in scores.columns])
    )
    differences_of += [differences.table(scores, base, compared)] if compared else []
  made = Table(
    f'Extrapolation by {by}',
    caption(*found)
    + bold(found[0].metric, 'line')
    + (differences.sentence(found[0], baseline) if baseline else ''),
    ['length', *lines],
    blocks,
    notes_of(found),
    every=[each for scores in found for each in every_seed(scores, scores.title)],
    records=[record for scores in found for record in records(scores)],
  )
  return [made, *differences_of, *published(reference)]


def _line(scores: Scores, lines: list[str], length: int, marks: dict[tuple, str]) -> list[Field]:
  """One length of all lines, the best bold."""
  of_lines = [scores.of(line, length) if line in scores.lines else [] for line in lines]
  bests = scores.metric.bests(of_lines)
  texts = zip(lines, map(scores.metric.text, of_lines), bests, strict=True)
  name = f'{length} (L)' if [length] == scores.train_lengths else str(length)
  return [
    Field(name),
    *(Field(text, best, marks.get((line, length), '')) for line, text, best in texts),
  ]


def published(reference: Iterable[dict]) -> list[Table]:
  """What papers print, apart from ours: never bold, never compared.

  Args:
    reference: dict(line=..., values={length: number}, source='authors year, table'), one a line.
  """
  reference = list(reference)
  for entry in reference:
    if (
      not isinstance(entry, dict)
      or set(entry) != {'line', 'values', 'source'}
      or not entry['values']
    ):
      raise UserError(
        f'table: reference={entry!r}; allowed: dict(line=..., values={{length: number}}, source=...)'
      )
  if not reference:
    return []
  lengths_of = sorted({length for entry in reference for length in entry['values']})
  value = lambda entry, n: Field(str(entry['values'][n]) if n in entry['values'] else DASH)
  lines = [
    [Field(e['line']), *(value(e, n) for n in lengths_of), Field(e['source'])] for e in reference
  ]
  return [
    Table(
      'Published, other scale',
      'As published, on other data and at another scale: for the form alone, and not to be compared with ours.',
      ['encoding', *map(str, lengths_of), 'source'],
      [Block('published, other scale', lines)],
      is_scored=False,
    )
  ]
