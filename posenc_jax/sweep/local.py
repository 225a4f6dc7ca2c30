"""Runs as processes of this machine.

A sweep that is killed leaves its processes at work. The same command takes them over: it waits for
them, and then goes on with what is left of their runs.
"""

import contextlib
import signal
import subprocess
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from posenc_jax.cli.process import interrupts, same_command
from posenc_jax.errors import Stopped
from posenc_jax.sweep import subprocesses
from posenc_jax.sweep.plan import PlannedRun
from posenc_jax.sweep.status import duration

POLL = 0.2  # seconds between looks at processes and logs
SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP  # which stop a sweep


def execute(runs: list[PlannedRun], jobs: int, console: Console) -> dict[str, str]:
  """Executes the runs that are not finished, `jobs` at a time, each on its share of the CPUs.

  Runs that an earlier sweep left at work count among the `jobs`, and come first. However it ends,
  no process is left behind but one of an earlier sweep that is out of reach, of which a line says
  so: a training is asked to stop, and saves its state.

  Returns {failed run's name: why}. Raises Stopped after Ctrl-C, SIGTERM or SIGHUP.
  """
  to_do = [run for run in runs if not run.is_finished]
  waiting = deque(sorted(to_do, key=lambda run: not run.is_at_work()))
  jobs = max(1, min(jobs, len(waiting)))
  free_cpus = subprocesses.cpu_partition(jobs)
  active, failed, durations = [], {}, []
  columns = (TextColumn('{task.completed}/{task.total} runs'), BarColumn(), TimeElapsedColumn())
  bar = Progress(*columns, TextColumn('{task.description}'))
  bar_task = bar.add_task('', total=len(waiting))

  def screen():
    lines = [f'{job.run.name}  {job.run.last_log_line()}' for job in active]
    texts = [Text(line, 'dim', no_wrap=True, overflow='ellipsis') for line in lines]
    return Group(bar, *texts)

  live = Live(get_renderable=screen, console=console, auto_refresh=False, transient=True)
  with interruptible(f'stopped; go on with {same_command()}'), live:
    try:
      while waiting or active:
        while free_cpus and (run := _next(waiting, active)):
          waiting.remove(run)
          job = Job(run, _take_share(free_cpus, run), jobs)
          active.append(job)
          if not job.process:
            say(console, f'{run.name}: waiting for the process that is at work on it')
        over = [job for job in active if job.is_over()]
        for job in over:
          active.remove(job)
          free_cpus.append(job.cpus)
          bar.advance(bar_task)
          if job.failure:
            failed[job.run.name] = job.failure
          else:
            durations.append(job.seconds)
          print_end(console, job.run, duration(job.seconds), job.failure)
        if durations:
          mean = sum(durations) / len(durations)
          left = mean * (len(waiting) + len(active)) - sum(job.seconds for job in active)
          bar.update(bar_task, description=f'about {max(0.0, left) / jobs / 60:.0f} min left')
        live.refresh()
        time.sleep(POLL)
    finally:
      started = [job for job in active if job.process]
      _stop(to_do, {job.run.log: job.process for job in started}, console)
      for job in started:
        job.write_state('running')  # for the seconds: that it has stopped, its lock tells
  return failed


def _take_share(free_cpus: list[set[int] | None], run: PlannedRun) -> set[int] | None:
  """Takes the CPUs on which a process is at work on the run, if they are a free share; else one."""
  cpus = subprocesses.Orphan(run.log).cpus()
  return free_cpus.pop(free_cpus.index(cpus) if cpus in free_cpus else -1)


def _stop(runs: list[PlannedRun], started: dict[Path, subprocess.Popen], console: Console) -> None:
  """Asks the processes of these runs to stop: those {log: process} started here, and orphans."""
  orphans = [subprocesses.Orphan(run.log) for run in runs if run.log not in started]
  orphans = [orphan for orphan in orphans if orphan.poll() is None]
  within_reach = [orphan for orphan in orphans if orphan.is_within_reach()]
  if processes := [*started.values(), *within_reach]:
    say(
      console,
      f'asking {len(processes)} processes to stop: a training ends its step and saves its state, '
      'which may take minutes; Ctrl-C again kills them',
    )
  for orphan in orphans:
    if orphan not in within_reach:
      say(console, f'{orphan.log}: its process is out of reach from here, and goes on')
  subprocesses.stop(processes)


