"""Differences of lines from one reference, as numbers and marks."""

import dataclasses
from typing import NamedTuple

from posenc_jax.reporting.comparisons import significance
from posenc_jax.reporting.comparisons.samples import Sample
from posenc_jax.reporting.comparisons.significance import Estimate
from posenc_jax.reporting.metrics import Metric
from posenc_jax.reporting.scores.score import Scores

# Marks, and the words for them in files.
BETTER, WORSE, EQUIVALENT = '*', '†', '='
WORDS = {BETTER: 'better', WORSE: 'worse', EQUIVALENT: 'equivalent', '': ''}


class Reference(NamedTuple):
  """What lines are compared with, in words; '{baseline}' stands for the name of a line.

  Attributes:
    name: what files and notes call it.
    title: that of its table, after 'Differences from'.
    words: those of a caption, after 'difference from'.
    remark: a sentence on what better than it means, with a space before it.
  """

  name: str
  title: str
  words: str
  remark: str = ''


BASELINE = Reference('{baseline}', '{baseline} up to L', '{baseline}')
BASELINE_OF_KEYS = Reference(
  '{baseline} on the same key tokens',
  '{baseline} on the same key tokens',
  '{baseline} on the same key tokens',
)
OWN = Reference('own score at L', 'their own score at L', 'the own score at L')
OWN_WINDOWED = Reference(
  'own score windowed at L',
  'their own score windowed at L',
  'the own score with attention windowed at L',
  ' What is better uses text farther back than attention within L passes on, or is hurt by the '
  'window.',
)
OWN_TRUNCATED = Reference(
  'own score truncated to L',
  'their own score truncated to L',
  'the own score where a token has the last L / 2 to L tokens before it alone',
  ' What is better uses text farther back than L / 2.',
)
OWN_SHUFFLED = Reference(
  'own score with other far tokens',
  'their own score with other far tokens',
  "the own score where tokens farther back than L from the first target are another document's",
  " What is better uses what text farther back than L says, or is hurt by another document's.",
)
BASELINE_WINDOWED = Reference(
  '{baseline} windowed at L',
  '{baseline} windowed at L',
  '{baseline} with attention windowed at L, the practical default',
)
BASELINE_TRUNCATED = Reference(
  '{baseline} truncated to L',
  '{baseline} truncated to L',
  '{baseline} given the last L tokens alone, the practical default',
)
BASELINE_PAST = Reference(
  '{baseline} past L',
  '{baseline} past L',
  '{baseline}',
  ' Past L a baseline may fail altogether: what is better than it need not hold.',
)


class Difference(NamedTuple):
  """A line's score minus that of what it is compared with, mean over seeds.

  What could not be made is None: intervals without documents, tests without seeds.

  Attributes:
    interval: over `clusters` clusters of documents.
    interval_of_all: that which all lines of a column have together; None of a line alone.
    shares: the part of what is scored that each of these has.
    p: of a two-sided test over seeds.
    corrected: p after correction for its family: the lines of the column in Dunnett's test, or all
      others by Holm's method.
    p_equivalent: of two one-sided tests that it is MARGIN or more, after correction by Holm's
      method within its family; of accuracies they count the error of other examples, too.
    smallest: the smallest difference that is marked with the chance `significance.POWER`, of lines
      that are tested with one variance. What few seeds of a line alone would find says nothing.
  """

  mean: float
  seeds: int
  interval: tuple[float, float] | None
  clusters: int
  p: float | None = None
  corrected: float | None = None
  p_equivalent: float | None = None
  smallest: float | None = None
  mark: str = ''
  shares: tuple[float, ...] = ()
  interval_of_all: tuple[float, float] | None = None


class Pair(NamedTuple):
  """A line's sample in a column and the one it is compared with.

  Attributes:
    is_paired: whether what is tested are the differences that seeds have by themselves.
  """

  sample: Sample
  reference: Sample
  is_paired: bool

  @property
  def has_same_models(self) -> bool:
    """Whether both are evaluations of the same trained models."""
    return self.sample.models == self.reference.models != ()

  @property
  def has_unknown_models(self) -> bool:
    """Whether one of them may have the models of the other, and its rows do not say so."""
    return self.sample.has_unknown_models or self.reference.has_unknown_models

  @property
  def seeds(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return self.sample.seeds, self.reference.seeds

  @property
  def mean(self) -> float:
    return float(self.sample.scores_S.mean() - self.reference.scores_S.mean())

  def with_examples(self, estimate: Estimate) -> Estimate:
    """The estimate of the difference of two shares as `significance.with_examples` makes it."""
    both = self.sample, self.reference
    shares = [float(some.scores_S.mean()) for some in both]
    return significance.with_examples(estimate, shares, [some.examples for some in both])

  def of_common_seeds(self) -> 'Pair':
    """The pair with the seeds that both have."""
    if self.sample.seeds == self.reference.seeds:
      return self
    seeds = [seed for seed in self.sample.seeds if seed in self.reference.seeds]
    return Pair(self.sample.of_seeds(seeds), self.reference.of_seeds(seeds), self.is_paired)


@dataclasses.dataclass
class Contrast:
  """The differences of lines from one reference.

  Attributes:
    differences: {(line, column): difference}.
    freedom: {column: degrees of freedom} of pooled variances.
    same_seeds: columns in which all lines that share a variance have the same seeds, so that what a
      seed does to all of them is no part of it.
    apart: {column: lines} that are tested, and do not share the pooled variance.
    paired: lines whose seeds are tested by their own differences from the reference.
    laid_over: those of these that may have the trained models of the reference, and do not say so.
  """

  scores: Scores
  metric: Metric
  reference: Reference
  baseline: str
  differences: dict[tuple, Difference]
  freedom: dict[int, int] = dataclasses.field(default_factory=dict)
  same_seeds: set[int] = dataclasses.field(default_factory=set)
  apart: dict[int, list[str]] = dataclasses.field(default_factory=dict)
  paired: set[str] = dataclasses.field(default_factory=set)
  laid_over: set[str] = dataclasses.field(default_factory=set)

  @property
  def columns(self) -> list:
    present = {column for _, column in self.differences}
    return [column for column in self.scores.columns if column in present]

  @property
  def lines(self) -> list[str]:
    present = {line for line, _ in self.differences}
    return [line for line in self.scores.lines if line in present]
