"""The forms of figures. A study's `figures()` names each figure's form and its settings."""

import io
from collections.abc import Iterable
from pathlib import Path

from posenc_jax import storage
from posenc_jax.errors import UserError, nearest, visible
from posenc_jax.reporting.learned import PART, mark
from posenc_jax.reporting.mpl.curves import lengths, positions, receptive_field
from posenc_jax.reporting.mpl.heat_map import heat_map

FORMS = {
  'lengths': lengths,  # score by evaluation length
  'positions': positions,  # KERPLE, FoX: score by position in the window
  'receptive_field': receptive_field,  # Sandwich: gradient by distance
  'heat_map': heat_map,  # needle: score by depth and length
}


def draw(
  rows: Iterable[dict],
  runs: Iterable[str] = (),
  form: str = 'lengths',
  learned: float = PART,
  **settings,
):
  """The `matplotlib.figure.Figure` of a form (FORMS); `settings` are its own, and `learned` is that
  of `layouts.make_tables`. Raises UserError.
  """
  if form not in FORMS:
    raise UserError(f'figure: form={form!r}; {nearest(form, FORMS)}')
  import matplotlib as mpl

  # names are text: a '$' in one of them is no formula
  with mpl.rc_context({'text.parse_math': False, 'text.usetex': False}):
    return FORMS[form](mark(rows, learned), runs, **settings)


def save(figure, path: str | Path) -> None:
  """Writes a figure as PNG, whole or not at all, and prints its path."""
  image = io.BytesIO()
  figure.savefig(image, dpi=200)
  storage.atomic_write(path, image.getvalue())
  print(visible(str(path)))
