"""The table of planted names: encodings down, distances to what decides a character across."""

from collections.abc import Iterable

from posenc_jax.errors import UserError
from posenc_jax.reporting.layouts.published import published
from posenc_jax.reporting.scores import LINE, Scores, collect
from posenc_jax.reporting.table import Cell, RowGroup, Table, cells, from_scores

PROTOCOL = 'planted'
SENTENCES = (
  ' Columns: bytes from a character to the same one of the same name before, from the number to '
  'twice it; 0: the name is new in the window.'
)


def distances(
  rows: Iterable[dict],
  runs: Iterable[str] = (),
  controls: bool = True,
  length: int | None = None,
  reference: Iterable[dict] = (),
) -> list[Table]:
  """A table of bits a character in windows of `length` tokens, None: the longest; then the same
  under each control. `reference` see `published`. Raises `UserError`.
  """
  rows = [row for row in rows if row['protocol'] == PROTOCOL]
  lengths = sorted({row['length'] for row in rows})
  if not rows or length not in (None, *lengths):
    allowed = ', '.join(map(str, lengths)) or 'a study with planted in eval.protocols'
    raise UserError(f'table: no rows of {PROTOCOL} with length={length}; allowed: {allowed}')
  found = collect(
    [row for row in rows if row['length'] == (length or lengths[-1])],
    runs,
    [PROTOCOL],
    'bpb',
    controls,
    column_of=lambda row: row['position'],
    group_fields=(*LINE, 'length'),
  )
  return [_table(scores) for scores in found] + published(reference)


def _table(scores: Scores) -> Table:
  of_lines = zip(scores.lines, cells(scores, scores.lines), strict=True)
  group = RowGroup('', [[Cell(scores.label(line)), *some] for line, some in of_lines])
  return from_scores(scores, 'Bits a character by distance', 'encoding', [group], SENTENCES)
