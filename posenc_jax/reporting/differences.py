"""Lines against a baseline: differences with intervals, and the marks that say which of them seeds
bear out.

'*' is better than the baseline, '†' worse: p < .05 by a paired two-sided t-test over seeds,
Holm-corrected over the lines of a column. An interval says what other documents would do to a
difference, the test what other seeds would.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from posenc_jax.errors import UserError, nearest
from posenc_jax.reporting import significance
from posenc_jax.reporting.captions import every
from posenc_jax.reporting.metrics import DASH
from posenc_jax.reporting.scores import TASK, Scores
from posenc_jax.reporting.table import Block, Field, Table, header, place_of

BETTER, WORSE = '*', '†'


class Difference(NamedTuple):
  """Of a line from the baseline, over the seeds that both have; `interval` is None without two
  documents.
  """

  mean: float
  interval: tuple[float, float] | None
  p: float | None
  corrected: float | None
  seeds: list[int]
  documents: int


def baselines(
  found: list[Scores],
  baseline: str | None,
  names: Callable[[dict], tuple] = lambda row: (row['label'],),
) -> list[str]:
  """The line of each that a study means by `baseline`: a line's whole name, or one of the `names`
  of a row of it.

  A study knows labels. One more evaluation adds to the names of lines, and divides a label into
  several: then the baseline is the one whose model evaluation left as it was trained; of these that
  with most scores, at the last step. '' where it has no rows, with a note, and for None. Raises
  UserError where none has rows of it.
  """
  if not baseline:
    return ['' for _ in found]
  meant = [_line_of(scores, baseline, names) for scores in found]
  if not any(meant):
    known = {name for scores in found for row in scores.first.values() for name in names(row)}
    raise UserError(f'table: baseline={baseline!r} has no rows; {nearest(baseline, known)}')
  for scores in (scores for scores, line in zip(found, meant, strict=True) if not line):
    scores.notes.append(f'not compared with {baseline}, which has no rows here')
  return meant


def _line_of(scores: Scores, baseline: str, names: Callable[[dict], tuple]) -> str:
  def rank(line):
    row, scored = scores.first[line], sum(len(scores.of(line, column)) for column in scores.columns)
    return bool(row['overrides']), -scored, -row['step']

  named = [line for line, row in scores.first.items() if baseline in names(row)]
  return baseline if baseline in scores.lines else min(named, key=rank, default='')


def compare(scores: Scores, baseline: str) -> dict[tuple, Difference]:
  """{(line, column): difference} from the line `baseline`; what cannot be compared is added to
  `scores.notes`.
  """
  if scores.metric.best is None:
    raise UserError(
      f'table: metric={scores.metric.name!r} with a baseline; allowed: one with a better end'
    )
  found, unlike, fewer, weights = {}, [], [], {}
  for column in scores.columns:
    in_column = {}
    for line in scores.lines:
      if line == baseline or not scores.of(line, column) or not scores.of(baseline, column):
        continue
      seeds = [
        s
        for s in scores.seeds
        if all(scores.cells[i, s, column].status == 'ok' for i in (line, baseline))
      ]
      parts = [
        [scores.cells[i, s, column].by_document(scores.metric) for s in seeds]
        for i in (line, baseline)
      ]
      asked = [_question(scores, i, s, column) for i in (line, baseline) for s in seeds]
      place = f'{line} at {column}'
      if not seeds or any(question != asked[0] for question in asked):
        unlike.append(place)
        continue
      if seeds != scores.seeds:
        fewer.append(f'{place} over {every(seeds)}')
      in_column[line] = _difference(scores, parts, seeds, weights)
    corrected = significance.holm([difference.p for difference in in_column.values()])
    for (line, difference), p in zip(in_column.items(), corrected, strict=True):
      found[line, column] = difference._replace(corrected=p)
  if unlike:
    scores.notes.append(
      f'not compared with {baseline}, as seeds or scored tokens differ: {"; ".join(unlike)}'
    )
  if fewer:
    scores.notes.append(
      f'compared with {baseline} over the seeds that both have: {"; ".join(fewer)}'
    )
  return found


def _question(scores: Scores, line: str, seed: int, column) -> list:
  """Equal where the same tokens were scored."""
  task = [scores.first[line][field] for field in TASK]
  rows = scores.cells[line, seed, column].rows
  return [task, {(row['document'], row['position']): scores.metric.sums(row)[1] for row in rows}]


def _difference(
  scores: Scores, parts: list, seeds: list[int], weights: dict[int, np.ndarray]
) -> Difference:
  names = sorted(parts[0][0], key=str)
  # [S, D, 2]
  sums = [np.array([[part[name] for name in names] for part in of_line]) for of_line in parts]
  sums = [(sums_SD2[..., 0], sums_SD2[..., 1]) for sums_SD2 in sums]
  link = scores.metric.link
  by_seed = [link(top.sum(-1) / size.sum(-1)) for top, size in sums]
  interval = None
  if len(names) > 1:
    if len(names) not in weights:
      weights[len(names)] = significance.resamples(len(names))
    interval = tuple(map(float, significance.interval(*sums, link, weights[len(names)])))
  mean = float(by_seed[0].mean() - by_seed[1].mean())
  return Difference(
    mean, interval, significance.paired_t(*by_seed), None, seeds, len(names) if interval else 0
  )


def marks(scores: Scores, found: dict[tuple, Difference]) -> dict[tuple, str]:
  """Of the significant ones."""
  better = -1 if scores.metric.best is min else 1
  return {
    place: BETTER if difference.mean * better > 0 else WORSE
    for place, difference in found.items()
    if difference.corrected is not None and difference.corrected < significance.ALPHA
  }


def sentence(scores: Scores, baseline: str) -> str:
  """What the marks mean, with a space before it; for captions."""
  if len(scores.seeds) < 2:
    return f' One seed: nothing is tested against {baseline}.'
  return (
    f' {BETTER} better, {WORSE} worse than {baseline}: p < {significance.ALPHA:g} in a paired two-sided t-test over '
    'seeds, Holm-corrected over the lines compared at a length.'
  )


def table(scores: Scores, baseline: str, found: dict[tuple, Difference]) -> Table:
  """The differences, lines down and columns across."""
  marked = marks(scores, found)
  number = scores.metric.form.replace('{:', '{:+').format

  def field(line, column):
    if (line, column) not in found:
      return Field(DASH)
    difference = found[line, column]
    text = number(difference.mean)
    if difference.interval:
      text += f' [{number(difference.interval[0])}, {number(difference.interval[1])}]'
    return Field(text, False, marked.get((line, column), ''))

  others = [line for line in scores.lines if line != baseline]
  lines = [[Field(line), *(field(line, column) for column in scores.columns)] for line in others]
  documents = {d.documents for d in found.values() if d.documents}
  interval = (
    f' In brackets the {significance.LEVEL:.0%} percentile interval of a paired bootstrap over {every(documents)} '
    f'documents ({significance.RESAMPLES:,} resamples, each of the same documents for both lines and all seeds; the '
    'trained models stay as they are).'
  ).replace('%', ' %')
  if not documents:
    interval = ' No intervals: they need rows of two or more single documents.'
  caption = (
    f'{scores.metric.title}, difference from {baseline}, mean over seeds {every(scores.seeds)}; {scores.title}.'
    f'{interval}{sentence(scores, baseline)}'
  )
  records = [
    {
      **place_of(scores), 'encoding': line, 'length': column,
      'metric': scores.metric.name, 'baseline': baseline, 'difference': d.mean,
      'low': d.interval[0] if d.interval else '', 'high': d.interval[1] if d.interval else '',
      'p': '' if d.p is None else d.p, 'p_holm': '' if d.corrected is None else d.corrected, 'documents': d.documents,
    }
    for (line, column), d in found.items()
  ]  # fmt: skip
  title = f'Differences from {baseline}, {scores.title}'
  return Table(
    title,
    caption,
    ['encoding', *header(scores)],
    [Block('', lines)],
    is_scored=False,
    records=records,
  )
