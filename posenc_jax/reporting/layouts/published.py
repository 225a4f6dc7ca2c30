"""Numbers that papers print, in a table apart from ours: never bold, never compared."""

from collections.abc import Iterable

from posenc_jax.errors import UserError
from posenc_jax.reporting.metrics import DASH
from posenc_jax.reporting.table import Cell, RowGroup, Table

TITLE = 'Published, other scale'


def published(reference: Iterable[dict]) -> list[Table]:
  """The table of published numbers, in a list; [] of none.

  Args:
    reference: dict(line=..., values={length: number}, source='authors year, table'), one a line.
  """
  reference = list(reference)
  for entry in reference:
    is_dict = isinstance(entry, dict) and set(entry) == {'line', 'values', 'source'}
    if not is_dict or not entry['values']:
      raise UserError(
        f'table: reference={entry!r}; allowed: dict(line=..., values={{length: number}}, '
        'source=...)'
      )
  if not reference:
    return []
  lengths = sorted({length for entry in reference for length in entry['values']})
  lines = []
  for entry in reference:
    values = [str(entry['values'].get(length, DASH)) for length in lengths]
    lines.append(list(map(Cell, (entry['line'], *values, entry['source']))))
  return [
    Table(
      TITLE,
      'As published, on other data and at another scale: for the form alone, and not to be '
      'compared with ours.',
      ['encoding', *map(str, lengths), 'source'],
      [RowGroup(TITLE.lower(), lines)],
      is_scored=False,
    )
  ]
