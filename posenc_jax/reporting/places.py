"""Places that a page or a board is made from, side by side: folders of runs or of kept rows, and
files of rows.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from ml_collections import ConfigDict

from posenc_jax import config, storage
from posenc_jax.errors import UserError, disk_errors, visible
from posenc_jax.reporting import row_files, study


@dataclasses.dataclass
class Place:
  """The runs of one place, by the names that they have there.

  Attributes:
    rows: its rows.
    report: what its study wants; of a file of rows it says nothing.
    configs: {run: its config} of the runs with rows that have a valid `config.json`.
    wrong: {config.json that is wrong: why}; what rows say of its run stays.
    hashes: {run: hash of its config} of those whose config is valid; of others it is not known, so
      that they are taken for no run of another place.
    shared: runs whose name a run of another place has, with another config.
  """

  path: Path
  rows: list[dict]
  report: study.Report
  configs: dict[str, ConfigDict]
  wrong: dict[str, str]
  hashes: dict[str, str]
  shared: set[str] = dataclasses.field(default_factory=set)

  def name(self, run: str) -> str:
    """The name of a run beside those of other places."""
    return f'{visible(self.path.as_posix())}/{run}' if run in self.shared else run

  def renamed(self, rows: Iterable[dict]) -> list[dict]:
    """Rows of runs of this place, with their names beside those of other places."""
    return [row | {'run': self.name(row['run'])} for row in rows]

  @property
  def planned(self) -> list[str]:
    """The names of the runs that should be there, in the order of lines."""
    return list(map(self.name, self.report.runs))


def read(paths: Iterable[str | Path]) -> list[Place]:
  """The places at these paths. Raises UserError for what is wrong there, but for configs."""
  places, hashes_of = list(map(_read, map(Path, paths))), defaultdict(set)
  for place in places:
    known = place.hashes | place.report.hashes
    for run in {*place.report.runs, *(row['run'] for row in place.rows)}:
      # The place stands for a hash that is not known: no run is taken for one of another place.
      hashes_of[run].add(known.get(run, place.path))
  for place in places:
    place.shared = {run for run, hashes in hashes_of.items() if len(hashes) > 1}
  return places


def _read(path: Path) -> Place:
  rows = row_files.of_runs(path)
  place = Place(path, rows, study.Report(path), {}, {}, {})
  with disk_errors(remedy=''):
    is_of_runs = storage.is_folder(path)
    if is_of_runs:
      place.report = study.load(path)
      place.report.rows = rows  # else it would read them again
    folder = path if is_of_runs else path.parent
    own = folder / 'config.json'
    files = [own] * storage.exists(own) + storage.files_below(folder, own.name)
    present = {row['run'] for row in rows}
    for file in files:
      run = visible(storage.name_of(file.parent))
      if run not in present and run not in place.report.runs:
        continue
      try:
        saved = config.saved_config(file.parent)
        config.validate(saved)
        place.hashes[run] = config.config_hash(saved)
        if run in present:
          place.configs[run] = saved
      except UserError as error:
        place.wrong[visible(str(file))] = str(error)
  return place
