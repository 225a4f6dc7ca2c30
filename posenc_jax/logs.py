"""What a training writes and shows: metrics.jsonl, timing.jsonl, the progress bar; and how it is told to stop."""

import math
import os
import resource
import shlex
import signal
import sys
import threading
import time
from pathlib import Path

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from posenc_jax import records
from posenc_jax.config import Stopped, user_errors

BITS = 1 / math.log(2)  # a nat


class Log:
  """Rows of a training and its progress bar, one step behind the device: `push` reads the metrics of the step before.

  `metrics.jsonl` is the same for two runs of one config; what may differ (times, memory) goes to `timing.jsonl`.
  """

  def __init__(
    self,
    workdir: Path,
    start: int,
    steps: int,
    every: int,
    tokens_per_step: int,
    unit: str,
    skips: int = 0,
    members: list[Path] | None = None,
  ):
    """Continues after step `start`: rows of later steps, which will be made again, are cut off.

    Args:
      every: steps from row to row.
      unit: what `bpb` is called on the screen: 'bits/byte', or of a task, which has no bytes, 'bits/answer'.
      skips: how many updates may be left out, as the metrics say that they are not finite.
      members: the directories of seeds that are trained at once: each gets its part of metrics [S], and the time of a
        step is shared out among them. None: `workdir`, and metrics are numbers.
    Raises:
      UserError: metrics.jsonl is damaged.
    """
    self._steps, self._every, self._tokens, self._skips = steps, every, tokens_per_step, skips
    self._are_several, self._rows = members is not None, [Rows(folder) for folder in members or [workdir]]
    for rows in self._rows:
      there = rows.truncate(start)
      if lost := [step for step in range(1, start + 1) if self._is_due(step) and step not in there]:
        print(f'{rows.metrics}: {len(lost)} rows up to step {lost[-1]} are lost and will not be made again')
    self._pending, self._unit = None, unit
    self._timed, self._clock = start, time.perf_counter()
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
    self._task = self._bar.add_task('', total=steps, completed=start, status='')
    self._flops = (0, None)

  def __enter__(self):
    self._bar.start()
    return self

  def __exit__(self, *_):
    self._bar.stop()
    for rows in self._rows:
      rows.close()

  def tell(self, loggers: list[list], flops: int, peak: float | None) -> None:
    """From now on, rows of each directory go to its `loggers` too (posenc_jax.loggers).

    Args:
      flops: of one step of one seed; rows say what part of `peak` FLOP/s steps reach.
    """
    self._flops = flops, peak
    for rows, some in zip(self._rows, loggers, strict=True):
      rows.loggers = some

  def push(self, step: int, metrics: dict, bytes_per_token: list[float]) -> None:
    """Takes the metrics that step `step` will have, and reads those of the step before. Raises `Stopped`."""
    self.flush()
    self._pending = (step, metrics, bytes_per_token)

  def flush(self) -> None:
    """Waits for the last step and writes its rows if they are due, or if an update was left out.

    Raises `Stopped` where a loss is not finite, and no more updates may be left out.
    """
    if self._pending is None:
      return
    step, metrics, bytes_per_token = self._pending
    self._pending, made = None, []
    metrics = jax.device_get(metrics)
    self._bar.advance(self._task)
    for n, rows in enumerate(self._rows):
      row = {name: float(value[n] if self._are_several else value) for name, value in metrics.items()}
      if bad := [f'{name} is {value}' for name, value in row.items() if not math.isfinite(value)]:
        self._skip(rows, step, ', '.join(bad), allowed=self._skips if math.isfinite(row['learning_rate']) else 0)
      elif self._is_due(step):
        made.append({'step': step, 'loss': row['loss'], 'bpb': row['loss'] * BITS / bytes_per_token[n], **row})
        rows.write('training', made[-1])
    if made:
      self._report(step, made)

  def _is_due(self, step: int) -> bool:
    return step % self._every == 0 or step in (1, self._steps)

  def _whose(self, rows: 'Rows') -> str:
    return f'{rows.folder.name}: ' if self._are_several else ''

  def _skip(self, rows: 'Rows', step: int, why: str, allowed: int) -> None:
    why_stopped = f'{self._whose(rows)}step {step}: {why}'
    if rows.skipped >= allowed:
      before = f'{rows.skipped} updates were left out before; ' if rows.skipped else ''
      raise Stopped(f'{why_stopped}; {before}training stopped, and checkpoints are from steps before that')
    rows.skipped += 1
    rows.write('training', {'step': step, 'skipped': why})
    said = f'{self._whose(rows)}step {step}/{self._steps}  {why}: update left out ({rows.skipped} of {self._skips})'
    self._console.print(said)

  def _report(self, step: int, made: list[dict]) -> None:
    now = time.perf_counter()
    seconds = (now - self._clock) / (step - self._timed)
    share = seconds / len(self._rows)
    speed = self._tokens / share
    self._timed, self._clock = step, now
    flops, peak = self._flops
    mfu = None if peak is None else flops / share / peak
    self.timing(step=step, seconds_per_step=share, tokens_per_second=speed, mfu=mfu, **peak_memory())
    loss, bpb = (' '.join(f'{row[name]:.3f}' for row in made) for name in ('loss', 'bpb'))
    status = f'loss {loss}  {bpb} {self._unit}  {speed:,.0f} tokens/s'
    self._bar.update(self._task, status=status)
    if self._bar.disable:
      left = round(seconds * (self._steps - step))
      self._console.print(f'step {step}/{self._steps}  {status}  {left // 60}:{left % 60:02d} left')

  def validation(self, step: int, bpb: list[float]) -> None:
    """Writes rows of the validation split, and lets the time it took count for no step. Raises `Stopped`."""
    for rows, value in zip(self._rows, bpb, strict=True):
      if not math.isfinite(value):
        what = f'{self._whose(rows)}step {step}: validation is {value}'
        raise Stopped(f'{what}; training stopped, and checkpoints are from steps before that')
      rows.write('validation', {'step': step, 'split': 'validation', 'bpb': value})
    values = ' '.join(f'{value:.4f}' for value in bpb)
    self._console.print(f'step {step}/{self._steps}  validation {values} {self._unit}')
    self.restart_clock(step)

  def restart_clock(self, step: int) -> None:
    """Times from now on, after `step`."""
    self._timed, self._clock = step, time.perf_counter()

  def timing(self, **fields) -> None:
    for rows in self._rows:
      rows.write('timing', fields)


