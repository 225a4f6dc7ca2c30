"""The places that a page is made from: the rows and configs of run folders and row files."""

import dataclasses
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ml_collections import ConfigDict

from posenc_jax import config, storage
from posenc_jax.errors import UserError, disk_errors, nearest, visible
from posenc_jax.protocols import POSITIONAL
from posenc_jax.reporting import row_files, study
from posenc_jax.reporting.folders import files_below, is_folder
from posenc_jax.reporting.metrics import LIKELIHOODS, METRICS
from posenc_jax.reporting.scores.collecting import collect
from posenc_jax.reporting.series import Series, length_series
from posenc_jax.reporting.table import Table
from posenc_jax.reporting.tasks import learned

# The metrics that say what guessing scores: they stand beside scores, and are none.
CHANCE_METRICS = {metric.chance for metric in METRICS.values()}


@dataclasses.dataclass
class Places:
  """The rows of one or more places.

  Attributes:
    rows: all rows; `run` is a name that only one place has, or several of one config.
    runs: names of the runs that should be there, in the order of lines.
    configs: {run: its config} of the runs whose folder has a `config.json`.
    notes: what was read where, and what is not there.
    studies: {place: the tables of its study and of its costs} of the places that have any.
    references: labels of lines that a study has to compare others with.
    hashes: {run: hash of its config} of the runs of one place, where it is known.
  """

  rows: list[dict]
  runs: list[str]
  configs: dict[str, ConfigDict]
  notes: list[str]
  studies: dict[str, list[Table]] = dataclasses.field(default_factory=dict)
  references: set[str] = dataclasses.field(default_factory=set)
  hashes: dict[str, str] = dataclasses.field(default_factory=dict)

  def series(self, metric: str) -> list[Series]:
    """Scores by length of every protocol and control, then of every task by each of its metrics.

    Raises UserError for a `metric` that is no likelihood, or without rows that the page can show.
    """
    if metric not in LIKELIHOODS:
      raise UserError(f'--metric={metric!r}; {nearest(metric, LIKELIHOODS)}')
    # before rows are divided by metric: one of them says which seeds have learned
    shown = [row for row in learned.mark(self.rows) if can_show(row)]
    if not shown:
      raise UserError(
        'no rows of likelihoods or tasks by length; allowed: at least one protocol or task with '
        'such rows'
      )
    made = []
    for name in (metric, *(name for name in METRICS if name not in LIKELIHOODS)):
      if any(map(METRICS[name].matches, shown)):
        found = collect(shown, self.runs, metric=name)
        made += [length_series(scores, self.rows) for scores in found]
    return made


def can_show(row: dict) -> bool:
  """Whether a row has a place on a page of scores by length."""
  metric = METRICS.get(row['metric'])
  is_known = row['metric'] is None or (metric is not None and metric.best is not None)
  return is_known and row['protocol'] not in POSITIONAL


def gather(paths: Iterable[str | Path], root: str | Path | None = None) -> Places:
  """Reads folders (of one run, of many, or of kept rows) and files of rows.

  `root` is the repository, for folders whose study lies in it. Raises UserError for none, or for a
  place that is given twice.
  """
  paths = [Path(path) for path in paths]
  if not paths:
    raise UserError(
      'no RUNS; allowed: folders such as runs/quick or results/classic, or files of rows'
    )
  counts = Counter(path.resolve() for path in paths)
  if twice := [path for path, count in counts.items() if count > 1]:
    raise UserError(f'{twice[0]}: given twice; allowed: each place once')
  read = [_read(path, root) for path in paths]
  printed = [visible(path.as_posix()) for path in paths]
  runs = [(*place.runs, *_present(place.rows)) for place in read]
  names = study.names_of_runs(printed, runs, [place.hashes for place in read])
  joined = Places([], [], {}, [])
  for name, place in zip(names, read, strict=True):
    joined.rows += [row | {'run': name(row['run'])} for row in place.rows]
    joined.runs = [*dict.fromkeys([*joined.runs, *map(name, place.runs)])]
    joined.configs |= {name(run): saved for run, saved in place.configs.items()}
    joined.notes += place.notes
    joined.studies |= place.studies
    joined.references |= place.references
  return joined


def _read(path: Path, root: str | Path | None) -> Places:
  rows, place = row_files.of_runs(path), visible(path.as_posix())
  present = _present(rows)
  notes = [f'{place}: {len(rows):,} rows of {_count(len(present), "run")}.']
  with disk_errors(remedy=''):
    is_of_runs = is_folder(path)
    configs = _configs(path if is_of_runs else path.parent, present, notes)
  lacking = [run for run in present if run not in configs]
  if len(lacking) == len(present):
    notes.append(
      f'{place} has no config.json of any run: configurations and parameter counts are not known.'
    )
  elif lacking:
    notes.append(
      f'{place} has no config.json of {_count(len(lacking), "run")}: {"; ".join(lacking)}.'
    )
  if others := sum(not can_show(row) and row['metric'] not in CHANCE_METRICS for row in rows):
    notes.append(
      f'{place}: {_count(others, "row")} by position or of unknown metrics, which have no place on '
      'this page.'
    )
  hashes = {run: config.config_hash(saved) for run, saved in configs.items()}
  if not is_of_runs:
    return Places(rows, [], configs, notes, hashes=hashes)
  report = study.load(path)
  if root is not None and (line := study.note_if_edited(report, Path(root))):
    notes.append(visible(line))
  tables = {place: _tables(report, notes)}
  hashes |= report.hashes
  return Places(rows, report.runs, configs, notes, tables, report.references, hashes)


def _present(rows: list[dict]) -> list[str]:
  return list(dict.fromkeys(row['run'] for row in rows))


def _configs(folder: Path, runs: list[str], notes: list[str]) -> dict[str, ConfigDict]:
  """{run: its config} of these runs in the folder, or of the one run that the folder is.

  A note names each config that is wrong: the page says of its run what rows say.
  """
  own = folder / 'config.json'
  files = [own] if storage.exists(own) else []
  found = {}
  for file in [*files, *files_below(folder, 'config.json')]:
    run = visible(storage.name_of(file.parent))
    if run not in runs:
      continue
    try:
      c = config.saved_config(file.parent)
      config.validate(c)
      found[run] = c
    except UserError as error:
      notes.append(f'{visible(str(file))} is left out: {error}')
  return found


def _tables(report: study.Report, notes: list[str]) -> list[Table]:
  """The tables of the study, or without one those of costs; a note says why there are none."""
  try:
    return report.all_tables() if report.study else report.cost_tables()
  except UserError as error:  # its baseline may not be trained yet
    place = report.folder.as_posix()
    notes.append(f'{place}: the tables of {report.study} are not there: {error}')
    return []


def _count(number: int, what: str) -> str:
  return f'{number:,} {what}' + ('' if number == 1 else 's')
