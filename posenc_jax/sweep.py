"""A sweep over a study's runs, each in a directory and processes of its own; then the tables and figures of all.

Imports no jax: a run that crashes stops no other, and what must be set before a process starts can be set.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
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

from posenc_jax import config as configs
from posenc_jax import launch, report
from posenc_jax.config import Stopped, UserError

SCRIPTS = tuple(Path(__file__).resolve().parents[1] / name for name in ('train.py', 'eval.py'))
NAME_LENGTH = 120  # characters of a directory's name
START = 'train.start_from'
POLL = 0.2  # seconds between looks at processes and logs


def sweep(
  path: str | Path, out: str | Path, overrides: dict[str, object], jobs: int = 1, scripts: tuple[Path, ...] = SCRIPTS
) -> int:
  """Runs the study in the file `path` into the folder `out` and reports on it.

  Args:
    overrides: {'dotted.path': value}, laid over every run's config.
    jobs: runs at a time.
    scripts: what fills a run's directory, one after another; each takes --config, --workdir and --config.FIELD.
  Returns:
    The exit code: 1 if a run failed, else 0.
  Raises:
    UserError: before anything is written or run. Stopped: after Ctrl-C, SIGTERM or SIGHUP.
  """
  if jobs < 1:
    raise UserError(f'--jobs={jobs}; allowed: 1 or more')
  out, console = Path(out), Console()
  runs = plan(path, out, overrides, scripts)
  wanted = report.of_study(path, out, [run.name for run in runs])
  with configs.user_errors(OSError):
    out.mkdir(parents=True, exist_ok=True)
    report.save(wanted, path)
  finished = sum(run.is_finished for run in runs)
  print(f'{out}: {len(runs)} runs' + (f', {finished} of them finished before' if finished else ''), flush=True)

  failed = execute(runs, jobs, console)
  if any(out.glob('*/eval.jsonl')):
    wanted.make_tables()
    wanted.make_figures()
  for name, reason in failed.items():
    console.print(Text(f'failed: {name}: {reason} ({out / name}/log.txt)', 'red'), soft_wrap=True)
  return 1 if failed else 0


@dataclasses.dataclass
class Run:
  """One directory and the commands that fill it, one after another; each goes on where it was interrupted."""

  workdir: Path
  commands: list[list[str]]
  config_hash: str
  start: Path | None = None  # the directory of a run of the same study, which must have ended before

  @property
  def name(self) -> str:
    return self.workdir.name

  @property
  def is_finished(self) -> bool:
    path = self.workdir / 'finished.json'
    return path.exists() and json.loads(path.read_text())['config_hash'] == self.config_hash

  @property
  def last_words(self) -> str:
    """The last line of the run's log, as a terminal shows it."""
    with open(self.workdir / 'log.txt', 'rb') as file:
      file.seek(max(0, file.seek(0, os.SEEK_END) - 4000))
      text = re.sub(r'\x1b\[[0-9;?]*[A-Za-z]', '', file.read().decode(errors='replace'))
    return ([line.strip() for line in re.split(r'[\r\n]', text) if line.strip()] or [''])[-1]


def name_of(overrides: dict[str, object]) -> str:
  """A directory's name that says its overrides; with a hash where it had to leave something out."""
  full = ','.join(f'{path}={value}' for path, value in configs.flat(overrides).items())
  name = re.sub(r'[^\w.=,+-]+', '-', full, flags=re.ASCII)
  if name == full and len(name) <= NAME_LENGTH:
    return name or 'run'
  return f'{name[: NAME_LENGTH - 9]}-{hashlib.sha256(full.encode()).hexdigest()[:8]}'


def plan(
  path: str | Path, out: str | Path, overrides: dict[str, object], scripts: tuple[Path, ...] = SCRIPTS
) -> list[Run]:
  """The runs of a study, each config loaded and checked, `overrides` laid over what the study sweeps.

  Runs that `overrides` make equal are one. A run may start from one before it in the sweep: its train.start_from is
  then that one's dict of overrides, and becomes its directory. Raises UserError, before anything is written, for a bad
  config and for a directory in `out` that holds the run of another.
  """
  study = configs.load_study(path)
  if not hasattr(study, 'sweep'):
    raise UserError(f'config: {str(path)!r} has no sweep(); allowed: a study such as configs/quick.py')
  runs = {}

  def directory(swept):
    return Path(out) / name_of({field: {**swept, **overrides}[field] for field in swept})

  for swept in study.sweep():
    settings, workdir, start = {**swept, **overrides}, directory(swept), None
    if isinstance(earlier := settings.get(START), dict):
      start = directory(earlier)
      if start not in runs:
        raise UserError(f'sweep: {START}={earlier!r}; allowed: the overrides of a run that comes before')
      settings[START] = str(start)
    config = configs.load(path, settings)
    configs.validate(config)
    if (workdir / 'config.json').exists():
      there = configs.from_json(json.loads((workdir / 'config.json').read_text()))
      if keys := configs.differing_keys(configs.training_part(there), configs.training_part(config)):
        raise UserError(f'{workdir} holds a run of another config: {", ".join(keys)} differ; allowed: another --out')
    flags = [f'--config={path}', f'--workdir={workdir}', *map(_flag, settings.items())]
    commands = [[sys.executable, str(script), *flags] for script in scripts]
    runs[workdir] = Run(workdir, commands, configs.config_hash(config), start)
  return list(runs.values())


