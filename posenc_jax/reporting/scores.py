"""From rows to scores: what belongs together is added up, what cannot be compared gets a line of
its own or a note.

A score is a sum of nats over documents, divided once, for each seed; a line is the mean and the
standard deviation of its seeds' scores. What cannot be compared is never averaged: it gets a line
of its own or a dash, and a note names it.
"""

import dataclasses
import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from posenc_jax.errors import UserError
from posenc_jax.evaluation import row_schema
from posenc_jax.reporting.captions import PROTOCOLS, caption, every
from posenc_jax.reporting.metrics import Metric, metric_of

# protocols whose rows are told apart by `position`, not by length
BY_POSITION = ('by_position', 'receptive_field')
# where these are equal, the same tokens are scored at a length
TASK = ('corpus', 'split', 'stride', 'k', 'overrides')
VARIANT = (*TASK, 'train_length', 'step')  # equal along a line
UNSEEN = ('missing', 'incomplete')  # outcomes of a run that has not been evaluated to the end


class Cell(NamedTuple):
  """What one seed of a line scored in one column: if `status` is 'ok' its rows, or else the
  outcome.
  """

  status: str
  rows: tuple[dict, ...] = ()

  @property
  def nats(self) -> float:
    return math.fsum(row['nats'] for row in self.rows)

  @property
  def tokens(self) -> int:
    return sum(row['tokens'] for row in self.rows)

  @property
  def bytes(self) -> int:
    return sum(row['bytes'] for row in self.rows)

  @property
  def size(self) -> int:
    """By which a cell is known to be whole: tokens, or rows where they carry values."""
    return sum(1 if row['tokens'] is None else row['tokens'] for row in self.rows)

  @property
  def documents(self) -> int:
    return len({row['document'] for row in self.rows} - {None})

  def by_document(self, metric: Metric) -> dict[str | None, tuple[float, float]]:
    """{document: (numerator, denominator)}."""
    parts = defaultdict(list)
    for row in self.rows:
      parts[row['document']].append(metric.sums(row))
    return {name: tuple(map(math.fsum, zip(*some, strict=True))) for name, some in parts.items()}

  def scores(self, metric: Metric) -> list[float]:
    """One score, or none."""
    if self.status != 'ok':
      return []
    return [metric.score(*map(math.fsum, zip(*map(metric.sums, self.rows), strict=True)))]


@dataclasses.dataclass
class Scores:
  """One protocol under one control.

  Attributes:
    corpus: that rows are of, where corpora are kept apart.
    columns: what rows are told apart by along a line: lengths, or positions.
    cells: of every (line, seed, column).
    first: a row of each line, which says what the line's rows have in common.
    notes: all that is amiss.
  """

  protocol: str
  control: str | None
  metric: Metric
  notes: list[str]
  corpus: str | None = None
  caption: str = ''
  columns: list = dataclasses.field(default_factory=list)
  seeds: list[int] = dataclasses.field(default_factory=list)
  cells: dict[tuple, Cell] = dataclasses.field(default_factory=dict)
  first: dict[str, dict] = dataclasses.field(default_factory=dict)

  @property
  def lines(self) -> list[str]:
    return list(self.first)

  @property
  def train_lengths(self) -> list[int]:
    return sorted({row['train_length'] for row in self.first.values()})

  @property
  def title(self) -> str:
    return ', '.join(filter(None, (self.corpus, self.protocol, self.control)))

  def of(self, line: str, column) -> list[float]:
    """Of the seeds that have one; of none if one came to another end, because the mean of the
    others would flatter.
    """
    cells = [self.cells[line, seed, column] for seed in self.seeds]
    if any(cell.status not in ('ok', *UNSEEN) for cell in cells):
      return []
    return [score for cell in cells for score in cell.scores(self.metric)]

  def read(
    self,
    rows: list[dict],
    across: Callable,
    name: Callable,
    variant: tuple[str, ...],
    asked: Callable,
  ) -> None:
    """Takes the rows of its protocol and control."""
    rows = _unique(rows, self.notes)
    names = _lines(rows, name, variant, self.notes)
    parts = defaultdict(list)
    for line, row in zip(names, rows, strict=True):
      self.first.setdefault(line, row)
      parts[line, row['seed'], across(row)].append(row)
    self.seeds = sorted({seed for _, seed, _ in parts})
    self.columns = sorted({column for _, _, column in parts})
    places = [
      (line, seed, column) for line in self.lines for seed in self.seeds for column in self.columns
    ]
    self.cells = {place: _cell(parts[place]) for place in places}
    task = {
      line: json.dumps([row[f] for f in TASK], sort_keys=True) for line, row in self.first.items()
    }
    whole = defaultdict(int)
    for (line, _, column), cell in self.cells.items():
      whole[task[line], column] = max(whole[task[line], column], cell.size)
    for (line, seed, column), cell in self.cells.items():
      if cell.status == 'ok' and cell.size < whole[task[line], column]:
        self.cells[line, seed, column] = Cell('incomplete')
    self.notes += _outcomes(self, asked)
    self.caption = caption(self)


