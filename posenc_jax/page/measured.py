"""What the page draws and prints, taken from `posenc_jax.tables`: no other module of the page knows tables."""

import dataclasses
from collections.abc import Callable

from posenc_jax import tables
from posenc_jax.page.sources import Sources

DASH = tables.DASH


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
  """Every protocol and control that rows have. Raises UserError as `tables.extrapolation` does."""
  return [_of(table) for table in tables.extrapolation(sources.rows, sources.runs, sources.protocols, metric)]


def _of(table: tables.Table) -> Measured:
  ends = {place: cell.scores(table.metric) or [cell.status] for place, cell in table.cells.items()}
  return Measured(
    name=', '.join(filter(None, [table.protocol, table.control])),
    title=table.title,
    caption=f'{table.caption} The best of each column is bold.',
    notes=table.notes,
    what=tables.METRICS[table.metric][0].lower(),
    header=table.header(),
    body=table.body(lambda text, is_best: (text, is_best)),
    train_lengths=table.train_lengths,
    lengths=table.lengths,
    lines=table.lines,
    seeds=table.seeds,
    scores={(line, length): table.scores(line, length) for line in table.lines for length in table.lengths},
    each={place: end for place, (end,) in ends.items()},
    text=table.text,
  )