class Rows:
  """The files of one directory, and the loggers that get the same."""

  def __init__(self, folder: Path):
    self.folder, self.metrics, self.timing = folder, folder / 'metrics.jsonl', folder / 'timing.jsonl'
    self.loggers, self.skipped = [], 0

  def write(self, kind: str, row: dict) -> None:
    records.append(self.timing if kind == 'timing' else self.metrics, [row])
    for logger in self.loggers:
      logger.write(kind, row)

  def truncate(self, step: int) -> set[int]:
    """Cuts off rows of later steps; returns the steps of training that are there. Raises UserError."""
    with user_errors(ValueError):
      rows = records.read(self.metrics)
    kept = [row for row in rows if row['step'] <= step]
    if len(kept) < len(rows):
      new = self.metrics.with_name(self.metrics.name + '.new')
      new.unlink(missing_ok=True)
      records.append(new, kept)
      os.replace(new, self.metrics)
    self.skipped = sum('skipped' in row for row in kept)
    return {row['step'] for row in kept if 'split' not in row}

  def close(self) -> None:
    for logger in self.loggers:
      logger.close()


def peak_memory() -> dict[str, int | None]:
  """The most bytes held so far: by this process, and on the first device where jax counts them (not on CPUs)."""
  kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == 'linux' else 1024)
  stats = jax.local_devices()[0].memory_stats() or {'peak_bytes_in_use': None}
  return {'peak_process_bytes': round(1024 * kilobytes), 'peak_device_bytes': stats['peak_bytes_in_use']}


class Trace:
  """`with Trace(workdir, (N, M)) as trace`: jax.profiler records steps N to M, or those of them that are made."""

  def __init__(self, workdir: Path, steps: tuple[int, ...]):
    self._folder, self._steps, self._is_on = workdir / 'profile', steps, False

  def before(self, step: int) -> None:
    if not self._is_on and self._steps and self._steps[0] <= step <= self._steps[1]:
      jax.profiler.start_trace(str(self._folder))
      self._is_on = True

  def after(self, step: int, metrics: dict) -> bool:
    """Whether the trace ended with this step: then it has waited for the device and written files."""
    if not self._is_on or step < self._steps[1]:
      return False
    jax.block_until_ready(metrics)
    self._stop()
    return True

  def _stop(self) -> None:
    if self._is_on:
      self._is_on = False
      jax.profiler.stop_trace()
      print(f'{self._folder}: trace of steps {self._steps[0]} to {self._steps[1]}, for TensorBoard or Perfetto')

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._stop()


class StopRequest:
  """`with StopRequest() as stop`: SIGTERM or Ctrl-C set `stop.signal`; a second one ends the process at once.

  Python's handlers wait until a step, or whatever else the main thread computes, is over: a thread sees the second one.
  """

  signal = None

  def __enter__(self):
    seen, self._told = os.pipe()
    os.set_blocking(self._told, False)
    self._before = {number: signal.signal(number, self._request) for number in (signal.SIGTERM, signal.SIGINT)}
    self._fd_before = signal.set_wakeup_fd(self._told, warn_on_full_buffer=False)
    threading.Thread(target=self._watch, args=[seen], daemon=True).start()
    return self

  def _request(self, number, frame):
    del frame
    self.signal = number

  def _watch(self, seen: int) -> None:
    asked = 0
    while byte := os.read(seen, 1):
      asked += byte[0] in self._before
      if asked == 2:
        Console().show_cursor()  # a progress bar hides it
        print(
          f'{signal.Signals(byte[0]).name} again: ended at once; the same command goes on', file=sys.stderr, flush=True
        )
        os._exit(128 + byte[0])
    os.close(seen)

  def __exit__(self, *_):
    signal.set_wakeup_fd(self._fd_before)
    for number, handler in self._before.items():
      signal.signal(number, handler)
    os.close(self._told)

  def error(self, step: int) -> Stopped:
    command = shlex.join(['python', *sys.argv])
    name = signal.Signals(self.signal).name
    return Stopped(f'{name}: step {step} is saved; go on with the same command: {command}', 128 + self.signal)
