"""What executes runs: processes of this machine, or jobs of a cluster."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from posenc_jax import storage
from posenc_jax.distributed.devices import has_tpu, on_one_chip
from posenc_jax.errors import UserError, nearest
from posenc_jax.sweep import local, slurm
from posenc_jax.sweep.plan import PlannedRun

LAUNCHERS = ('local', 'slurm')


def check_launcher(launcher: str, jobs: int, scripts: tuple[Path, ...], out: Path) -> None:
  """Raises `UserError` for a launcher that there is not, or that cannot start `jobs` at a time."""
  if launcher not in LAUNCHERS:
    raise UserError(f'--launcher={launcher}; {nearest(launcher, LAUNCHERS)}')
  if jobs < 1:
    raise UserError(f'--jobs={jobs}; allowed: 1 or more')
  if jobs > 1 and launcher == 'slurm':
    allowed = '1; --config.launch.max_concurrent says how many'
    raise UserError(f'--jobs={jobs} with --launcher=slurm; allowed: {allowed}')
  if jobs > 1 and _uses_tpu():
    apart = f'{on_one_chip("N")} and --part=N+1/M --out=OUT_N, a sweep for each chip N from 0'
    problem = 'each run would take all chips of the TPU here'
    raise UserError(f'--jobs={jobs}: {problem}; allowed: 1; with {apart}; with JAX_PLATFORMS=cpu')
  if not scripts or not all(script.is_file() for script in scripts):
    missing = ', '.join(str(script) for script in scripts if not script.is_file())
    raise UserError(
      f'scripts={missing or "()"}: a sweep starts train.py and eval.py, which are no part of the '
      'package; allowed: python scripts/sweep.py, in a clone of the repository'
    )
  if launcher == 'slurm':
    slurm.check_available(out)


def _uses_tpu() -> bool:
  """Whether jax would run on a TPU of this machine."""
  platforms = os.environ.get('JAX_PLATFORMS') or 'tpu'
  return 'tpu' in platforms and has_tpu()


def execute(
  runs: list[PlannedRun], out: Path, jobs: int, launcher: str, console: Console
) -> dict[str, str]:
  """Executes the runs that are not finished. Returns {failed run's name: why}.

  Raises Stopped after Ctrl-C, SIGTERM or SIGHUP; UserError where SLURM does not answer, or takes no
  such job.
  """
  if launcher == 'slurm':
    return slurm.execute(runs, out, console)
  return local.execute(runs, jobs, console)


@contextlib.contextmanager
def only_sweep(out: Path) -> Iterator[None]:
  """Holds the lock of sweep.lock, which no process of a run inherits.

  So a sweep that is killed frees it, whatever it leaves at work. Raises UserError where another
  sweep holds it.
  """
  with contextlib.ExitStack() as stack:
    try:
      stack.enter_context(storage.file_lock(out / 'sweep.lock'))
    except storage.Locked as error:
      allowed = 'one at a time, or --status to look at it'
      problem = f'another sweep is at work there ({error.holder})'
      raise UserError(f'--out={out}: {problem}; allowed: {allowed}') from None
    yield
