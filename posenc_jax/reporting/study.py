"""The tables and figures of a folder of runs, as its study wants them.

A folder of results is data. Its study.json holds the settings of tables and figures themselves, so
that nothing in the folder, and nothing that it names, is ever executed.
"""

import dataclasses
import functools
import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path

from ml_collections import ConfigDict

from posenc_jax import cli, config, storage
from posenc_jax.errors import Damaged, Stopped, UserError, disk_errors, shown, visible
from posenc_jax.reporting import costs, report_settings, row_files, table_writers
from posenc_jax.reporting.cost_table import cost_tables, scale
from posenc_jax.reporting.mpl import figures
from posenc_jax.reporting.table import Table
from posenc_jax.reporting.table_forms import make_tables
from posenc_jax.reporting.table_forms.effective_lengths import after_lengths
from posenc_jax.reporting.tasks import task_report
from posenc_jax.rows import sessions

FILE = 'study.json'
FIELDS = {
  **{'study': str, 'sha256': str, 'about': str},
  **{'runs': list, 'tables': list, 'figures': dict},
}
OPTIONAL = ('overrides', 'hashes')
MOST_BYTES = 10_000_000  # of a study
WITHOUT_IT = 'the folder without that file'
ELSEWHERE = 'table.py and figures.py write to another folder with --out=DIR'


@dataclasses.dataclass
class Report:
  """What to make of the rows in `folder`.

  Attributes:
    runs: names of the runs that should be there, in the order of lines.
    tables: what the study's `table()` gives: settings of `table_forms.make_tables`.
    figures: what its `figures()` gives: {name: settings of `figures.draw`}.
    study: the file of the study; None: tables and figures are the default ones.
    sha256: the hash of that file as it was when it gave these settings.
    about: the study's ABOUT, a text on what its models have in common; '': it has none.
    overrides: paths of fields that decide numbers, which a sweep changed in all its runs.
    hashes: {name of a run: `config_hash` of what it is to be}, of those in `runs` that are known.
    out: the folder that tables and figures are written to; None: `folder`.
  """

  folder: Path
  runs: list[str] = dataclasses.field(default_factory=list)
  tables: list[dict] = dataclasses.field(default_factory=lambda: [{}])
  figures: dict[str, dict] = dataclasses.field(default_factory=lambda: {'extrapolation': {}})
  study: str | None = None
  sha256: str = ''
  about: str = ''
  overrides: list[str] = dataclasses.field(default_factory=list)
  hashes: dict[str, str] = dataclasses.field(default_factory=dict)
  out: Path | None = None

  @property
  def references(self) -> set[str]:
    """Labels of the lines that figures have to compare others with."""
    every_settings = self.figures.values()
    return {label for settings in every_settings for label in settings.get('references', ())}

  @functools.cached_property
  def rows(self) -> list[dict]:
    """All rows of the folder, as they were when they were first asked for."""
    return row_files.of_runs(self.folder)

  def all_tables(self) -> list[Table]:
    """The tables of the study, then the table of costs."""
    return self._tables(costs.read(self.folder))

  def _tables(self, spent: list[dict], failed: dict[str, str] | None = None) -> list[Table]:
    """The tables; why one could not be made goes into `failed`, or is raised where that is None."""
    wanted = after_lengths(task_report.tables(self.tables, self.rows))
    made = []
    for number, settings in enumerate(wanted, 1):
      try:
        made += make_tables(self.rows, self.runs, **settings)
      except UserError as error:
        if failed is None:
          raise
        form = settings.get('form', 'lengths')
        failed[f'table {number} of {len(wanted)} (form {form})'] = str(error)
    for table in made:
      if table.is_scored:
        table.caption += scale(spent, self.runs)
    return made + cost_tables(spent, self.runs)

  def cost_tables(self) -> list[Table]:
    """The table of what runs cost, in a list; [] where that is not on disk."""
    return cost_tables(costs.read(self.folder), self.runs)

  def write_tables(self, failed: dict[str, str] | None = None) -> None:
    """Shows the tables, then writes `table.md`, `table.tex`, `table.csv` and `costs.jsonl`, and
    shows when and by which code the runs were made, where that is on record.

    Raises Stopped where they cannot be written. `failed`: as for `_tables`.
    """
    spent, worked = costs.read(self.folder), sessions.of_folder(self.folder)
    made = self._tables(spent, failed)
    console = cli.wide_console()
    for table in made:
      console.print(table_writers.on_screen(table, console.width))
    with disk_errors(ELSEWHERE):
      out = self._made_out()
      costs.write(out, spent)
      table_writers.write(made, out, self.folder.resolve().name)
    if worked:
      print(visible(sessions.sentence(worked, {row['run'] for row in self.rows})))
    print(visible(f'{out}/table.md, .tex, .csv'))

  def write_figures(self) -> None:
    """Writes `NAME.png` and `NAME.pdf` for each figure. Raises Stopped where that cannot be."""
    for name, settings in self.all_figures().items():
      self._write_figure(name, settings)

  def all_figures(self) -> dict[str, dict]:
    """{name: settings} of the figures of the study and of those of tasks that go with them."""
    return task_report.figures(self.figures, self.rows)

  def _write_figure(self, name: str, settings: dict) -> None:
    figure = figures.draw(self.rows, self.runs, **settings)
    with disk_errors(ELSEWHERE):
      figures.save(figure, self._made_out() / name)

  def _made_out(self) -> Path:
    if self.out is None:
      return self.folder
    self.out.mkdir(parents=True, exist_ok=True)
    return self.out

  def write_all_possible(self) -> dict[str, str]:
    """Writes the tables and each figure, whatever becomes of the others.

    Returns:
      {what could not be made: why}.
    """
    failed = {}
    try:
      self.write_tables(failed)
    except (UserError, Stopped) as error:
      failed['tables'] = str(error)
    try:
      wanted = self.all_figures()
    except (UserError, Stopped):
      wanted = self.figures  # each of them will say why
    for name, settings in wanted.items():
      try:
        self._write_figure(name, settings)
      except (UserError, Stopped) as error:
        failed[f'figure {name}'] = str(error)
    return failed


