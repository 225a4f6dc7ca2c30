"""Which seeds have learned a task.

Seeds learn a task or they do not, so a mean over all of them is a score that no seed has. A seed
has learned where its share of answers right at the training length is farther from guessing than
PART of the way from guessing to 1: the bound is chance + PART * (1 - chance). Beyond the training
length nothing is asked of it: that is what tables and figures show. Means are taken over the seeds
that have learned, and say of how many.
"""

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from posenc_jax.reporting.captions import join_unique
from posenc_jax.reporting.tasks import examples
from posenc_jax.rows import row_schema

# Of the way from guessing to 1. Of over 1,000 trainings on tasks whose rows are kept in results/,
# four of five went 98 % of it or more and one of eight less than 92 %. Some of the others end near
# the bound: tables name these seeds (`close_seeds`). Half of the way would make means of exact
# matches of 0.05 and 1.00.
PART = 0.95
ACCURACY, CHANCE = 'token_accuracy', 'token_chance'
BY_THE_RULE = 'a seed has learned where its share of answers right at the training length exceeds'
# Rows of one trained model in one task are equal in these fields.
MODEL = ('run', 'seed', 'step', 'corpus', 'split', 'train_length', 'protocol')


class Learned(NamedTuple):
  """Whether a trained model has learned a task: its share of answers right at the training length,
  the bound that this must exceed, and of how many examples it is, or of how many answers, where
  rows do not tell examples: `unit` says which; 0: that is not known. `corpus`: of the task, where
  it is another than the model is asked.
  """

  accuracy: float
  bound: float
  number: int = 0
  unit: str = 'answers'
  corpus: str = ''

  @property
  def is_learned(self) -> bool:
    return self.accuracy > self.bound

  @property
  def error(self) -> float:
    """The standard error of a share whose true value is the bound. Answers of one example may be
    right or wrong together: examples count, where rows tell them.
    """
    spread = max(0.0, self.bound * (1 - self.bound))  # rounding may put a bound above 1
    return math.sqrt(spread / self.number) if self.number else 0.0

  @property
  def is_close(self) -> bool:
    """Whether other examples may well have put the model on the other side of the bound."""
    return 0 < self.error >= abs(self.accuracy - self.bound)


def mark(rows: Iterable[dict]) -> list[dict]:
  """The rows as `examples.mark` gives them, each with a field `learned`: what is known of its model
  in its task, a `Learned`, or None where no rows say its share of answers right, and that of
  guessing, at the training length.
  A model that was evaluated with changes is judged as it was trained, where rows say that; and one
  with the parameters of a run that learned another task as that run in its own, if rows of that run
  are of one task alone: what the model does in the other is what is to be shown.

  Rows that have the field already stay as they are.
  """
  rows = list(rows)
  if rows and 'learned' in rows[0]:
    return rows
  rows = examples.mark(rows)
  asked = {}  # of rows that repeat a key, as those of two folders with one run, the first counts
  for row in rows:
    is_asked = row['metric'] in (ACCURACY, CHANCE) and row['control'] is None
    if is_asked and row['status'] == 'ok' and row['length'] == row['train_length']:
      asked.setdefault(row_schema.key(row), row)
  at_train_length = defaultdict(lambda: defaultdict(list))
  for row in asked.values():
    model = _model(row), _changes(row)
    at_train_length[model][row['metric']].append(row)
  found = {}
  for model, some in at_train_length.items():
    if len(some) == 2:
      accuracy, chance = (
        statistics.fmean(row['value'] for row in some[name]) for name in (ACCURACY, CHANCE)
      )
      found[model] = Learned(accuracy, chance + PART * (1 - chance), *_number(some[ACCURACY]))
  if not found:
    return [row | {'learned': None} for row in rows]
  trained = defaultdict(dict)  # {corpus: what is known of a run} in each task that it was asked
  for ((run, _, step, corpus, split, *_), changes), some in found.items():
    if changes == 'null':
      trained[run, step, split][corpus] = some._replace(corpus=corpus)
  made = []
  for row in rows:
    model = _model(row)
    own = found.get((model, 'null'), found.get((model, _changes(row))))
    if source := row.get('parameters'):
      of_source = trained.get((source['run'], source['step'], row['split']), {})
      if len(of_source) == 1 and row['corpus'] not in of_source:
        (own,) = of_source.values()
    made.append(row | {'learned': own})
  return made


