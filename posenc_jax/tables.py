"""The extrapolation table, made from rows and nothing else: encodings down, evaluation lengths across.

A score is a sum of nats over documents, divided once, for each seed; a line is the mean and the standard deviation of
its seeds' scores. What cannot be compared is never averaged: it gets a line of its own or a dash, and a note names it.
"""

import dataclasses
import json
import math
import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from posenc_jax import records
from posenc_jax.config import UserError, nearest, user_errors

METRICS = {'bpb': ('Bits per byte', '{:.3f}'), 'ppl': ('Perplexity per token', '{:.2f}')}
PROTOCOLS = {
  'last_k': 'last_k, the last {k} tokens of windows that end at the same targets at every length',
  'blocks': 'blocks, windows that do not overlap, so that every token is scored once',
}
CONTROLS = {None: '', 'windowed': '; attention windowed at the training length'}
TASK = ('corpus', 'split', 'stride', 'k', 'overrides')  # where these are equal, the same tokens are scored at a length
VARIANT = (*TASK, 'train_length', 'step')  # equal along a line
DASH = '—'
UNSEEN = ('missing', 'incomplete')  # outcomes of a run that has not been evaluated to the end


class Cell(NamedTuple):
  """What one seed of a line scored at one length: sums over documents if `status` is 'ok', or else the outcome."""

  status: str
  nats: float = 0.0
  tokens: int = 0
  bytes: int = 0
  documents: int = 0

  def scores(self, metric: str) -> list[float]:
    """One score, or none."""
    if self.status != 'ok':
      return []
    return [math.exp(self.nats / self.tokens) if metric == 'ppl' else self.nats / self.bytes / math.log(2)]


@dataclasses.dataclass
class Table:
  """One protocol under one control. `cells` has every (line, seed, length), `notes` all that is amiss."""

  protocol: str
  control: str | None
  metric: str
  caption: str
  train_lengths: list[int]
  lengths: list[int]
  lines: list[str]
  seeds: list[int]
  cells: dict[tuple[str, int, int], Cell]
  notes: list[str]

  @property
  def title(self) -> str:
    return f'Extrapolation, {self.protocol}' + (f', {self.control}' if self.control else '')

  def scores(self, line: str, length: int) -> list[float]:
    """Of the seeds that have one; of none if one came to another end, because the mean of the others would flatter."""
    cells = [self.cells[line, seed, length] for seed in self.seeds]
    if any(cell.status not in ('ok', *UNSEEN) for cell in cells):
      return []
    return [score for cell in cells for score in cell.scores(self.metric)]

  def text(self, scores: list[float]) -> str:
    """'mean ± standard deviation' (the latter of two or more scores), or a dash."""
    number = METRICS[self.metric][1].format
    spread = f' ± {number(statistics.stdev(scores))}' if len(scores) > 1 else ''
    return number(statistics.fmean(scores)) + spread if scores else DASH

  def header(self) -> list[str]:
    return ['encoding', *(f'{n} (L)' if [n] == self.train_lengths else str(n) for n in self.lengths)]

  def body(self, style: Callable[[str, bool], object]) -> list[list]:
    """`style(text, is_best)` of every field; the best of a column are all that print like the lowest mean."""
    columns = [[style(line, False) for line in self.lines]]
    for length in self.lengths:
      scores = [self.scores(line, length) for line in self.lines]
      means = [self.text([statistics.fmean(s)]) if s else None for s in scores]
      best = min(((statistics.fmean(s), mean) for s, mean in zip(scores, means, strict=True) if s), default=(0, ''))[1]
      columns.append([style(self.text(s), mean == best) for s, mean in zip(scores, means, strict=True)])
    return [list(line) for line in zip(*columns, strict=True)]


def read(path: str | Path) -> list[dict]:
  """The rows of a file, or of a folder's `rows.jsonl[.gz]`, `eval.jsonl` and `*/eval.jsonl`. UserError for none."""
  path = Path(path)
  patterns = ('rows.jsonl*', 'eval.jsonl', '*/eval.jsonl')
  files = [path] if path.is_file() else [file for pattern in patterns for file in sorted(path.glob(pattern))]
  with user_errors(ValueError):
    rows = [row for file in files for row in records.read(file)]
  if not rows:
    raise UserError(f'{path}: no rows; allowed: a folder with runs (RUN/eval.jsonl) or with rows.jsonl, or such a file')
  if lacking := [name for name in (*records.KEY, *records.VALUES) if not all(name in row for row in rows)]:
    raise UserError(f'{path}: a row lacks {", ".join(lacking)}; allowed: rows as records.row makes them')
  return rows


def extrapolation(
  rows: Iterable[dict],
  runs: Iterable[str] = (),
  protocols: Iterable[str] | None = None,
  metric: str = 'bpb',
  controls: bool = True,
) -> list[Table]:
  """A table for each protocol (None: all that rows have), each followed by one for every control it has rows of.

  `runs` are those that should be there, in the order of the lines. Raises UserError for an unknown metric or where no
  row is of these protocols.
  """
  runs = list(runs)
  if metric not in METRICS:
    raise UserError(f'table: metric={metric!r}; {nearest(metric, METRICS)}')
  rank = {run: index for index, run in enumerate(runs)}
  rows = sorted((r for r in rows if r['metric'] is None), key=lambda row: rank.get(row['run'], len(runs)))
  missing = [run for run in runs if run not in {row['run'] for row in rows}]
  notes = (
    [f'no rows of {"run" if len(missing) == 1 else f"{len(missing)} runs:"} {"; ".join(missing)}'] if missing else []
  )
  present = dict.fromkeys(row['protocol'] for row in rows)
  wanted = list(present if protocols is None else protocols)
  if not present.keys() & wanted:
    raise UserError(f'table: no rows of protocols={wanted}; allowed: {", ".join(present)}')
  notes += [f'no rows of protocol {protocol}' for protocol in wanted if protocol not in present]
  tables = []
  for protocol in wanted:
    for control in sorted({r['control'] for r in rows if r['protocol'] == protocol}, key=lambda name: name or ''):
      if control is None or controls:
        same = [r for r in rows if (r['protocol'], r['control']) == (protocol, control)]
        tables.append(_table(same, protocol, control, metric, list(notes)))
  return tables


