"""What a training writes and shows: metrics.jsonl, timing.jsonl, the progress bar; and how it is
told to stop.
"""

import math
import time
from pathlib import Path

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from posenc_jax import jsonl_store
from posenc_jax.distributed import processes
from posenc_jax.errors import Stopped, user_errors
from posenc_jax.model.token_nll import BITS
from posenc_jax.training.profiler import peak_memory


class Log:
  """Rows of a training and its progress bar, one step behind the device: `push` reads the metrics
  of the step before.

  `metrics.jsonl` is the same for two runs of one config; what may differ (times, memory) goes to
  `timing.jsonl`.
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
      unit: what `bpb` is called on the screen: 'bits/byte', or of a task, which has no bytes,
        'bits/answer'.
      skips: how many updates may be left out, as the metrics say that they are not finite.
      members: the directories of seeds that are trained at once: each gets its part of metrics [S],
        and the time of a step is shared out among them. None: `workdir`, and metrics are numbers.
    Raises:
      UserError: metrics.jsonl is damaged.
    """
    self._steps, self._every, self._tokens, self._skips = steps, every, tokens_per_step, skips
    self._are_several, self._rows = (
      members is not None,
      [Rows(folder) for folder in members or [workdir]],
    )
    for rows in self._rows:
      there, rows.skipped = processes.first(rows.truncate, start)
      if lost := [step for step in range(1, start + 1) if self._is_due(step) and step not in there]:
        print(
          f'{rows.metrics}: {len(lost)} rows up to step {lost[-1]} are lost and will not be made again'
        )
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
    """Takes the metrics that step `step` will have, and reads those of the step before. Raises
    `Stopped`.
    """
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
      row = {
        name: float(value[n] if self._are_several else value) for name, value in metrics.items()
      }
      if bad := [f'{name} is {value}' for name, value in row.items() if not math.isfinite(value)]:
        self._skip(
          rows,
          step,
          ', '.join(bad),
          allowed=self._skips if math.isfinite(row['learning_rate']) else 0,
        )
      elif self._is_due(step):
        made.append(
          {'step': step, 'loss': row['loss'], 'bpb': row['loss'] * BITS / bytes_per_token[n], **row}
        )
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
      raise Stopped(
        f'{why_stopped}; {before}training stopped, and checkpoints are from steps before that'
      )
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
    self.timing(
      step=step, seconds_per_step=share, tokens_per_second=speed, mfu=mfu, **peak_memory()
    )
    loss, bpb = (' '.join(f'{row[name]:.3f}' for row in made) for name in ('loss', 'bpb'))
    status = f'loss {loss}  {bpb} {self._unit}  {speed:,.0f} tokens/s'
    self._bar.update(self._task, status=status)
    if self._bar.disable:
      left = round(seconds * (self._steps - step))
      self._console.print(f'step {step}/{self._steps}  {status}  {left // 60}:{left % 60:02d} left')

  def validation(self, step: int, bpb: list[float]) -> None:
    """Writes rows of the validation split, and lets the time it took count for no step. Raises
    `Stopped`.
    """
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
    self.folder, self.metrics, self.timing = (
      folder,
      folder / 'metrics.jsonl',
      folder / 'timing.jsonl',
    )
    self.loggers, self.skipped = [], 0

  def write(self, kind: str, row: dict) -> None:
    if not processes.is_first():
      return
    jsonl_store.append(self.timing if kind == 'timing' else self.metrics, [row])
    for logger in self.loggers:
      logger.write(kind, row)

  def truncate(self, step: int) -> tuple[set[int], int]:
    """Cuts off rows of later steps; returns training's steps that are there, and how many were
    skipped. UserError.
    """
    with user_errors(ValueError):
      rows = jsonl_store.read(self.metrics)
    kept = [row for row in rows if row['step'] <= step]
    if len(kept) < len(rows):
      jsonl_store.rewrite(self.metrics, kept)
    return {row['step'] for row in kept if 'split' not in row}, sum(
      'skipped' in row for row in kept
    )

  def close(self) -> None:
    for logger in self.loggers:
      logger.close()
