"""All that a page is made from: the rows, configs and tables of its places."""

import dataclasses
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ml_collections import ConfigDict

from posenc_jax.errors import UserError, nearest, visible
from posenc_jax.protocols import POSITIONAL
from posenc_jax.reporting import places, study
from posenc_jax.reporting.metrics import LIKELIHOODS, METRICS
from posenc_jax.reporting.scores.collecting import collect
from posenc_jax.reporting.series import Series, length_series
from posenc_jax.reporting.table import Table
from posenc_jax.reporting.tasks import learned

# The metrics that say what guessing scores: they stand beside scores, and are none.
CHANCE_METRICS = {metric.chance for metric in METRICS.values()}


@dataclasses.dataclass
class Gathered:
  """One or more places, joined.

  Attributes:
    rows: all rows; `run` is a name that only one place has, or several of one config.
    runs: names of the runs that should be there, in the order of lines.
    configs: {run: its config} of the runs whose folder has a valid `config.json`.
    notes: what was read where, and what is not there.
    studies: {place: the tables of its study and of its costs} of the places that have any.
    references: labels of lines that a study has to compare others with.
  """

  rows: list[dict]
  runs: list[str]
  configs: dict[str, ConfigDict]
  notes: list[str]
  studies: dict[str, list[Table]] = dataclasses.field(default_factory=dict)
  references: set[str] = dataclasses.field(default_factory=set)

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


def gather(paths: Iterable[str | Path]) -> Gathered:
  """Reads folders (of one run, of many, or of kept rows) and files of rows. Raises UserError for
  none, or for a place that is given twice.
  """
  paths = [Path(path) for path in paths]
  if not paths:
    raise UserError(
      'no RUNS; allowed: folders such as runs/quick or results/classic, or files of rows'
    )
  counts = Counter(path.resolve() for path in paths)
  if twice := [path for path, count in counts.items() if count > 1]:
    raise UserError(f'{twice[0]}: given twice; allowed: each place once')
  joined = Gathered([], [], {}, [])
  for place in places.read(paths):
    joined.rows += place.renamed(place.rows)
    joined.runs = [*dict.fromkeys([*joined.runs, *place.planned])]
    joined.configs |= {place.name(run): saved for run, saved in place.configs.items()}
    joined.notes += _notes(place)
    joined.references |= place.report.references
    if line := study.note_if_edited(place.report):
      joined.notes.append(visible(line))
    if place.path.is_dir():
      joined.studies[visible(place.path.as_posix())] = _tables(place.report, joined.notes)
  return joined


def _notes(place: places.Place) -> list[str]:
  """What was read, and what is not there."""
  path = visible(place.path.as_posix())
  present = list(dict.fromkeys(row['run'] for row in place.rows))
  notes = [f'{path}: {len(place.rows):,} rows of {_count(len(present), "run")}.']
  notes += [f'{file} is left out: {why}' for file, why in place.wrong.items()]
  lacking = [run for run in present if run not in place.configs]
  if len(lacking) == len(present):
    notes.append(
      f'{path} has no valid config.json of any run: configurations and parameter counts '
      'are not known.'
    )
  elif lacking:
    notes.append(
      f'{path} has no valid config.json of {_count(len(lacking), "run")}: {"; ".join(lacking)}.'
    )
  if others := sum(not can_show(row) and row['metric'] not in CHANCE_METRICS for row in place.rows):
    notes.append(
      f'{path}: {_count(others, "row")} by position or of metrics without a better end, which have '
      'no place on this page.'
    )
  return notes


def _tables(report: study.Report, notes: list[str]) -> list[Table]:
  """The tables of the study, or without one those of costs; a note says why there are none."""
  try:
    return report.all_tables() if report.study else report.cost_tables()
  except UserError as error:  # its baseline may not be trained yet
    place = report.folder.as_posix()
    notes.append(f'{place}: the tables of {report.study or "costs"} are not there: {error}')
    return []


def _count(number: int, what: str) -> str:
  return f'{number:,} {what}' + ('' if number == 1 else 's')
