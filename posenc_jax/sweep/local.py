"""Runs as processes of this machine."""

import codecs
import contextlib
import shlex
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from posenc_jax.errors import Stopped
from posenc_jax.sweep import subprocesses
from posenc_jax.sweep.plan import Run

POLL = 0.2  # seconds between looks at processes and logs


def execute(runs: list[Run], jobs: int, console: Console, follow: bool = False) -> dict[str, str]:
  """Runs what is not finished, `jobs` at a time, each on its share of the CPUs; returns {failed
  run's name: why}.

  With `follow`, what runs write to their logs is shown, instead of a bar and their last lines.
  Raises Stopped after Ctrl-C, SIGTERM or SIGHUP. However it ends, no process is left behind: a
  training is asked to stop, and saves its state.
  """
  waiting = deque(run for run in runs if not run.is_finished)
  jobs = max(1, min(jobs, len(waiting)))
  free = subprocesses.cpu_shares(jobs)
  active, failed, seconds = [], {}, []
  columns = (TextColumn('{task.completed}/{task.total} runs'), BarColumn(), TimeElapsedColumn())
  bar = Progress(*columns, TextColumn('{task.description}'))
  task = bar.add_task('', total=len(waiting))

  def screen():
    if follow:
      return Group()
    words = [
      Text(f'{job.run.name}  {job.run.last_words}', 'dim', no_wrap=True, overflow='ellipsis')
      for job in active
    ]
    return Group(bar, *words)

  live = Live(get_renderable=screen, console=console, auto_refresh=False, transient=True)
  with interruptible(f'stopped; go on with {same_command()}'), live:
    try:
      while waiting or active:
        while free and (run := _next(waiting, active)):
          waiting.remove(run)
          active.append(Job(run, free.pop()))
        over = [job for job in active if job.is_over()]
        if follow:
          for job in active:
            sys.stdout.write(job.new_output())
          sys.stdout.flush()
        for job in over:
          active.remove(job)
          free.append(job.cpus)
          bar.advance(task)
          if job.failure:
            failed[job.run.name] = job.failure
          else:
            seconds.append(job.seconds)
          say_over(console, job.run, f'{job.seconds / 60:.1f} min', job.failure)
        if seconds:
          left = sum(seconds) / len(seconds) * (len(waiting) + len(active)) - sum(
            job.seconds for job in active
          )
          bar.update(task, description=f'about {max(0.0, left) / jobs / 60:.0f} min left')
        live.refresh()
        time.sleep(POLL)
    finally:
      if active:
        console.print(f'asking {len(active)} processes to stop')
      subprocesses.stop([job.process for job in active if job.process])
  return failed


def _next(waiting: deque[Run], active: list['Job']) -> Run | None:
  """The first run that does not start from one that is yet to end; if that one fails, this one's
  training says so.
  """
  to_end = {run.workdir for run in (*waiting, *(job.run for job in active))}
  return next((run for run in waiting if run.start not in to_end), None)


def say_over(console: Console, run: Run, how_long: str, failure: str) -> None:
  mark, style = ('✗', 'red') if failure else ('✓', 'green')
  console.print(Text(f'{mark} {run.name}  {how_long}  {failure}', style), soft_wrap=True)


def same_command() -> str:
  return f'the same command: {shlex.join(["python", *sys.argv])}'


@contextlib.contextmanager
def interruptible(message: str) -> Iterator[None]:
  """Raises Stopped with the message for Ctrl-C and what else asks a process to end."""
  # nohup
  asking = [
    number
    for number in (signal.SIGTERM, signal.SIGHUP)
    if signal.getsignal(number) != signal.SIG_IGN
  ]
  before = {number: signal.signal(number, signal.default_int_handler) for number in asking}
  try:
    yield
  except KeyboardInterrupt:
    raise Stopped(message, 130) from None
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


class Job:
  """A run in progress: its commands, one after another, on some of the CPUs. `where` goes into its
  state.json.
  """

  def __init__(self, run: Run, cpus: set[int] | None, **where: str):
    self.run, self.cpus, self.failure = run, cpus, ''
    self._where, self._times = where, {}  # seconds of each script that has ended
    self._begin = self._begin_command = time.monotonic()
    self._commands = deque(run.commands)
    run.workdir.mkdir(parents=True, exist_ok=True)
    log = run.workdir / 'log.txt'
    self._shown = log.stat().st_size if log.exists() else 0
    self._decode = codecs.getincrementaldecoder('utf-8')('replace').decode
    self._start()

  @property
  def seconds(self) -> float:
    return time.monotonic() - self._begin

  def new_output(self) -> str:
    """What the run has written to its log since the last call."""
    with open(self.run.workdir / 'log.txt', 'rb') as file:
      file.seek(self._shown)
      text = file.read()
    self._shown += len(text)
    return self._decode(text)

  def is_over(self) -> bool:
    """Whether all is done or has failed (`failure` says how); starts the next command where one has
    ended well.
    """
    if self.failure:
      return True
    code = self.process.poll()
    if code is None:
      return False
    self._times[Path(self.process.args[1]).stem] = time.monotonic() - self._begin_command
    if code:
      self.failure = f'exit code {code}: {self.run.last_words}'
    elif self._commands:
      self._start()
      return bool(self.failure)
    elif not self.run.is_finished:
      self.failure = 'its commands ended well, but left no finished.json of this config'
    self._note('failed' if self.failure else 'ended', reason=self.failure)
    return True

  def _note(self, state: str, **fields) -> None:
    self.run.note(state, seconds=self._times, **self._where, **fields)

  def _start(self) -> None:
    self.process, self._begin_command = None, time.monotonic()
    try:
      self.process = subprocesses.run_process(
        self._commands.popleft(), self.run.workdir / 'log.txt', self.cpus
      )
    except BlockingIOError:  # that one's state.json stays
      self.failure = 'another process is at work in its directory'
    else:
      self._note('running')