def _next(waiting: deque[PlannedRun], active: list['Job']) -> PlannedRun | None:
  """The first run that starts from no run that is yet to end.

  If the one that it starts from has failed, its own training says so.
  """
  to_end = {run.workdir for run in (*waiting, *(job.run for job in active))}
  return next((run for run in waiting if run.init_from not in to_end), None)


def print_end(console: Console, run: PlannedRun, spent: str, failure: str) -> None:
  mark, style = ('✗', 'red') if failure else ('✓', 'green')
  say(console, f'{mark} {run.name}  {spent}  {failure}', style)


def say(console: Console, line: str, style: str = '') -> None:
  console.print(Text(line, style), soft_wrap=True)


@contextlib.contextmanager
def interruptible(message: str) -> Iterator[None]:
  """Raises Stopped with the message after Ctrl-C, SIGTERM, or SIGHUP without nohup.

  These end what is inside as Ctrl-C does.
  """
  with interrupts(*SIGNALS) as received:
    try:
      yield
    except KeyboardInterrupt:
      raise Stopped(message, 128 + (received or [signal.SIGINT])[0]) from None


class Job:
  """A run in progress: its commands, started one after another on some of the CPUs.

  Where another process is at work on the run already, its end is waited for first.

  Attributes:
    process: that of the command at work; None where another process is at work on the run.
    failure: why the run has failed; '' if it has not.
  """

  def __init__(self, run: PlannedRun, cpus: set[int] | None, jobs: int = 1, **state_fields: str):
    """`jobs`: how many are in progress at a time on this machine. `state_fields` are added to all
    that is written to the run's state.json.
    """
    self.run, self.cpus, self.failure, self.process = run, cpus, '', None
    self._jobs = jobs
    self._state_fields = state_fields
    # Of each script, over all starts of the run, without the command at work: `_start` sets it.
    self._seconds = {}
    self._begin = self._begin_command = time.monotonic()
    self._commands = deque(run.commands)
    run.workdir.mkdir(parents=True, exist_ok=True)
    self._start()

  @property
  def seconds(self) -> float:
    return time.monotonic() - self._begin

  def is_over(self) -> bool:
    """Whether the run has ended or failed; starts the next command if one has ended."""
    if self.process is None:
      if self.run.is_at_work():
        return False
      if not self.run.is_finished:
        self._start()  # the command that found the other process; it does what that has left
        return False
      self.write_state('ended')
      return True
    code = self.process.poll()
    if code is None:
      return False
    if code:
      self.failure = f'exit code {code}: {self.run.last_log_line()}'
    elif self._commands:
      self._start()
      return False
    elif not self.run.is_finished:
      self.failure = 'its commands ended well, but left no finished.json of this config'
    self.write_state('failed' if self.failure else 'ended', reason=self.failure)
    return True

  def write_state(self, state: str, **fields: str) -> None:
    """Writes the run's state.json, with the time of the command that is at work or has ended."""
    self.run.write_state(state, seconds=self._seconds_by_now(), **self._state_fields, **fields)

  def _seconds_by_now(self) -> dict[str, float]:
    if self.process is None:  # another launcher may have written others since
      written = self.run.read_state().seconds
      return written | {
        script: max(spent, written.get(script, 0.0)) for script, spent in self._seconds.items()
      }
    script = Path(self.process.args[1]).stem
    spent = self._seconds.get(script, 0.0) + time.monotonic() - self._begin_command
    return self._seconds | {script: spent}

  def _start(self) -> None:
    """Starts the next command, if no other process is at work on the run."""
    self._seconds = self._seconds_by_now()
    self.process, self._begin_command = None, time.monotonic()
    try:
      self.process = subprocesses.run_process(
        self._commands[0], self.run.log, self.cpus, self._jobs
      )
    except BlockingIOError:  # the state.json of the other process stays
      return
    self._commands.popleft()
    # without the command that has just begun: if this process is killed, its time is not known
    self.run.write_state('running', seconds=self._seconds, **self._state_fields)
