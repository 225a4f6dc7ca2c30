"""Kept results: the rows of finished runs without the runs, so that a long study may be run on
several machines, a part of its runs on each.
"""

import itertools
import json
from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path

from posenc_jax import config, storage
from posenc_jax.errors import UserError, disk_errors, shown, visible
from posenc_jax.reporting import costs, row_files, study
from posenc_jax.rows import row_schema, sessions
from posenc_jax.training.provenance import BUILT_IN_VALUES, OWN_ENCODINGS, kept_code, kept_values
from posenc_jax.training.run_dir import FINISHED, finished_hashes

ROWS = 'rows.jsonl.gz'
LOCK = 'keep.lock'


def keep(folder: str | Path, out: str | Path) -> tuple[int, int]:
  """Adds the finished runs in `folder`, n-grams beside them and what its sweep was given of results
  that were kept before, to the results kept in `out`.

  What is kept already stays: rows.jsonl.gz and costs.jsonl get the new runs behind it. Each part of
  a study trains the runs that its others start from, and machines round differently: such a run
  stays as it was kept first, and a line says where another result of it is left out.

  Returns:
    The numbers of the study's runs that were added, and that are kept now.
  Raises:
    UserError: no run is finished, the study, the config of a kept run, the code of an encoding of
      the user's own or a default was another one, a finished.json is damaged, the sweep changed
      what decides numbers, a row measures the same as a kept one with another result, or the rows
      are too many for one file. Stopped: a file cannot be read or written.
  """
  folder, out = Path(folder), Path(out)
  if folder.resolve() == out.resolve():
    raise UserError(f'--out={out}: the folder of the runs themselves; allowed: another one')
  report = study.load(folder)
  if report.study is None:
    raise UserError(f'{folder}: no study.json; allowed: a folder where a sweep ran')
  if report.overrides:
    problem = f'its sweep ran with --config.{report.overrides[0]}, which rows do not name'
    raise UserError(
      f'{folder}: {problem}; allowed: runs of the study as it is, which may say so itself'
    )
  if not report.hashes:
    allowed = 'after the same sweep again, which adds them'
    raise UserError(f'{folder}: its study.json has no hashes of configs; allowed: {allowed}')
  with disk_errors(remedy=''):
    found = [file.parent for file in storage.files_below(folder, FINISHED)]
    runs = [run for run in found if _is_as_planned(run, report.hashes)]
    # a run of several seeds has no rows of its own: those of its seeds are kept
    others = [run for run in found if run not in runs and storage.exists(run / 'eval.jsonl')]
  if others:
    names = '; '.join(visible(run.name) for run in others)
    print(f'{folder}: not kept, finished but not as the study asks: {names}')
  if not runs:
    raise UserError(f'{folder}: no run is finished; allowed: a folder with finished runs')
  new_rows = [row for run in runs for row in row_files.read(run)]
  finished = {run.name for run in runs}
  of_others = {*report.hashes} - finished  # which `bring` has added there
  new_rows += [row for row in _rows_in(folder) if row['run'] in of_others]
  finished |= {row['run'] for row in new_rows}
  new_costs = [row for row in costs.read(folder) if row['run'] in finished]
  report.folder = out
  with disk_errors(remedy=''):
    worked = [row for run in runs for row in sessions.of_run(run)]
    worked += [row for row in sessions.kept_in(folder) if row['run'] in finished]
    out.mkdir(parents=True, exist_ok=True)
  # two that add at once would lose what one of them adds
  with disk_errors(remedy=''), storage.file_lock(out / LOCK, wait=True):
    old_rows = _rows_in(out)
    kept = {row['run'] for row in old_rows}
    if old_rows:
      before = _report_of(out)
      if Path(before.study).name != Path(report.study).name:
        allowed = 'results of one study, or another folder'
        raise UserError(f'{out}: kept of {before.study}; allowed: {allowed}')
      _check_same_configs(before, kept, report.hashes)
      if again := _starts_with_other_results(runs, new_rows, old_rows):
        print(f'{folder}: not kept, {out} has another result: {visible("; ".join(sorted(again)))}')
        without = lambda rows: [row for row in rows if row['run'] not in again]
        new_rows, new_costs, worked = map(without, (new_rows, new_costs, worked))
      # in the order of the more complete list
      both = sorted((report.runs, before.runs), key=len, reverse=True)
      report.runs = [*dict.fromkeys(itertools.chain(*both))]
      report.hashes = before.hashes | report.hashes
    _add(out, old_rows, new_rows, new_costs, worked, [*runs, folder], report)
  added, every = ({*report.runs} & names for names in (finished - kept, kept | finished))
  return len(added), len(every)


def bring(folder: str | Path, out: Path, runs: Collection[str]) -> None:
  """Adds what is kept of these runs in `folder` to the folder of a sweep, which leaves them out.

  Raises: as `keep`.
  """
  of_runs = lambda rows: [row for row in rows if row['run'] in runs]
  with disk_errors(remedy=''):
    worked = of_runs(sessions.kept_in(folder))
  _add(out, _rows_in(out), of_runs(_rows_in(folder)), of_runs(costs.read(folder)), worked, [folder])