def _table(rows: list[dict], protocol: str, control: str | None, metric: str, notes: list[str]) -> Table:
  rows = _unique(rows, notes)
  names = _lines(rows, notes)
  parts = defaultdict(list)
  for line, row in zip(names, rows, strict=True):
    parts[line, row['seed'], row['length']].append(row)
  lines = list(dict.fromkeys(names))
  seeds = sorted({seed for _, seed, _ in parts})
  lengths = sorted({length for _, _, length in parts})
  cells = {(i, s, n): _cell(parts.get((i, s, n), [])) for i in lines for s in seeds for n in lengths}
  task = {line: json.dumps([row[f] for f in TASK]) for line, row in zip(names, rows, strict=True)}
  whole = defaultdict(int)
  for (line, _, length), cell in cells.items():
    whole[task[line], length] = max(whole[task[line], length], cell.tokens)
  for (line, seed, length), cell in cells.items():
    if cell.status == 'ok' and cell.tokens < whole[task[line], length]:
      cells[line, seed, length] = Cell('incomplete')
  notes += _outcomes(cells, lines, seeds, lengths)

  scored = [cell for cell in cells.values() if cell.status == 'ok']
  how = PROTOCOLS.get(protocol, protocol).format(k=_all(row['k'] for row in rows))
  seed_text = f'{"Mean ± standard deviation over seeds" if len(seeds) > 1 else "Seed"} {_all(seeds)}'
  corpus, split, steps, train_length = (_all(r[f] for r in rows) for f in ('corpus', 'split', 'step', 'train_length'))
  documents = f' of {_all(cell.documents for cell in scored)} documents' if any(c.documents for c in scored) else ''
  caption = (
    f'{METRICS[metric][0]}; {how}{CONTROLS.get(control, f"; {control}")}. {seed_text}. '
    f'Trained for {steps} steps at length L = {train_length}. {corpus}, {split} split: '
    f'{_all(f"{cell.tokens:,}" for cell in scored)} tokens{documents}. '
    'Lower is better; what holds at this scale need not hold at another.'
  )
  train_lengths = sorted({row['train_length'] for row in rows})
  return Table(protocol, control, metric, caption, train_lengths, lengths, lines, seeds, cells, notes)


def _all(values: Iterable[object]) -> str:
  """The different values, in order."""
  return ', '.join(sorted(map(str, set(values)), key=lambda text: (len(text), text)))


def _unique(rows: list[dict], notes: list[str]) -> list[dict]:
  first = {}
  for row in rows:
    first.setdefault(records.key(row), row)
  if repeated := [row['run'] for row in rows if first[records.key(row)] is not row]:
    notes.append(f'{len(repeated)} rows repeat a key, only the first of each counts: {_all(repeated)}')
  return list(first.values())


def _lines(rows: list[dict], notes: list[str]) -> list[str]:
  """The line that each row belongs to: its label, and as much as tells it from others of that label."""
  labels = [row['label'] for row in rows]
  for field in VARIANT:
    values = [json.dumps(row[field]).replace('"', '') for row in rows]
    if len(set(values)) > 1:
      notes.append(f'mixed {field}, each a line of its own: {_all(values)}')
      labels = [f'{label}, {field} {value}' for label, value in zip(labels, values, strict=True)]
  for name in (lambda run: re.sub(r'(^|,)seed=\d+', '', run), str):  # seeds of one setting stay together, if that tells
    runs = defaultdict(set)
    for label, row in zip(labels, rows, strict=True):
      runs[label, row['seed']].add(row['run'])
    crowded = sorted({label for (label, _), of_seed in runs.items() if len(of_seed) > 1})
    notes += [f'several runs of one seed, each a line of its own: {label}' for label in crowded]
    labels = [f'{i} [{name(row["run"])}]' if i in crowded else i for i, row in zip(labels, rows, strict=True)]
  return labels


def _cell(rows: list[dict]) -> Cell:
  ends = [row['status'] for row in rows if row['status'] != 'ok'] if rows else ['missing']
  if ends:
    return Cell(ends[0])
  nats = math.fsum(row['nats'] for row in rows)
  tokens, size = (sum(row[field] for row in rows) for field in ('tokens', 'bytes'))
  return Cell('ok', nats, tokens, size, len({row['document'] for row in rows} - {None}))


def _outcomes(cells: dict, lines: list[str], seeds: list[int], lengths: list[int]) -> list[str]:
  """Notes that name every cell without a score: 'beyond_table: learned at 256, 512; ...'."""
  places = defaultdict(lambda: defaultdict(list))
  for line in lines:
    for seed in seeds:
      for status in {cells[line, seed, length].status for length in lengths} - {'ok'}:
        where = tuple(length for length in lengths if cells[line, seed, length].status == status)
        places[status][line, where].append(seed)

  def place(line, where, of_seeds):
    return (
      line
      + ('' if of_seeds == seeds else f' seed {_all(of_seeds)}')
      + ('' if list(where) == lengths else f' at {_all(where)}')
    )

  return [f'{status}: {"; ".join(place(*at, s) for at, s in found.items())}' for status, found in places.items()]