def of_study(
  path: str | Path,
  folder: Path,
  runs: Iterable[str] = (),
  planned: Iterable[ConfigDict] | None = None,
) -> Report:
  """The report that the study in the file `path` wants, which is executed.

  Args:
    planned: the configs of all runs of the study, where they are known.
  Raises:
    UserError: for settings that cannot work, as far as that can be said without rows.
  """
  study = config.load_study(path)
  report = Report(Path(folder), list(runs), study=str(path), sha256=_sha256(path))
  report.about = report_settings.check_about(f'{path}: ABOUT', getattr(study, 'ABOUT', ''))
  wanted = {}
  if hasattr(study, 'table'):
    where = f'{path}: table()'
    report.tables = report_settings.check_tables(where, study.table())
    wanted[where] = report.tables
  if hasattr(study, 'figures'):
    where = f'{path}: figures()'
    report.figures = report_settings.check_figures(where, study.figures())
    wanted[where] = report.figures.values()
  if planned is not None:
    for where, every_settings in wanted.items():
      report_settings.check_planned(where, every_settings, planned)
  return report


def _sha256(path: str | Path) -> str:
  return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def save(report: Report, path: str | Path) -> None:
  """Writes `study.json`, from which `load` makes the report without the study in the file `path`.

  A study inside the repository is named relative to it.
  """
  path, root = Path(path).resolve(), storage.REPOSITORY
  name = path.relative_to(root) if path.is_relative_to(root) else path
  write(dataclasses.replace(report, study=name.as_posix()))


def write(report: Report) -> None:
  """Writes `study.json` of the report into its folder."""
  tree = {name: getattr(report, name) for name in FIELDS}
  tree |= {name: getattr(report, name) for name in OPTIONAL if getattr(report, name)}
  storage.write_json(report.folder / FILE, tree)


