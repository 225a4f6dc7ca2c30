"""Which seeds have learned a task.

Seeds learn a task or they do not, so a mean over all of them is a score that no seed has. A seed
has learned where its share of answers right at the training length is farther from guessing than
the given part of the way from guessing to 1: the bound is chance + part * (1 - chance). Beyond the
training length nothing is asked of it: that is what tables and figures show. Means are taken over
the seeds that have learned, and say of how many.
"""

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from posenc_jax.reporting.captions import join_unique

# Of the way from guessing to 1, unless a study says otherwise. Of the 54 trainings on tasks whose
# rows are kept in results/, 41 went 98 % of it or more, and 13 less than 92 %: of some of these,
# half of it would make means of exact matches of 0.08 and 0.98.
PART = 0.95
ACCURACY, CHANCE = 'token_accuracy', 'token_chance'
# Rows of one trained model in one task are equal in these fields.
MODEL = ('run', 'seed', 'step', 'corpus', 'split', 'train_length', 'protocol')


class Learned(NamedTuple):
  """Whether a trained model has learned a task: its share of answers right at the training length,
  and the bound that this must exceed.
  """

  accuracy: float
  bound: float

  @property
  def is_learned(self) -> bool:
    return self.accuracy > self.bound


def mark(rows: Iterable[dict], part: float = PART) -> list[dict]:
  """The rows, each with a field `learned`: what is known of its model in its task, a `Learned`, or
  None where no rows say its share of answers right, and that of guessing, at the training length.
  A model that was evaluated with changes is judged as it was trained, where rows say that.

  Rows that have the field already stay as they are.
  """
  rows = list(rows)
  if rows and 'learned' in rows[0]:
    return rows
  at_train_length = defaultdict(lambda: defaultdict(list))
  for row in rows:
    is_asked = row['metric'] in (ACCURACY, CHANCE) and row['control'] is None
    if is_asked and row['status'] == 'ok' and row['length'] == row['train_length']:
      at_train_length[_model(row), _changes(row)][row['metric']].append(row['value'])
  found = {}
  for model, values in at_train_length.items():
    if len(values) == 2:
      accuracy, chance = (statistics.fmean(values[name]) for name in (ACCURACY, CHANCE))
      found[model] = Learned(accuracy, chance + part * (1 - chance))
  if not found:
    return [row | {'learned': None} for row in rows]
  made = []
  for row in rows:
    model = _model(row)
    made.append(row | {'learned': found.get((model, 'null'), found.get((model, _changes(row))))})
  return made


def _model(row: dict) -> tuple:
  return tuple(row[field] for field in MODEL)


def _changes(row: dict) -> str:
  return json.dumps(row['overrides'], sort_keys=True)


def unlearned_seeds(rows: Iterable[dict]) -> dict[int, Learned]:
  """{seed: what is known of it} of the seeds that have not learned, of marked rows of one line."""
  known = {row['seed']: row['learned'] for row in rows if row['learned'] is not None}
  return {seed: found for seed, found in sorted(known.items()) if not found.is_learned}


def note(unlearned: dict[str, dict[int, Learned]], number_of: dict[str, int]) -> list[str]:
  """The note that says which seeds have not learned, and what they would have to, in a list; []
  where all have.

  Args:
    unlearned: {line: its `unlearned_seeds`}.
    number_of: {line: the number of its seeds}.
  """
  lines, bounds = [], set()
  for line, by_seed in unlearned.items():
    if by_seed:
      scores = ', '.join(f'seed {seed}: {known.accuracy:.3f}' for seed, known in by_seed.items())
      lines.append(f'{line}, {count(len(by_seed), number_of[line])} (not {scores})')
      bounds |= {f'{known.bound:.3f}' for known in by_seed.values()}
  if not lines:
    return []
  return [
    f'means are over the seeds that have learned: {"; ".join(lines)}; a seed has learned where its '
    f'share of answers right at the training length exceeds {join_unique(bounds)}'
  ]


def count(unlearned: int, seeds: int) -> str:
  """The number of seeds that have learned, as it is printed: '2 of 3 learned'."""
  return f'{seeds - unlearned} of {seeds} learned'
