"""What each line cost: parameters, tokens, time. From what a training leaves on disk, kept as rows
like scores are.
"""

import json
import statistics
from collections import defaultdict
from pathlib import Path

from posenc_jax import jsonl_store
from posenc_jax.config import saved_config
from posenc_jax.errors import user_errors
from posenc_jax.reporting.captions import every
from posenc_jax.reporting.metrics import DASH
from posenc_jax.reporting.table import Block, Field, Table

FILE = 'costs.jsonl'


def read(folder: str | Path) -> list[dict]:
  """A row a run, of the runs in `folder`; or of its costs.jsonl where there are no runs any more.
  Neither: none.
  """
  folder = Path(folder)
  runs = [
    path.parent
    for path in sorted(folder.glob('*/timing.jsonl'))
    if (path.parent / 'config.json').exists()
  ]
  with user_errors(ValueError):
    return [_of_run(run) for run in runs] or jsonl_store.read(folder / FILE)


def write(folder: str | Path, rows: list[dict]) -> None:
  """Writes costs.jsonl anew, if there are rows."""
  if rows:
    jsonl_store.atomic_write(Path(folder) / FILE, ''.join(json.dumps(row) + '\n' for row in rows))


def _of_run(run: Path) -> dict:
  c, timing = saved_config(run), jsonl_store.read(run / 'timing.jsonl')
  sizes = [row for row in timing if 'parameters' in row]
  seconds = [
    row['seconds_per_step'] for row in timing if 'seconds_per_step' in row and row['step'] > 1
  ]
  return {
    'run': run.name,
    'label': c.label or c.encoding.name,
    'seed': c.seed,
    'parameters': sizes[0]['parameters'] if sizes else None,
    'encoding_parameters': sizes[0]['encoding_parameters'] if sizes else None,
    'tokens': c.train.steps * c.train.batch * c.train.length,
    'train_length': c.train.length,
    'compute_dtype': c.train.compute_dtype,
    'seconds_per_step': statistics.median(seconds) if seconds else None,
  }


def tables(rows: list[dict], runs: list[str]) -> list[Table]:
  """Parameters, tokens trained and step time of each line, whatever differs named; none where
  nothing is on disk.
  """
  if not rows:
    return []
  rank = {run: index for index, run in enumerate(runs)}
  rows = sorted(rows, key=lambda row: rank.get(row['run'], len(runs)))
  lines = defaultdict(list)
  for row in rows:
    lines[
      tuple(
        row[f] for f in ('label', 'train_length', 'parameters', 'encoding_parameters', 'tokens')
      )
    ].append(row)
  lengths = {row['train_length'] for row in rows}
  number = lambda value: DASH if value is None else f'{value:,}'
  body = []
  for (label, train_length, *counts), some in lines.items():
    seconds = [row['seconds_per_step'] for row in some if row['seconds_per_step'] is not None]
    name = label if len(lengths) == 1 else f'{label}, L = {train_length}'
    time = f'{1000 * statistics.median(seconds):.1f}' if seconds else DASH
    body.append([Field(text) for text in (name, *map(number, counts), time)])
  caption = (
    f'Cost of training. {_equal(rows, "tokens", "tokens")} {_equal(rows, "parameters", "parameters")} Tokens are steps '
    "x batch x length of the run's own training: without that of a run it started from, with the padding of tasks. "
    f'Computed in {every(row["compute_dtype"] for row in rows)}. Step time is the median of the logged ones, on the '
    'machine of the run: of runs side by side it says little.'
  )
  notes = [f'no costs of run {run}' for run in runs if run not in {row['run'] for row in rows}]
  if unknown := [row['run'] for row in rows if row['parameters'] is None]:
    notes.append(f'no parameter count in timing.jsonl: {every(unknown)}')
  head = ['encoding', 'parameters', 'of the encoding', 'tokens of the run', 'ms a step']
  of_records = [{'table': 'costs', **row} for row in rows]
  return [
    Table('Cost', caption, head, [Block('', body)], notes, is_scored=False, records=of_records)
  ]


def _equal(rows: list[dict], field: str, words: str) -> str:
  values = [row[field] for row in rows if row[field] is not None]
  if not values:
    return f'The number of {words} is not on disk.'
  if len(set(values)) == 1:
    return f'Equal {words}: {values[0]:,}.'
  low, high = min(values), max(values)
  more = f', {high / low - 1:.1%} more'.replace('%', ' %') if low else ''
  return f'Unequal {words}: {low:,} to {high:,}{more}.'


def scale(rows: list[dict], runs: list[str]) -> str:
  """A sentence for captions: '0.82 to 0.98 million parameters, 2 million tokens a run, trained in
  float32.', or ''.
  """
  rows = [row for row in rows if not runs or row['run'] in runs]
  parts = []
  for field, words in (('parameters', 'parameters'), ('tokens', 'tokens a run')):
    if values := [row[field] for row in rows if row[field] is not None]:
      ends = dict.fromkeys(f'{value / 1e6:.3g}' for value in (min(values), max(values)))
      parts.append(f'{" to ".join(ends)} million {words}')
  return (
    f' {", ".join(parts)}, trained in {every(row["compute_dtype"] for row in rows)}.'
    if parts
    else ''
  )
