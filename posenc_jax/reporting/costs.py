"""What runs cost: parameters, tokens, time. Kept as rows, like scores, in costs.jsonl."""

import math
import statistics
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from posenc_jax import storage
from posenc_jax.errors import Damaged, disk_errors, visible
from posenc_jax.reporting import row_files
from posenc_jax.rows.row_schema import COUNT, COUNT_OR_NULL, FieldCheck, fault_of, is_number, text

FILE = 'costs.jsonl'
STEP_TIMES = 'step_times.jsonl'  # of lines, measured in turn: scripts/step_times.py
UNKNOWN = math.log2(62)  # bits of a character of a planted name that is not recalled
DTYPES = ('float32', 'bfloat16')

LABEL = text(200)
SECONDS = (lambda value: is_number(value) and value >= 0, 'a number from 0 on')
COSTS: dict[str, FieldCheck] = {
  # name of the run's directory
  'run': text(255),
  # name of the run's line, or of its encoding where it has no label
  'label': LABEL,
  # seed of the training
  'seed': COUNT,
  # number of parameters of the model; null where timing.jsonl does not say it
  'parameters': COUNT_OR_NULL,
  # those of them that the encoding has
  'encoding_parameters': COUNT_OR_NULL,
  # steps x batch x length of this run's own training
  'tokens': COUNT,
  # tokens that the run was trained on at a time
  'train_length': COUNT,
  # the dtype that training computed in
  'compute_dtype': (lambda value: value in DTYPES, f'one of {", ".join(DTYPES)}'),
  # the median of the logged times of steps, on the machine of the run; null where none is logged
  'seconds_per_step': (lambda value: value is None or SECONDS[0](value), f'null or {SECONDS[1]}'),
  # what a step takes beside parameters, moments and batch, as XLA counts it
  'temporary_bytes': COUNT_OR_NULL,
  # tokens until validation first had half of the bits of not knowing planted names; null: never, or
  # not measured
  'onset_tokens': COUNT_OR_NULL,
}
STEP_TIME = {'label': LABEL, 'train_length': COUNT, 'seconds_per_step': SECONDS}
TIMING = {'step': COUNT, 'seconds_per_step': SECONDS} | {
  name: COUNT_OR_NULL for name in ('parameters', 'encoding_parameters', 'temporary_bytes')
}
METRIC_CHECKS = {'step': COUNT, 'recall_bits': (is_number, 'a number')}


class Cost(NamedTuple):
  """What training a line takes, as ratios to the baseline; None where it is not on disk.

  Attributes:
    parameters: their number.
    step: the seconds of one.
    memory: the temporary bytes of one, as XLA counts them: without parameters, moments and batch.
  """

  parameters: float | None
  step: float | None
  memory: float | None


def read(folder: str | Path) -> list[dict]:
  """A row for each run in `folder`, and those that its costs.jsonl has of runs whose rows alone
  are kept there. Where there is no run, all that it has.

  Raises:
    UserError: a row or a config is wrong; its file is named. Stopped: a file cannot be read.
  """
  folder = Path(folder)
  with disk_errors(remedy=''):
    runs = [path.parent for path in storage.files_below(folder, 'timing.jsonl')]
    rows = [_of_run(run) for run in runs if storage.exists(run / 'config.json')]
    others = storage.read_rows(folder / FILE, _fault_of_costs)
    if rows:
      present = {row['run'] for row in rows}
      others = [row for row in others if row['run'] not in present]
      # not of runs that were there when costs.jsonl was written, and have been removed
      kept = _runs_of_kept_rows(folder) if others else ()
      others = [row for row in others if visible(row['run']) in kept]
    rows += others
  return [row | {name: visible(row[name]) for name in ('run', 'label')} for row in rows]


def _runs_of_kept_rows(folder: Path) -> set[str]:
  files = [folder / name for name in row_files.FILES]
  return {row['run'] for file in files if storage.exists(file) for row in row_files.read(file)}


