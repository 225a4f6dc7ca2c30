"""The cost of each line: parameters, tokens, time. Kept as rows, like scores, in costs.jsonl."""

import math
import statistics
from collections import defaultdict
from pathlib import Path

from posenc_jax import storage
from posenc_jax.errors import Damaged, shown, visible
from posenc_jax.evaluation.row_schema import COUNT, is_count, is_number, is_text
from posenc_jax.reporting.captions import join_unique
from posenc_jax.reporting.folders import files_below, one_line_errors
from posenc_jax.reporting.metrics import DASH
from posenc_jax.reporting.table import Cell, RowGroup, Table

FILE = 'costs.jsonl'
STEP_TIMES = 'step_times.jsonl'  # of lines, measured in turn: scripts/step_times.py
LINE = ('label', 'train_length', 'parameters', 'encoding_parameters', 'tokens')
UNKNOWN = math.log2(62)  # bits of a character of a planted name that is not recalled
DTYPES = ('float32', 'bfloat16')
# For each field of a row: whether a value may stand there, and what may.
CHECKS = {
  'run': (lambda value: is_text(value, 255), 'a text of 1 to 255 characters'),
  'label': (lambda value: is_text(value, 200), 'a text of 1 to 200 characters'),
  'seed': COUNT,
  **dict.fromkeys(
    ('parameters', 'encoding_parameters'),
    (lambda value: value is None or is_count(value), f'null or {COUNT[1]}'),
  ),
  'tokens': COUNT,
  'train_length': COUNT,
  'compute_dtype': (lambda value: value in DTYPES, f'one of {", ".join(DTYPES)}'),
  'seconds_per_step': (
    lambda value: value is None or (is_number(value) and value >= 0),
    'null or a number from 0 on',
  ),
  **dict.fromkeys(
    ('temporary_bytes', 'onset_tokens'),
    (lambda value: value is None or is_count(value), f'null or {COUNT[1]}'),
  ),
}


def read(folder: str | Path) -> list[dict]:
  """A row for each run in `folder`, or the rows of its costs.jsonl where there are no runs.

  Raises:
    UserError: a row or a config is wrong; its file is named. Stopped: a file cannot be read.
  """
  folder = Path(folder)
  with one_line_errors():
    runs = [path.parent for path in files_below(folder, 'timing.jsonl')]
    rows = [_of_run(run) for run in runs if storage.exists(run / 'config.json')]
    rows = rows or storage.read_rows(folder / FILE, _fault)
  return [row | {name: visible(row[name]) for name in ('run', 'label')} for row in rows]


def with_step_times(rows: list[dict], folder: str | Path) -> list[dict]:
  """The rows with the times of steps that were measured in turn, where the folder has such times;
  then lines that were not measured have none.

  Raises UserError where a row is wrong.
  """
  file = Path(folder) / STEP_TIMES
  if not storage.exists(file):
    return rows
  with one_line_errors():
    measured = storage.read_rows(file, _fault_of_step_time)
  seconds = {(row['label'], row['train_length']): row['seconds_per_step'] for row in measured}
  return [
    row | {'seconds_per_step': seconds.get((row['label'], row['train_length']))} for row in rows
  ]


def write_step_times(folder: str | Path, rows: list[dict]) -> None:
  """Writes step_times.jsonl anew."""
  storage.rewrite_rows(Path(folder) / STEP_TIMES, rows)


def write(folder: str | Path, rows: list[dict]) -> None:
  """Writes costs.jsonl anew, if there are rows."""
  if rows:
    storage.rewrite_rows(Path(folder) / FILE, rows)


def _of_run(run: Path) -> dict:
  file = run / 'config.json'
  c = storage.read_json(file)
  timing = storage.read_rows(run / 'timing.jsonl', _fault_of_timing)
  sizes = next((row for row in timing if 'parameters' in row), {})
  seconds = [
    row['seconds_per_step'] for row in timing if 'seconds_per_step' in row and row['step'] > 1
  ]
  try:
    train = c['train']
    row = {
      'run': run.name,
      'label': c['label'] or c['encoding']['name'],
      'seed': c['seed'],
      'parameters': sizes.get('parameters'),
      'encoding_parameters': sizes.get('encoding_parameters'),
      'tokens': train['steps'] * train['batch'] * train['length'],
      'train_length': train['length'],
      'compute_dtype': train['compute_dtype'],
      'seconds_per_step': statistics.median(seconds) if seconds else None,
      'temporary_bytes': sizes.get('temporary_bytes'),
      'onset_tokens': _onset(run, train['batch'] * train['length']),
    }
  except (KeyError, TypeError, IndexError) as error:
    raise Damaged(f'{file} is damaged: it is no config of a run ({error!r})') from None
  if fault := _fault(row):
    raise Damaged(f'{file} is damaged: {fault}')
  return row


def _onset(run: Path, tokens_per_step: int) -> int | None:
  """The tokens after which validation first found planted names recalled: half of the
  bits of not knowing them. None where that was not measured, or never was so.
  """
  for row in storage.read_rows(run / 'metrics.jsonl', _fault_of_metrics):
    if row.get('recall_bits', UNKNOWN) < UNKNOWN / 2:
      return row['step'] * tokens_per_step
  return None


