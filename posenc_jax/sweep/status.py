"""How far the runs of a study are.

All is read from files on disk, so it does not matter what launched the runs, and on which machine.
"""

import collections
import dataclasses
import itertools
import socket
import statistics
import time
from collections.abc import Collection
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from posenc_jax import storage
from posenc_jax.errors import UserError
from posenc_jax.reporting import costs
from posenc_jax.sweep.plan import PlannedRun, RunState, printable
from posenc_jax.training import run_dir

STATE_COLORS = {
  'done': 'green',
  'running': 'cyan',
  'stopped': 'yellow',
  'failed': 'red',
  'waiting': 'dim',
  'unknown': 'magenta',
}
# Seconds without a new line in its log after which a process on another machine is taken for ended.
SILENCE = 600.0
BETWEEN_COMMANDS = 0.5  # seconds, more than a run is between two of its commands


@dataclasses.dataclass
class Status:
  """How far one run is.

  Attributes:
    state: one of STATE_COLORS. 'stopped' is a run that was begun and that nobody is at; the same
      command goes on with it. 'unknown' is one whose files are damaged, cannot be read or are of
      another config.
    step: updates made, of all its seeds together; if nobody is at the run, those that are saved.
    seconds_per_token: the median of what its training logged; None if it has logged nothing yet.
    note: why it is in this state, or where it is running.
  """

  run: PlannedRun
  state: str
  step: int
  seconds_per_token: float | None
  note: str

  @property
  def is_over(self) -> bool:
    return self.state in ('done', 'failed')

  def training_left(self, typical: float | None) -> float | None:
    """Seconds, at the run's own seconds a token, or else at `typical`."""
    speed = typical if self.seconds_per_token is None else self.seconds_per_token
    steps = 0 if self.state == 'done' else self.run.steps - self.step
    if not steps:
      return 0.0
    return None if speed is None else steps * _tokens_per_step(self.run) * speed


def read_status(run: PlannedRun) -> Status:
  """Reads the run's directory; what is damaged there, or cannot be read, is named in the note."""
  try:
    if storage.exists(run.workdir / 'config.json'):
      run = dataclasses.replace(run, config=run_dir.as_begun(run.config, run.workdir))
      run_dir.check_same_config(run.workdir, run.config, 'another --out')
    return _read_status(run)
  except (UserError, OSError) as error:
    return Status(run, 'unknown', 0, None, printable(str(error)))


def _read_status(run: PlannedRun) -> Status:
  state, note = _state_and_note(run, run.read_state())
  timing_by_seed = [costs.read_timing(folder) for folder in run.results]
  seconds = costs.seconds_of_steps(list(itertools.chain(*timing_by_seed)))
  speed = statistics.median(seconds) / _tokens_per_step(run) if seconds else None
  if state == 'done':
    step = run.steps
  elif state == 'running' and any(timing_by_seed):
    step = sum(rows[-1]['step'] for rows in timing_by_seed if rows)
  else:  # seeds train one after another, or in one program
    one_by_one = sum(_last_checkpoint(folder) for folder in run.results)
    step = max(one_by_one, len(run.config.seeds) * _last_checkpoint(run.workdir))
  return Status(run, state, step, speed, note)


def _state_and_note(run: PlannedRun, written: RunState) -> tuple[str, str]:
  if run.is_finished:
    return 'done', ''
  if run.is_at_work() or (written.state == 'running' and _is_at_work_elsewhere(run, written)):
    job = f', job {written.job}' if written.job else ''
    return 'running', f'on {written.host}{job}' if written.host else ''
  if written.state == 'running':
    return 'stopped', 'the same command goes on'
  if written.state == 'failed':
    return 'failed', written.reason
  if written.state == 'queued':
    return 'waiting', written.reason or 'in the queue'
  if written.state == 'ended' or storage.exists(run.log):
    return 'stopped', 'the same command goes on'
  return 'waiting', '' if run.init_from is None else f'starts from {run.init_from.name}'


def _is_at_work_elsewhere(run: PlannedRun, written: RunState) -> bool:
  """Whether a process on another machine is at a run that says so: locks need not reach from
  machine to machine.
  """
  if written.host == socket.gethostname() or not storage.exists(run.log):
    return False
  return time.time() - run.log.stat().st_mtime < SILENCE


def _tokens_per_step(run: PlannedRun) -> int:
  return run.config.train.batch * run.config.train.length


def _last_checkpoint(folder: Path) -> int:
  """The step of the last checkpoint; 0 if there is none."""
  return max(run_dir.checkpoint_steps(folder), default=0)


def time_left(statuses: list[Status]) -> tuple[float | None, bool]:
  """Seconds until all is done, if as many runs as now stay at work (at least one).

  Also returns whether evaluation is counted: for each run the median of what it took those that are
  done, over all their starts. The seconds are None if nothing is to be done, or if no run has
  logged a speed yet.
  """
  to_do = [s for s in statuses if not s.is_over]
  typical = costs.median(s.seconds_per_token for s in statuses)
  trainings = [s.training_left(typical) for s in to_do]
  if not to_do or None in trainings:
    return None, False
  states = [s.run.read_state() for s in statuses if s.state == 'done']
  evaluations = [state.seconds['eval'] for state in states if 'eval' in state.seconds]
  evaluation = statistics.median(evaluations) if evaluations else 0.0
  seconds = [training + evaluation for training in trainings]
  running = max(1, sum(s.state == 'running' for s in to_do))
  return max(*seconds, sum(seconds) / running, 0.0), bool(evaluations)


def duration(seconds: float) -> str:
  """'40 s', '12 min', '3.5 h'."""
  if seconds < 90:
    return f'{seconds:.0f} s'
  return f'{seconds / 60:.0f} min' if seconds < 5400 else f'{seconds / 3600:.1f} h'


def print_table(runs: list[PlannedRun], console: Console, kept: Collection[str] = ()) -> None:
  """Prints a line for each run, and one for all; `kept` names the runs whose rows are kept, which
  a sweep leaves out.
  """
  of_kept = lambda run: Status(run, 'done', run.steps, None, 'kept')
  statuses = [of_kept(run) if run.name in kept else read_status(run) for run in runs]
  if any(s.state == 'stopped' for s in statuses):  # or between two of its commands
    time.sleep(BETWEEN_COMMANDS)
    of_runs = zip(runs, statuses, strict=True)
    statuses = [read_status(run) if s.state == 'stopped' else s for run, s in of_runs]
  typical = costs.median(s.seconds_per_token for s in statuses)
  table = Table(box=None, pad_edge=False, header_style='bold')
  columns = {'run': 'left', 'state': 'left', 'step': 'right', 'training left': 'right', '': 'left'}
  for name, justify in columns.items():
    table.add_column(name, justify=justify, overflow='fold')
  for s in statuses:
    left = None if s.is_over else s.training_left(typical)
    left = '' if left is None else duration(left)
    state = Text(s.state, STATE_COLORS[s.state])
    table.add_row(s.run.name, state, f'{s.step}/{s.run.steps}', left, Text(s.note))
  console.print(table)
  counts = collections.Counter(s.state for s in statuses)
  numbers = ', '.join(f'{counts[state]} {state}' for state in STATE_COLORS if counts[state])
  line = f'{len(statuses)} runs: {numbers}'
  seconds, has_evaluation = time_left(statuses)
  if seconds is not None:
    evaluation = f'evaluation {"included" if has_evaluation else "not counted"}'
    running = max(1, counts['running'])
    line += f'; about {duration(seconds)} left with {running} at a time, {evaluation}'
  console.print(Text(line), soft_wrap=True)