def collect(
  rows: Iterable[dict],
  runs: Iterable[str] = (),
  protocols: Iterable[str] | None = None,
  metric: str = 'bpb',
  controls: bool = True,
  by_corpus: bool = False,
  across: Callable[[dict], object] = lambda row: row['length'],
  name: Callable[[dict], str] = lambda row: row['label'],
  variant: tuple[str, ...] = VARIANT,
  asked: Callable[[dict, object], bool] = lambda row, column: True,
) -> list[Scores]:
  """Scores of each protocol (None: all but BY_POSITION), each followed by those of every control it
  has rows of.

  Args:
    runs: those that should be there, in the order of the lines; others follow by name.
    by_corpus: each corpus apart, rather than lines of its own; `runs` are those of all corpora.
    across: the column of a row.
    name: of a row's line.
    asked: whether a line, by a row of it, is missing where none of its seeds has rows in a column.
    variant: fields that must be equal along a line; where they are not, they tell it from others of
      its name.
  Raises:
    UserError: an unknown metric, or no row of these protocols.
  """
  runs, rows = list(runs), list(rows)
  metric = metric_of(metric, rows)
  rank = {run: index for index, run in enumerate(runs)}
  # the file's order changes nothing
  order = lambda row: (rank.get(row['run'], len(runs)), row_schema.key(row))
  rows = sorted(filter(metric.matches, rows), key=order)
  notes = []
  if missing := [run for run in runs if run not in {row['run'] for row in rows}]:
    notes = [
      f'no rows of {"run" if len(missing) == 1 else f"{len(missing)} runs:"} {"; ".join(missing)}'
    ]
  known = [*PROTOCOLS]
  present = {row['protocol'] for row in rows}
  present = sorted(
    present, key=lambda name: (known.index(name) if name in known else len(known), name)
  )
  wanted = list([p for p in present if p not in BY_POSITION] if protocols is None else protocols)
  if not set(present) & set(wanted):
    allowed = ', '.join(present) or f'a metric that rows have, not {metric.name}'
    raise UserError(f'no rows of protocols={wanted}; allowed: {allowed}')
  notes += [f'no rows of protocol {protocol}' for protocol in wanted if protocol not in present]
  groups = defaultdict(list)
  for row in rows:
    if row['protocol'] in wanted and (controls or row['control'] is None):
      groups[
        wanted.index(row['protocol']), row['control'] or '', row['corpus'] if by_corpus else ''
      ].append(row)
  found = []
  for (protocol, control, corpus), same in sorted(groups.items()):
    found.append(Scores(wanted[protocol], control or None, metric, list(notes), corpus or None))
    found[-1].read(same, across, name, variant, asked)
  return found


def notes_of(found: list[Scores]) -> list[str]:
  """Notes of all once, then each one's own under its title."""
  shared = [note for note in found[0].notes if all(note in scores.notes for scores in found)]
  return shared + [
    f'{scores.title}: {note}' for scores in found for note in scores.notes if note not in shared
  ]


def _unique(rows: list[dict], notes: list[str]) -> list[dict]:
  first = {}
  for row in rows:
    first.setdefault(row_schema.key(row), row)
  if repeated := [row['run'] for row in rows if first[row_schema.key(row)] is not row]:
    notes.append(
      f'{len(repeated)} rows repeat a key, only the first of each counts: {every(repeated)}'
    )
  return list(first.values())


def _lines(
  rows: list[dict], name: Callable, variant: tuple[str, ...], notes: list[str]
) -> list[str]:
  """The line that each row belongs to: its name, and as much as tells it from others of that
  name.
  """
  names = [name(row) for row in rows]
  for field in variant:
    values = [json.dumps(row[field]).replace('"', '') for row in rows]
    if len(set(values)) > 1:
      notes.append(f'mixed {field}, each a line of its own: {every(values)}')
      names = [f'{line}, {field} {value}' for line, value in zip(names, values, strict=True)]
  # Seeds of one setting stay together where that tells.
  for of_run in (lambda run: re.sub(r'(^|,)seed=\d+', '', run), str):
    runs = defaultdict(set)
    for line, row in zip(names, rows, strict=True):
      runs[line, row['seed']].add(row['run'])
    crowded = sorted({line for (line, _), of_seed in runs.items() if len(of_seed) > 1})
    notes += [f'several runs of one seed, each a line of its own: {line}' for line in crowded]
    names = [
      f'{i} [{of_run(row["run"])}]' if i in crowded else i
      for i, row in zip(names, rows, strict=True)
    ]
  return names


def _cell(rows: list[dict]) -> Cell:
  ends = [row['status'] for row in rows if row['status'] != 'ok'] if rows else ['missing']
  return Cell(ends[0]) if ends else Cell('ok', tuple(rows))


def _outcomes(made: Scores, asked: Callable) -> list[str]:
  """Notes that name every cell without a score: 'beyond_table: learned at 256, 512; ...'."""
  places = defaultdict(lambda: defaultdict(list))
  for line, row in made.first.items():
    seen = {
      column
      for (of, _, column), cell in made.cells.items()
      if of == line and cell.status != 'missing'
    }
    columns = [column for column in made.columns if column in seen or asked(row, column)]
    for seed in made.seeds:
      for status in {made.cells[line, seed, column].status for column in columns} - {'ok'}:
        where = tuple(
          column for column in columns if made.cells[line, seed, column].status == status
        )
        places[status][line, where].append(seed)

  def place(line, where, seeds):
    return (
      line
      + ('' if seeds == made.seeds else f' seed {every(seeds)}')
      + ('' if list(where) == made.columns else f' at {every(where)}')
    )

  return [
    f'{status}: {"; ".join(place(*at, s) for at, s in found.items())}'
    for status, found in places.items()
  ]