def with_relative_steps(rows: list[dict], folder: str | Path, base: tuple[str, int]) -> list[dict]:
  """The rows with time and memory of a step relative to those of the line `base`: a label and a
  training length. Times are those that were measured in turn, where the folder has such times, else
  those of runs; None where a line has none, or the base. What is of another folder may be of
  another machine, on which neither compares.

  Raises UserError where a row is wrong.
  """
  line = lambda row: (row['label'], row['train_length'])
  fault = lambda row: fault_of(row, STEP_TIME, STEP_TIME)
  with disk_errors(remedy=''):
    measured = storage.read_rows(Path(folder) / STEP_TIMES, fault)
  if in_turn := {line(row): row['seconds_per_step'] for row in measured}:
    rows = [row | {'seconds_per_step': in_turn.get(line(row))} for row in rows]
    of_base = in_turn.get(base)
  else:
    of_base = median(row['seconds_per_step'] for row in rows if line(row) == base)
  bytes_of_base = median(row['temporary_bytes'] for row in rows if line(row) == base)
  relative = lambda value, of_base: value / of_base if value and of_base else None
  return [
    row
    | {'seconds_per_step': relative(row['seconds_per_step'], of_base)}
    | {'temporary_bytes': relative(row['temporary_bytes'], bytes_of_base)}
    for row in rows
  ]


def write_step_times(folder: str | Path, rows: list[dict]) -> None:
  """Writes step_times.jsonl anew."""
  storage.rewrite_rows(Path(folder) / STEP_TIMES, rows)


def median(values: Iterable[float | None]) -> float | None:
  """The median of what is known; None where nothing is."""
  known = [value for value in values if value is not None]
  return statistics.median(known) if known else None


def relative_costs(
  spent: Iterable[dict], runs_of: dict[str, set[str]], base: Collection[str]
) -> dict[str, Cost]:
  """{line: its cost}, relative to that of the runs `base`; `runs_of`: the runs of each line."""
  spent = list(spent)
  fields = ('parameters', 'seconds_per_step', 'temporary_bytes')

  def medians(runs):
    some = [row for row in spent if row['run'] in runs]
    return [median(row[field] for row in some) for field in fields]

  of_base = medians(base)
  return {
    line: Cost(*(a / b if a and b else None for a, b in zip(medians(runs), of_base, strict=True)))
    for line, runs in runs_of.items()
  }


def write(folder: str | Path, rows: list[dict]) -> None:
  """Writes costs.jsonl anew, if there are rows."""
  if rows:
    storage.rewrite_rows(Path(folder) / FILE, rows)


def _of_run(run: Path) -> dict:
  file = run / 'config.json'
  c = storage.read_json(file)
  timing = read_timing(run)
  seconds = seconds_of_steps(timing)
  sizes = next((row for row in timing if 'parameters' in row), {})
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
      'seconds_per_step': median(seconds),
      'temporary_bytes': sizes.get('temporary_bytes'),
      'onset_tokens': _onset(run, train['batch'] * train['length']),
    }
  except (KeyError, TypeError, IndexError) as error:
    raise Damaged(f'{file} is damaged: it is no config of a run ({error!r})') from None
  if fault := _fault_of_costs(row):
    raise Damaged(f'{file} is damaged: {fault}')
  return row


def _onset(run: Path, tokens_per_step: int) -> int | None:
  """The tokens after which validation first found planted names recalled: half of the
  bits of not knowing them. None where that was not measured, or never was so.
  """
  rows = storage.read_rows(
    run / 'metrics.jsonl', lambda row: fault_of(row, METRIC_CHECKS, ('step',))
  )
  for row in rows:
    if row.get('recall_bits', UNKNOWN) < UNKNOWN / 2:
      return row['step'] * tokens_per_step
  return None


def read_timing(run: Path) -> list[dict]:
  """The rows of a run's timing.jsonl. Raises Damaged or OSError, which name the file."""
  return storage.read_rows(run / 'timing.jsonl', lambda row: fault_of(row, TIMING, ('step',)))


def seconds_of_steps(timing: list[dict]) -> list[float]:
  """The logged times of steps in these rows; the first step compiles, and does not count."""
  return [
    row['seconds_per_step'] for row in timing if 'seconds_per_step' in row and row['step'] > 1
  ]


def _fault_of_costs(row: dict) -> str | None:
  """What is wrong with a row of costs, or None."""
  if row.keys() != COSTS.keys():
    return f'its fields are {", ".join(row)[:200]}, where {", ".join(COSTS)} must be'
  return fault_of(row, COSTS)
