"""What a training writes and shows: metrics.jsonl, timing.jsonl and the progress bar."""

import math
import time
from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from posenc_jax import storage
from posenc_jax.distributed import processes
from posenc_jax.errors import UserError, not_finite
from posenc_jax.model.token_nll import BITS
from posenc_jax.training.profiler import peak_memory


class Log:
  """The rows of a training and its progress bar, one step behind the device.

  `push` takes the metrics of a step and reads those of the step before. `metrics.jsonl` is the same
  for two runs of one config; what may differ (times, memory) goes to `timing.jsonl`.
  """

  def __init__(
    self, workdir: Path, c: ConfigDict, start_step: int, unit: str, seed_dirs: list[Path]
  ):
    """Continues after `start_step`: cuts off rows of later steps, which will be made again.

    Args:
      c: the section `train` of the run's config.
      unit: of `bpb` on the screen: 'bits/byte', or 'bits/answer' of a task, which has no bytes.
      seed_dirs: the directory of each seed that is trained in the program, which gets its part of
        metrics [seeds] and of the time of a step; of one run, `workdir`, and metrics are numbers.
    Raises:
      UserError: metrics.jsonl is damaged.
    """
    self._workdir, self._config, self._unit = workdir, c, unit
    self._costs = {'model_flops_per_step': 0, 'peak_flops_per_second': None}
    self._runs = continued_rows(seed_dirs, c, start_step)
    self._pending = None
    self.restart_clock(start_step)
    self._console = Console(highlight=False, soft_wrap=True, markup=False)
    status = TextColumn('{task.fields[status]}')
    name = TextColumn('{task.fields[name]}', markup=False)
    columns = name, BarColumn(), MofNCompleteColumn(), status
    self._bar = Progress(
      *columns, TimeRemainingColumn(), console=self._console, disable=not self._console.is_terminal
    )
    fields = {'name': workdir.name, 'status': ''}
    self._task = self._bar.add_task('', total=c.steps, completed=start_step, **fields)

  def __enter__(self):
    self._bar.start()
    return self

  def __exit__(self, *_):
    self._bar.stop()
    for run in self._runs:
      for tracker in run.trackers:
        tracker.close()

  def attach_trackers(self, trackers: Iterable[list]) -> None:
    """Sends rows from now on to trackers, too: a list of them for each directory."""
    for run, run_trackers in zip(self._runs, trackers, strict=True):
      run.trackers = run_trackers

  def start(self, step: int, costs: dict) -> None:
    """Writes what the training costs, and measures the time of steps after `step` from now on."""
    self._costs = costs
    self._write_timing(step=step, **costs)
    self.restart_clock(step)

  def push(self, step: int, metrics: dict, bytes_per_token: list[float]) -> None:
    """Takes the metrics of a dispatched step and flushes those of the step before.

    bytes_per_token: of the batch of each directory; it is read where the step is logged.
    """
    self.flush()
    self._pending = (step, metrics, bytes_per_token)

  def flush(self) -> None:
    """Waits for the last step; writes its rows if they are due or its update was skipped.

    Raises `Stopped` where a metric is not finite and no more updates may be skipped.
    """
    if self._pending is None:
      return
    step, metrics, bytes_per_token = self._pending
    self._pending = None
    metrics = {name: np.atleast_1d(value) for name, value in jax.device_get(metrics).items()}
    self._bar.advance(self._task)
    rows = []
    for index, run in enumerate(self._runs):
      values = {name: float(value[index]) for name, value in metrics.items()}
      bad = [f'{name} is {value}' for name, value in values.items() if not math.isfinite(value)]
      if bad:
        # A learning rate that is not finite comes from the schedule, not from one unlucky batch.
        is_bad_batch = math.isfinite(values['learning_rate'])
        allowed = self._config.max_nonfinite_updates if is_bad_batch else 0
        self._skip(run, step, ', '.join(bad), allowed)
      elif is_logged(step, self._config):
        bpb = values['loss'] * BITS / bytes_per_token[index]
        row = {'step': step, 'loss': values['loss'], 'bpb': bpb, **values}
        run.write('training', row)
        rows.append(row)
    if rows:
      self._report(step, rows)

  def _prefix(self, run: 'RunRows') -> str:
    return '' if run.folder == self._workdir else f'{run.folder.name}: '

  def _skip(self, run: 'RunRows', step: int, reason: str, allowed: int) -> None:
    """Notes that an update was left out, or raises `Stopped` after `allowed` of them."""
    if run.num_skipped >= allowed:
      before = f'; {run.num_skipped} updates were left out before' if run.num_skipped else ''
      raise not_finite(f'{self._prefix(run)}step {step}: {reason}{before}')
    run.num_skipped += 1
    run.write('training', {'step': step, 'skipped': reason})
    line = f'{self._prefix(run)}step {step}/{self._config.steps}  {reason}: update left out'
    self._console.print(f'{line} ({run.num_skipped} of {allowed})')

  def _report(self, step: int, rows: list[dict]) -> None:
    """Writes how long the steps since the last report took, and shows the rows of this step."""
    seconds = (time.perf_counter() - self._clock) / (step - self._clock_step)
    self.restart_clock(step)
    seed_seconds = seconds / len(self._runs)
    speed = self._config.batch * self._config.length / seed_seconds
    flops, peak = self._costs['model_flops_per_step'], self._costs['peak_flops_per_second']
    mfu = None if peak is None else flops / seed_seconds / peak
    times = {'seconds_per_step': seed_seconds, 'tokens_per_second': speed, 'mfu': mfu}
    self._write_timing(step=step, **times, **peak_memory())
    loss, bpb = (' '.join(f'{row[name]:.3f}' for row in rows) for name in ('loss', 'bpb'))
    status = f'loss {loss}  {bpb} {self._unit}  {speed:,.0f} tokens/s'
    self._bar.update(self._task, status=status)
    if self._bar.disable:
      steps = self._config.steps
      minutes, seconds_left = divmod(round(seconds * (steps - step)), 60)
      self._console.print(f'step {step}/{steps}  {status}  {minutes}:{seconds_left:02d} left')

  def validation(self, step: int, measured: list[dict[str, float]]) -> None:
    """Writes rows of the validation split, {name: value} for each seed; its time counts for no
    step.

    Raises `Stopped` where a value is not finite.
    """
    for run, values in zip(self._runs, measured, strict=True):
      for value in values.values():
        if not math.isfinite(value):
          raise not_finite(f'{self._prefix(run)}step {step}: validation is {value}')
      run.write('validation', {'step': step, 'split': 'validation', **values})
    texts = [' '.join(f'{values["bpb"]:.4f}' for values in measured) + f' {self._unit}']
    if recalls := [values['recall_bits'] for values in measured if 'recall_bits' in values]:
      texts.append(f'recall {" ".join(map("{:.2f}".format, recalls))} bits/byte')
    self._console.print(f'step {step}/{self._config.steps}  validation {", ".join(texts)}')
    self.restart_clock(step)

  def restart_clock(self, step: int) -> None:
    self._clock_step, self._clock = step, time.perf_counter()

  def _write_timing(self, **fields) -> None:
    for run in self._runs:
      run.write('timing', fields)


