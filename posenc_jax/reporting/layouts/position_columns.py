"""Loss by position as columns of a table: ranges of positions that end at L, 2 L, 4 L, ..."""

import math

PROTOCOL = 'by_position'
COLUMN = 'column'


def column_of(row: dict) -> int:
  """The column of a row from `with_columns`: a length, or the last position of a range from 1."""
  return row.get(COLUMN, row['length'])


def with_columns(rows: list[dict], notes: list[str]) -> list[dict]:
  """The rows, those of `by_position` with their column.

  Of these, rows of the longest windows from position L / 2 on stay, where L is the shortest
  training length; all go, and `notes` say so, where none begins at L: then no range ends there.
  """
  by_position = [row for row in rows if row['protocol'] == PROTOCOL]
  others = [row for row in rows if row['protocol'] != PROTOCOL]
  if not by_position:
    return others
  near = min(row['train_length'] for row in by_position)
  longest = max(row['length'] for row in by_position)
  of_longest = [row for row in by_position if row['length'] == longest]
  if not any(row['position'] == near for row in of_longest):
    notes.append(f'{PROTOCOL} has no column: no row begins at L = {near}')
    return others
  return others + [
    row | {COLUMN: min(longest, near * 2 ** (1 + math.floor(math.log2(row['position'] / near))))}
    for row in of_longest
    if 2 * row['position'] >= near
  ]
