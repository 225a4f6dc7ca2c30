"""The table of planted names: encodings down, distances to what decides a letter across."""

from collections.abc import Iterable

from posenc_jax.errors import UserError
from posenc_jax.reporting import comparisons
from posenc_jax.reporting.scores import LINE, collect
from posenc_jax.reporting.table import Cell, RowGroup, Table, cells, from_scores

PROTOCOL = 'planted'
SENTENCES = (
  ' Columns: bytes from a letter to the same letter of the same name before, from the number to '
  'twice it; 0: the name is new in the window.'
)


def distances(
  rows: Iterable[dict],
  runs: Iterable[str] = (),
  controls: bool = True,
  baseline: str | None = None,
  length: int | None = None,
) -> list[Table]:
  """A table of bits a letter in windows of `length` tokens, None: the longest; then its differences
  from the baseline; then the same for each control. Raises `UserError`.
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
  made = []
  for comparison in comparisons.compare_all(found, baseline):
    scores = comparison.scores
    of_lines = zip(scores.lines, cells(scores, scores.lines, comparison.marks), strict=True)
    group = RowGroup('', [[Cell(line), *some] for line, some in of_lines])
    sentences = SENTENCES + comparison.sentence
    made.append(from_scores(scores, 'Bits a letter by distance', 'encoding', [group], sentences))
    made += comparison.tables()
  return made
