"""What is printed: a caption, blocks of lines, notes. Every form makes these, `posenc_jax.render`
writes them.
"""

import dataclasses
from typing import NamedTuple

from posenc_jax.reporting.metrics import LIKELIHOODS, METRICS, Metric
from posenc_jax.reporting.scores import Scores

BOLD = {'column': 'The best of each column is bold.', 'line': 'The best of each line is bold.'}


class Field(NamedTuple):
  text: str
  is_best: bool = False
  mark: str = ''  # '*' or '†', see posenc_jax.tables.differences


@dataclasses.dataclass
class Block:
  name: str  # '' where there is one block
  lines: list[list[Field]]


@dataclasses.dataclass
class Table:
  """A table in the form of a paper.

  Attributes:
    every: each seed's scores, for Markdown: (title, header, lines), none where there is one seed.
    is_scored: made from scores of the runs here, so that its caption says at what scale they were
      trained.
    records: the same and more for a file of comma-separated values: one dict a line, of any
      columns.
  """

  title: str
  caption: str
  header: list[str]
  blocks: list[Block]
  notes: list[str] = dataclasses.field(default_factory=list)
  every: list[tuple[str, list[str], list[list[str]]]] = dataclasses.field(default_factory=list)
  is_scored: bool = True
  records: list[dict] = dataclasses.field(default_factory=list)


def bold(metric: Metric, where: str) -> str:
  """The sentence that says what is bold, with a space before it."""
  return f' {BOLD[where]}' if metric.best else ''


def header(scores: Scores) -> list[str]:
  """Of columns: '128 (L)', '256', ..."""
  return [f'{n} (L)' if [n] == scores.train_lengths else str(n) for n in scores.columns]


def fields(scores: Scores, lines: list[str], marks: dict[tuple, str]) -> list[list[Field]]:
  """A line of fields for each of `lines`, bold by column; `marks` of (line, column)."""
  columns = []
  for column in scores.columns:
    of_lines = [scores.of(line, column) for line in lines]
    texts = zip(
      lines, map(scores.metric.text, of_lines), scores.metric.bests(of_lines), strict=True
    )
    columns.append([Field(text, best, marks.get((line, column), '')) for line, text, best in texts])
  return [list(line) for line in zip(*columns, strict=True)]


def every_seed(scores: Scores, name: str = '') -> list[tuple[str, list[str], list[list[str]]]]:
  """`Table.every` of one block, `name`."""
  if len(scores.seeds) < 2:
    return []
  text = lambda *place: scores.metric.text(scores.cells[place].scores(scores.metric))
  lines = [
    [line, str(seed), *(text(line, seed, column) for column in scores.columns)]
    for line in scores.lines
    for seed in scores.seeds
  ]
  return [(f'Every seed{name and ", "}{name}:', ['encoding', 'seed', *header(scores)], lines)]


def place_of(scores: Scores) -> dict:
  """What every record of `scores` begins with."""
  corpus = {'corpus': scores.corpus} if scores.corpus else {}
  return {'protocol': scores.protocol, 'control': scores.control or '', **corpus}


def records(scores: Scores) -> list[dict]:
  """`Table.records`: every seed's sums and scores, also of what has none."""
  made = []
  for (line, seed, column), cell in scores.cells.items():
    values = place_of(scores) | {
      'encoding': line,
      'seed': seed,
      'length': column,
      'status': cell.status,
    }
    if scores.metric.denominator:
      values |= {name: '' for name in LIKELIHOODS}
    else:
      values |= {'metric': scores.metric.name, 'value': ''}
    if cell.status == 'ok' and scores.metric.denominator:
      values |= {name: cell.scores(METRICS[name])[0] for name in LIKELIHOODS}
      values |= {name: getattr(cell, name) for name in ('nats', 'tokens', 'bytes', 'documents')}
    elif cell.status == 'ok':
      values |= {'value': cell.scores(scores.metric)[0], 'documents': cell.documents}
    made.append(values)
  return made