def _number(rows: list[dict]) -> tuple[int, str]:
  """The number of examples that these rows are of, or of answers, and which of both."""
  are_known = all(row['examples'] for row in rows)
  field, unit = ('examples', 'examples') if are_known else ('tokens', 'answers')
  return sum(row[field] or 0 for row in rows), unit


def _model(row: dict) -> tuple:
  return tuple(row[field] for field in MODEL)


def _changes(row: dict) -> str:
  return json.dumps(row['overrides'], sort_keys=True)


def known_seeds(rows: Iterable[dict]) -> dict[int, Learned]:
  """{seed: what is known of it} of marked rows of one line, of the seeds of which something is."""
  known = {row['seed']: row['learned'] for row in rows if row['learned'] is not None}
  return dict(sorted(known.items()))


def note(known: dict[str, dict[int, Learned]], number_of: dict[str, int]) -> list[str]:
  """The notes that say which seeds have not learned, what they would have to, and which seeds are
  close to that; and which lines are judged in another task. [] where all have learned, by far, what
  they are asked.

  Args:
    known: {line: its `known_seeds`}.
    number_of: {line: the number of its seeds}.
  """
  lines, bounds = [], set()
  for line, by_seed in known.items():
    if unlearned := {seed: some for seed, some in by_seed.items() if not some.is_learned}:
      scores = ', '.join(f'seed {seed}: {some.accuracy:.3f}' for seed, some in unlearned.items())
      lines.append(f'{line}, {count(len(unlearned), number_of[line])} (not {scores})')
      bounds |= {f'{some.bound:.3f}' for some in unlearned.values()}
  notes, close = notes_of_other_tasks(known), close_seeds(known)
  if not lines:
    return [*([f'{BY_THE_RULE} its bound: {close}'] if close else []), *notes]
  return [
    f'means are over the seeds that have learned: {"; ".join(lines)}; {BY_THE_RULE} '
    f'{join_unique(bounds)}' + (close and f'; {close}'),
    *notes,
  ]


def notes_of_other_tasks(known: dict[str, dict[int, Learned]]) -> list[str]:
  """The notes that name the lines which are judged in another task. `known` as for `note`."""
  elsewhere = defaultdict(list)
  for line, by_seed in known.items():
    for corpus in sorted({some.corpus for some in by_seed.values()} - {''}):
      elsewhere[corpus].append(line)
  return [
    f'whether seeds have learned is judged in the task of their training, {corpus}: '
    + ', '.join(some)
    for corpus, some in elsewhere.items()
  ]


def note_of_unknown(lines: list[str], known: dict[str, dict[int, Learned]]) -> list[str]:
  """The note that names the lines of which it is not known which seeds have learned, in a list; []
  without any. `known` as for `note`.
  """
  unknown = [line for line in lines if not known[line]]
  if not unknown:
    return []
  of = 'all lines' if unknown == lines else ', '.join(unknown)
  return [
    'which seeds have learned is not known, for there is no share of answers right, with that of '
    f'guessing, at the training length: means of {of} are over all seeds'
  ]


def close_seeds(known: dict[str, dict[int, Learned]]) -> str:
  """The words that name the seeds which other examples may well have put on the other side of their
  bound: those within a standard error of it. '' without any. `known` as for `note`.
  """
  named = defaultdict(list)
  for line, by_seed in known.items():
    for seed, some in by_seed.items():
      if some.is_close:
        near = f'near {some.bound:.3f}, within the standard error of {some.number:,} {some.unit}'
        named[f'{near}, {some.error:.3f}'].append(f'seed {seed} of {line} ({some.accuracy:.3f})')
  return '; '.join(f'{near}: {", ".join(seeds)}' for near, seeds in named.items())


def count(unlearned: int, seeds: int) -> str:
  """The number of seeds that have learned, as it is printed: '2 of 3 learned'."""
  return f'{seeds - unlearned} of {seeds} learned'
