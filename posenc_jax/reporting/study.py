"""The tables and figures of a folder of runs, as its study wants them."""

import dataclasses
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path

from rich.console import Console

from posenc_jax import config, storage
from posenc_jax.errors import UserError, hint, nearest
from posenc_jax.reporting import rows, table_writers
from posenc_jax.reporting.layouts import LAYOUTS, costs, make_tables
from posenc_jax.reporting.metrics import METRICS
from posenc_jax.reporting.mpl import figures
from posenc_jax.reporting.table import Table


@dataclasses.dataclass
class Report:
  """What to make of the rows in `folder`.

  Attributes:
    runs: names of the runs that should be there, in the order of lines.
    tables: what the study's `table()` gives: settings of `layouts.make_tables`.
    figures: what its `figures()` gives: {name: settings of `figures.draw`}.
    study: the file of the study; None: tables and figures are the default ones.
  """

  folder: Path
  runs: list[str] = dataclasses.field(default_factory=list)
  tables: list[dict] = dataclasses.field(default_factory=lambda: [{}])
  figures: dict[str, dict] = dataclasses.field(default_factory=lambda: {'extrapolation': {}})
  study: str | Path | None = None

  def all_tables(self) -> list[Table]:
    """The tables of the study, then the table of costs."""
    of_folder, spent = rows.read(self.folder), costs.read(self.folder)
    made = [
      table for settings in self.tables for table in make_tables(of_folder, self.runs, **settings)
    ]
    for table in made:
      if table.is_scored:
        table.caption += costs.scale(spent, self.runs)
    return made + self.cost_tables()

  def cost_tables(self) -> list[Table]:
    """The table of what runs cost, in a list; [] where that is not on disk."""
    return costs.tables(costs.read(self.folder), self.runs)

  def write_tables(self) -> None:
    """Writes `table.md`, `table.tex`, `table.csv` and `costs.jsonl`, and shows the tables."""
    made = self.all_tables()
    costs.write(self.folder, costs.read(self.folder))
    table_writers.write(made, self.folder)
    console = Console()
    if not console.is_terminal:
      console.width = 140  # a file has no width: tables need not be squeezed
    for table in made:
      console.print(table_writers.on_screen(table))
    print(f'{self.folder}/table.md, .tex, .csv')

  def write_figures(self) -> None:
    """Writes `NAME.png` for each figure."""
    for name in self.figures:
      self.write_figure(name)

  def write_figure(self, name: str) -> None:
    """Writes the figure `name`."""
    figure = figures.draw(rows.read(self.folder), self.runs, **self.figures[name])
    figures.save(figure, self.folder / f'{name}.png')

  def write_all_possible(self) -> dict[str, str]:
    """Writes the tables and each figure, whatever becomes of the others.

    Returns:
      {what could not be made: why}.
    """
    failed = {}
    for name in (None, *self.figures):
      try:
        if name is None:
          self.write_tables()
        else:
          self.write_figure(name)
      except UserError as error:
        failed['tables' if name is None else f'figure {name}'] = str(error)
    return failed


def of_study(path: str | Path, folder: Path, runs: Iterable[str] = ()) -> Report:
  """The report that the study in the file `path` wants. Raises UserError for unknown settings."""
  study, report = config.load_study(path), Report(folder, list(runs), study=path)
  if hasattr(study, 'table'):
    wanted = study.table()
    report.tables = [wanted] if isinstance(wanted, dict) else list(wanted)
    for settings in report.tables:
      _check(f'{path}: table()', settings, LAYOUTS)
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


def save(report: Report, path: str | Path, root: Path) -> None:
  """Writes `study.json`, which tells `load` the runs and the study in the file `path`.

  A study inside the repository `root` is written relative to it.
  """
  path, root = Path(path).resolve(), Path(root).resolve()
  study = path.relative_to(root) if path.is_relative_to(root) else path
  storage.write_json(report.folder / 'study.json', {'study': study.as_posix(), 'runs': report.runs})


def load(
  folder: str | Path, path: str | Path | None = None, root: str | Path | None = None
) -> Report:
  """The report of a folder: as the study in the file `path` wants it, or the one in `study.json`.

  Without either, the default report. `root` is the repository, which a study in `study.json` may be
  relative to. Raises UserError where there is no such folder, or no repository.
  """
  folder = Path(folder)
  if not folder.is_dir():
    raise UserError(f'{str(folder)!r} is no folder; allowed: where a sweep ran, such as runs/quick')
  saved, file = {'runs': []}, folder / 'study.json'
  if file.exists():
    saved = storage.read_json(file, {'runs': list})
  if path is None and 'study' in saved:
    path = Path(saved['study'])
    if not path.is_absolute():
      if root is None:
        raise UserError(
          f'{file}: study={saved["study"]!r} is a file of the repository, which is not known here; '
          'allowed: the scripts of a clone, or --config=STUDY'
        )
      path = Path(root) / path
  return Report(folder, saved['runs']) if path is None else of_study(path, folder, saved['runs'])


def of_arguments(argv: list[str], root: Path) -> Report:
  """The report of the command line `DIR [--config=STUDY]` in the repository `root`."""
  folders = []
  flags, overrides = config.parse_args(argv, {'config': None}, folders)
  if len(folders) != 1 or overrides:
    raise UserError(
      f'{" ".join(argv) or "no arguments"}; allowed: DIR, such as runs/quick, and --config=STUDY'
    )
  return load(folders[0], flags.config, root)
