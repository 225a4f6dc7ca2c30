"""What a page is made from: the rows and configs of run folders and row files."""

import dataclasses
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ml_collections import ConfigDict

from posenc_jax import config
from posenc_jax.errors import UserError
from posenc_jax.reporting import study, tables
from posenc_jax.reporting.metrics import METRICS
from posenc_jax.reporting.scores import BY_POSITION
from posenc_jax.reporting.table import Table

CHANCE = {metric.chance for metric in METRICS.values()}  # what stands beside scores, and is none


@dataclasses.dataclass
class Sources:
  """Rows of one or more places.

  Attributes:
    rows: all of them, as `records.row` makes them; `run` is a name that only one place has.
    runs: names of the runs that should be there, in the order of lines.
    configs: {run: its config}, of the runs whose folder has a `config.json`.
    notes: what was read where, and what is not there.
    studies: {place: tables of its study, and of what its runs cost}, of the places that have any.
  """

  rows: list[dict]
  runs: list[str]
  configs: dict[str, ConfigDict]
  notes: list[str]
  studies: dict[str, list[Table]] = dataclasses.field(default_factory=dict)


def gather(paths: Iterable[str | Path]) -> Sources:
  """Reads folders (of one run, of many, or of kept rows) and row files. UserError for none, or for
  one given twice.
  """
  paths = [Path(path) for path in paths]
  if not paths:
    raise UserError(
      'no RUNS; allowed: folders such as runs/quick or results/classic, or files of rows'
    )
  if twice := [
    str(path) for path, count in Counter(path.resolve() for path in paths).items() if count > 1
  ]:
    raise UserError(f'{twice[0]}: given twice; allowed: each place once')
  read = [_read(path) for path in paths]
  owners = Counter(
    run for source in read for run in {*source.runs, *(row['run'] for row in source.rows)}
  )
  whole = Sources([], [], {}, [])
  for path, source in zip(paths, read, strict=True):
    name = {run: run if count == 1 else f'{path.as_posix()}/{run}' for run, count in owners.items()}
    whole.rows += [row | {'run': name[row['run']]} for row in source.rows]
    whole.runs += [name[run] for run in source.runs]
    whole.configs |= {name[run]: saved for run, saved in source.configs.items()}
    whole.notes += source.notes
    whole.studies |= source.studies
  return whole


def _read(path: Path) -> Sources:
  rows = tables.read(path)
  of_folder = study.load(path) if path.is_dir() else None
  present = list(dict.fromkeys(row['run'] for row in rows))
  configs = {
    folder.name: config.saved_config(folder) for folder in _folders(path) if folder.name in present
  }
  notes = [f'{path.as_posix()}: {len(rows):,} rows of {_count(len(present), "run")}.']
  lacking = [run for run in present if run not in configs]
  if len(lacking) == len(present):
    notes.append(
      f'{path.as_posix()} has no config.json of any run: configurations and parameter counts are not known.'
    )
  elif lacking:
    notes.append(
      f'{path.as_posix()} has no config.json of {_count(len(lacking), "run")}: {"; ".join(lacking)}.'
    )
  if others := sum(not has_place(row) and row['metric'] not in CHANCE for row in rows):
    notes.append(
      f'{path.as_posix()}: {_count(others, "row")} by position or of unknown metrics, which have no place on this page.'
    )
  studies = {path.as_posix(): _tables(of_folder, notes)} if of_folder else {}
  return Sources(rows, of_folder.runs if of_folder else [], configs, notes, studies)


def _tables(of_folder: study.Report, notes: list[str]) -> list[Table]:
  """As scripts/table.py prints them; without a study what runs cost. A note says why there are
  none.
  """
  try:
    return of_folder.all_tables() if of_folder.study else of_folder.cost_tables()
  except UserError as error:  # its baseline may not be trained yet
    notes.append(
      f'{of_folder.folder.as_posix()}: the tables of {of_folder.study} are not there: {error}'
    )
    return []


def has_place(row: dict) -> bool:
  """On a page of scores by length."""
  known = row['metric'] is None or (
    row['metric'] in METRICS and METRICS[row['metric']].best is not None
  )
  return known and row['protocol'] not in BY_POSITION


def _folders(path: Path) -> list[Path]:
  """Where the runs may be that the rows of `path` are of."""
  folder = path if path.is_dir() else path.parent
  return [
    file.parent.resolve()
    for name in ('config.json', '*/config.json')
    for file in sorted(folder.glob(name))
  ]


def _count(number: int, what: str) -> str:
  return f'{number:,} {what}' + ('' if number == 1 else 's')
