"""Metrics: how sums over rows become a score, how a score is printed, and which score is best."""

import math
import statistics
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from posenc_jax.errors import UserError, nearest

DASH = '—'
# Scores that differ by less are as good: bits a byte, or the unit of another metric.
MARGIN = 0.01
SLACK = 0.02  # bits a byte: a score that is surely not worse by more holds
SHARE = 0.85  # of an accuracy: with at least so much of it, it is kept (NoLiMa)


class Metric(NamedTuple):
  """`link(sum of nats / sum of denominator)`, or the mean of rows that carry a `value`.

  Attributes:
    best: min or max. None: no end of the scale is better, so nothing is bold and nothing compared.
    denominator: 'tokens' or 'bytes'; '' for rows with a value.
    chance: the metric of the rows that say what guessing scores.
  """

  name: str
  title: str
  form: str
  best: Callable | None
  denominator: str = ''
  link: Callable = np.asarray
  chance: str = ''

  def sums(self, row: dict) -> tuple[float, float]:
    """(numerator, denominator) of a row with status 'ok'."""
    return (row['nats'], row[self.denominator]) if self.denominator else (row['value'], 1)

  def score(self, numerator: float, denominator: float) -> float:
    ratio = numerator / denominator
    if self.link is np.exp:
      # numpy's exp may differ in the last digit from one processor to another
      return math.exp(ratio)
    return float(self.link(ratio))

  def matches(self, row: dict) -> bool:
    """Whether the row is of this metric."""
    return row['metric'] == (None if self.denominator else self.name)

  def text(self, scores: list[float]) -> str:
    """'mean ± standard deviation', 'mean' of a single score, or a dash of none."""
    if not scores:
      return DASH
    spread = f' ± {self.form.format(statistics.stdev(scores))}' if len(scores) > 1 else ''
    return self.form.format(statistics.fmean(scores)) + spread

  def signed_text(self, changes: list[float]) -> str:
    """The text of changes of a score: as `text`, with the sign of the mean."""
    sign = '+' if changes and statistics.fmean(changes) >= 0 else ''
    return sign + self.text(changes)

  def bests(self, lines: list[list[float]]) -> list[bool]:
    """Which lines are bold: all whose mean is printed like the best mean."""
    means = [statistics.fmean(scores) if scores else None for scores in lines]
    if self.best is None or not any(lines):
      return [False for _ in means]
    best = self.form.format(self.best(mean for mean in means if mean is not None))
    return [mean is not None and self.form.format(mean) == best for mean in means]

  @property
  def is_accuracy(self) -> bool:
    """Whether scores are shares of what is right, from 0 to 1, of which more is better."""
    return self.best is max

  @property
  def shows_seeds(self) -> bool:
    """Whether figures draw every seed and no deviation: seeds learn a task or do not."""
    return self.is_accuracy or bool(self.chance)

  @property
  def scale_caption(self) -> str:
    """The end of every caption: which end is better, and that the scale of training matters."""
    better = {min: 'Lower is better; ', max: 'Higher is better; ', None: ''}[self.best]
    return f'{better}{SCALE if better else SCALE.capitalize()}'


# What captions end with: numbers are of models of one size.
SCALE = 'what holds at this scale need not hold at another.'
METRICS = {
  metric.name: metric
  for metric in (
    Metric('bpb', 'Bits per byte', '{:.3f}', min, 'bytes', lambda ratio: ratio / math.log(2)),
    Metric('ppl', 'Perplexity per token', '{:.2f}', min, 'tokens', np.exp),
    Metric('exact_match', 'Exact match', '{:.3f}', max, chance='chance'),
    Metric(
      'exact_match_without_end', 'Exact match but for the end', '{:.3f}', max, chance='chance'
    ),
    Metric('token_accuracy', 'Share of answers right', '{:.3f}', max, chance='token_chance'),
    Metric('symbol_nats', 'Nats per answer', '{:.3f}', min, chance='nats_chance'),
    Metric('sink_rate', 'Share of heads with an attention sink', '{:.3f}', None),
    Metric('attention_distance', 'Mean attention distance in tokens', '{:.1f}', None),
    Metric('gradient', 'Share of the gradient', '{:.3f}', None),
  )
}
LIKELIHOODS = tuple(name for name, metric in METRICS.items() if metric.denominator)


def metric_of(name: str, rows: list[dict]) -> Metric:
  """The metric `name`; one that only rows know has no better end. Raises UserError."""
  row_metrics = {row['metric'] for row in rows} - {None}
  if name not in METRICS and name not in row_metrics:
    raise UserError(f'metric={name!r}; {nearest(name, {*METRICS, *row_metrics})}')
  return METRICS[name] if name in METRICS else Metric(name, name, '{:.3f}', None)
