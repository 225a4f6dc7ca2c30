"""A sweep: the runs of a study, each with a directory and processes of its own; then its report.

Imports no jax: a run that crashes stops no other, and a process can be given what must be set
before it starts.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

from posenc_jax import storage
from posenc_jax.errors import UserError, nearest, user_errors
from posenc_jax.reporting import study
from posenc_jax.sweep import local, run_state, slurm, status
from posenc_jax.sweep.plan import NAME_LENGTH, Run, check_runs, plan, run_name

__all__ = [
  'LAUNCHERS',
  'NAME_LENGTH',
  'Run',
  'check_runs',
  'plan',
  'print_status',
  'run_name',
  'sweep',
]

LAUNCHERS = ('inline', 'local', 'slurm')


def sweep(
  path: str | Path,
  out: str | Path,
  overrides: dict[str, object],
  scripts: tuple[Path, ...] = (),
  jobs: int = 1,
  launcher: str = 'local',
  checks_runs: bool = True,
) -> int:
  """Runs the study in the file `path` into the folder `out`, and makes its tables and figures.

  Args:
    overrides: {'dotted.path': value}, laid over every run's config.
    scripts: train.py and eval.py of a clone of the repository, which fill a run's directory one
      after the other; each takes --config, --workdir and --config.FIELD.
    jobs: how many runs are at work at a time on this machine ('local').
    launcher: 'inline' runs one after another and shows their output, 'local' runs `jobs` at a
      time, and 'slurm' makes each run a job of a cluster.
    checks_runs: whether `check_runs` looks at model, corpus and evaluation of all runs first.
  Returns:
    The exit code: 1 if a run failed, or tables or a figure could not be made, else 0.
  Raises:
    UserError: before anything is written or run, also where another sweep is at work in `out`.
    Stopped: after Ctrl-C, SIGTERM or SIGHUP.
  """
  if launcher not in LAUNCHERS:
    raise UserError(f'--launcher={launcher}; {nearest(launcher, LAUNCHERS)}')
  if jobs < 1:
    raise UserError(f'--jobs={jobs}; allowed: 1 or more')
  if jobs > 1 and launcher != 'local':
    allowed = '1' if launcher == 'inline' else '1; --config.launch.max_concurrent says how many'
    raise UserError(f'--jobs={jobs} with --launcher={launcher}; allowed: {allowed}')
  if not scripts or not all(script.is_file() for script in scripts):
    missing = ', '.join(str(script) for script in scripts if not script.is_file())
    raise UserError(
      f'scripts={missing or "()"}: a sweep starts train.py and eval.py, which are no part of the '
      'package; allowed: python scripts/sweep.py, in a clone of the repository'
    )
  out, console = Path(out), Console()
  if launcher == 'slurm':
    slurm.check_available(out)
  runs = plan(path, out, overrides, scripts)
  names = [folder.name for run in runs for folder in run.results]
  # overrides may take a table its baseline: the sweep runs all the same
  planned = None if overrides else [run.config for run in runs]
  report = study.of_study(path, out, names, planned)
  if checks_runs:
    if out.exists():
      with _only_sweep(out):
        pass  # if there is another sweep, that should not be said only after the checks
    check_runs(path, runs)
  with user_errors(OSError):
    out.mkdir(parents=True, exist_ok=True)
  with _only_sweep(out):
    study.save(report, path, scripts[0].parent)
    finished = sum(run.is_finished for run in runs)
    before = f', {finished} of them finished before' if finished else ''
    print(f'{out}: {len(runs)} runs{before}', flush=True)
    if launcher == 'slurm':
      failed = slurm.execute(runs, out, console)
    else:
      failed = local.execute(runs, jobs, console, follow=launcher == 'inline')
    not_made = report.write_all_possible() if any(out.glob('*/eval.jsonl')) else {}
  errors = [f'failed: {name}: {why} ({out / name}/log.txt)' for name, why in failed.items()]
  errors += [f'not made: {what}: {why}' for what, why in not_made.items()]
  for error in errors:
    console.print(Text(error, 'red'), soft_wrap=True)
  return 1 if errors else 0


@contextlib.contextmanager
def _only_sweep(out: Path) -> Iterator[None]:
  """Holds the lock of sweep.lock, which no process of a run inherits.

  So a sweep that is killed frees it, whatever it leaves at work. Raises UserError where another
  sweep holds it.
  """
  path = out / 'sweep.lock'
  with contextlib.ExitStack() as stack:
    try:
      stack.enter_context(storage.file_lock(path))
    except BlockingIOError:
      holder = run_state.printable(path.read_text(errors='replace')) or 'it does not say which'
      allowed = 'one at a time, or --status to look at it'
      problem = f'another sweep is at work there ({holder})'
      raise UserError(f'--out={out}: {problem}; allowed: {allowed}') from None
    yield


def print_status(path: str | Path, out: str | Path, overrides: dict[str, object]) -> int:
  """Prints how far the study's runs in `out` are, whatever launched them; changes nothing.

  Raises `UserError` if there is no such folder.
  """
  runs = plan(path, out, overrides)
  if not Path(out).is_dir():
    raise UserError(f'{str(out)!r} is no folder; allowed: where a sweep ran, or runs now')
  console = Console()
  if not console.is_terminal:
    console.width = 640  # names and reasons stay in one line
  status.print_table(runs, console)
  return 0
