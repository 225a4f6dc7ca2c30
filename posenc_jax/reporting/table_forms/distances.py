"""Tables of what stands at some places: encodings down, across the distances to what decides a
character of a planted name, or the depths at which a prompt hides what it asks for.
"""

from collections.abc import Iterable

from posenc_jax import tasks
from posenc_jax.errors import UserError
from posenc_jax.protocols import PLANTED, PROTOCOLS
from posenc_jax.reporting.scores.collecting import check_depths, collect_windows
from posenc_jax.reporting.scores.score import Scores
from posenc_jax.reporting.table import (
  DEPTH,
  DISTANCE,
  TEXT,
  Cell,
  RowGroup,
  Table,
  cells,
  from_scores,
  kinds_of,
)

DISTANCES = (
  ' Columns: bytes from a character to the same one of the same name before, from the number to '
  'twice it; 0: the name is new in the window.'
)
OF_TEXT = ' text: the bytes between names.'
DEPTHS = ' Columns: how much of the text stands before what is asked for, in per cent.'


def distances(
  rows: Iterable[dict],
  runs: Iterable[str] = (),
  controls: bool = True,
  protocol: str = PLANTED,
  metric: str = 'bpb',
  length: int | None = None,
) -> list[Table]:
  """A table of windows of `length` tokens, None: the longest that most runs have; then the same
  under each control.

  `protocol` is `planted` or one that asks for what stands at one depth. Raises `UserError`.
  """
  check_depths('table', protocol, [PLANTED])
  is_planted, every = protocol == PLANTED, list(rows)
  of_place = lambda row: TEXT if is_planted and row['position'] is None else row['position']
  of_protocol = [row for row in every if row['protocol'] == protocol]
  rows = [row for row in of_protocol if of_place(row) is not None]
  if of_protocol and not rows:
    raise UserError(
      f'table: rows of protocol={protocol!r} have no position; allowed: a task with a depth'
    )
  lengths = sorted({row['length'] for row in rows})
  if not rows or length not in (None, *lengths):
    is_of_text = protocol in PROTOCOLS
    of_task = f'data.corpus={tasks.PREFIX + protocol!r}'
    field = f'{protocol} in eval.protocols' if is_of_text else of_task
    allowed = ', '.join(map(str, lengths)) or f'a study with {field}'
    raise UserError(f'table: no rows of {protocol} with length={length}; allowed: {allowed}')
  corpora = {row['corpus'] for row in rows}
  asked = {row['run'] for row in every if row['corpus'] in corpora}
  of_others = {row['run'] for row in every} - asked  # not missing: they are of another task
  runs = [run for run in runs if run not in of_others]
  place = DISTANCE if is_planted else DEPTH
  rows = [row | {place: of_place(row)} for row in rows]
  found, length = collect_windows(
    rows, runs, protocol, metric, length, lambda row: row[place], controls=controls
  )
  # of names the caption says the length
  title = 'Bits a character by distance' if is_planted else f'Scores by depth in {length} tokens'
  return [_table(scores, title, DISTANCES if is_planted else DEPTHS) for scores in found]


def _table(scores: Scores, title: str, sentences: str) -> Table:
  kinds = kinds_of(scores)
  line_cells = zip(scores.lines, cells(scores, kinds), strict=True)
  group = RowGroup('', [[Cell(scores.label(line)), *some] for line, some in line_cells])
  if TEXT in scores.columns:
    sentences += OF_TEXT
  return from_scores(scores, kinds, title, 'encoding', [group], sentences)
