"""Damages every file of a run, one at a time, and looks at what the commands make of it.

  python scripts/maintenance/damage.py --out=runs/damage

A small run is trained, stopped half way and finished, with one checkpoint kept and with two. Each
file is then damaged in ways that disks and people find: emptied, cut, one bit flipped, zeros,
another JSON value, deep nesting, bytes that are no text, removed; or made unreadable: no
permission, none to write, a folder or a loop of links in its place. After each, train.py, eval.py
and table.py go over the run again. Whatever comes out has to be one of these:

  equal     they went on, and every result is bit for bit that of the undamaged run
  said      they went on, and a line names the file whose contents are lost
  refused   they stopped with one line that names the file; what is damaged is left as it is, and
            once what was unreadable is readable again, they go on to equal results

Otherwise the exit code is 1. --trials: how many, drawn at random by --seed; 0, or more than
there are: all, an hour's work.
"""

import collections
import contextlib
import ctypes
import io
import os
import random
import re
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from posenc_jax import cli, config, errors
from scripts.maintenance.torture import SETTINGS

STEPS, HALF = 8, 4
SMALL = SETTINGS | {
  'train.steps': STEPS,
  'train.validate_every': STEPS,
  'train.checkpoint_every': 2,
  'eval.documents': 2,
  'optim.warmup': 2,
}
DAC_OVERRIDE, DAC_READ_SEARCH = 1, 2  # capabilities by which root reads what it may not


