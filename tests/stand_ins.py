"""Stand-ins for train.py and eval.py that need no jax, and studies that use them.

The name of a run's encoding says what they do: 'broken_train' fails in train.py,
'patient_train' waits there for a file `go`, and so on.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from posenc_jax import sweep
from posenc_jax.config import BASE
from posenc_jax.sweep import sweeping

needs_git = pytest.mark.skipif(shutil.which('git') is None, reason='needs git')
# What an earlier sweep left at work is found in /proc.
needs_linux = pytest.mark.skipif(sys.platform != 'linux', reason='needs Linux')
# macOS binds no process to CPUs.
CPUS = sorted(getattr(os, 'sched_getaffinity', lambda process: ())(0))
needs_two_cpus = pytest.mark.skipif(len(CPUS) < 2, reason='needs two CPUs that a process can have')

SCRIPT = """
import json, os, signal, sys, time
from pathlib import Path
from posenc_jax import cli, config, storage
from posenc_jax.rows import row_schema
from posenc_jax.training import run_dir

required = dict.fromkeys(('config', 'workdir'), cli.REQUIRED)
flags, overrides = cli.parse_args(sys.argv[1:], required | {'planned': ''})
workdir, name = Path(flags.workdir), Path(sys.argv[0]).stem
if name == 'train':
  run = config.load(flags.config, overrides)
else:
  run = config.trained_config(workdir, overrides)
run_dir.check_planned(run, flags.workdir, flags.planned)
with open(workdir / 'calls.txt', 'a') as file:
  print(name, *sorted(getattr(os, 'sched_getaffinity', lambda process: ())(0)), file=file)
storage.write_json(workdir / 'config.json', config.to_json(run))
encoding = run.encoding.name
if run.train.init_from and not (Path(run.train.init_from) / 'finished.json').exists():
  sys.exit('too early')
if encoding == f'broken_{name}' and not (workdir / 'mended').exists():
  sys.exit('bad luck')
if encoding == 'slow' and name == 'train' and not (workdir / 'saved').exists():
  def save(*_):
    time.sleep(0.4)  # longer than subprocess waits after a second Ctrl-C
    (workdir / 'saved').write_text('')
    sys.exit(143)
  signal.signal(signal.SIGTERM, save)
  print(f'half way {os.getpid()} {os.getppid()}')
  time.sleep(60)
if encoding == f'patient_{name}' and not (workdir / 'go').exists():
  print(f'half way {os.getpid()}')
  for _ in range(12_000):  # a test that fails leaves nobody behind
    if (workdir / 'go').exists():
      break
    time.sleep(0.01)
  else:
    sys.exit('nobody said go')
if name == 'train':
  (workdir / 'checkpoints' / str(run.train.steps)).mkdir(parents=True, exist_ok=True)
if name == 'eval' and encoding != 'forgetful':
  model = dict(run=workdir.name, encoding=encoding, label=encoding, seed=run.seed)
  model |= dict(step=run.train.steps, train_length=8)
  question = dict(corpus='sotu', split='test', protocol='last_k', length=8, k=4, document='a')
  row = row_schema.row(**model, **question, nats=10.0 + run.seed, tokens=10, bytes=10)
  storage.append_rows(workdir / 'eval.jsonl', [row])
  run_dir.mark_finished(workdir, config.config_hash(run))
"""

STUDY = """
from pathlib import Path
from posenc_jax.config import load, vary, product

def get_config():
  return load({base!r}, {{'train.steps': 60}})

def sweep():
  return product(vary('encoding.name', *{names!r}), vary('seed', *{seeds!r}))

def figures():
  return {{}}  # to draw one takes longer than a run
"""

DRIVER = """
import signal, sys
from pathlib import Path
{signals}
from posenc_jax import cli, sweep
sweep.local.POLL = 0.01
sweep.sweeping.check_runs = lambda *given: None  # there are no such encodings
scripts = tuple(map(Path, sys.argv[3:]))
cli.main(lambda argv: sweep.sweep(argv[0], argv[1], {{}}, scripts, {jobs}))
"""

STARTED = f"""
from posenc_jax.config import load

def get_config():
  return load({str(BASE)!r}, {{'train.steps': 60}})

def sweep():
  first, second = {{'encoding.name': 'rope', 'seed': 1}}, {{'encoding.name': 'alibi'}}
  third = {{'label': 'c', 'train.init_from': first, 'train.steps': 0}}
  return [first, third, {{'label': 'd', 'train.init_from': third}}, second]
"""


def sweep_unchecked(*given, **settings) -> int:
  """`sweep.sweep` of runs that no process could build: their scripts are stand-ins, soon done."""
  with mock.patch.object(sweeping, 'check_runs'), mock.patch.object(sweep.local, 'POLL', 0.01):
    return sweep.sweep(*given, **settings)


class Study:
  """A study in `folder`, with `out` for its runs.

  study(overrides, jobs, launcher) sweeps it, and returns the exit code and {run's name: scripts
  that were called}.
  """

  def __init__(self, folder: Path, names, seeds=(0,)):
    self.out, self.path = folder / 'out', folder / 'study.py'
    self.scripts = tuple(folder / name for name in ('train.py', 'eval.py'))
    for script in self.scripts:
      script.write_text(SCRIPT)
    self.path.write_text(STUDY.format(base=str(BASE), names=names, seeds=seeds))

  def __call__(self, overrides=None, jobs=1, launcher='local'):
    given = self.path, self.out, overrides or {}, self.scripts, jobs, launcher
    return sweep_unchecked(*given), self.calls()

  def start(self, jobs=1, number=None) -> subprocess.Popen:
    """Sweeps it in a process of its own, to which the signal `number` does what it does to one in a
    terminal, also where tests run under nohup.
    """
    heard = 'signal.default_int_handler' if number == signal.SIGINT else 'signal.SIG_DFL'
    signals = f'signal.signal({int(number)}, {heard})' if number else ''
    code = DRIVER.format(signals=signals, jobs=jobs)
    command = [sys.executable, '-c', code, *map(str, (self.path, self.out, *self.scripts))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

  def calls(self):
    files = self.out.glob('*/calls.txt')
    return {
      path.parent.name: [call.split()[0] for call in path.read_text().splitlines()]
      for path in files
    }
