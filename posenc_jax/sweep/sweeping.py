"""The program of a sweep, from the checks before its first run to the report after the last."""

from pathlib import Path

from rich.console import Console
from rich.text import Text

from posenc_jax import cli, config, storage
from posenc_jax.errors import UserError
from posenc_jax.reporting import study
from posenc_jax.reporting.kept import ROWS, bring, kept_ngrams, kept_runs
from posenc_jax.sweep import status
from posenc_jax.sweep.launching import check_launcher, execute, only_sweep
from posenc_jax.sweep.plan import (
  check_runs,
  check_same_evaluation,
  in_part,
  leave_out,
  plan,
  runs_of,
)
from posenc_jax.training.run_dir import is_extended

SEEDS = ('seed', 'seeds')  # fields that rows name, of which any may be kept


def sweep(
  path: str | Path,
  out: str | Path,
  overrides: dict[str, object],
  scripts: tuple[Path, ...] = (),
  jobs: int = 1,
  launcher: str = 'local',
  kept: str | Path = '',
  part: str = '',
) -> int:
  """Runs the study in the file `path` into the folder `out`, and makes its tables and figures.

  Args:
    overrides: {'dotted.path': value}, laid over every run's config.
    scripts: train.py and eval.py of a clone of the repository, which fill a run's directory one
      after the other; each takes --config, --workdir, --planned and --config.FIELD.
    jobs: how many runs are at work at a time on this machine ('local').
    launcher: 'local' runs `jobs` at a time, and 'slurm' makes each run a job of a cluster.
    kept: a folder of results that `reporting.kept` made: its runs, each of the same config as here,
      are left out, but for those that others start from; their rows are brought into `out`.
    part: 'N/M' makes part N of M alone, every M-th run with those that it starts from; '' makes
      all. study.json names the runs of all parts, so that lines of joined results have the order
      of the study.
  Returns:
    The exit code: 1 if a run failed, or tables or a figure could not be made, else 0. A part may
    lack what these need, such as the baseline: there it is 1 if a run failed.
  Raises:
    UserError: before anything is written or run, also where another sweep is at work in `out`;
      later where SLURM does not answer, or takes no such job.
    Stopped: after Ctrl-C, SIGTERM or SIGHUP.
  """
  check_launcher(launcher, jobs, scripts, Path(out))
  deciding = _deciding(overrides)
  if kept and deciding:
    allowed = ', '.join((*config.NO_RESULT, *SEEDS))
    raise UserError(f'config.{deciding[0]} beside --kept; allowed: {allowed}')
  out, console = Path(out), Console()
  runs = plan(path, out, overrides, scripts)
  check_same_evaluation(runs)
  of_part = in_part(runs, part)
  hashes = {name: value for run in runs for name, value in run.hashes.items()}
  # overrides of numbers, or a seed that not all lines have, may take a table its baseline: the
  # sweep runs all the same
  planned = None if deciding or 'seed' in overrides else [run.config for run in runs]
  report = study.of_study(path, out, hashes, planned)
  report.overrides, report.hashes = deciding, hashes
  had = _brought_before(out, hashes)
  if storage.exists(out / study.FILE):
    earlier = study.load(out, with_settings=False)
    report.hashes = {run: earlier.hashes[run] for run in had & earlier.hashes.keys()} | hashes
    _join_earlier(report, earlier, is_of_one_seed='seed' in overrides)
  found = _without_own_rows(out, had | (kept_runs(kept, hashes) if kept else set()))
  runs = leave_out(of_part, found)
  names = {run.name for run in runs}
  left_out = [run for run in of_part if run.name not in names]
  brought = {folder.name for run in left_out for folder in run.results}
  if kept:
    brought |= {name for name in kept_ngrams(kept, path) if not storage.exists(out / name)}
  brought -= had
  if out.exists():
    with only_sweep(out):
      pass  # if there is another sweep, that should not be said only after the checks
  check_runs(path, runs, kept)
  cli.make_folder(out)
  with only_sweep(out):
    study.save(report, path)
    if brought:
      bring(kept, out, brought)
    finished = sum(run.is_finished for run in runs)
    before = f', {finished} of them finished before' if finished else ''
    before += f', of part {part}' if part else ''
    before += f', and {len(left_out)} that are kept in {kept or out}' if left_out else ''
    print(f'{out}: {len(runs)} runs{before}', flush=True)
    for note in config.notes_of_all(run.config for run in of_part):
      print(note)
    if deciding and (
      part or 'seed' in overrides
    ):  # so is a sweep begun whose runs are to be joined
      instead = 'write it into the study, with an --out of its own'
      print(f'config.{deciding[0]} as a flag: keep.py joins no such runs; {instead}')
    if launcher == 'local' and (of_slurm := [f for f in overrides if f.startswith('launch.')]):
      print(f"config.{of_slurm[0]} is for SLURM's jobs: --launcher=slurm; runs are on this machine")
    if extended := sum(is_extended(run.workdir, run.config) for run in runs):
      print(f'{extended} of them are extended: log.txt of each says with which learning rates')
    failed = execute(runs, out, jobs, launcher, console)
    has_rows = storage.exists(out / ROWS) or any(out.glob('*/eval.jsonl'))
    not_made = report.write_all_possible() if has_rows else {}
  errors = [f'failed: {name}: {why} ({out / name}/log.txt)' for name, why in failed.items()]
  errors += [f'not made: {what}: {why}' for what, why in not_made.items()]
  for error in errors:
    console.print(Text(error, 'red'), soft_wrap=True)
  return 1 if failed or (not_made and not part) else 0


