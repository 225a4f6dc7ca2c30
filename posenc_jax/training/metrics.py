"""What a training writes and shows: metrics.jsonl, timing.jsonl and the progress bar."""

import math
import os
import time
from pathlib import Path

import jax
from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from posenc_jax import jsonl_store
from posenc_jax.distributed import processes
from posenc_jax.errors import Stopped, user_errors
from posenc_jax.model.token_nll import BITS
from posenc_jax.training.profiler import peak_memory


class Log:
  """The rows of a training and its progress bar, one step behind the device.

  `push` takes the metrics of a step and reads those of the step before. `metrics.jsonl` is the same
  for two runs of one config; what may differ (times, memory) goes to `timing.jsonl`.
  """

  def __init__(
    self,
    workdir: Path,
    train_config: ConfigDict,
    start_step: int,
    unit: str,
    seed_dirs: list[Path] | None = None,
    model_flops: int = 0,
    peak_flops: float | None = None,
  ):
    """Continues after `start_step`: cuts off rows of later steps, which will be made again.

    Args:
      train_config: the section `train` of the run's config.
      unit: of `bpb` on the screen: 'bits/byte', or 'bits/answer' of a task, which has no bytes.
      seed_dirs: directories of seeds that are trained in one program. Metrics then have an axis
        [S], each directory gets the rows of its seed, and the time of a step is divided by S.
        None: rows go to `workdir`, and metrics are numbers.
      model_flops: FLOPs of one step of one seed.
      peak_flops: FLOP/s that the devices can reach; None: unknown, and so is the utilization.
    Raises:
      UserError: metrics.jsonl is damaged.
    """
    self._config = train_config
    self._unit = unit
    self._model_flops = model_flops
    self._peak_flops = peak_flops
    self._has_seed_axis = seed_dirs is not None
    self._runs = [RunRows(folder) for folder in seed_dirs or [workdir]]
    for run in self._runs:
      present, run.num_skipped = processes.run_on_primary(run.truncate, start_step)
      due = filter(self._is_due, range(1, start_step + 1))
      if lost := [step for step in due if step not in present]:
        print(
          f'{run.metrics}: {len(lost)} rows up to step {lost[-1]} are lost '
          'and will not be made again'
        )
    self._pending = None
    self.restart_clock(start_step)
    self._console = Console(highlight=False, soft_wrap=True)
    self._bar = Progress(
      TextColumn(workdir.name),
      BarColumn(),
      MofNCompleteColumn(),
      TextColumn('{task.fields[status]}'),
      TimeRemainingColumn(),
      console=self._console,
      disable=not self._console.is_terminal,
    )
    self._task = self._bar.add_task('', total=train_config.steps, completed=start_step, status='')

  def __enter__(self):
    self._bar.start()
    return self

  def __exit__(self, *_):
    self._bar.stop()
    for run in self._runs:
      run.close()

  def attach_trackers(self, trackers: list[list]) -> None:
    """Sends rows from now on to trackers, too: a list of them for each directory."""
    for run, run_trackers in zip(self._runs, trackers, strict=True):
      run.trackers = run_trackers

  def push(self, step: int, metrics: dict, bytes_per_token: list[float]) -> None:
    """Takes the metrics of a dispatched step and flushes those of the step before."""
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
    metrics = jax.device_get(metrics)
    self._bar.advance(self._task)
    rows = []
    for index, run in enumerate(self._runs):
      values = {
        name: float(value[index] if self._has_seed_axis else value)
        for name, value in metrics.items()
      }
      bad = [f'{name} is {value}' for name, value in values.items() if not math.isfinite(value)]
      if bad:
        # A learning rate that is not finite comes from the schedule, not from one unlucky batch.
        is_skippable = math.isfinite(values['learning_rate'])
        self._skip(run, step, ', '.join(bad), is_skippable)
      elif self._is_due(step):
        bpb = values['loss'] * BITS / bytes_per_token[index]
        row = {'step': step, 'loss': values['loss'], 'bpb': bpb, **values}
        run.write('training', row)
        rows.append(row)
    if rows:
      self._report(step, rows)

  def _is_due(self, step: int) -> bool:
    return step % self._config.log_every == 0 or step in (1, self._config.steps)

  def _prefix(self, run: 'RunRows') -> str:
    return f'{run.folder.name}: ' if self._has_seed_axis else ''

  def _skip(self, run: 'RunRows', step: int, reason: str, is_skippable: bool) -> None:
    """Notes an update that the step has left out, or raises `Stopped` if that may not be."""
    allowed = self._config.max_nonfinite_updates
    if run.num_skipped >= (allowed if is_skippable else 0):
      before = f'{run.num_skipped} updates were left out before; ' if run.num_skipped else ''
      raise Stopped(
        f'{self._prefix(run)}step {step}: {reason}; {before}training stopped, '
        'and checkpoints are from steps before that'
      )
    run.num_skipped += 1
    run.write('training', {'step': step, 'skipped': reason})
    self._console.print(
      f'{self._prefix(run)}step {step}/{self._config.steps}  {reason}: '
      f'update left out ({run.num_skipped} of {allowed})'
    )

  def _report(self, step: int, rows: list[dict]) -> None:
    """Writes how long the steps since the last report took, and shows the rows of this step."""
    seconds = (time.perf_counter() - self._clock) / (step - self._clock_step)
    self.restart_clock(step)
    seed_seconds = seconds / len(self._runs)
    speed = self._config.batch * self._config.length / seed_seconds
    peak = self._peak_flops
    self.timing(
      step=step,
      seconds_per_step=seed_seconds,
      tokens_per_second=speed,
      mfu=None if peak is None else self._model_flops / seed_seconds / peak,
      **peak_memory(),
    )
    loss, bpb = (' '.join(f'{row[name]:.3f}' for row in rows) for name in ('loss', 'bpb'))
    status = f'loss {loss}  {bpb} {self._unit}  {speed:,.0f} tokens/s'
    self._bar.update(self._task, status=status)
    if self._bar.disable:
      steps = self._config.steps
      minutes, seconds_left = divmod(round(seconds * (steps - step)), 60)
      self._console.print(f'step {step}/{steps}  {status}  {minutes}:{seconds_left:02d} left')

  def validation(self, step: int, bpb: list[float]) -> None:
    """Writes rows of the validation split; its time counts for no step.

    Raises `Stopped` where a value is not finite.
    """
    for run, value in zip(self._runs, bpb, strict=True):
      if not math.isfinite(value):
        raise Stopped(
          f'{self._prefix(run)}step {step}: validation is {value}; training stopped, '
          'and checkpoints are from steps before that'
        )
      run.write('validation', {'step': step, 'split': 'validation', 'bpb': value})
    values = ' '.join(f'{value:.4f}' for value in bpb)
    self._console.print(f'step {step}/{self._config.steps}  validation {values} {self._unit}')
    self.restart_clock(step)

  def restart_clock(self, step: int) -> None:
    """Measures the time of steps after `step` from now on."""
    self._clock_step, self._clock = step, time.perf_counter()

  def timing(self, **fields) -> None:
    for run in self._runs:
      run.write('timing', fields)


