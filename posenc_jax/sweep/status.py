"""How far the runs of a study are: from files on disk alone, so whatever launched them, and from
any machine.
"""

import collections
import dataclasses
import itertools
import re
import socket
import statistics
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from posenc_jax import jsonl_store
from posenc_jax.sweep import subprocesses
from posenc_jax.sweep.plan import Run

STATES = {
  'done': 'green',
  'running': 'cyan',
  'stopped': 'yellow',
  'failed': 'red',
  'waiting': 'dim',
}
# seconds since its last line after which a process that cannot be seen is taken to have ended
SILENCE = 600.0
BETWEEN = 0.5  # seconds: longer than a run is between two of its commands


@dataclasses.dataclass
class Status:
  """Of one run.

  Attributes:
    state: one of STATES. 'stopped': it was begun, nobody is at it; the same command goes on.
    step: updates made, of all its seeds together; of a run that nobody is at, those that are saved.
    seconds_per_token: of its training, the median of what it logged; None where it logged nothing
      yet.
    note: why, or where.
  """

  run: Run
  state: str
  step: int
  seconds_per_token: float | None
  note: str

  def training_left(self, typical: float | None) -> float | None:
    """Seconds, at its own speed or else at `typical` seconds a token."""
    speed = typical if self.seconds_per_token is None else self.seconds_per_token
    steps = 0 if self.state == 'done' else self.run.steps - self.step
    return 0.0 if not steps else None if speed is None else steps * self.run.tokens_per_step * speed


def of(run: Run) -> Status:
  """Reads the run's directory."""
  noted, state, note = run.noted, 'waiting', ''
  log = run.workdir / 'log.txt'
  if run.is_finished:
    state = 'done'
  elif subprocesses.is_locked(log) or (noted.get('state') == 'running' and _is_at_work(run, noted)):
    state, note = 'running', _where(noted)
  elif noted.get('state') == 'running':
    state, note = 'stopped', 'the same command goes on'
  elif noted.get('state') == 'failed':
    state, note = 'failed', noted['reason']
  elif noted.get('state') == 'queued':
    note = noted['reason'] or 'in the queue'
  elif run.start is not None:
    note = f'starts from {run.start.name}'
  logged = [jsonl_store.read(folder / 'timing.jsonl') for folder in run.results]
  rows = [[row for row in rows if 'seconds_per_step' in row] for rows in logged]
  seconds = [row['seconds_per_step'] for row in itertools.chain(*rows) if row['step'] > 1]
  saved = [_saved(folder) for folder in run.results]
  if state == 'done':
    step = run.steps
  elif state == 'running' and any(rows):
    step = sum(some[-1]['step'] if some else 0 for some in rows)
  elif run.seeds:
    step = max(sum(saved), len(run.seeds) * _saved(run.workdir))  # one after another, at once
  else:
    step = sum(saved)
  speed = statistics.median(seconds) / run.tokens_per_step if seconds else None
  return Status(run, state, step, speed, note)


def _saved(folder: Path) -> int:
  """The step of the last checkpoint; 0 where there is none."""
  return max(
    (int(p.name) for p in folder.glob('checkpoints/*') if re.fullmatch(r'\d+', p.name)), default=0
  )


def _is_at_work(run: Run, noted: dict) -> bool:
  """Of a run that was left running, and whose lock is free as far as is seen here."""
  if (
    noted['host'] != socket.gethostname()
    and time.time() - (run.workdir / 'log.txt').stat().st_mtime < SILENCE
  ):
    return True  # locks need not reach from machine to machine
  time.sleep(BETWEEN)
  return subprocesses.is_locked(run.workdir / 'log.txt')


def _where(noted: dict) -> str:
  return (
    'on ' + noted['host'] + (f', job {noted["job"]}' if 'job' in noted else '') if noted else ''
  )


def left(statuses: list[Status]) -> tuple[float | None, bool]:
  """Seconds until all is done, if as many runs as now stay at work (at least one); whether
  evaluation is counted.

  None where no run has logged a speed yet, or none is to be done.
  """
  to_do = [s for s in statuses if s.state not in ('done', 'failed')]
  speeds = [s.seconds_per_token for s in statuses if s.seconds_per_token is not None]
  typical = statistics.median(speeds) if speeds else None
  trainings = [s.training_left(typical) for s in to_do]
  if not to_do or None in trainings:
    return None, False
  noted = [s.run.noted for s in statuses if s.state == 'done']
  evaluations = [n['seconds']['eval'] for n in noted if 'eval' in n.get('seconds', ())]
  evaluation = statistics.median(evaluations) if evaluations else 0.0
  each = [training + evaluation for training in trainings]
  at_once = max(1, sum(s.state == 'running' for s in to_do))
  return max(*each, sum(each) / at_once, 0.0), bool(evaluations)


def duration(seconds: float) -> str:
  """'40 s', '12 min', '3.5 h'."""
  for unit, length, most in (('s', 1, 90), ('min', 60, 5400)):
    if seconds < most:
      return f'{seconds / length:.0f} {unit}'
  return f'{seconds / 3600:.1f} h'


def show(runs: list[Run], console: Console) -> None:
  """Prints a line a run, and one of all."""
  statuses = [of(run) for run in runs]
  speeds = [s.seconds_per_token for s in statuses if s.seconds_per_token is not None]
  typical = statistics.median(speeds) if speeds else None
  table = Table(box=None, pad_edge=False, header_style='bold')
  columns = {'run': 'left', 'state': 'left', 'step': 'right', 'training left': 'right', '': 'left'}
  for name, justify in columns.items():
    table.add_column(name, justify=justify, overflow='fold')
  for s in statuses:
    to_go = s.training_left(typical)
    time_left = '' if s.state in ('done', 'failed') or to_go is None else duration(to_go)
    table.add_row(
      s.run.name, Text(s.state, STATES[s.state]), f'{s.step}/{s.run.steps}', time_left, Text(s.note)
    )
  console.print(table)
  counts = collections.Counter(s.state for s in statuses)
  words = [
    f'{len(statuses)} runs: '
    + ', '.join(f'{counts[state]} {state}' for state in STATES if counts[state])
  ]
  seconds, is_whole = left(statuses)
  if seconds is not None:
    running = max(1, counts['running'])
    what = 'evaluation included' if is_whole else 'evaluation not counted'
    words.append(f'about {duration(seconds)} left with {running} at a time, {what}')
  console.print(Text('; '.join(words)), soft_wrap=True)
