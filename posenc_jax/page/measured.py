"""What the page draws and prints, taken from `posenc_jax.tables`: no other module of the page knows tables."""

import dataclasses
from collections.abc import Callable

from posenc_jax.config import UserError, nearest
from posenc_jax.page.sources import Sources
from posenc_jax.tables.metrics import LIKELIHOODS
from posenc_jax.tables.page import bold, fields, header
from posenc_jax.tables.scores import Scores, collect


@dataclasses.dataclass
class Measured:
  """One protocol under one control.

  Attributes:
    name, title, caption, notes: in words, `name` the shortest.
    what: is scored, as the title of an axis.
    header, body: of the table as printed, the first column with the names of lines; fields of the body are (text,
      whether it is the best).
    train_lengths, lengths, lines, seeds: in the order of the table.
    scores: {(line, length): those of its seeds}, none where a mean would flatter, as the table has it.
    each: {(line, seed, length): a score, or the outcome in its place}.
    text: of scores, as the table prints them.
  """

  name: str
  title: str
  caption: str
  notes: list[str]
  what: str
  header: list[str]
  body: list[list[tuple[str, bool]]]
  train_lengths: list[int]
  lengths: list[int]
  lines: list[str]
  seeds: list[int]
  scores: dict[tuple[str, int], list[float]]
  each: dict[tuple[str, int, int], float | str]
  text: Callable[[list[float]], str]

  def text_of(self, line: str, seed: int, length: int) -> str:
    """A seed's score as printed, or its outcome."""
    value = self.each[line, seed, length]
    return value if isinstance(value, str) else self.text([value])


def measure(sources: Sources, metric: str) -> list[Measured]:
  """Every protocol and control that rows have. Raises UserError for a metric that is no likelihood, or no rows."""
  if metric not in LIKELIHOODS:
    raise UserError(f'--metric={metric!r}; {nearest(metric, LIKELIHOODS)}')
  return [_of(scores) for scores in collect(sources.rows, sources.runs, sources.protocols, metric)]


def _of(scores: Scores) -> Measured:
  ends = {place: cell.scores(scores.metric) or [cell.status] for place, cell in scores.cells.items()}
  body = zip(scores.lines, fields(scores, scores.lines, {}), strict=True)
  return Measured(
    name=', '.join(filter(None, [scores.protocol, scores.control])),
    title=f'Extrapolation, {scores.title}',
    caption=scores.caption + bold(scores.metric, 'column'),
    notes=scores.notes,
    what=scores.metric.title.lower(),
    header=['encoding', *header(scores)],
    body=[[(line, False), *((field.text, field.is_best) for field in some)] for line, some in body],
    train_lengths=scores.train_lengths,
    lengths=scores.columns,
    lines=scores.lines,
    seeds=scores.seeds,
    scores={(line, length): scores.of(line, length) for line in scores.lines for length in scores.columns},
    each={place: end for place, (end,) in ends.items()},
    text=scores.metric.text,
  )
