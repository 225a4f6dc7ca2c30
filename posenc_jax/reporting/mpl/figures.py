"""Figures made from rows and nothing else. A study's `figures()` names each one's form and the
form's settings.
"""

from collections.abc import Iterable

from posenc_jax.errors import UserError, nearest
from posenc_jax.reporting.mpl.curves import lengths, positions, receptive_field
from posenc_jax.reporting.mpl.heat_map import heat_map

FORMS = {
  'lengths': lengths,  # score by evaluation length
  'positions': positions,  # KERPLE, FoX: score by position in the window
  'receptive_field': receptive_field,  # Sandwich: gradient by distance
  'heat_map': heat_map,  # needle: score by depth and length
}


def draw(rows: Iterable[dict], runs: Iterable[str] = (), form: str = 'lengths', **settings):
  """The `matplotlib.figure.Figure` of a form (FORMS); `settings` are its own. Raises UserError."""
  if form not in FORMS:
    raise UserError(f'figure: form={form!r}; {nearest(form, FORMS)}')
  return FORMS[form](rows, runs, **settings)
