"""A sweep over a study's runs: a directory and processes of its own for each, then the table and figures of them all.

Imports no jax: a run that crashes stops no other, and what must be set before a process starts can be set.
"""

import contextlib
import dataclasses
import hashlib
import inspect
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from posenc_jax import config as configs
from posenc_jax import figures, launch, render, tables
from posenc_jax.config import UserError, nearest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = (ROOT / 'train.py', ROOT / 'eval.py')
NAME_LENGTH = 120  # characters of a directory's name


@dataclasses.dataclass
class Run:
  """One directory and the commands that fill it, in order; each goes on where it was interrupted."""

  name: str
  workdir: Path
  commands: list[list[str]]
  config_hash: str

  @property
  def is_finished(self) -> bool:
    path = self.workdir / 'finished.json'
    return path.exists() and json.loads(path.read_text())['config_hash'] == self.config_hash

  def last_words(self) -> str:
    """The last line of the run's log as a terminal would show it, or ''."""
    with contextlib.suppress(FileNotFoundError), open(self.workdir / 'log.txt', 'rb') as file:
      file.seek(max(0, file.seek(0, os.SEEK_END) - 4000))
      text = re.sub(r'\x1b\[[0-9;?]*[A-Za-z]', '', file.read().decode(errors='replace'))
      return next((line.strip() for line in reversed(re.split(r'[\r\n]', text)) if line.strip()), '')
    return ''


def name_of(overrides: dict[str, object]) -> str:
  """A directory's name that says its overrides; with a hash where it had to leave something out."""
  full = ','.join(f'{path}={value}' for path, value in configs.flat(overrides).items())
  name = re.sub(r'[^\w.=,+-]+', '-', full, flags=re.ASCII)
  if name == full and len(name) <= NAME_LENGTH:
    return name or 'run'
  return f'{name[: NAME_LENGTH - 9]}-{hashlib.sha256(full.encode()).hexdigest()[:8]}'


def plan(
  path: str | Path, out: str | Path, overrides: dict[str, object], scripts: tuple[Path, Path] = SCRIPTS
) -> list[Run]:
  """The runs of a study, each config loaded and checked, `overrides` laid over what the study sweeps.

  Runs that `overrides` make equal are one. Raises UserError, before anything is written, for a bad config and for a
  directory in `out` that holds a run of another.
  """
  study = configs.load_study(path)
  if not hasattr(study, 'sweep'):
    raise UserError(f'config: {str(path)!r} has no sweep(); allowed: a study such as configs/quick.py')
  runs = {}
  for swept in study.sweep():
    name = name_of({field: overrides.get(field, value) for field, value in swept.items()})
    settings = {**swept, **overrides}
    config = configs.load(path, settings)
    configs.validate(config)
    workdir = Path(out) / name
    evaluation = _changed_evaluation(config, workdir)
    train, evaluate = ([sys.executable, str(script)] for script in scripts)
    commands = [
      [*train, f'--config={path}', f'--workdir={workdir}', *map(_flag, settings.items())],
      [*evaluate, f'--workdir={workdir}', *map(_flag, evaluation.items())],
    ]
    runs[name] = Run(name, workdir, commands, configs.config_hash(config))
  return list(runs.values())


def _flag(item: tuple[str, object]) -> str:
  return f'--config.{item[0]}={item[1]!r}'


def _changed_evaluation(config, workdir: Path) -> dict[str, object]:
  """What the directory's run must be evaluated with instead of what it was made with."""
  if not (workdir / 'config.json').exists():
    return {}
  saved = configs.from_json(json.loads((workdir / 'config.json').read_text()))
  if keys := configs.differing_keys(configs.training_part(saved), configs.training_part(config)):
    raise UserError(f'{workdir} holds a run of another config, differing in {", ".join(keys)}; allowed: another --out')
  return {key: configs.flat(config)[key] for key in configs.differing_keys(saved, config)}


