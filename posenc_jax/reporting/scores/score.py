"""What a score is: the sum of nats over documents, divided once, for each seed of a line.

A line of a table is the mean and the standard deviation of its seeds' scores; `collecting` makes
them from rows.
"""

import dataclasses
import json
import math
from collections import defaultdict
from typing import NamedTuple

from posenc_jax.protocols import CHOSEN_BY_MODEL, SHOWN_BY_DOCUMENTS
from posenc_jax.reporting.metrics import Metric
from posenc_jax.reporting.scores.line_names import OF_EVALUATION
from posenc_jax.reporting.tasks import learned
from posenc_jax.rows import clusters, row_schema
from posenc_jax.rows.overrides import DOCUMENTS

# Rows that are equal in these fields score the same tokens at a length; see `scored_on`.
SCORED = (*OF_EVALUATION, 'overrides')
# Rows of one line are equal in these fields.
LINE = (*SCORED, 'train_length', 'step')
COMPUTE_DTYPE = 'eval.compute_dtype'
# Statuses of a run that has not been evaluated to the end.
UNSEEN = ('missing', 'incomplete')


def scored_on(row: dict) -> str:
  """A text that two rows share if they score the same tokens at a length: what evaluation changed
  in the model, or in its dtype, is no part of it.
  """
  overrides = row['overrides'] or {}
  is_of_tokens = lambda key: not row_schema.is_of_model(key) and key != COMPUTE_DTYPE
  changed = {key: value for key, value in overrides.items() if is_of_tokens(key)}
  fields = {field: row[field] for field in SCORED} | {'overrides': changed}
  return json.dumps(fields, sort_keys=True)


def is_of_same_text(row: dict, other: dict) -> bool:
  """Whether two rows score the same tokens where they have the same documents, places and sizes.

  Overrides are stated against the config of each row's run, so that two runs which were evaluated
  alike may differ in them: what they choose is seen in rows of single documents. Of two folders of
  one name they tell whether their documents are the same, but for a run's own, which none states.
  """
  if scored_on(row) == scored_on(other):
    return True
  if row['document'] is None or other['document'] is None:
    return False
  texts, documents = set(), set()
  for some in (row, other):
    overrides = some['overrides'] or {}
    documents.add(overrides.get(DOCUMENTS))
    shown = {DOCUMENTS, *SHOWN_BY_DOCUMENTS}
    stated = {key: value for key, value in overrides.items() if key not in shown}
    texts.add(scored_on(some | {'overrides': stated}))
  return len(texts) == 1 and len(documents - {None}) < 2


class SeedScore(NamedTuple):
  """What one seed of a line scored in one column: the rows if `status` is 'ok', else no rows.

  Attributes:
    empty: the documents of further rows, which have nothing to score.
  """

  status: str
  rows: tuple[dict, ...] = ()
  empty: tuple[str, ...] = ()

  @property
  def nats(self) -> float:
    return math.fsum(row['nats'] for row in self.rows)

  @property
  def tokens(self) -> int:
    return sum(row['tokens'] for row in self.rows)

  @property
  def bytes(self) -> int:
    return sum(row['bytes'] for row in self.rows)

  @property
  def amount(self) -> int:
    """The number of tokens; of rows without, that of their documents, since models differ in how
    many heads have one. An incomplete score has less.
    """
    tokens = [row['tokens'] for row in self.rows if row['protocol'] not in CHOSEN_BY_MODEL]
    return sum(filter(None, tokens)) or len({row['document'] for row in self.rows})

  @property
  def examples(self) -> int | None:
    """The number of examples of a task; None where rows do not say it, or are of no task."""
    numbers = [row.get('examples') for row in self.rows]
    return None if not numbers or None in numbers else sum(numbers)

  @property
  def documents(self) -> int:
    return len({row['document'] for row in self.rows} - {None})

  def sizes(self, metric: Metric) -> dict[tuple, float]:
    """{(document, position): how much was scored there}, by which scores are divided."""
    return {(row['document'], row['position']): metric.sums(row)[1] for row in self.rows}

  def value(self, metric: Metric) -> float | None:
    """The score; None where a status stands in its place."""
    if self.status != 'ok':
      return None
    return metric.score(*map(math.fsum, zip(*map(metric.sums, self.rows), strict=True)))