def _brought_before(out: Path, hashes: dict[str, str]) -> set[str]:
  """The runs whose rows an earlier sweep has brought into the folder."""
  has_rows = storage.exists(out / study.FILE) and storage.exists(out / ROWS)
  return kept_runs(out, hashes) if has_rows else set()


def _without_own_rows(out: Path, found: set[str]) -> set[str]:
  """The kept runs that are not at work in the folder itself, where they would go on."""
  return {run for run in found if not storage.exists(out / run / 'eval.jsonl')}


def _join_earlier(report: study.Report, earlier: study.Report, is_of_one_seed: bool) -> None:
  """Adds to the report what an earlier sweep of the folder has left there: rows of overrides that
  this sweep does not have, and, if this sweep is of one seed of the same study, runs of others.
  """
  joins_seeds = is_of_one_seed and earlier.sha256 == report.sha256
  # a directory of this sweep's runs is refused if it is of another training, and has no rows of it
  leaves_rows = lambda field: field.split('.')[0] in config.NOT_TRAINING or field == 'train.steps'
  left = [field for field in earlier.overrides if joins_seeds or leaves_rows(field)]
  report.overrides = [*dict.fromkeys([*left, *report.overrides])]
  if joins_seeds:
    report.runs = [*dict.fromkeys([*earlier.runs, *report.runs])]
    report.hashes = earlier.hashes | report.hashes


def _deciding(overrides: dict[str, object]) -> list[str]:
  """The overridden fields that decide numbers: kept rows do not name those of all runs."""
  return [f for f in overrides if config.decides_results(f) and f not in SEEDS]


def print_status(
  path: str | Path,
  out: str | Path,
  overrides: dict[str, object],
  kept: str | Path = '',
  part: str = '',
) -> int:
  """Prints how far the study's runs in `out` are, whatever launched them; changes nothing.

  `kept` and `part` are those of `sweep`. Raises `UserError` if there is no such folder.
  """
  out, every = Path(out), runs_of(path, out, overrides)
  runs = in_part(every, part)
  if not out.is_dir():
    raise UserError(f'{str(out)!r} is no folder; allowed: where a sweep ran, or runs now')
  hashes = {name: value for run in every for name, value in run.hashes.items()}
  found = _brought_before(out, hashes) | (kept_runs(kept, hashes) if kept else set())
  wanted = {run.name for run in leave_out(runs, _without_own_rows(out, found))}
  left_out = {run.name for run in runs} - wanted
  status.print_table(runs, cli.wide_console(), left_out)
  return 0