def _starts_with_other_results(
  runs: Iterable[Path], rows: Iterable[dict], kept_rows: Iterable[dict]
) -> set[str]:
  """The names of those runs from which others of `runs` start, and of which `kept_rows` are others
  than `rows`.
  """
  with_config = [run for run in runs if storage.exists(run / 'config.json')]
  starts = [config.saved_config(run, 'train.init_from').train.init_from for run in with_config]
  names = {Path(start).name for start in starts if start}
  results = defaultdict(list)
  for row in itertools.chain(kept_rows, rows):
    if row['run'] in names:
      results[row['run'], row_schema.key(row)].append(row)
  return {run for (run, _), found in results.items() if any(row != found[0] for row in found)}


def _rows_in(folder: str | Path) -> list[dict]:
  """What is kept in a folder; [] where nothing is."""
  file = Path(folder) / ROWS
  return row_files.read(file) if storage.exists(file) else []


def _add(
  out: Path,
  old_rows: list[dict],
  new_rows: list[dict],
  new_costs: list[dict],
  new_sessions: list[dict],
  sources: Iterable[str | Path],
  report: study.Report | None = None,
) -> None:
  """Adds rows, costs and sessions to the `old_rows` and others that are kept in `out`, and the
  hashes of code and the defaults of the folders `sources`, which they are from. Writes `report`, if
  there is one, before them, and rows last.
  """
  old_costs = costs.read(out) if old_rows else []
  with disk_errors(remedy=''):
    old_sessions = sessions.kept_in(out)
  code, values = kept_code(out), kept_values(out)
  for source in sources:
    for name, sha256 in kept_code(source).items():
      if code.setdefault(name, sha256) != sha256:
        problem = f'its encoding {name!r} has another code than in other runs that are kept'
        allowed = f'another folder, or without {OWN_ENCODINGS} there, if its numbers are the same'
        raise UserError(f'{source}: {problem}; allowed: {allowed}')
    for name, value in kept_values(source).items():
      if values.setdefault(name, value) != value:
        problem = f'{name} is {shown(value)}, and {shown(values[name])} in other runs that are kept'
        same = f'without {BUILT_IN_VALUES} there, if its numbers are the same'
        raise UserError(f'{source}: {problem}; allowed: another folder, or {same}')
  made = {row_schema.key(row): row for row in old_rows}
  for row in new_rows:
    if made.setdefault(row_schema.key(row), row) != row:
      allowed = 'another folder, or that run removed'
      raise UserError(f'{out}: it keeps another result of {row["run"]}; allowed: {allowed}')
  with_costs = {row['run'] for row in old_costs}
  made_costs = [*old_costs, *(row for row in new_costs if row['run'] not in with_costs)]
  made_file = storage.file_of_rows(out / ROWS, made.values())  # which may refuse, before all writes
  with disk_errors(remedy=''):
    out.mkdir(parents=True, exist_ok=True)
    if code:
      storage.write_json(out / OWN_ENCODINGS, {'sha256': code})
    if values:
      storage.write_json(out / BUILT_IN_VALUES, {'values': values})
    if report is not None:
      # First: it may name runs without rows, as long as there are no rows of runs that it lacks.
      study.write(report)
    costs.write(out, made_costs)
    every = [*old_sessions, *new_sessions]
    if worked := {json.dumps(row, sort_keys=True): row for row in every}:
      storage.rewrite_rows(out / sessions.FILE, worked.values())
    storage.atomic_write(out / ROWS, made_file)  # last: a run that has rows here is whole


def _is_as_planned(run: Path, hashes: dict[str, str]) -> bool:
  """Whether all that was planned of a run is done. An n-gram has no config, and is not planned.

  Raises Damaged or OSError, unlike `is_finished`: a run that may be done is not left out.
  """
  if run.name in hashes:
    return hashes[run.name] in finished_hashes(run)
  return not storage.exists(run / 'config.json')


def kept_runs(folder: str | Path, hashes: dict[str, str]) -> set[str]:
  """The names of the runs whose rows are kept in a folder.

  Args:
    hashes: {name: hash of its config} of the runs that are planned now.
  Raises:
    UserError: the folder has no rows.jsonl.gz or no study.json, or one of these is kept and was of
      another config.
  """
  if not storage.exists(Path(folder) / ROWS):
    raise UserError(f'--kept={folder}: no {ROWS}; allowed: a folder that scripts/keep.py made')
  found = {row['run'] for row in _rows_in(folder)}
  _check_same_configs(_report_of(folder), found, hashes)
  return found


def kept_ngrams(folder: str | Path, path: str | Path) -> set[str]:
  """The runs of n-grams whose rows are kept in a folder of the study that is in the file `path`, as
  far as its name tells; set() of another study's folder, which is of other text perhaps.
  """
  if Path(_report_of(folder).study).name != Path(path).name:
    return set()
  return {row['run'] for row in _rows_in(folder) if row['encoding'] == row_schema.N_GRAM}


def _report_of(folder: str | Path) -> study.Report:
  report = study.load(folder, with_settings=False, remedy='results kept again, in another folder')
  if report.study is None:
    raise UserError(f'{folder}: no study.json; allowed: a folder that scripts/keep.py made')
  return report


def _check_same_configs(before: study.Report, kept: set[str], hashes: dict[str, str]) -> None:
  """Raises UserError for a kept run that is planned now with another config."""
  for run, planned in hashes.items():
    if run in kept and (there := before.hashes.get(run, 'unknown')) != planned:
      raise UserError(
        f'{before.folder}: it keeps {run} of another config, or of another version of posenc_jax '
        f'(its hash {there}, now {planned}); '
        'allowed: results of the study as it is, or another folder'
      )
