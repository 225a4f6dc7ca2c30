"""A sweep over a study's runs, each in a directory and processes of its own; then the tables and
figures of all.

Imports no jax: a run that crashes stops no other, and what must be set before a process starts can
be set.
"""

from pathlib import Path

from rich.console import Console
from rich.text import Text

from posenc_jax import errors
from posenc_jax.errors import UserError, nearest
from posenc_jax.reporting import study
from posenc_jax.sweep import local, slurm, status
from posenc_jax.sweep.plan import NAME_LENGTH, SCRIPTS, Run, name_of, plan

__all__ = ['LAUNCHERS', 'NAME_LENGTH', 'SCRIPTS', 'Run', 'name_of', 'plan', 'show', 'sweep']

LAUNCHERS = ('inline', 'local', 'slurm')


def sweep(
  path: str | Path,
  out: str | Path,
  overrides: dict[str, object],
  jobs: int = 1,
  scripts: tuple[Path, ...] = SCRIPTS,
  launcher: str = 'local',
) -> int:
  """Runs the study in the file `path` into the folder `out` and reports on it.

  Args:
    overrides: {'dotted.path': value}, laid over every run's config.
    jobs: runs at a time on this machine ('local').
    scripts: what fills a run's directory, one after another; each takes --config, --workdir and
      --config.FIELD.
    launcher: 'inline': one after another, their output shown; 'local': `jobs` at a time; 'slurm':
      as a cluster's jobs.
  Returns:
    The exit code: 1 if a run failed, or tables or a figure could not be made, else 0.
  Raises:
    UserError: before anything is written or run. Stopped: after Ctrl-C, SIGTERM or SIGHUP.
  """
  if launcher not in LAUNCHERS:
    raise UserError(f'--launcher={launcher}; {nearest(launcher, LAUNCHERS)}')
  if jobs < 1:
    raise UserError(f'--jobs={jobs}; allowed: 1 or more')
  if jobs > 1 and launcher != 'local':
    allowed = '1' if launcher == 'inline' else '1; --config.launch.max_concurrent says how many'
    raise UserError(f'--jobs={jobs} with --launcher={launcher}; allowed: {allowed}')
  if launcher == 'slurm':
    slurm.check()
  out, console = Path(out), Console()
  runs = plan(path, out, overrides, scripts)
  wanted = study.of_study(path, out, [folder.name for run in runs for folder in run.results])
  with errors.user_errors(OSError):
    out.mkdir(parents=True, exist_ok=True)
    study.save(wanted, path, scripts[0].parent)
  finished = sum(run.is_finished for run in runs)
  print(
    f'{out}: {len(runs)} runs' + (f', {finished} of them finished before' if finished else ''),
    flush=True,
  )

  if launcher == 'slurm':
    failed = slurm.execute(runs, out, console)
  else:
    failed = local.execute(runs, jobs, console, follow=launcher == 'inline')
  for name, reason in failed.items():
    console.print(Text(f'failed: {name}: {reason} ({out / name}/log.txt)', 'red'), soft_wrap=True)
  amiss = wanted.write_all_possible() if any(out.glob('*/eval.jsonl')) else {}
  for what, reason in amiss.items():
    console.print(Text(f'not made: {what}: {reason}', 'red'), soft_wrap=True)
  return 1 if failed or amiss else 0


def show(path: str | Path, out: str | Path, overrides: dict[str, object]) -> int:
  """Prints how far the study's runs in `out` are, whatever launched them. Changes nothing. Raises
  UserError.
  """
  runs, out = plan(path, out, overrides), Path(out)
  if not out.is_dir():
    raise UserError(f'{str(out)!r} is no folder; allowed: where a sweep ran, or runs now')
  console = Console()
  if not console.is_terminal:
    console.width = 320  # names and reasons in one line
  status.show(runs, console)
  return 0
