"""The table of costs, a line for each label and size, and the scale of training in captions."""

from collections import defaultdict

from posenc_jax.reporting import costs
from posenc_jax.reporting.captions import join_unique
from posenc_jax.reporting.metrics import DASH
from posenc_jax.reporting.scores import score_notes
from posenc_jax.reporting.table import Cell, RowGroup, Table

# Runs of one line are equal in these fields.
OF_LINE = ('label', 'train_length', 'parameters', 'encoding_parameters', 'tokens')


def cost_tables(rows: list[dict], runs: list[str]) -> list[Table]:
  """The table of these rows of costs, in a list; [] of none.

  Args:
    runs: those that should be there, in the order of lines.
  """
  if not rows:
    return []
  rank = {run: index for index, run in enumerate(runs)}
  rows = sorted(rows, key=lambda row: rank.get(row['run'], len(runs)))
  lines = defaultdict(list)
  for row in rows:
    lines[tuple(row[field] for field in OF_LINE)].append(row)
  has_one_length = len({row['train_length'] for row in rows}) == 1
  body = []
  for (label, train_length, *counts), line_rows in lines.items():
    name = label if has_one_length else f'{label}, L = {train_length}'
    counts = [DASH if count is None else f'{count:,}' for count in counts]
    seconds = costs.median(row['seconds_per_step'] for row in line_rows)
    time = DASH if seconds is None else f'{1000 * seconds:.1f}'
    body.append(list(map(Cell, (name, *counts, time))))
  caption = (
    f'Cost of training. {_equality(rows, "tokens")} {_equality(rows, "parameters")} Tokens are '
    "steps x batch x length of the run's own training: without that of a run it started from, with "
    'the padding of tasks. '
    f'Computed in {join_unique(row["compute_dtype"] for row in rows)}. Step time is the median of '
    'the logged ones, on the machine of the run: of runs side by side it says little.'
  )
  notes = score_notes.of_missing(runs, rows, 'costs')
  if unknown := [row['run'] for row in rows if row['parameters'] is None]:
    notes.append(f'no parameter count in timing.jsonl: {join_unique(unknown)}')
  return [
    Table(
      'Cost',
      caption,
      ['encoding', 'parameters', 'of the encoding', 'tokens of the run', 'ms a step'],
      [RowGroup('', body)],
      notes,
      is_scored=False,
      records=[{'table': 'costs', **row} for row in rows],
    )
  ]


def _equality(rows: list[dict], field: str) -> str:
  """The sentence that says whether all runs have as many tokens or parameters."""
  values = [row[field] for row in rows if row[field] is not None]
  if not values:
    return f'The number of {field} is not on disk.'
  low, high = min(values), max(values)
  if low == high:
    return f'Equal {field}: {low:,}.'
  more = f', {high / low - 1:.1%} more'.replace('%', ' %') if low else ''
  return f'Unequal {field}: {low:,} to {high:,}{more}.'


def scale(rows: list[dict], runs: list[str]) -> str:
  """A sentence for captions, with a space before it, or ''.

  '0.82 to 0.98 million parameters, 2 million tokens a run, trained in float32.'
  """
  asked = {*runs}
  rows = [row for row in rows if not asked or row['run'] in asked]
  sizes = []
  for field, words in (('parameters', 'parameters'), ('tokens', 'tokens a run')):
    if values := [row[field] for row in rows if row[field] is not None]:
      ends = dict.fromkeys(_millions(value) for value in (min(values), max(values)))
      sizes.append(f'{" to ".join(ends)} million {words}')
  if not sizes:
    return ''
  dtypes = join_unique(row['compute_dtype'] for row in rows)
  return f' {", ".join(sizes)}, trained in {dtypes}.'


def _millions(value: int) -> str:
  """The number of millions in three digits, or in all of them where it has more."""
  number = value / 1e6
  return f'{number:.3g}' if number < 999.5 else f'{number:,.0f}'
