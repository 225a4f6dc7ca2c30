"""Kept results: the rows of finished runs without the runs, so that a long study may be run on
several machines, a part of its runs on each.
"""

from pathlib import Path

from posenc_jax import storage
from posenc_jax.errors import UserError
from posenc_jax.evaluation import row_schema
from posenc_jax.reporting import rows, study
from posenc_jax.reporting.folders import files_below, one_line_errors
from posenc_jax.reporting.layouts import costs

ROWS = 'rows.jsonl.gz'
FINISHED = 'finished.json'


def keep(folder: str | Path, out: str | Path) -> tuple[int, int]:
  """Adds the finished runs in `folder`, and n-grams beside them, to the results kept in `out`.

  What is kept already stays: rows.jsonl.gz and costs.jsonl get the new runs behind it.

  Returns:
    The numbers of the study's runs that were added, and that are kept now.
  Raises:
    UserError: no run is finished, the study was another one or the sweep changed what decides
      numbers, or a row measures the same as a kept one with another result. Stopped: a file
      cannot be read or written.
  """
  folder, out = Path(folder), Path(out)
  report = study.load(folder)
  if report.study is None:
    raise UserError(f'{folder}: no study.json; allowed: a folder where a sweep ran')
  if report.overrides:
    problem = f'its sweep ran with --config.{report.overrides[0]}, which rows do not name'
    raise UserError(f'{folder}: {problem}; allowed: runs of the study as it is')
  with one_line_errors():
    runs = [file.parent for file in files_below(folder, FINISHED)]
  if not runs:
    raise UserError(f'{folder}: no run is finished; allowed: a folder with finished runs')
  new_rows = [row for run in runs for row in rows.read(run)]
  finished = {run.name for run in runs}
  new_costs = [row for row in costs.read(folder) if row['run'] in finished]
  old_rows, old_costs = [], []
  if storage.exists(out / ROWS):
    check_same_study(out, report.sha256)
    old_rows, old_costs = rows.read(out / ROWS), costs.read(out)
  kept, made = {row['run'] for row in old_rows}, {row_schema.key(row): row for row in old_rows}
  for row in new_rows:
    if made.setdefault(row_schema.key(row), row) != row:
      allowed = 'another folder, or that run removed'
      raise UserError(f'{out}: it keeps another result of {row["run"]}; allowed: {allowed}')
  with_costs = {row['run'] for row in old_costs}
  made_costs = [*old_costs, *(row for row in new_costs if row['run'] not in with_costs)]
  with one_line_errors():
    out.mkdir(parents=True, exist_ok=True)
    storage.rewrite_rows(out / ROWS, made.values())
    costs.write(out, made_costs)
    report.folder = out
    study.write(report)
  added, every = ({*report.runs} & names for names in (finished - kept, kept | finished))
  return len(added), len(every)


def kept_runs(folder: str | Path, sha256: str) -> set[str]:
  """The names of the runs whose rows are kept in a folder, for a study whose file has this hash.

  Raises UserError where the results kept are those of another study, or of another form of it.
  """
  found = {row['run'] for row in rows.read(Path(folder) / ROWS)}
  check_same_study(folder, sha256)
  return found


def check_same_study(folder: str | Path, sha256: str) -> None:
  """Raises UserError where the results kept in a folder are not of the study with this hash."""
  kept = study.load(folder)
  if kept.study is None:
    raise UserError(f'{folder}: no study.json; allowed: a folder that scripts/keep.py made')
  if kept.sha256 != sha256:
    raise UserError(
      f'{folder}: kept of {kept.study} when it was another file (SHA-256 {kept.sha256[:12]}, now '
      f'{sha256[:12]}); allowed: results of one study, or another folder'
    )
