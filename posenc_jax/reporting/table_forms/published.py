"""Numbers that others print, in a table apart from ours: never bold, never compared."""

import re
from collections.abc import Iterable

from posenc_jax.errors import UserError, shown
from posenc_jax.reporting.metrics import DASH
from posenc_jax.reporting.table import Cell, RowGroup, Table
from posenc_jax.rows.row_schema import is_number, is_text

TITLE = 'Published, other scale'
MOST = 1000  # lines, and lengths of a line


def check_reference(where: str, reference: object) -> None:
  """Raises UserError, which begins with `where`, for what `published` can print no table of."""
  if not isinstance(reference, list | tuple) or len(reference) > MOST:
    raise UserError(f'{where}reference: allowed: a list of at most {MOST} dicts')
  for entry in reference:
    if not _is_entry(entry):
      allowed = 'allowed: dict(line=..., values={length: number}, source=...)'
      raise UserError(f'{where}reference={shown(entry)}; {allowed}')


def _is_entry(entry: object) -> bool:
  if not isinstance(entry, dict) or entry.keys() != {'line', 'values', 'source'}:
    return False
  if not all(is_text(entry[name], 200) for name in ('line', 'source')):
    return False
  values = entry['values']
  return (
    isinstance(values, dict)
    and 0 < len(values) <= MOST
    and all(re.fullmatch('[0-9]{1,15}', str(length), re.ASCII) for length in values)
    and all(is_number(value) or is_text(value, 50) for value in values.values())
  )


def published(reference: Iterable[dict]) -> list[Table]:
  """The table of published numbers, in a list; [] of none.

  Args:
    reference: dict(line=..., values={length: number}, source='authors year, table'), one a line;
      a length is a whole number, or its text. Numbers may be text, too.
  """
  reference = list(reference)
  if not reference:
    return []
  values_of = [
    {int(length): value for length, value in entry['values'].items()} for entry in reference
  ]
  lengths = sorted({length for values in values_of for length in values})
  lines = []
  for entry, by_length in zip(reference, values_of, strict=True):
    values = [str(by_length.get(length, DASH)) for length in lengths]
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
