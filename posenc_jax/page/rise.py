"""The answer in numbers: how much a score rises from the training length to the longest length."""

import dataclasses
import itertools
import statistics

from posenc_jax.page.measured import Measured
from posenc_jax.tables.metrics import DASH


@dataclasses.dataclass
class Line:
  """A line of the table at both ends.

  Attributes:
    near, far: its seeds' scores at the training length and at the longest length; none as the table has none.
    rises: far less near of every seed that has both, none where `near` or `far` has none.
    why: the outcomes that stand in the place of scores.
  """

  name: str
  near: list[float]
  far: list[float]
  rises: list[float]
  why: str


@dataclasses.dataclass
class Rise:
  """From the length `near` to `far`, of all lines of a table: those that have one, smallest first, then the others."""

  table: Measured
  near: int
  far: int
  lines: list[Line]

  def text(self, rises: list[float]) -> str:
    """'+mean ± standard deviation', or a dash."""
    return ('+' if statistics.fmean(rises) >= 0 else '') + self.table.text(rises) if rises else DASH

  def sentences(self) -> str:
    """What a reader wants to know first."""
    measured, others = ([line for line in self.lines if bool(line.rises) == some] for some in (True, False))
    name = lambda line: f'{line.name} ({self.text([statistics.fmean(line.rises)])})'
    said = [
      f'Trained at {self.near:,} tokens, evaluated at up to {self.far:,}, {self.far / self.near:g} times as many '
      f'({self.table.name}).'
    ]
    if len(measured) > 4:
      first, second, third, *_, last = map(name, measured)
      said.append(f'Smallest rise in {self.table.what}: {first}, {second} and {third}; largest: {last}.')
    elif measured:
      said.append(f'Rise in {self.table.what}: {", ".join(map(name, measured))}.')
    if measured:
      best = min(measured, key=lambda line: statistics.fmean(line.far))
      said.append(f'Lowest at {self.far:,}: {best.name}, {self.table.text([statistics.fmean(best.far)])}.')
    if others:
      said.append(f'Without a score at both lengths: {", ".join(f"{line.name} ({line.why})" for line in others)}.')
    return ' '.join(said)


def rise(table: Measured) -> Rise | str:
  """Of a table, or why it has none."""
  if len(table.train_lengths) > 1:
    return f'Runs were trained at {", ".join(map(str, table.train_lengths))} tokens: no one length to measure from.'
  (near,), far = table.train_lengths, table.lengths[-1]
  if far <= near:
    return f'Nothing here was evaluated past the training length, {near:,} tokens.'
  if near not in table.lengths:
    return f'Nothing here was evaluated at the training length, {near:,} tokens: no score to measure from.'
  lines = [_line(table, name, near, far) for name in table.lines]
  order = lambda line: (not line.rises, statistics.fmean(line.rises) if line.rises else 0)
  return Rise(table, near, far, sorted(lines, key=order))


def _line(table: Measured, name: str, near: int, far: int) -> Line:
  scores = [table.scores[name, length] for length in (near, far)]
  ends = [tuple(table.each[name, seed, length] for length in (near, far)) for seed in table.seeds]
  outcomes = [[end for end in both if isinstance(end, str)] for both in ends]
  rises = [far - near for (near, far), amiss in zip(ends, outcomes, strict=True) if not amiss] if all(scores) else []
  return Line(name, *scores, rises, ', '.join(dict.fromkeys(itertools.chain(*outcomes))))
