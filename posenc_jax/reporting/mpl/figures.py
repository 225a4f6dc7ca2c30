"""The forms of figures. A study's `figures()` names each figure's form and its settings."""

import io
from collections.abc import Collection, Iterable
from pathlib import Path

from posenc_jax import storage
from posenc_jax.errors import UserError, visible
from posenc_jax.reporting.mpl.axes import as_text
from posenc_jax.reporting.mpl.curves import positions, receptive_field
from posenc_jax.reporting.mpl.differences import differences
from posenc_jax.reporting.mpl.extrapolation import lengths
from posenc_jax.reporting.mpl.heat_map import heat_map
from posenc_jax.reporting.tasks.learned import mark

FORMS = {
  'lengths': lengths,  # score by evaluation length
  'positions': positions,  # KERPLE, FoX: score by position in the window
  'receptive_field': receptive_field,  # Sandwich: gradient by distance
  'heat_map': heat_map,  # needle: score by depth and length
  'differences': differences,  # context extension: what a method is worth, line by line
}


def draw(
  rows: Iterable[dict],
  runs: Iterable[str] = (),
  form: str = 'lengths',
  labels: Collection[str] = (),
  **settings,
):
  """The `matplotlib.figure.Figure` of a form, a key of FORMS, with `settings` of its own, which
  `report_settings` has checked.

  Args:
    rows: as `Report.rows` has them; those of `row_files.read` lack `config`, the run's.
    labels: those of the lines that are drawn; (): all lines. The others are judged and compared
      with them all the same.
  Raises:
    UserError: as the form does, and where no line has one of the labels.
  """
  rows = list(rows)
  if labels:
    present = {row['run'] for row in rows if row['label'] in labels}
    if not present:
      allowed = ', '.join(sorted({row['label'] for row in rows}))
      raise UserError(f'figure: labels={list(labels)}: no rows of these; allowed: {allowed}')
    runs = [run for run in runs if run in present]  # of others, nobody knows the label
  with as_text():
    return FORMS[form](mark(rows), runs, labels=labels, **settings)


# What no format is to hold: the same figure is the same bytes on every day.
DATES = {'png': {}, 'pdf': {'CreationDate': None}}


def save(figure, path: str | Path) -> None:
  """Writes a figure as `PATH.png` and, for papers, as `PATH.pdf`, and prints their paths.

  Each is written whole or not at all, and the same bytes for the same figure.
  """
  import matplotlib as mpl

  for kind, metadata in DATES.items():
    image = io.BytesIO()
    with mpl.rc_context({'pdf.fonttype': 42}):  # fonts that journals take
      figure.savefig(image, format=kind, dpi=200, metadata=metadata)
    file = Path(f'{path}.{kind}')
    storage.atomic_write(file, image.getvalue())
    print(visible(str(file)))