@dataclasses.dataclass
class Scores:
  """The scores of one protocol under one control.

  Attributes:
    columns: the lengths or positions, in order.
    by_seed: the score of every (line, seed, column).
    exemplar_row: one row of each line: it says what all rows of the line have in common.
    runs_of: the runs of each line.
    unlearned: {line: {seed: what is known of it}} of the seeds that have not learned their task: no
      mean goes through them.
    notes: all that is amiss.
  """

  protocol: str
  control: str | None
  metric: Metric
  columns: list
  seeds: list[int]
  by_seed: dict[tuple, SeedScore]
  exemplar_row: dict[str, dict]
  runs_of: dict[str, set[str]]
  unlearned: dict[str, dict[int, learned.Learned]]
  notes: list[str]

  @property
  def lines(self) -> list[str]:
    return list(self.exemplar_row)

  @property
  def train_lengths(self) -> list[int]:
    return sorted({row['train_length'] for row in self.exemplar_row.values()})

  @property
  def title(self) -> str:
    return ', '.join(filter(None, (self.protocol, self.control)))

  @property
  def name(self) -> str:
    """The title and, where it is no likelihood, the metric: 'copy, exact match'."""
    return self.title + ('' if self.metric.denominator else f', {self.metric.title.lower()}')

  @property
  def by_tokens(self) -> list[list[str]]:
    """The lines, those together that score the same tokens at a length, as far as rows say it. Of
    one run that was evaluated in two ways lines stay apart, also where both chose the same.
    """
    by_text = defaultdict(list)
    for line, row in self.exemplar_row.items():
      by_text[scored_on(row)].append(line)
    found = []
    for lines in by_text.values():
      same = next((some for some in found if self._may_join(lines, some)), None)
      if same is None:
        found.append(lines)
      else:
        same += lines
    return found

  def _may_join(self, lines: list[str], others: list[str]) -> bool:
    if not is_of_same_text(self.exemplar_row[lines[0]], self.exemplar_row[others[0]]):
      return False
    runs, other_runs = (set().union(*map(self.runs_of.get, some)) for some in (lines, others))
    sizes, other_sizes = self._sizes(lines), self._sizes(others)
    shared = sizes.keys() & other_sizes.keys()
    are_same = all(sizes[column] == other_sizes[column] for column in shared)
    return bool(shared) and are_same and not runs & other_runs

  def _sizes(self, lines: list[str]) -> dict[object, dict[tuple, float]]:
    """{column: {(document, position): size}} of lines that were asked for the same tokens."""
    found = {}
    for (line, _, column), score in self.by_seed.items():
      if line in lines and score.status == 'ok' and column not in found:
        found[column] = score.sizes(self.metric)
    return found

  @property
  def judged_elsewhere(self) -> set[str]:
    """The lines of which seeds have learned another task, by which they are judged, or have not."""
    rows = ((line, row) for (line, _, _), score in self.by_seed.items() for row in score.rows)
    return {line for line, row in rows if row['learned'] is not None and row['learned'].corpus}

  @property
  def alike(self) -> list[str]:
    """The `clusters.kinds_of` their documents, also of those with nothing to score."""
    places = set()
    for (line, _, _), score in self.by_seed.items():
      documents = {*score.empty, *(row['document'] for row in score.rows)} - {None}
      places |= {(self.exemplar_row[line]['corpus'], document) for document in documents}
    return clusters.kinds_of(places)

  def learned_seeds(self, line: str) -> list[int]:
    """The seeds but those that have not learned the task of the line, as far as that is known."""
    return [seed for seed in self.seeds if seed not in self.unlearned[line]]

  def has_learned(self, line: str, seed: int) -> bool | None:
    """Whether a seed has learned the task of the line; None where its rows do not say it."""
    if seed in self.unlearned[line]:
      return False
    rows = (row for column in self.columns for row in self.by_seed[line, seed, column].rows)
    return True if any(row['learned'] is not None for row in rows) else None

  def label(self, line: str) -> str:
    """The line's name, with the number of seeds that have learned where not all have."""
    if not self.unlearned[line]:
      return line
    return f'{line} ({learned.count(len(self.unlearned[line]), len(self.seeds_of(line)))})'

  def seeds_of(self, line: str) -> list[int]:
    """The seeds that have rows in a line."""
    return [
      seed
      for seed in self.seeds
      if any(self.by_seed[line, seed, column].status != 'missing' for column in self.columns)
    ]

  def seed_scores(self, line: str, column) -> list[float]:
    """The scores of the seeds that have learned and have one.

    [] of a line or a column that is not here, and if any of these seeds failed: a mean of the
    survivors would flatter.
    """
    if line not in self.exemplar_row or column not in self.columns:
      return []
    scores = [self.by_seed[line, seed, column] for seed in self.learned_seeds(line)]
    if any(score.status not in ('ok', *UNSEEN) for score in scores):
      return []
    values = [score.value(self.metric) for score in scores]
    return [value for value in values if value is not None]