def _flag(override: tuple[str, object]) -> str:
  path, value = override
  is_word = isinstance(value, str) and value.isidentifier() and value not in ('None', 'True', 'False')
  return f'--config.{path}={value if is_word else repr(value)}'


def execute(runs: list[Run], jobs: int, console: Console) -> dict[str, str]:
  """Runs what is not finished, `jobs` at a time, each on its share of the CPUs; returns {failed run's name: why}.

  Raises Stopped after Ctrl-C, SIGTERM or SIGHUP. However it ends, no process is left behind: a training is asked to
  stop, and saves its state.
  """
  waiting = deque(run for run in runs if not run.is_finished)
  jobs = max(1, min(jobs, len(waiting)))
  free = launch.cpu_shares(jobs)
  active, failed, seconds = [], {}, []
  columns = (TextColumn('{task.completed}/{task.total} runs'), BarColumn(), TimeElapsedColumn())
  bar = Progress(*columns, TextColumn('{task.description}'))
  task = bar.add_task('', total=len(waiting))

  def screen():
    words = [Text(f'{job.run.name}  {job.run.last_words}', 'dim', no_wrap=True, overflow='ellipsis') for job in active]
    return Group(bar, *words)

  with _interruptible(), Live(get_renderable=screen, console=console, auto_refresh=False, transient=True) as live:
    try:
      while waiting or active:
        while free and (run := _next(waiting, active)):
          waiting.remove(run)
          active.append(Job(run, free.pop()))
        for job in [job for job in active if job.is_over()]:
          active.remove(job)
          free.append(job.cpus)
          bar.advance(task)
          if job.failure:
            failed[job.run.name] = job.failure
          else:
            seconds.append(job.seconds)
          mark, style = ('✗', 'red') if job.failure else ('✓', 'green')
          text = f'{mark} {job.run.name}  {job.seconds / 60:.1f} min  {job.failure}'
          console.print(Text(text, style), soft_wrap=True)
        if seconds:
          left = sum(seconds) / len(seconds) * (len(waiting) + len(active)) - sum(job.seconds for job in active)
          bar.update(task, description=f'about {max(0.0, left) / jobs / 60:.0f} min left')
        live.refresh()
        time.sleep(POLL)
    finally:
      if active:
        console.print(f'asking {len(active)} processes to stop')
      launch.stop([job.process for job in active if job.process])
  return failed


def _next(waiting: deque[Run], active: list['Job']) -> Run | None:
  """The first run that does not start from one that is yet to end; if that one fails, this one's training says so."""
  to_end = {run.workdir for run in (*waiting, *(job.run for job in active))}
  return next((run for run in waiting if run.start not in to_end), None)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
  """Raises Stopped, with the command to go on with, for Ctrl-C and what else asks a process to end."""
  asking = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]  # nohup
  before = {number: signal.signal(number, signal.default_int_handler) for number in asking}
  try:
    yield
  except KeyboardInterrupt:
    raise Stopped(f'stopped; go on with the same command: {shlex.join(["python", *sys.argv])}', 130) from None
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


class Job:
  """A run in progress: its commands, one after another, on some of the CPUs."""

  def __init__(self, run: Run, cpus: set[int] | None):
    self.run, self.cpus, self.failure = run, cpus, ''
    self._begin = time.monotonic()
    self._commands = deque(run.commands)
    run.workdir.mkdir(parents=True, exist_ok=True)
    self._start()

  @property
  def seconds(self) -> float:
    return time.monotonic() - self._begin

  def is_over(self) -> bool:
    """Whether all is done or has failed (`failure` says how); starts the next command where one has ended well."""
    if self.failure:
      return True
    code = self.process.poll()
    if code is None:
      return False
    if code:
      self.failure = f'exit code {code}: {self.run.last_words}'
    elif self._commands:
      self._start()
      return False
    elif not self.run.is_finished:
      self.failure = 'its commands ended well, but left no finished.json of this config'
    return True

  def _start(self) -> None:
    self.process = None
    try:
      self.process = launch.run_process(self._commands.popleft(), self.run.workdir / 'log.txt', self.cpus)
    except BlockingIOError:
      self.failure = 'another process is at work in its directory'