def load(
  folder: str | Path,
  path: str | Path | None = None,
  with_settings: bool = True,
  remedy: str = WITHOUT_IT,
) -> Report:
  """The report of a folder: as the study in the file `path` wants it, or as study.json says.

  Without either, the default report. Nothing but `path` is executed. Without `with_settings` those
  of tables and figures are not read: an earlier version may have had others. `remedy` is what the
  user can do about a wrong study.json.

  Raises:
    UserError: there is no such folder, or study.json is wrong. Stopped: it cannot be read.
  """
  folder = Path(folder)
  with disk_errors(remedy=''):
    if not storage.is_folder(folder):
      raise UserError(
        f'{str(folder)!r} is no folder; allowed: where a sweep ran, such as runs/quick'
      )
    file = folder / FILE
    saved = {}
    if storage.exists(file):
      saved = storage.read_json(file, FIELDS if path is None else {'runs': list}, remedy)
  try:
    runs = report_settings.check_names(str(file), saved['runs']) if saved else []
    if saved and path is None:
      return Report(
        folder=folder,
        runs=runs,
        **(_settings(file, saved) if with_settings else {}),
        study=visible(saved['study']),
        sha256=saved['sha256'],
        about=report_settings.check_about(f'{file}: about', saved['about']),
        overrides=_check_overrides(f'{file}: overrides', saved.get('overrides', [])),
        hashes=_check_hashes(f'{file}: hashes', saved.get('hashes', {})),
      )
  except UserError as error:
    raise Damaged(f'{error}; or {remedy}') from None
  return Report(folder) if path is None else of_study(path, folder, runs)


def _settings(file: Path, saved: dict) -> dict[str, object]:
  return {
    'tables': report_settings.check_tables(f'{file}: tables', saved['tables']),
    'figures': report_settings.check_figures(f'{file}: figures', saved['figures']),
  }


def _check_overrides(where: str, overrides: object) -> list[str]:
  if not isinstance(overrides, list):
    raise UserError(f'{where}={shown(overrides)}; allowed: a list of fields')
  return report_settings.check_names(where, overrides, 'fields')


def _check_hashes(where: str, hashes: object) -> dict[str, str]:
  if not isinstance(hashes, dict):
    raise UserError(f'{where}={shown(hashes)}; allowed: {{run: hash}}')
  names, values = (
    report_settings.check_names(where, [*x], 'hashes of runs') for x in (hashes, hashes.values())
  )
  return dict(zip(names, values, strict=True))


def note_if_edited(report: Report) -> str:
  """A line that says that the study was edited since it gave the report its settings, or ''.

  The study is looked for in the repository, and only read. The line has no command to copy,
  because study.json may name anyone's file.
  """
  if report.study is None:
    return ''
  file = storage.REPOSITORY / report.study
  try:
    is_edited = (
      file.is_file() and file.stat().st_size < MOST_BYTES and _sha256(file) != report.sha256
    )
  except (OSError, ValueError):  # what cannot be read is no reason to make no tables
    return ''
  if not is_edited:
    return ''
  return (
    f'{report.folder}: tables and figures as {report.study} wanted them when its sweep ran; '
    'it was edited since: --config=STUDY makes what it wants now'
  )


def of_arguments(argv: list[str], of_tables: bool = False) -> Report:
  """The report of the command line `DIR [--config=STUDY] [--out=DIR]`; `of_tables`, also
  `[--baseline=LABEL]`, the baseline of all tables that compare lines.

  Prints what `note_if_edited` says, to the error stream.
  """
  known = dict.fromkeys(('config', 'out', *(('baseline',) if of_tables else ())))
  folders = []
  flags, _ = cli.parse_args(argv, known, folders, takes_overrides=False)
  if len(folders) != 1:
    raise UserError(
      f'{" ".join(argv) or "no arguments"}; allowed: DIR, such as runs/quick, and '
      + ', '.join(f'--{name}' for name in known)
    )
  remedy = WITHOUT_IT if flags.config else f'--config=STUDY, or {WITHOUT_IT}'
  report = load(folders[0], flags.config, remedy=remedy)
  if of_tables and flags.baseline is not None:
    tables = task_report.with_defaults(report.tables, report.rows)
    report.tables = report_settings.with_baseline('--baseline', tables, flags.baseline)
  if flags.out is not None:
    report.out = Path(flags.out)
    cli.check_folder(f'--out={report.out}', report.out)
  if line := note_if_edited(report):
    print(visible(line), file=sys.stderr)
  return report
