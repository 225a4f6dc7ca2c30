"""The tables and figures of a folder of runs, as its study wants them."""

import dataclasses
import functools
import inspect
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from rich.console import Console

from posenc_jax import config, jsonl_store
from posenc_jax.errors import UserError, hint, nearest
from posenc_jax.reporting import table_writers, tables
from posenc_jax.reporting.layouts import costs
from posenc_jax.reporting.metrics import METRICS
from posenc_jax.reporting.mpl import figures
from posenc_jax.reporting.table import Table

ROOT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass
class Report:
  """How to read the rows in `folder`.

  Attributes:
    runs: names of the runs that should be there, in the order of lines.
    tables: what the study's `table()` gives, one or a list of settings of `tables.make`.
    figures: what its `figures()` gives, {name: settings of `figures.draw`}.
    study: the file that says so; None: all is by default.
  """

  folder: Path
  runs: list[str] = dataclasses.field(default_factory=list)
  tables: list[dict] = dataclasses.field(default_factory=lambda: [{}])
  figures: dict[str, dict] = dataclasses.field(default_factory=lambda: {'extrapolation': {}})
  study: str | Path | None = None

  def all_tables(self) -> list[Table]:
    """The study's, and what its runs cost."""
    rows, spent = tables.read(self.folder), costs.read(self.folder)
    made = [table for settings in self.tables for table in tables.make(rows, self.runs, **settings)]
    for table in made:
      table.caption += costs.scale(spent, self.runs) if table.is_scored else ''
    return made + self.cost_tables()

  def cost_tables(self) -> list[Table]:
    """What its runs cost, if that is on disk."""
    return costs.tables(costs.read(self.folder), self.runs)

  def make_tables(self) -> None:
    """Writes `table.md`, `table.tex`, `table.csv` and what runs cost, `costs.jsonl`; shows the
    tables.
    """
    made = self.all_tables()
    costs.write(self.folder, costs.read(self.folder))
    table_writers.write(made, self.folder)
    console = Console()
    if not console.is_terminal:
      console.width = 140  # a file has no width: tables need not be squeezed
    for table in made:
      console.print(table_writers.on_screen(table))
    print(f'{self.folder}/table.md, .tex, .csv')

  def make_figures(self) -> None:
    """Writes `NAME.png` for each figure."""
    for name in self.figures:
      self.make_figure(name)

  def make_figure(self, name: str) -> None:
    """Writes one of `figures`."""
    path = self.folder / f'{name}.png'
    figures.draw(tables.read(self.folder), self.runs, **self.figures[name]).savefig(path, dpi=200)
    print(path)

  def make_what_can_be(self) -> dict[str, str]:
    """The tables, and each figure, whatever becomes of the others; returns {what could not be made:
    why}.
    """
    makers = {'tables': self.make_tables}
    makers |= {f'figure {name}': functools.partial(self.make_figure, name) for name in self.figures}
    amiss = {}
    for what, make in makers.items():
      try:
        make()
      except UserError as error:
        amiss[what] = str(error)
    return amiss


def of_study(path: str | Path, folder: Path, runs: Iterable[str] = ()) -> Report:
  """What the study in the file `path` wants made. Raises UserError where it asks for what there is
  not.
  """
  study, report = config.load_study(path), Report(folder, list(runs), study=path)
  if hasattr(study, 'table'):
    wanted = study.table()
    report.tables = [wanted] if isinstance(wanted, dict) else list(wanted)
    for settings in report.tables:
      _check(f'{path}: table()', settings, tables.FORMS)
  if hasattr(study, 'figures'):
    report.figures = study.figures()
    for name, settings in report.figures.items():
      _check(f'{path}: figures()[{name!r}]', settings, figures.FORMS)
  return report


def _check(where: str, settings: dict, forms: dict[str, Callable]) -> None:
  form = {'form': 'lengths', **settings}['form']
  if form not in forms:
    raise UserError(f'{where}: form={form!r}; {nearest(form, forms)}')
  allowed = inspect.signature(forms[form]).parameters.keys() - {'rows', 'runs'} | {'form'}
  for name, value in settings.items():
    if name not in allowed:
      raise UserError(f'{where}: no setting {name!r} of {form}; {nearest(name, allowed)}')
    if name == 'metric' and value not in METRICS and hint(value, METRICS):
      raise UserError(f'{where}: metric={value!r}; {hint(value, METRICS)}')


def save(report: Report, path: str | Path) -> None:
  """Writes `study.json`, which tells `load` the runs and the study, by its path from the
  repository's root if there.
  """
  path = Path(path).resolve()
  study = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
  jsonl_store.atomic_write_json(
    report.folder / 'study.json', {'study': study.as_posix(), 'runs': report.runs}
  )


def load(folder: str | Path, path: str | Path | None = None) -> Report:
  """The report of a folder: as its `study.json` says, or as the study in the file `path` wants it,
  or as by default.
  """
  folder = Path(folder)
  if not folder.is_dir():
    raise UserError(f'{str(folder)!r} is no folder; allowed: where a sweep ran, such as runs/quick')
  saved = (
    json.loads((folder / 'study.json').read_text())
    if (folder / 'study.json').exists()
    else {'runs': []}
  )
  if path is None and 'study' in saved:
    path = ROOT / saved['study']
  return Report(folder, saved['runs']) if path is None else of_study(path, folder, saved['runs'])


def of_arguments(argv: list[str]) -> Report:
  """Of the command line `DIR [--config=STUDY]`."""
  places = []
  flags, overrides = config.parse_args(argv, {'config': None}, places)
  if len(places) != 1 or overrides:
    raise UserError(
      f'{" ".join(argv) or "no arguments"}; allowed: DIR, such as runs/quick, and --config=STUDY'
    )
  return load(places[0], flags.config)