def continued_rows(folders: list[Path], c: ConfigDict, start_step: int) -> list['RunRows']:
  """The rows of each folder up to `start_step`; those of later steps are cut off.

  Says which rows are lost. `c` is the section `train` of the config. Raises UserError where
  metrics.jsonl is damaged.
  """
  runs = [RunRows(folder) for folder in folders]
  for run in runs:
    present, run.num_skipped = processes.run_on_primary(run.truncate, start_step)
    steps = range(1, start_step + 1)
    due = {(step, False) for step in steps if is_logged(step, c)}
    due |= {(step, True) for step in steps if is_validated(step, c)}
    if lost := due - present:
      rows = f'{len(lost)} rows up to step {max(lost)[0]}'
      print(f'{run.metrics}: {rows} are lost and will not be made again')
  return runs


def is_validated(step: int, c: ConfigDict) -> bool:
  """Whether the validation split is measured after the step."""
  return step == c.steps or (c.validate_every > 0 and step % c.validate_every == 0)


def is_logged(step: int, c: ConfigDict) -> bool:
  """Whether the metrics of the step are written."""
  return step % c.log_every == 0 or step in (1, c.steps)


class RunRows:
  """The files of one run directory, and the trackers that get the same rows."""

  def __init__(self, folder: Path):
    self.folder = folder
    self.metrics, self.timing = folder / 'metrics.jsonl', folder / 'timing.jsonl'
    self.trackers = []
    self.num_skipped = 0

  def write(self, kind: str, row: dict) -> None:
    if not processes.is_primary():
      return
    storage.append_rows(self.timing if kind == 'timing' else self.metrics, [row])
    for tracker in self.trackers:
      tracker.write(kind, row)

  def truncate(self, step: int) -> tuple[set[tuple[int, bool]], int]:
    """Cuts off metrics of later steps.

    Returns (step, whether it is of the validation split) of the rows that stay, and how many
    updates were skipped.

    Raises UserError where the file is damaged.
    """
    rows = storage.read_rows(self.metrics)
    storage.read_rows(self.timing)  # if it is damaged, that should be said now and not at the end
    if any(type(row.get('step')) is not int for row in rows):
      raise UserError(f'{self.metrics} is damaged: a row has no step; allowed: without that row')
    kept = [row for row in rows if row['step'] <= step]
    if len(kept) < len(rows):
      storage.rewrite_rows(self.metrics, kept)
    present = {(row['step'], 'split' in row) for row in kept}
    return present, sum('skipped' in row for row in kept)