def execute(runs: list[Run], jobs: int, console: Console) -> dict[str, str]:
  """Runs what is not finished, `jobs` at a time, each on its share of the CPUs; returns {failed run's name: why}.

  However this ends, no process is left behind: they are asked to stop, and a training then saves its state.
  """
  waiting = deque(run for run in runs if not run.is_finished)
  free = launch.cpu_shares(jobs)
  active, failed, seconds = [], {}, []
  bar = Progress(
    TextColumn('{task.completed}/{task.total} runs'),
    BarColumn(),
    TimeElapsedColumn(),
    TextColumn('{task.fields[left]}'),
    console=console,
  )
  task = bar.add_task('', total=len(waiting), left='')

  def screen():
    return Group(bar, *(Text(f'{job.run.name}  {job.run.last_words()}', 'dim', no_wrap=True) for job in active))

  show = Live(get_renderable=screen, console=console, auto_refresh=False, transient=True)
  with show if console.is_terminal else contextlib.nullcontext():
    try:
      while waiting or active:
        while free and waiting:
          active.append(Job(waiting.popleft(), free.pop()))
        for job in [job for job in active if job.is_over()]:
          active.remove(job)
          free.append(job.cpus)
          seconds.append(job.seconds)
          bar.advance(task)
          if job.failure:
            failed[job.run.name] = job.failure
          console.print(job.report(), style='red' if job.failure else 'green', markup=False, highlight=False)
        if seconds:
          left = sum(seconds) / len(seconds) * (len(waiting) + len(active)) - sum(job.seconds for job in active)
          bar.update(task, left=f'about {max(0, left) / jobs / 60:.0f} min left')
        if console.is_terminal:
          show.refresh()
        time.sleep(0.1)
    finally:
      launch.stop([job.process for job in active])
  return failed


class Job:
  """A run in progress: its commands, one after another, on some of the CPUs."""

  def __init__(self, run: Run, cpus: set[int] | None):
    self.run, self.cpus, self.process, self.failure = run, cpus, None, ''
    self._begin = time.monotonic()
    self._commands = deque(run.commands)
    run.workdir.mkdir(parents=True, exist_ok=True)
    self._start()

  @property
  def seconds(self) -> float:
    return time.monotonic() - self._begin

  def is_over(self) -> bool:
    """Starts the next command when one has ended well; True, and `failure` set if it failed, when there is none."""
    if self.process is not None and self.process.poll() is None:
      return False
    if self.process is not None and self.process.returncode:
      self.failure = f'exit code {self.process.returncode}: {self.run.last_words()}'
    elif self._commands and not self.failure:
      self._start()
      return False
    elif not self.failure and not self.run.is_finished:
      self.failure = 'its commands ended well, but it has no finished.json of this config'
    return True

  def _start(self) -> None:
    try:
      self.process = launch.run_process(self._commands.popleft(), self.run.workdir / 'log.txt', self.cpus)
    except BlockingIOError:
      self.process, self.failure = None, 'another process is at work in its directory'


def sweep(
  path: str | Path,
  out: str | Path,
  overrides: dict[str, object],
  jobs: int = 1,
  scripts: tuple[Path, Path] = SCRIPTS,
) -> int:
  """Runs a study into the folder `out` and reports on it; returns 1 if a run failed, else 0.

  Raises UserError as `plan` does, and Stopped after Ctrl-C, SIGTERM or SIGHUP.
  """
  if jobs < 1:
    raise UserError(f'--jobs={jobs}; allowed: 1 or more')
  out, console = Path(out), screen()
  runs = plan(path, out, overrides, scripts)
  check_report(configs.load_study(path))
  with configs.user_errors(OSError):
    out.mkdir(parents=True, exist_ok=True)
  inside = Path(path).resolve().is_relative_to(ROOT)
  where = Path(path).resolve().relative_to(ROOT) if inside else Path(path).resolve()
  (out / 'study.json').write_text(json.dumps({'study': where.as_posix(), 'runs': [run.name for run in runs]}) + '\n')
  ready = sum(run.is_finished for run in runs)
  console.print(f'{out}: {len(runs)} runs, {ready} of them finished before', highlight=False)
  for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.default_int_handler)
  try:
    failed = execute(runs, jobs, console)
  except KeyboardInterrupt:
    raise Stopped(f'stopped; go on with the same command: {shlex.join(["python", *sys.argv])}', 130) from None
