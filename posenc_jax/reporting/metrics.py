"""What a score is: sums over rows, divided once; how it is printed, and which is best."""

import math
import statistics
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from posenc_jax.errors import UserError, nearest

DASH = '—'


class Metric(NamedTuple):
  """`link(sum of nats / sum of denominator)`, or where rows carry a `value` the mean of those.

  Attributes:
    best: min or max; None where neither is better: nothing is bold then, and nothing compared.
    denominator: 'tokens' or 'bytes'; '' for rows with a value.
    chance: metric of the rows that say what chance scores.
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

  def score(self, top: float, size: float) -> float:
    if self.link is np.exp:
      # numpy's may differ in the last digit from one processor to another
      return math.exp(top / size)
    return float(self.link(top / size))

  def matches(self, row: dict) -> bool:
    return row['metric'] == (None if self.denominator else self.name)

  def text(self, scores: list[float]) -> str:
    """'mean ± standard deviation' (the latter of two or more scores), or a dash."""
    spread = f' ± {self.form.format(statistics.stdev(scores))}' if len(scores) > 1 else ''
    return self.form.format(statistics.fmean(scores)) + spread if scores else DASH

  def bests(self, scores: list[list[float]]) -> list[bool]:
    """Which of several lines' scores are bold: all whose mean prints like the best."""
    means = [statistics.fmean(some) if some else None for some in scores]
    if self.best is None or not any(scores):
      return [False for _ in means]
    best = self.form.format(self.best(mean for mean in means if mean is not None))
    return [mean is not None and self.form.format(mean) == best for mean in means]

  @property
  def better(self) -> str:
    return {min: 'Lower is better; w', max: 'Higher is better; w', None: 'W'}[self.best]


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
    Metric('digit_nats', 'Nats per digit (chance: 2.303)', '{:.3f}', min),
    Metric('gradient', 'Share of the gradient', '{:.3f}', None),
  )
}
LIKELIHOODS = tuple(name for name, metric in METRICS.items() if metric.denominator)


def metric_of(name: str, rows: list[dict]) -> Metric:
  """The metric of that name, which may be one that rows alone know: nothing of it is bold then.
  Raises UserError.
  """
  theirs = {row['metric'] for row in rows} - {None}
  if name not in METRICS and name not in theirs:
    raise UserError(f'metric={name!r}; {nearest(name, {*METRICS, *theirs})}')
  return METRICS[name] if name in METRICS else Metric(name, name, '{:.3f}', None)
