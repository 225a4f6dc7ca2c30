"""Lines against a baseline: differences with intervals, and marks of significance.

'*' is better than the baseline, '†' worse: p < .05 by a paired two-sided t-test over seeds,
Holm-corrected over the lines of a column. An interval says what other documents would do to a
difference, the test what other seeds would.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from posenc_jax.errors import UserError, nearest
from posenc_jax.reporting import significance
from posenc_jax.reporting.captions import join_unique
from posenc_jax.reporting.metrics import DASH
from posenc_jax.reporting.scores import Scores, scored_task
from posenc_jax.reporting.table import Cell, RowGroup, Table, header, record_keys

BETTER, WORSE = '*', '†'


class Difference(NamedTuple):
  """A line's score minus the baseline's, over the seeds that both have.

  `interval` is None and `documents` 0 without two documents; `p` and `corrected` are None where
  nothing was tested.
  """

  mean: float
  interval: tuple[float, float] | None
  p: float | None
  corrected: float | None
  documents: int


@dataclasses.dataclass
class Comparison:
  """Scores and their differences from a baseline.

  Attributes:
    baseline: the line that others are compared with; '' where nothing is compared.
    differences: {(line, column): difference}.
  """

  scores: Scores
  baseline: str
  differences: dict[tuple, Difference] = dataclasses.field(default_factory=dict)

  @property
  def marks(self) -> dict[tuple, str]:
    """'*' or '†' of each significant (line, column)."""
    sign = -1 if self.scores.metric.best is min else 1
    return {
      place: BETTER if difference.mean * sign > 0 else WORSE
      for place, difference in self.differences.items()
      if difference.corrected is not None and difference.corrected < significance.ALPHA
    }

  @property
  def sentence(self) -> str:
    """What the marks mean, with a space before it, for captions."""
    return marks_sentence(self.scores, self.baseline) if self.baseline else ''

  def tables(self) -> list[Table]:
    """The table of differences, in a list; [] where nothing is compared."""
    return [_table(self)] if self.differences else []


def compare_all(
  found: list[Scores],
  baseline: str | None,
  names_of: Callable[[dict], tuple] = lambda row: (row['label'],),
) -> list[Comparison]:
  """The comparison of each `Scores` with the line that a study means by `baseline`.

  The baseline is the whole name of a line, or one of the names that `names_of` gives its rows: a
  study knows labels, and one more evaluation divides a label into several lines. Of these the
  baseline is the line whose model was evaluated as it was trained, then the one with most scores,
  then the one at the last step. Where scores have no such line, a note says so.

  Raises:
    UserError: no scores have the line, or their metric has no better end.
  """
  if not baseline:
    return [Comparison(scores, '') for scores in found]
  lines = [_line_of(scores, baseline, names_of) for scores in found]
  if not any(lines):
    rows = [row for scores in found for row in scores.exemplar_row.values()]
    known = {name for row in rows for name in names_of(row)}
    raise UserError(f'table: baseline={baseline!r} has no rows; {nearest(baseline, known)}')
  made = []
  for scores, line in zip(found, lines, strict=True):
    if not line:
      scores.notes.append(f'not compared with {baseline}, which has no rows here')
    made.append(Comparison(scores, line, _compare(scores, line) if line else {}))
  return made


def marks_sentence(scores: Scores, baseline: str) -> str:
  """What the marks of a comparison with `baseline` mean, with a space before it."""
  if len(scores.seeds) < 2:
    return f' One seed: nothing is tested against {baseline}.'
  return (
    f' {BETTER} better, {WORSE} worse than {baseline}: p < {significance.ALPHA:g} in a paired '
    'two-sided t-test over seeds, Holm-corrected over the lines compared at a length.'
  )


def _line_of(scores: Scores, baseline: str, names_of: Callable[[dict], tuple]) -> str:
  """The line that `baseline` means in these scores, or ''."""

  def rank(line):
    row = scores.exemplar_row[line]
    scored = sum(len(scores.seed_scores(line, column)) for column in scores.columns)
    return bool(row['overrides']), -scored, -row['step']

  named = [line for line, row in scores.exemplar_row.items() if baseline in names_of(row)]
  return baseline if baseline in scores.lines else min(named, key=rank, default='')


def _compare(scores: Scores, baseline: str) -> dict[tuple, Difference]:
  """{(line, column): difference}; what cannot be compared is named in `scores.notes`."""
  if scores.metric.best is None:
    raise UserError(
      f'table: metric={scores.metric.name!r} with a baseline; allowed: one with a better end'
    )
  found, unlike, fewer, many, weights_of = {}, [], [], [], {}
  for column in scores.columns:
    in_column = {}
    for line in scores.lines:
      both = (line, baseline)
      if line == baseline or not all(scores.seed_scores(name, column) for name in both):
        continue
      seeds = [
        seed
        for seed in scores.seeds
        if all(scores.by_seed[name, seed, column].status == 'ok' for name in both)
        and not any(seed in scores.unlearned[name] for name in both)
      ]
      scored = [_scored(scores, name, seed, column) for name in both for seed in seeds]
      place = f'{line} at {column}'
      if not seeds or any(tokens != scored[0] for tokens in scored):
        unlike.append(place)
        continue
      if seeds != scores.seeds:
        fewer.append(f'{place} over {join_unique(seeds)}')
      sums = [
        [scores.by_seed[name, seed, column].by_document(scores.metric) for seed in seeds]
        for name in both
      ]
      in_column[line] = _difference(scores, sums, weights_of)
      if len(sums[0][0]) > significance.MOST_DOCUMENTS:
        many.append(place)
    corrected = significance.holm([difference.p for difference in in_column.values()])
    for (line, difference), p in zip(in_column.items(), corrected, strict=True):
      found[line, column] = difference._replace(corrected=p)
  if unlike:
    scores.notes.append(
      f'not compared with {baseline}, as seeds or scored tokens differ: {"; ".join(unlike)}'
    )
  if many:
    scores.notes.append(
      f'no intervals over more than {significance.MOST_DOCUMENTS} documents: {"; ".join(many)}'
    )
  if fewer:
    scores.notes.append(
      f'compared with {baseline} over the seeds that both have: {"; ".join(fewer)}'
    )
  return found


def _scored(scores: Scores, line: str, seed: int, column) -> list:
  """What identifies the scored tokens: equal where two lines scored the same ones."""
  task = scored_task(scores.exemplar_row[line])
  rows = scores.by_seed[line, seed, column].rows
  return [task, {(row['document'], row['position']): scores.metric.sums(row)[1] for row in rows}]


def _difference(
  scores: Scores, sums: list[list[dict]], weights_of: dict[int, np.ndarray]
) -> Difference:
  """The difference of a line and the baseline, from the sums of (line, baseline) by seed and
  document; `weights_of` keeps the resamples of each number of documents.
  """
  documents = sorted(sums[0][0], key=str)
  line, baseline = (
    np.array([[of_seed[name] for name in documents] for of_seed in of_line]) for of_line in sums
  )
  line, baseline = ((sums_SD2[..., 0], sums_SD2[..., 1]) for sums_SD2 in (line, baseline))
  link = scores.metric.link
  line_S, baseline_S = (link(top.sum(-1) / size.sum(-1)) for top, size in (line, baseline))
  interval = None
  if 1 < len(documents) <= significance.MOST_DOCUMENTS:
    if len(documents) not in weights_of:
      weights_of[len(documents)] = significance.resamples(len(documents))
    ends = significance.interval(line, baseline, link, weights_of[len(documents)])
    interval = tuple(map(float, ends))
  return Difference(
    mean=float(line_S.mean() - baseline_S.mean()),
    interval=interval,
    p=significance.paired_t(line_S, baseline_S),
    corrected=None,
    documents=len(documents) if interval else 0,
  )


def _table(comparison: Comparison) -> Table:
  """The differences, lines down and columns across."""
  scores, baseline, found = comparison.scores, comparison.baseline, comparison.differences
  marks, number = comparison.marks, scores.metric.form.replace('{:', '{:+').format
  cells = {}
  for place, difference in found.items():
    text = number(difference.mean)
    if difference.interval:
      text += ' [{}, {}]'.format(*map(number, difference.interval))
    cells[place] = Cell(text, mark=marks.get(place, ''))
  lines = [
    [Cell(line), *(cells.get((line, column), Cell(DASH)) for column in scores.columns)]
    for line in scores.lines
    if line != baseline
  ]
  documents = {difference.documents for difference in found.values()} - {0}
  brackets = ' No intervals: they need rows of two or more single documents.'
  if documents:
    brackets = (
      f' In brackets the {significance.LEVEL:.0%} percentile interval of a paired bootstrap over '
      f'{join_unique(documents)} documents ({significance.RESAMPLES:,} resamples, each of the same '
      'documents for both lines and all seeds; the trained models stay as they are).'
    ).replace('%', ' %')
  caption = (
    f'{scores.metric.title}, difference from {baseline}, mean over seeds '
    f'{join_unique(scores.seeds)}; {scores.title}.{brackets}{comparison.sentence}'
  )
  records = []
  for (line, column), difference in found.items():
    low, high = difference.interval or (None, None)
    record = record_keys(scores)
    record |= {'encoding': line, 'length': column, 'metric': scores.metric.name}
    record |= {'baseline': baseline, 'difference': difference.mean, 'low': low, 'high': high}
    record |= {'p': difference.p, 'p_holm': difference.corrected}
    records.append(record | {'documents': difference.documents})
  return Table(
    f'Differences from {baseline}, {scores.title}',
    caption,
    ['encoding', *header(scores)],
    [RowGroup('', lines)],
    is_scored=False,
    records=records,
  )