def _fault(row: dict) -> str | None:
  """What is wrong with a row of costs, or None."""
  if row.keys() != CHECKS.keys():
    return f'its fields are {", ".join(row)[:200]}, where {", ".join(CHECKS)} must be'
  for name, (holds, allowed) in CHECKS.items():
    if not holds(row[name]):
      return f'{name}={shown(row[name])}, where {allowed} must be'
  return None


def _fault_of_step_time(row: dict) -> str | None:
  """What is wrong with a row of step_times.jsonl, or None."""
  for name in ('label', 'train_length', 'seconds_per_step'):
    holds, allowed = CHECKS[name]
    if not holds(row.get(name)) or row.get(name) is None:
      return f'{name}={shown(row.get(name))}, where {allowed} must be'
  return None


def _fault_of_timing(row: dict) -> str | None:
  """What is wrong with the fields of a row of timing.jsonl that are read here, or None."""
  for name in ('step', 'parameters', 'encoding_parameters', 'seconds_per_step', 'temporary_bytes'):
    if name in row and not CHECKS.get(name, COUNT)[0](row[name]):
      return f'{name}={shown(row[name])}, where a number must be'
  return None if 'step' in row else 'it lacks step'


def _fault_of_metrics(row: dict) -> str | None:
  """What is wrong with the fields of a row of metrics.jsonl that are read here, or None."""
  if not COUNT[0](row.get('step')):
    return f'step={shown(row.get("step"))}, where {COUNT[1]} must be'
  if 'recall_bits' in row and not is_number(row['recall_bits']):
    return f'recall_bits={shown(row["recall_bits"])}, where a number must be'
  return None


def tables(rows: list[dict], runs: list[str]) -> list[Table]:
  """The table of costs, a line for each label and size, in a list; [] where nothing is on disk."""
  if not rows:
    return []
  rank = {run: index for index, run in enumerate(runs)}
  rows = sorted(rows, key=lambda row: rank.get(row['run'], len(runs)))
  lines = defaultdict(list)
  for row in rows:
    lines[tuple(row[field] for field in LINE)].append(row)
  has_one_length = len({row['train_length'] for row in rows}) == 1
  body = []
  for (label, train_length, *counts), of_line in lines.items():
    name = label if has_one_length else f'{label}, L = {train_length}'
    counts = [DASH if count is None else f'{count:,}' for count in counts]
    seconds = [row['seconds_per_step'] for row in of_line if row['seconds_per_step'] is not None]
    time = f'{1000 * statistics.median(seconds):.1f}' if seconds else DASH
    body.append(list(map(Cell, (name, *counts, time))))
  caption = (
    f'Cost of training. {_equality(rows, "tokens")} {_equality(rows, "parameters")} Tokens are '
    "steps x batch x length of the run's own training: without that of a run it started from, with "
    'the padding of tasks. '
    f'Computed in {join_unique(row["compute_dtype"] for row in rows)}. Step time is the median of '
    'the logged ones, on the machine of the run: of runs side by side it says little.'
  )
  known = {row['run'] for row in rows}
  notes = [f'no costs of run {run}' for run in runs if run not in known]
  if unknown := [row['run'] for row in rows if row['parameters'] is None]:
    notes.append(f'no parameter count in timing.jsonl: {join_unique(unknown)}')
  return [
    Table(
      'Cost',
      caption,
      ['encoding', 'parameters', 'of the encoding', 'tokens of the run', 'ms a step'],
      [RowGroup('', body)],
      notes,
      is_scored=False,
      records=[{'table': 'costs', **row} for row in rows],
    )
  ]


def _equality(rows: list[dict], field: str) -> str:
  """The sentence that says whether all runs have as many tokens or parameters."""
  values = [row[field] for row in rows if row[field] is not None]
  if not values:
    return f'The number of {field} is not on disk.'
  low, high = min(values), max(values)
  if low == high:
    return f'Equal {field}: {low:,}.'
  more = f', {high / low - 1:.1%} more'.replace('%', ' %') if low else ''
  return f'Unequal {field}: {low:,} to {high:,}{more}.'


def scale(rows: list[dict], runs: list[str]) -> str:
  """A sentence for captions, with a space before it, or ''.

  '0.82 to 0.98 million parameters, 2 million tokens a run, trained in float32.'
  """
  rows = [row for row in rows if not runs or row['run'] in runs]
  sizes = []
  for field, words in (('parameters', 'parameters'), ('tokens', 'tokens a run')):
    if values := [row[field] for row in rows if row[field] is not None]:
      ends = dict.fromkeys(f'{value / 1e6:.3g}' for value in (min(values), max(values)))
      sizes.append(f'{" to ".join(ends)} million {words}')
  if not sizes:
    return ''
  dtypes = join_unique(row['compute_dtype'] for row in rows)
  return f' {", ".join(sizes)}, trained in {dtypes}.'
