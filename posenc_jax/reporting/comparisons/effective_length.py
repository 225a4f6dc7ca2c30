"""Effective lengths, how far past its training length a model's score holds; and LongScore.

The *effective length* of a line is the largest evaluated length at which its score, and that at
every evaluated length between, is as good as at its training length L. A likelihood is if no seed
is more than a slack, SLACK bits a byte, worse, and the interval over documents of the change ends
there or below (`holds_to`, which verdicts of the board and titles of figures go by, too); an
accuracy, if with every seed it is at least a share of that at L (SHARE as in NoLiMa, Modarressi et
al. 2025, arXiv:2502.05167). Where it is the largest length that was evaluated, the model holds to
at least that. Of methods of extension, which may damage the model at L itself, it is rather asked
how far they keep the score at L of the model as it is, a baseline; one that loses it at L itself
has no effective length.

*LongScore* at a length l past L is (S_l - Base) / Base, Base being the mean score at the lengths up
to L (Yang et al. 2025, arXiv:2505.19293): what a model loses of what it can.
"""

import statistics
from collections.abc import Callable
from typing import NamedTuple

from posenc_jax.reporting.comparisons.contrast import Difference
from posenc_jax.reporting.metrics import METRICS, SHARE, SLACK, Metric
from posenc_jax.reporting.scores.score import UNSEEN, Scores


class EffectiveLength(NamedTuple):
  """A length in tokens; `is_longest`: no longer one was evaluated, so that it is at least this."""

  length: int
  is_longest: bool

  def text(self, unit: int = 1) -> str:
    """In units of so many tokens: '512', '≥ 2048'."""
    return f'{"≥ " * self.is_longest}{self.length / unit:g}'


def effective_length(
  values: dict[int, float | None],
  train_length: int,
  holds: Callable[[float, float], bool],
  to_keep: float | None,
) -> EffectiveLength | None:
  """The effective length of one seed, or None where it has no score at L, or not one that holds.

  Args:
    values: the score at each evaluated length; None where it failed, as beyond a table.
    holds: (score, score to keep) -> whether it is as good.
    to_keep: the score to keep, its own at L or that of another; None: there is none.
  """
  at_L = values.get(train_length)
  if at_L is None or to_keep is None or not holds(at_L, to_keep):
    return None
  longer = sorted(length for length in values if length > train_length)
  reached = train_length
  for length in longer:
    if values[length] is None or not holds(values[length], to_keep):
      return EffectiveLength(reached, False)
    reached = length
  return EffectiveLength(reached, True)


def of_seeds(
  scores: Scores, line: str, chance: float | None, baseline: str | None = None
) -> dict[int, EffectiveLength | None]:
  """{seed: its effective length by its scores alone} of the seeds that `values_of_seeds` has. None
  for one without a score at L, or where SHARE of the score to keep is no more than `chance`:
  guessing would hold at every length.

  Args:
    baseline: the line whose score at its own L, by the same seed, is to keep; None: the line's own.
      Seeds that it has no score of are left out: nothing is known of them.
  """
  metric = scores.metric if scores.metric.is_accuracy else METRICS['bpb']
  if metric.is_accuracy:
    holds = lambda score, to_keep: score >= SHARE * to_keep > (chance or 0)
  else:
    holds = lambda score, to_keep: score <= to_keep + SLACK
  train_length = scores.exemplar_row[line]['train_length']
  of_line = values_of_seeds(scores, line, metric)
  to_keep = scores_at_L(scores, line if baseline is None else baseline, metric)
  return {
    seed: effective_length(values, train_length, holds, to_keep.get(seed))
    for seed, values in of_line.items()
    if baseline is None or to_keep.get(seed) is not None
  }


def holds_to(
  train_length: int,
  values: dict[int, dict[int, float | None]],
  to_keep: dict[int, float | None],
  changes: dict[int, Difference],
) -> EffectiveLength | None:
  """The largest length up to which, at every length, no seed is more than SLACK bits worse than
  the score to keep, and the interval of the change from it ends there or below.

  Args:
    values: {seed: {length: score, or None where it failed}}.
    to_keep: {seed: the score to keep}.
    changes: {length: the change from that}; of L itself only where it is the score of another line.
  Returns:
    None where it does not hold at L, or where no interval says whether it does past L.
  """
  evaluated = {length for by_length in values.values() for length in by_length}
  longer = sorted(length for length in evaluated if length > train_length)
  lengths, reached = [train_length, *longer], None
  for length in lengths:
    pairs = [(by_length.get(length), to_keep.get(seed)) for seed, by_length in values.items()]
    if not pairs or not all(None not in pair and pair[0] <= pair[1] + SLACK for pair in pairs):
      break
    change = changes.get(length)
    if length > train_length or change is not None:
      if change is None or change.interval is None:
        reached = None if reached == train_length else reached
        break
      if change.interval[1] > SLACK:
        break
    reached = length
  return None if reached is None else EffectiveLength(reached, reached == lengths[-1])


def scores_at_L(scores: Scores, line: str, metric: Metric) -> dict[int, float | None]:
  """{seed: the score at the line's own training length} of what `values_of_seeds` has; {} where
  there is no such line.
  """
  if line not in scores.exemplar_row:
    return {}
  L = scores.exemplar_row[line]['train_length']
  return {seed: values.get(L) for seed, values in values_of_seeds(scores, line, metric).items()}


def values_of_seeds(
  scores: Scores, line: str, metric: Metric
) -> dict[int, dict[int, float | None]]:
  """{seed: {length: score, or None where it failed}} of what was evaluated, but for seeds that have
  not learned their task.
  """
  values = {}
  for seed in scores.learned_seeds(line):
    by_length = {length: scores.by_seed[line, seed, length] for length in scores.columns}
    seen = {length: s.value(metric) for length, s in by_length.items() if s.status not in UNSEEN}
    if seen:
      values[seed] = seen
  return values


def summary(lengths: dict[int, EffectiveLength | None]) -> EffectiveLength | None:
  """The effective length of a line: the smallest of its seeds; None where a seed has none."""
  if not lengths or None in lengths.values():
    return None
  return min(lengths.values())


def long_scores(values: dict[int, float | None], train_length: int) -> dict[int, float]:
  """{length past L: LongScore} of one seed; {} without a base that is more than 0."""
  short = [value for length, value in values.items() if length <= train_length]
  if not short or None in short or statistics.fmean(short) <= 0:
    return {}
  base = statistics.fmean(short)
  return {
    length: (value - base) / base
    for length, value in values.items()
    if length > train_length and value is not None
  }
