"""The answer in numbers: how much a score changes from the training length to the longest
length.
"""

import dataclasses
import itertools
import statistics

from posenc_jax.reporting.html.measured import Measured
from posenc_jax.reporting.metrics import DASH


@dataclasses.dataclass
class Line:
  """A line of the table at both ends.

  Attributes:
    near, far: its seeds' scores at the training length and at the longest length; none as the table
      has none.
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
  """From the length `near` to `far`, of all lines of a table, those that have no rise last.

  The least rise stands first; or, of what is better high, the highest at `far`: what is learned
  nowhere falls nowhere.
  """

  table: Measured
  near: int
  far: int
  lines: list[Line]

  @property
  def word(self) -> str:
    """What it is called: 'rise' of what is better low, 'change' of what is better high."""
    return 'rise' if self.table.best is min else 'change'

  def text(self, rises: list[float]) -> str:
    """'+mean ± standard deviation', or a dash."""
    return ('+' if statistics.fmean(rises) >= 0 else '') + self.table.text(rises) if rises else DASH

  def sentences(self) -> str:
    """What a reader wants to know first."""
    measured, others = (
      [line for line in self.lines if bool(line.rises) == some] for some in (True, False)
    )
    said = [
      f'Trained at {self.near:,} tokens, evaluated at up to {self.far:,}, {self.far / self.near:g} times as many '
      f'({self.table.name}).'
    ]
    if measured:
      said += self._lowest(measured) if self.table.best is min else self._highest(measured)
    if others:
      said.append(
        f'Without a score at both lengths: {", ".join(f"{line.name} ({line.why})" for line in others)}.'
      )
    return ' '.join(said)

  def _lowest(self, lines: list[Line]) -> list[str]:
    name = lambda line: f'{line.name} ({self.text([statistics.fmean(line.rises)])})'
    best = min(lines, key=lambda line: statistics.fmean(line.far))
    lowest = f'Lowest at {self.far:,}: {best.name}, {self._mean(best.far)}.'
    if len(lines) <= 4:
      return [f'Rise in {self.table.what}: {", ".join(map(name, lines))}.', lowest]
    first, second, third, *_, last = map(name, lines)
    return [
      f'Smallest rise in {self.table.what}: {first}, {second} and {third}; largest: {last}.',
      lowest,
    ]

  def _highest(self, lines: list[Line]) -> list[str]:
    named = [f'{line.name} ({self._mean(line.near)}, {self._mean(line.far)})' for line in lines[:4]]
    said = [
      f'{self.table.what.capitalize()} at {self.near:,} and at {self.far:,}: {", ".join(named)}.'
    ]
    if len(lines) > 4:
      said.append(f'Others at {self.far:,}: at most {self._mean(lines[4].far)}.')
    return said

  def _mean(self, scores: list[float]) -> str:
    return self.table.text([statistics.fmean(scores)])


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
  measured, others = (
    [line for line in lines if bool(line.rises) == some] for some in (True, False)
  )
  if table.best is min:
    measured.sort(key=lambda line: statistics.fmean(line.rises))
  else:
    measured.sort(key=lambda line: (-statistics.fmean(line.far), -statistics.fmean(line.near)))
  return Rise(table, near, far, measured + others)


def _line(table: Measured, name: str, near: int, far: int) -> Line:
  scores = [table.scores[name, length] for length in (near, far)]
  ends = [tuple(table.each[name, seed, length] for length in (near, far)) for seed in table.seeds]
  outcomes = [[end for end in both if isinstance(end, str)] for both in ends]
  rises = (
    [far - near for (near, far), amiss in zip(ends, outcomes, strict=True) if not amiss]
    if all(scores)
    else []
  )
  return Line(name, *scores, rises, ', '.join(dict.fromkeys(itertools.chain(*outcomes))))