class RunRows:
  """The files of one run directory, and the trackers that get the same rows."""

  def __init__(self, folder: Path):
    self.folder = folder
    self.metrics = folder / 'metrics.jsonl'
    self.timing = folder / 'timing.jsonl'
    self.trackers = []
    self.num_skipped = 0

  def write(self, kind: str, row: dict) -> None:
    if not processes.is_primary():
      return
    jsonl_store.append(self.timing if kind == 'timing' else self.metrics, [row])
    for tracker in self.trackers:
      tracker.write(kind, row)

  def truncate(self, step: int) -> tuple[set[int], int]:
    """Cuts off metrics of later steps; returns the steps that stay and how many were skipped.

    Raises UserError where the file is damaged.
    """
    with user_errors(ValueError):
      rows = jsonl_store.read(self.metrics)
    kept = [row for row in rows if row['step'] <= step]
    if len(kept) < len(rows):
      new = self.metrics.with_name(self.metrics.name + '.new')
      new.unlink(missing_ok=True)
      jsonl_store.append(new, kept)
      os.replace(new, self.metrics)
    training_steps = {row['step'] for row in kept if 'split' not in row}
    return training_steps, sum('skipped' in row for row in kept)

  def close(self) -> None:
    for tracker in self.trackers:
      tracker.close()
