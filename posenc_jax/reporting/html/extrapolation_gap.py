"""The answer in numbers: how a score changes from the training length to the longest length."""

import dataclasses
import statistics

from posenc_jax.reporting.metrics import DASH
from posenc_jax.reporting.series import Curve, Series


@dataclasses.dataclass
class GapLine:
  """One line at both lengths.

  Attributes:
    near, far: scores of the seeds at the training length and at the longest; [] as in tables.
    gaps: `far` minus `near` of every seed that has both; [] where `near` or `far` is.
    reason: the statuses that stand in the place of scores.
  """

  label: str
  near: list[float]
  far: list[float]
  gaps: list[float]
  reason: str


@dataclasses.dataclass
class ExtrapolationGap:
  """The change of all lines from the length `near` to `far`.

  The smallest rise stands first; where more is better, the highest score at `far`, because what is
  learned nowhere falls nowhere. Lines without a gap stand last.
  """

  series: Series
  near: int
  far: int
  lines: list[GapLine]

  @property
  def word(self) -> str:
    """'change' where more is better, else 'rise'."""
    return 'change' if self.series.scores.metric.is_accuracy else 'rise'

  def text(self, gaps: list[float]) -> str:
    """'+mean ± standard deviation', or a dash."""
    if not gaps:
      return DASH
    sign = '+' if statistics.fmean(gaps) >= 0 else ''
    return sign + self.series.scores.metric.text(gaps)

  def sentences(self) -> str:
    """What a reader wants to know first."""
    measured = [line for line in self.lines if line.gaps]
    others = [f'{line.label} ({line.reason})' for line in self.lines if not line.gaps]
    sentences = [
      f'Trained at {self.near:,} tokens, evaluated at up to {self.far:,}, '
      f'{self.far / self.near:g} times as many ({self.series.name}).'
    ]
    if measured and self.series.scores.metric.is_accuracy:
      sentences += self._describe_highest(measured)
    elif measured:
      sentences += self._describe_smallest_rise(measured)
    if others:
      sentences.append(f'Without a score at both lengths: {", ".join(others)}.')
    return ' '.join(sentences)

  def _describe_smallest_rise(self, lines: list[GapLine]) -> list[str]:
    named = [f'{line.label} ({self.text([statistics.fmean(line.gaps)])})' for line in lines]
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


def extrapolation_gap(series: Series) -> ExtrapolationGap | str:
  """The gap of scores by length, or the sentence that says why there is none."""
  train_lengths, lengths = series.scores.train_lengths, series.scores.columns
  if len(train_lengths) > 1:
    named = ', '.join(map(str, train_lengths))
    return f'Runs were trained at {named} tokens: no one length to measure from.'
  (near,), far = train_lengths, lengths[-1]
  if far <= near:
    return f'Nothing here was evaluated past the training length, {near:,} tokens.'
  if near not in lengths:
    return (
      f'Nothing here was evaluated at the training length, {near:,} tokens: no score to measure '
      'from.'
    )
  lines = [_gap_line(curve, lengths.index(near)) for curve in series.curves.values()]
  measured = [line for line in lines if line.gaps]
  if series.scores.metric.is_accuracy:
    measured.sort(key=lambda line: (-statistics.fmean(line.far), -statistics.fmean(line.near)))
  else:
    measured.sort(key=lambda line: statistics.fmean(line.gaps))
  return ExtrapolationGap(series, near, far, measured + [line for line in lines if not line.gaps])


def _gap_line(curve: Curve, near: int) -> GapLine:
  """The line of a curve, from the column `near` to the last."""
  gaps, statuses = [], {}
  for of_seed in curve.by_seed.values():
    failed = [score for score in (of_seed[near], of_seed[-1]) if isinstance(score, str)]
    statuses |= dict.fromkeys(failed)
    if not failed:
      gaps.append(of_seed[-1] - of_seed[near])
  ends = curve.values[near], curve.values[-1]
  return GapLine(curve.label, *ends, gaps if all(ends) else [], ', '.join(statuses))
