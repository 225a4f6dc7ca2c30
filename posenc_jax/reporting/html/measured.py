"""What the page draws and prints, taken from `posenc_jax.tables`: no other module of the page asks
rows for scores.
"""

import dataclasses
from collections.abc import Callable

from posenc_jax.errors import UserError, nearest
from posenc_jax.reporting.html.sources import Sources, has_place
from posenc_jax.reporting.layouts.lengths import chance, chance_line
from posenc_jax.reporting.metrics import LIKELIHOODS, METRICS
from posenc_jax.reporting.scores import Scores, collect
from posenc_jax.reporting.table import Block, Field, bold, fields, header

ACCURACY = 'accuracy'  # the axis of all shares of what is right


@dataclasses.dataclass
class Measured:
  """One protocol under one control, by one metric.

  Attributes:
    name, title, caption, notes: in words, `name` the shortest.
    what: is scored.
    axis: its title; what has the same axis is drawn in the same plot.
    best: min or max.
    header, blocks: of the table as printed, the first column with the names of lines.
    train_lengths, lengths, lines, seeds: in the order of the table.
    scores: {(line, length): those of its seeds}, none where a mean would flatter, as the table has
      it.
    each: {(line, seed, length): a score, or the outcome in its place}.
    chance: {length: what guessing scores}, of a task.
    text: of scores, as the table prints them.
  """

  name: str
  title: str
  caption: str
  notes: list[str]
  what: str
  axis: str
  best: Callable
  header: list[str]
  blocks: list[Block]
  train_lengths: list[int]
  lengths: list[int]
  lines: list[str]
  seeds: list[int]
  scores: dict[tuple[str, int], list[float]]
  each: dict[tuple[str, int, int], float | str]
  chance: dict[int, float]
  text: Callable[[list[float]], str]

  def text_of(self, line: str, seed: int, length: int) -> str:
    """A seed's score as printed, or its outcome."""
    value = self.each[line, seed, length]
    return value if isinstance(value, str) else self.text([value])


def measure(sources: Sources, metric: str) -> list[Measured]:
  """Every protocol and control that rows have, by `metric`; then tasks, by each metric of theirs.

  Raises UserError for a metric that is no likelihood, or rows that have no place on the page.
  """
  if metric not in LIKELIHOODS:
    raise UserError(f'--metric={metric!r}; {nearest(metric, LIKELIHOODS)}')
  placed = list(filter(has_place, sources.rows))
  if not placed:
    raise UserError(
      'no rows of likelihoods or tasks by length; allowed: at least one protocol or task with such rows'
    )
  made, evaluated = [], {row['run'] for row in sources.rows}
  for name in (metric, *(name for name in METRICS if name not in LIKELIHOODS)):
    rows = list(filter(METRICS[name].matches, placed))
    here = {row['run'] for row in rows}
    # the others measure something else
    runs = [run for run in sources.runs if run in here or run not in evaluated]
    made += [
      _of(scores, sources.rows) for scores in (collect(rows, runs, metric=name) if rows else [])
    ]
  return made


def _of(scores: Scores, rows: list[dict]) -> Measured:
  metric = scores.metric
  ends = {place: cell.scores(metric) or [cell.status] for place, cell in scores.cells.items()}
  body = zip(scores.lines, fields(scores, scores.lines, {}), strict=True)
  lines = [[Field(line), *some] for line, some in body]
  name = ', '.join(filter(None, [scores.title, '' if metric.denominator else metric.title.lower()]))
  has_depths = (
    any(row['position'] is not None for row in scores.first.values()) and not metric.denominator
  )
  return Measured(
    name=name,
    title=f'Extrapolation, {name}',
    caption=scores.caption + bold(metric, 'column') + ' Of all depths together.' * has_depths,
    notes=scores.notes,
    what=metric.title.lower(),
    axis=ACCURACY if metric.best is max else metric.title.lower(),
    best=metric.best,
    header=['encoding', *header(scores)],
    blocks=[Block('', lines + chance_line(rows, scores))],
    train_lengths=scores.train_lengths,
    lengths=scores.columns,
    lines=scores.lines,
    seeds=scores.seeds,
    scores={
      (line, length): scores.of(line, length) for line in scores.lines for length in scores.columns
    },
    each={place: end for place, (end,) in ends.items()},
    chance={length: value for length, value in chance(rows, scores).items() if value is not None},
    text=metric.text,
  )
