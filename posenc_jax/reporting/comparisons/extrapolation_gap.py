"""The answer in numbers: how a score changes past the training length."""

import dataclasses
import statistics
from collections.abc import Collection

from posenc_jax.reporting.comparisons.own_changes import own_changes, train_lengths_of
from posenc_jax.reporting.series import Curve, Series, lengths_of_most


@dataclasses.dataclass
class GapLine:
  """One line at both lengths.

  Attributes:
    near, far: scores of the seeds that have learned, at both lengths; [] as in tables.
    gaps: `far` minus `near` of each of these seeds that has both; [] where `near` or `far` is.
    reason: the statuses that stand in the place of scores.
  """

  label: str
  near: list[float]
  far: list[float]
  gaps: list[float]
  reason: str
  is_reference: bool


@dataclasses.dataclass
class ExtrapolationGap:
  """The change of all lines from the training length, `near`, to `far`.

  `far` is the longest length at which more than half of the lines were evaluated: one that was
  evaluated farther takes nothing from the others.
  The smallest rise stands first; where more is better, the highest score at `far`, because what is
  learned nowhere falls nowhere. References follow, then lines without a gap.
  """

  series: Series
  near: int
  far: int
  lines: list[GapLine]

  @property
  def word(self) -> str:
    """'change' where more is better, else 'rise'."""
    return 'change' if self.series.scores.metric.is_accuracy else 'rise'

  def sentences(self) -> str:
    """What a reader wants to know first."""
    measured = [line for line in self.lines if line.gaps and not line.is_reference]
    references = [line for line in self.lines if line.gaps and line.is_reference]
    others = [
      f'{line.label} ({line.reason})' if line.reason else line.label
      for line in self.lines
      if not line.gaps
    ]
    who = 'most lines ' if self.far < self.series.scores.columns[-1] else ''
    sentences = [
      f'Trained at {self.near:,} tokens, {who}evaluated at up to {self.far:,}, '
      f'{self.far / self.near:g} times as many ({self.series.name}).'
    ]
    if measured and self.series.scores.metric.is_accuracy:
      sentences += self._describe_highest(measured)
    elif measured:
      sentences += self._describe_smallest_rise(measured)
    if references:
      named = [f'{line.label}, {self._mean(line.far)}' for line in references]
      sentences.append(f'References at {self.far:,}: {"; ".join(named)}.')
    if others:
      sentences.append(f'Without a score at both lengths: {", ".join(others)}.')
    return ' '.join(sentences)

  def _describe_smallest_rise(self, lines: list[GapLine]) -> list[str]:
    rise_of = lambda line: self.series.scores.metric.signed_text([statistics.fmean(line.gaps)])
    named = [f'{line.label} ({rise_of(line)})' for line in lines]
    best = min(lines, key=lambda line: statistics.fmean(line.far))
    rise = f'Rise in {self.series.y_title}: {", ".join(named)}.'
    if len(lines) > 4:
      first, second, third, *_, last = named
      rise = (
        f'Smallest rise in {self.series.y_title}: {first}, {second} and {third}; largest: {last}.'
      )
    return [rise, f'Lowest at {self.far:,}: {best.label}, {self._mean(best.far)}.']

  def _describe_highest(self, lines: list[GapLine]) -> list[str]:
    named = [
      f'{line.label} ({self._mean(line.near)}, {self._mean(line.far)})' for line in lines[:4]
    ]
    what = self.series.y_title.capitalize()
    sentences = [f'{what} at {self.near:,} and at {self.far:,}: {", ".join(named)}.']
    if len(lines) > 4:
      sentences.append(f'Others at {self.far:,}: at most {self._mean(lines[4].far)}.')
    return sentences

  def _mean(self, scores: list[float]) -> str:
    return self.series.scores.metric.text([statistics.fmean(scores)])


def extrapolation_gap(series: Series, references: Collection[str] = ()) -> ExtrapolationGap | str:
  """The gap of scores by length, or the sentence that says why there is none.

  `references`: lines that are there to compare others with. They may have been trained at another
  length, and are measured from that of the others.
  """
  train_lengths, lengths = train_lengths_of(series, references), series.scores.columns
  if len(train_lengths) > 1:
    named = ', '.join(map(str, train_lengths))
    return f'Runs were trained at {named} tokens: no one length to measure from.'
  (near,) = train_lengths
  if lengths[-1] <= near:
    return f'Nothing here was evaluated past the training length, {near:,} tokens.'
  if near not in lengths:
    return (
      f'Nothing here was evaluated at the training length, {near:,} tokens: no score to measure '
      'from.'
    )
  of_most = lengths_of_most(series, series.curves.keys() - references)
  far = max(of_most, default=None)
  if far is None or far <= near:
    return (
      f'At no length past the training length, {near:,} tokens, were more than half of the lines '
      'evaluated.'
    )
  ends = lengths.index(near), lengths.index(far)
  changes = own_changes(series, references)
  lines = [_gap_line(series, changes, line, *ends, line in references) for line in series.curves]
  measured = [line for line in lines if line.gaps]
  if series.scores.metric.is_accuracy:
    measured.sort(key=lambda line: (-statistics.fmean(line.far), -statistics.fmean(line.near)))
  else:
    measured.sort(key=lambda line: statistics.fmean(line.gaps))
  measured.sort(key=lambda line: line.is_reference)
  return ExtrapolationGap(series, near, far, measured + [line for line in lines if not line.gaps])


def _gap_line(
  series: Series, changes: dict[str, Curve], line: str, near: int, far: int, is_reference: bool
) -> GapLine:
  """A line from the column `near` to the column `far`, by the seeds that have learned."""
  curve, seeds = series.curves[line], series.scores.learned_seeds(line)
  scores = [curve.by_seed[seed][column] for seed in seeds for column in (near, far)]
  reason = ', '.join(dict.fromkeys(score for score in scores if isinstance(score, str)))
  gaps = changes[line].values[far - near] if line in changes else []  # they begin at `near`
  return GapLine(curve.label, curve.values[near], curve.values[far], gaps, reason, is_reference)