def _flip(data: bytes, rng: random.Random) -> bytes:
  flipped, bit = bytearray(data), rng.randrange(8 * len(data))
  flipped[bit // 8] ^= 1 << bit % 8
  return bytes(flipped)


# What becomes of the contents of a file.
CONTENTS: dict[str, Callable[[bytes, random.Random], bytes]] = {
  'empty': lambda data, rng: b'',
  'cut': lambda data, rng: data[: len(data) // 2],
  'one bit': _flip,
  'zeros': lambda data, rng: bytes(len(data)),
  'other JSON': lambda data, rng: b'[1, {"config_hash": 1e999}]\n',
  'nesting': lambda data, rng: 200_000 * b'[',
  'no text': lambda data, rng: rng.randbytes(300),
}


def _no_permission(path: Path) -> None:
  path.chmod(0)


def _folder(path: Path) -> None:
  path.unlink()
  path.mkdir()


def _read_only(path: Path) -> None:
  for below in (path, *path.rglob('*')):
    below.chmod(0o555 if below.is_dir() else 0o444)


def _loop(path: Path) -> None:
  path.unlink()
  path.symlink_to(path.name)


# What makes a file one that the system cannot read.
UNREADABLE: dict[str, Callable[[Path], None]] = {
  'no permission': _no_permission,
  'read-only': _read_only,
  'a folder': _folder,
  'a loop of links': _loop,
}


def main(argv):
  flags, overrides = cli.parse_args(argv, {'out': cli.REQUIRED, 'trials': 0, 'seed': 0})
  out, rng = Path(flags.out), random.Random(flags.seed)
  if out.exists():
    raise errors.UserError(f'--out={flags.out}: exists; allowed: a folder that can be made')
  if flags.trials < 0:
    raise errors.UserError(f'--trials={flags.trials}; allowed: 0 or more')
  respect_permissions()
  outcomes, bad, trials = collections.defaultdict(collections.Counter), [], []
  for keep in (1, 2):
    settings = SMALL | {'train.max_to_keep': keep} | overrides
    finished, half = (
      out / f'keep-{keep}' / 'finished' / 'run',
      out / f'keep-{keep}' / 'half' / 'run',
    )
    make_runs(finished, half, settings)
    expected = results(finished)
    trials += [
      (source, name, kind, settings, expected)
      for source in (finished, half)
      for name in sorted(p.relative_to(source) for p in (source, *source.rglob('*')))
      for kind in kinds_for(source / name)
    ]
  count = min(flags.trials or len(trials), len(trials))
  for source, name, kind, *rest in rng.sample(trials, count):
    outcome, said = trial(source, name, kind, *rest, rng)
    outcomes[kind][outcome] += 1
    if outcome not in ('equal', 'said', 'refused'):
      bad.append(f'{source}, {name}, {kind}: {outcome}\n{said}')
      print(bad[-1], flush=True)
  print_counts(outcomes)
  return 1 if bad else 0


def kinds_for(path: Path) -> list[str]:
  """What can be done to a file, or to a folder."""
  if path.is_dir():
    return ['no permission', 'read-only']
  return [*CONTENTS, 'removed', *UNREADABLE]


def respect_permissions() -> None:
  """Lets the permissions of files hold for this process, also if it is root's (Linux)."""
  if os.geteuid() != 0:
    return
  libc = ctypes.CDLL(None, use_errno=True)
  header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3 of the interface, this process
  sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then their upper halves
  if libc.capget(header, sets):
    raise OSError(ctypes.get_errno(), 'capget')
  mask = ~(1 << DAC_OVERRIDE | 1 << DAC_READ_SEARCH)
  sets[0] &= mask
  if libc.capset(header, sets):
    raise OSError(ctypes.get_errno(), 'capset')


def make_runs(finished: Path, half: Path, settings: dict) -> None:
  """Trains a run that stops after half of its steps, and one to its end, which is evaluated."""
  import jax

  from posenc_jax.data import Batches

  cli.keep_compiled_programs()
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)  # each is trained many times
  read = Batches.__getitem__

  def stop_half_way(batches, step):
    if step == HALF:
      raise KeyboardInterrupt
    return read(batches, step)

  Batches.__getitem__ = stop_half_way
  try:
    with contextlib.suppress(KeyboardInterrupt):
      execute(half, settings)
  finally:
    Batches.__getitem__ = read
  execute(finished, settings)


def execute(workdir: Path, settings: dict) -> None:
  """What train.py, eval.py and table.py do to a run, in this process."""
  from posenc_jax.evaluation import evaluate
  from posenc_jax.reporting import study
  from posenc_jax.training import loop

  run = config.load(config.BASE, settings)
  loop.train(run, workdir)
  evaluate.evaluate(config.saved_config(workdir), workdir)
  study.load(workdir.parent).write_tables()


def trial(
  source: Path, name: Path, kind: str, settings: dict, expected: dict, rng: random.Random
) -> tuple[str, str]:
  """Damages the file `name` of a copy of a run; returns the outcome, and what was printed."""
  folder = source.parent.parent / 'trial'
  shutil.rmtree(folder, ignore_errors=True)
  workdir = folder / source.name
  shutil.copytree(source, workdir)
  path = workdir / name
  data = None if path.is_dir() else path.read_bytes()
  with damaged(path, kind, rng) as undo:
    before = snapshot(workdir)
    outcome, said = attempt(workdir, settings, expected, str(name))
    if outcome == 'refused':
      if kind not in UNREADABLE and snapshot(workdir) != before:
        return 'refused, but changed something', said
      if kind in UNREADABLE:
        undo()
        if data is not None:
          path.write_bytes(data)
        outcome, said = attempt(workdir, settings, expected, str(name))
        return ('refused' if outcome == 'equal' else f'lost: then {outcome}'), said
  return outcome, said


@contextlib.contextmanager
def damaged(path: Path, kind: str, rng: random.Random) -> Iterator[Callable[[], None]]:
  """Damages a file; yields a function that clears the place for the file as it was."""

  def undo():
    if kind in ('no permission', 'read-only') and path.exists():
      for below in (path, *path.rglob('*')):
        below.chmod(0o755)
    elif path.is_symlink() or path.is_file():
      path.unlink()
    elif path.is_dir():
      path.rmdir()

  if kind in CONTENTS:
    path.write_bytes(CONTENTS[kind](path.read_bytes() or b'\n', rng))
  elif kind == 'removed':
    path.unlink()
  else:
    UNREADABLE[kind](path)
  try:
    yield undo
  finally:
    if kind in UNREADABLE:
      undo()


def snapshot(workdir: Path) -> dict[str, object]:
  """{path: content} of all files of a run; of what cannot be read, only that it is there."""
  found = {}
  for path in sorted(workdir.rglob('*')):
    try:
      found[str(path)] = path.read_bytes() if path.suffix != '.lock' else None
    except OSError:
      found[str(path)] = None
  return found


def attempt(workdir: Path, settings: dict, expected: dict, name: str) -> tuple[str, str]:
  """Executes the commands, and names their outcome."""
  output = io.StringIO()
  try:
    with (
      contextlib.redirect_stdout(output),
      contextlib.redirect_stderr(output),
      errors.disk_errors(),
    ):
      execute(workdir, settings)
  except (errors.UserError, errors.Stopped) as error:
    said = output.getvalue() + str(error)
    is_named = any(part in str(error) for part in named_parts(name))
    return ('refused' if is_named and '\n' not in str(error) else 'not named'), said
  except Exception:
    return 'traceback', output.getvalue() + traceback.format_exc()
  said = output.getvalue()
  differing = [key for key, value in results(workdir).items() if value != expected[key]]
  if not differing:
    return 'equal', said
  is_named = any(part in said for part in named_parts(name))
  return ('said' if is_named else f'silent: {", ".join(differing)} differ'), said


def named_parts(name: str) -> list[str]:
  """What a line may call a file: its name; of a checkpoint's file, the checkpoint's step."""
  step = re.match(r'checkpoints/(\d+)', name)
  damaged = [f'step {step[1]} is damaged', f'damaged (step {step[1]}'] if step else []
  return [Path(name).name, *damaged]


def results(workdir: Path) -> dict[str, object]:
  """{name: content} of all that a run comes to."""
  import jax
  import numpy as np
  from flax import nnx

  from posenc_jax.model.decoder import build
  from posenc_jax.training.checkpoints import Checkpoints

  files = [workdir / name for name in ('metrics.jsonl', 'eval.jsonl')]
  found = {file.name: file.read_bytes() if file.exists() else b'' for file in files}
  c = config.saved_config(workdir)
  found['config'] = config.flat(config.training_part(c))
  with Checkpoints(workdir) as checkpoints:
    restored, step = checkpoints.restore(model=build(c, 257, nnx.Rngs(0)))
  leaves = jax.tree.leaves(restored['model'])
  found['parameters'] = step, [np.asarray(leaf).tobytes() for leaf in leaves]
  return found


def print_counts(outcomes: dict[str, collections.Counter]) -> None:
  """Prints a line for each kind of damage."""
  names = sorted({outcome for counts in outcomes.values() for outcome in counts})
  print(f'{"damage":18}{"tried":>7}' + ''.join(f'{name:>10}' for name in names))
  for kind, counts in outcomes.items():
    numbers = ''.join(f'{counts[name]:10}' for name in names)
    print(f'{kind:18}{counts.total():7}{numbers}')


if __name__ == '__main__':
  cli.main(main)
