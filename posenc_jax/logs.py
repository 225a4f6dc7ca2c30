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

from posenc_jax import processes, records
from posenc_jax.config import Stopped, user_errors

BITS = 1 / math.log(2)  # a nat


class Log:
  """Rows of a training and its progress bar, one step behind the device: `push` reads the metrics of the step before.

  `metrics.jsonl` is the same for two runs of one config; what may differ (times, memory) goes to `timing.jsonl`.
  """

  def __init__(
    self, workdir: Path, start: int, steps: int, every: int, tokens_per_step: int, unit: str, skips: int = 0
  ):
    """Continues after step `start`: rows of later steps, which will be made again, are cut off.

    Args:
      every: steps from row to row.
      unit: what `bpb` is called on the screen: 'bits/byte', or of a task, which has no bytes, 'bits/answer'.
      skips: how many updates may be left out, as the metrics say that they are not finite.
    Raises:
      UserError: metrics.jsonl is damaged.
    """
    self._metrics, self._timing = workdir / 'metrics.jsonl', workdir / 'timing.jsonl'
    self._steps, self._every, self._tokens, self._skips = steps, every, tokens_per_step, skips
    with user_errors(ValueError):
      rows = processes.first(_truncate, self._metrics, start)
    self._skipped = sum('skipped' in row for row in rows)
    there = {row['step'] for row in rows if 'split' not in row}
    if lost := [step for step in range(1, start + 1) if self._is_due(step) and step not in there]:
      print(f'{self._metrics}: {len(lost)} rows up to step {lost[-1]} are lost and will not be made again')
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
    self._loggers, self._flops = [], (0, None)

  def __enter__(self):
    self._bar.start()
    return self

  def __exit__(self, *_):
    self._bar.stop()
    for logger in self._loggers:
      logger.close()

  def tell(self, loggers: list, flops: int, peak: float | None) -> None:
    """From now on, rows go to `loggers` too (posenc_jax.loggers), and say what part of `peak` FLOP/s steps reach."""
    self._loggers, self._flops = loggers, (flops, peak)

  def _write(self, kind: str, path: Path, row: dict) -> None:
    if not processes.is_first():
      return
    records.append(path, [row])
    for logger in self._loggers:
      logger.write(kind, row)

  def push(self, step: int, metrics: dict, bytes_per_token: float) -> None:
    """Takes the metrics that step `step` will have, and reads those of the step before. Raises `Stopped`."""
    self.flush()
    self._pending = (step, metrics, bytes_per_token)

  def flush(self) -> None:
    """Waits for the last step and writes its row if it is due, or if its update was left out.

    Raises `Stopped` where its loss is not finite, and no more updates may be left out.
    """
    if self._pending is None:
      return
    step, metrics, bytes_per_token = self._pending
    self._pending = None
    row = {name: float(value) for name, value in jax.device_get(metrics).items()}
    self._bar.advance(self._task)
    if bad := [f'{name} is {value}' for name, value in row.items() if not math.isfinite(value)]:
      self._skip(step, ', '.join(bad), allowed=self._skips if math.isfinite(row['learning_rate']) else 0)
    elif self._is_due(step):
      row = {'step': step, 'loss': row['loss'], 'bpb': row['loss'] * BITS / bytes_per_token, **row}
      self._write('training', self._metrics, row)
      self._report(row)

  def _is_due(self, step: int) -> bool:
    return step % self._every == 0 or step in (1, self._steps)

  def _skip(self, step: int, why: str, allowed: int) -> None:
    if self._skipped >= allowed:
      before = f'{self._skipped} updates were left out before; ' if self._skipped else ''
      raise Stopped(f'step {step}: {why}; {before}training stopped, and checkpoints are from steps before that')
    self._skipped += 1
    self._write('training', self._metrics, {'step': step, 'skipped': why})
    self._console.print(f'step {step}/{self._steps}  {why}: update left out ({self._skipped} of {self._skips})')

  def _report(self, row: dict) -> None:
    now, step = time.perf_counter(), row['step']
    seconds = (now - self._clock) / (step - self._timed)
    speed = self._tokens / seconds
    self._timed, self._clock = step, now
    flops, peak = self._flops
    mfu = None if peak is None else flops / seconds / peak
    self.timing(step=step, seconds_per_step=seconds, tokens_per_second=speed, mfu=mfu, **peak_memory())
    status = f'loss {row["loss"]:.3f}  {row["bpb"]:.3f} {self._unit}  {speed:,.0f} tokens/s'
    self._bar.update(self._task, status=status)
    if self._bar.disable:
      left = round(seconds * (self._steps - step))
      self._console.print(f'step {step}/{self._steps}  {status}  {left // 60}:{left % 60:02d} left')

  def validation(self, step: int, bpb: float) -> None:
    """Writes a row of the validation split, and lets the time it took count for no step. Raises `Stopped`."""
    if not math.isfinite(bpb):
      raise Stopped(f'step {step}: validation is {bpb}; training stopped, and checkpoints are from steps before that')
    self._write('validation', self._metrics, {'step': step, 'split': 'validation', 'bpb': bpb})
    self._console.print(f'step {step}/{self._steps}  validation {bpb:.4f} {self._unit}')
    self.restart_clock(step)

  def restart_clock(self, step: int) -> None:
    """Times from now on, after `step`."""
    self._timed, self._clock = step, time.perf_counter()

  def timing(self, **fields) -> None:
    self._write('timing', self._timing, fields)


def _truncate(path: Path, step: int) -> list[dict]:
  rows = records.read(path)
  kept = [row for row in rows if row['step'] <= step]
  if len(kept) < len(rows):
    new = path.with_name(path.name + '.new')
    new.unlink(missing_ok=True)
    records.append(new, kept)
    os.replace(new, path)
  return kept


def peak_memory() -> dict[str, int | None]:
  """The most bytes held so far: by this process, and on the first device where jax counts them (not on CPUs)."""
  kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == 'linux' else 1024)
  stats = jax.local_devices()[0].memory_stats() or {'peak_bytes_in_use': None}
  return {'peak_process_bytes': round(1024 * kilobytes), 'peak_device_bytes': stats['peak_bytes_in_use']}


class Trace:
  """`with Trace(workdir, (N, M)) as trace`: jax.profiler records steps N to M, or those of them that are made."""

  def __init__(self, workdir: Path, steps: tuple[int, ...]):
    self._folder, self._is_on = workdir / 'profile', False
    self._steps = steps if processes.is_first() else ()

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
