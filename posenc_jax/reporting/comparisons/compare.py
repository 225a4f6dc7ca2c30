"""What is asked of lines, in numbers: differences, intervals over documents, tests over seeds.

Up to the training length L a line is compared with the baseline. Past L, where a baseline may fail
altogether, each line is compared with itself at L (does it hold, does it gain), with itself where
it sees the last L tokens alone or attention is windowed at L (is far context used), and with the
baseline under a window of L, which is what one would take otherwise. Likelihoods are compared in
bits per byte, whatever tables print.
"""

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from posenc_jax.errors import UserError, nearest
from posenc_jax.reporting.comparisons import bootstrap, significance
from posenc_jax.reporting.comparisons.samples import Sample, sample
from posenc_jax.reporting.metrics import METRICS, Metric
from posenc_jax.reporting.scores import Scores
from posenc_jax.reporting.series import N_GRAM

DEFAULT_ENCODING = 'rope'  # of the baseline, where a study names none
MARGIN = 0.01  # bits per byte, or the unit of another metric
WINDOWED, TRUNCATED, SHUFFLED = 'windowed', 'truncated', 'shuffled_far'
# Marks, and the words for them in files.
BETTER, WORSE, EQUIVALENT = '*', '†', '='
WORDS = {BETTER: 'better', WORSE: 'worse', EQUIVALENT: 'equivalent', '': ''}
# What lines are compared with.
BASELINE, OWN, OWN_WINDOWED, OWN_TRUNCATED, OWN_SHUFFLED = (
  'baseline',
  'own score at L',
  'own score windowed at L',
  'own score truncated to L',
  'own score with other far tokens',
)
BASELINE_WINDOWED, BASELINE_TRUNCATED = ('baseline windowed at L', 'baseline truncated to L')


class Difference(NamedTuple):
  """A line's score minus that of what it is compared with, mean over seeds.

  What could not be made is None: intervals without documents, tests without seeds.

  Attributes:
    interval: over `clusters` clusters of documents.
    p: of a two-sided test over seeds; `corrected` is that for all lines of the column that are
      tested with one variance, or for all others.
    p_equivalent: of two one-sided tests that it is `margin` or more, corrected likewise.
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


class Pair(NamedTuple):
  """A line's sample in a column and the one it is compared with.

  Attributes:
    is_paired: whether what is tested are the differences that seeds have by themselves.
  """

  sample: Sample
  reference: Sample
  is_paired: bool

  @property
  def seeds(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return self.sample.seeds, self.reference.seeds

  @property
  def mean(self) -> float:
    return float(self.sample.scores_S.mean() - self.reference.scores_S.mean())

  def of_common_seeds(self) -> 'Pair':
    """The pair with the seeds that both have."""
    if self.sample.seeds == self.reference.seeds:
      return self
    seeds = [seed for seed in self.sample.seeds if seed in self.reference.seeds]
    return Pair(self.sample.of_seeds(seeds), self.reference.of_seeds(seeds), self.is_paired)


@dataclasses.dataclass
class Block:
  """The differences of lines from one thing.

  Attributes:
    reference: what lines are compared with, one of the constants above.
    differences: {(line, column): difference}.
    freedom: {column: degrees of freedom} of pooled variances.
    apart: {column: lines} that are tested, and do not share the pooled variance.
    paired: lines whose seeds are tested by their own differences from the reference.
    shares_seeds: whether all lines have the same seeds, which the pooled variances then leave out.
    correlations: {line: correlation with the baseline over seeds at L}.
  """

  scores: Scores
  metric: Metric
  reference: str
  baseline: str
  margin: float
  differences: dict[tuple, Difference]
  freedom: dict[int, int] = dataclasses.field(default_factory=dict)
  apart: dict[int, list[str]] = dataclasses.field(default_factory=dict)
  paired: set[str] = dataclasses.field(default_factory=set)
  shares_seeds: bool = True
  correlations: dict[str, float] = dataclasses.field(default_factory=dict)

  @property
  def columns(self) -> list:
    present = {column for _, column in self.differences}
    return [column for column in self.scores.columns if column in present]

  @property
  def lines(self) -> list[str]:
    present = {line for line, _ in self.differences}
    return [line for line in self.scores.lines if line in present]


@dataclasses.dataclass
class Comparison:
  """Scores and what is asked of them; `left_out` says what could not be asked, and why."""

  scores: Scores
  blocks: list[Block] = dataclasses.field(default_factory=list)
  left_out: list[str] = dataclasses.field(default_factory=list)


def compare_all(
  found: list[Scores],
  controls: bool = True,
  baseline: str | None = None,
  margin: float = MARGIN,
  names_of: Callable[[dict], tuple] = lambda row: (row['label'],),
  is_paired: bool = False,
) -> list[Comparison]:
  """The comparison of each `Scores`; those of controls are compared with themselves at L alone.

  Args:
    found: all `Scores`, with those of controls.
    controls: whether controls have a comparison of their own.
    baseline: the whole name of a line, or one of the names that `names_of` gives its rows: a study
      knows labels, and one more evaluation divides a label into several lines. Of these the
      baseline is the line whose model was evaluated as it was trained, then the one with most
      scores, then the one at the last step. None: the line, chosen likewise, whose encoding is
      DEFAULT_ENCODING.
    margin: differences below it are of no interest.
    is_paired: whether a seed does the same to all lines, which start from one trained model, say.
      The same trained models are paired in any case.
  Raises:
    UserError: no scores have the line, or their metric has no better end; nothing is left without
      controls.
  """
  plain = [scores for scores in found if scores.control is None]
  if not controls and not plain:
    wanted = list(dict.fromkeys(scores.protocol for scores in found))
    raise UserError(f'no rows of protocols={wanted} but those of controls; allowed: controls=True')
  baselines = [_baseline(scores, baseline, names_of) for scores in plain]
  if baseline and plain and not any(baselines):
    rows = [row for scores in plain for row in scores.exemplar_row.values()]
    known = {name for row in rows for name in names_of(row)}
    raise UserError(f'table: baseline={baseline!r} has no rows; {nearest(baseline, known)}')
  if baseline and found[0].metric.best is None:
    raise UserError(
      f'table: metric={found[0].metric.name!r} with a baseline; allowed: one with a better end'
    )
  line_of = {(s.protocol, s.corpus): line for s, line in zip(plain, baselines, strict=True)}
  by_control = {(s.protocol, s.corpus, s.control): s for s in found}
  made = []
  for scores in found if controls else plain:
    comparison = Comparison(scores)
    made.append(comparison)
    if scores.metric.best is None:
      continue
    of = scores.protocol, scores.corpus
    comparer = _Comparer(scores, line_of.get(of, ''), margin, is_paired)
    if scores.control is None:
      others = {name: by_control.get((*of, name)) for name in (WINDOWED, TRUNCATED, SHUFFLED)}
      comparison.blocks = comparer.all_blocks(others, baseline)
      if comparison.blocks:
        comparison.left_out = comparer.left_out
      else:
        scores.notes += comparer.left_out
    elif scores.control != TRUNCATED:
      comparison.blocks = comparer.own_block()
  return made


def _baseline(scores: Scores, baseline: str | None, names_of: Callable[[dict], tuple]) -> str:
  """The line that `baseline` means in these scores, or ''."""

  def rank(line):
    row = scores.exemplar_row[line]
    scored = sum(len(scores.seed_scores(line, column)) for column in scores.columns)
    return bool(row['overrides']), -scored, -row['step']

  if baseline in scores.lines:
    return baseline
  named = [
    line
    for line, row in scores.exemplar_row.items()
    if (baseline in names_of(row) if baseline else row['encoding'] == DEFAULT_ENCODING)
  ]
  return min(named, key=rank, default='')


class _Comparer:
  """Makes the blocks of one `Scores`; what cannot be compared of them it names in their notes."""

  def __init__(self, scores: Scores, baseline: str, margin: float, is_paired: bool):
    self.scores, self.baseline, self.margin = scores, baseline, margin
    self.is_paired = is_paired
    self.metric = METRICS['bpb'] if scores.metric.denominator else scores.metric
    self.left_out = []
    self._samples = {}

  def all_blocks(self, others: dict[str, Scores | None], wanted: str | None) -> list[Block]:
    """The blocks of scores without a control.

    Args:
      others: {control: its scores, or None}.
      wanted: the baseline that a study named.
    """
    blocks = []
    is_past = any(column > min(self.scores.train_lengths) for column in self.scores.columns)
    if self.baseline:
      blocks += self._block(BASELINE, self._with_baseline())
    elif wanted:
      self.left_out.append(f'not compared with {wanted}, which has no rows here')
    elif len(self.scores.lines) > 1:
      self.left_out.append(
        f'not compared with each other: no line has the encoding {DEFAULT_ENCODING}, and no '
        'baseline is named'
      )
    if not is_past:
      return blocks
    blocks += self.own_block()
    for control, reference in ((WINDOWED, OWN_WINDOWED), (SHUFFLED, OWN_SHUFFLED)):
      if others[control]:
        blocks += self._block(reference, self._with_control(others[control]))
    if self.scores.protocol != 'last_k':  # its own score at L is of the same tokens
      if others[TRUNCATED]:
        blocks += self._block(OWN_TRUNCATED, self._with_control(others[TRUNCATED]))
      else:
        self.left_out.append(f'use of far context is not told: no rows of control {TRUNCATED}')
    if self.baseline and self._has(others[WINDOWED], self.baseline):
      blocks += self._block(BASELINE_WINDOWED, self._with_windowed(others[WINDOWED]))
    elif self.scores.protocol == 'last_k' and self._has(others[TRUNCATED], self.baseline):
      blocks += self._block(BASELINE_TRUNCATED, self._with_baseline_truncated())
    elif self.baseline:
      self.left_out.append(
        f'not compared with {self.baseline} windowed at L: no such rows of control {WINDOWED}'
      )
    return blocks

  def own_block(self) -> list[Block]:
    return self._block(OWN, self._with_own())

  @staticmethod
  def _has(scores: Scores | None, line: str) -> bool:
    return scores is not None and line in scores.exemplar_row

  def _sample(self, scores: Scores, line: str, column) -> Sample | None:
    key = scores.control, line, column
    if key not in self._samples:
      self._samples[key] = sample(scores, line, column, self.metric)
      if self._samples[key] is None and scores.seed_scores(line, column):
        self.scores.notes.append(
          f'not compared, as its seeds scored different tokens: {line} at {column}'
        )
    return self._samples[key]

  def _train_length(self, line: str) -> int:
    return self.scores.exemplar_row[line]['train_length']

  # The pairs of each block, one reference after another.

  def _with_baseline(self) -> Iterator[tuple]:
    for column, line in itertools.product(self.scores.columns, self.scores.lines):
      shorter = min(map(self._train_length, (line, self.baseline)))
      if line != self.baseline and column <= shorter:
        both = (self._sample(self.scores, name, column) for name in (line, self.baseline))
        yield line, column, *both, True

  def _with_own(self) -> Iterator[tuple]:
    is_same_target = self.scores.protocol == 'last_k'
    for line in self.scores.lines:
      near = self._train_length(line)
      if near not in self.scores.columns:
        continue
      for column in self.scores.columns:
        if column > near:
          both = (self._sample(self.scores, line, place) for place in (column, near))
          yield line, column, *both, is_same_target

  def _with_control(self, controlled: Scores) -> Iterator[tuple]:
    for line, column in itertools.product(self.scores.lines, self.scores.columns):
      if column > self._train_length(line) and self._has(controlled, line):
        both = (self._sample(some, line, column) for some in (self.scores, controlled))
        yield line, column, *both, True

  def _with_windowed(self, windowed: Scores) -> Iterator[tuple]:
    for column, line in itertools.product(self.scores.columns, self.scores.lines):
      if column > self._train_length(self.baseline):
        reference = self._sample(windowed, self.baseline, column)
        yield line, column, self._sample(self.scores, line, column), reference, True

  def _with_baseline_truncated(self) -> Iterator[tuple]:
    near = self._train_length(self.baseline)  # targets are the same at every length
    if near not in self.scores.columns:
      return
    reference = self._sample(self.scores, self.baseline, near)
    for column, line in itertools.product(self.scores.columns, self.scores.lines):
      if column > near:
        yield line, column, self._sample(self.scores, line, column), reference, True

  def _block(self, reference: str, pairs: Iterable[tuple]) -> list[Block]:
    """The block of pairs (line, column, sample, reference, is_on_same_tokens) in a list; [] without
    any.
    """
    pairs_of, differences, unlike, many = defaultdict(dict), {}, [], []
    resampler = _Resampler(self.metric)
    for line, column, of_line, other, is_on_same_tokens in pairs:
      if of_line is None or other is None:
        continue
      if is_on_same_tokens and of_line.tokens != other.tokens:
        unlike.append(f'{line} at {column}')
        continue
      pair = self._pair(of_line, other)
      if not pair.sample.seeds:
        continue
      if len(of_line.clusters) > bootstrap.MOST:
        many.append(f'{line} at {column}')
      differences[line, column] = Difference(
        pair.mean, len(pair.sample.seeds), *resampler.interval(pair)
      )
      pairs_of[column][line] = pair
    if unlike:
      self.scores.notes.append(
        f'not compared with {self._words(reference)}, as scored tokens differ: {"; ".join(unlike)}'
      )
    if many:
      self.scores.notes.append(
        f'no intervals over more than {bootstrap.MOST} clusters of documents: {"; ".join(many)}'
      )
    if not differences:
      return []
    block = Block(self.scores, self.metric, reference, self.baseline, self.margin, differences)
    for column, of_lines in pairs_of.items():
      self._test(block, column, of_lines)
    if reference == BASELINE:
      block.correlations = self._correlations()
    return [block]

  def _pair(self, sample: Sample, reference: Sample) -> Pair:
    common = Pair(sample, reference, is_paired=True).of_common_seeds()
    if self.is_paired or common.sample.models == common.reference.models != ():
      return common
    return Pair(sample, reference, is_paired=False)

  def _words(self, reference: str) -> str:
    return reference.replace('baseline', self.baseline)

  def _test(self, block: Block, column, pairs: dict[str, Pair]) -> None:
    """Tests the differences of the lines in one column."""
    alike = self._alike(pairs) if block.reference == BASELINE else {}
    apart = {line: pair for line, pair in pairs.items() if line not in alike}
    self._test_family(block, column, alike, is_pooled=True)
    self._test_family(block, column, apart, is_pooled=False)
    block.paired |= {line for line, pair in pairs.items() if pair.is_paired}
    if block.reference == BASELINE:
      tested = [line for line in apart if block.differences[line, column].p is not None]
      block.apart[column] = tested

  def _alike(self, pairs: dict[str, Pair]) -> dict[str, Pair]:
    """The pairs of lines that may share one variance over seeds with the baseline: models of its
    training length that do not spread more than the others; where most of them have the seeds of
    the baseline, those, so that what a seed does to all can be left out.
    """
    rows = self.scores.exemplar_row
    kind_of = lambda line: (rows[line]['encoding'] == N_GRAM, rows[line]['train_length'])
    kind = kind_of(self.baseline)
    alike = {
      line: pair for line, pair in pairs.items() if kind_of(line) == kind and not pair.is_paired
    }
    same_seeds = {line: pair for line, pair in alike.items() if len({*pair.seeds}) == 1}
    if len(same_seeds) > len(alike) / 2:
      alike = same_seeds
    while alike:
      every = [pair.sample.scores_S for pair in alike.values()]
      every.append(next(iter(alike.values())).reference.scores_S)
      found = significance.widest(every)
      if found is None:
        break
      if found == len(alike):
        return {}  # the baseline itself
      del alike[list(alike)[found]]
    return alike

  def _test_family(self, block: Block, column, pairs: dict[str, Pair], is_pooled: bool) -> None:
    """Tests the differences of lines in one column that are one family."""
    if not pairs:
      return
    shares_seeds = len({seeds for pair in pairs.values() for seeds in pair.seeds}) == 1
    estimates = _pooled_estimates(pairs, shares_seeds) if is_pooled else _separate_estimates(pairs)
    if not estimates:
      return
    every = list(estimates.values())
    ps = list(map(significance.two_sided, every))
    if is_pooled:
      block.freedom[column] = every[0].freedom
      block.shares_seeds &= shares_seeds
      sizes = [len(pairs[line].sample.seeds) for line in estimates]
      baseline_size = len(next(iter(pairs.values())).reference.seeds)
      dunnett = significance.Dunnett(sizes, baseline_size, every[0].freedom)
      corrected, limit = list(map(dunnett.p, every)), dunnett.limit()
      smallest = [significance.smallest(estimate, limit) for estimate in every]
    else:
      corrected, smallest = significance.holm(ps), [None] * len(ps)
    equivalent = significance.holm([significance.equivalence(e, self.margin) for e in every])
    for index, (line, estimate) in enumerate(estimates.items()):
      block.differences[line, column] = block.differences[line, column]._replace(
        p=ps[index],
        corrected=corrected[index],
        p_equivalent=equivalent[index],
        smallest=smallest[index],
        mark=self._mark(estimate.mean, corrected[index], equivalent[index]),
      )

  def _mark(self, mean: float, p: float, p_equivalent: float) -> str:
    if p_equivalent < significance.ALPHA:
      return EQUIVALENT
    if p >= significance.ALPHA:
      return ''
    return BETTER if (mean < 0) == (self.metric.best is min) else WORSE

  def _correlations(self) -> dict[str, float]:
    near = self._train_length(self.baseline)
    if near not in self.scores.columns:
      return {}
    of_baseline, found = self._sample(self.scores, self.baseline, near), {}
    for line in self.scores.lines:
      of_line = self._sample(self.scores, line, near)
      if line == self.baseline or of_line is None or of_baseline is None:
        continue
      pair = Pair(of_line, of_baseline, is_paired=False).of_common_seeds()
      r = significance.correlation(pair.sample.scores_S, pair.reference.scores_S)
      if r is not None:
        found[line] = r
    return found


def _pooled_estimates(
  pairs: dict[str, Pair], shares_seeds: bool
) -> dict[str, significance.Estimate]:
  """{line: its estimate}, all with one variance; {} where there is none."""
  reference = next(iter(pairs.values())).reference
  estimates = significance.pooled(
    [pair.sample.scores_S for pair in pairs.values()], reference.scores_S, shares_seeds
  )
  return dict(zip(pairs, estimates, strict=True)) if estimates else {}


def _separate_estimates(pairs: dict[str, Pair]) -> dict[str, significance.Estimate]:
  """{line: its estimate} of the lines that have one, each with variances of its own."""
  made = {}
  for line, (of_line, reference, is_paired) in pairs.items():
    if is_paired:
      estimate = significance.own(of_line.scores_S - reference.scores_S)
    else:
      estimate = significance.welch(of_line.scores_S, reference.scores_S)
    if estimate is not None:
      made[line] = estimate
  return made


class _Resampler:
  """Makes intervals; it keeps the resamples, and those of the last reference."""

  def __init__(self, metric: Metric):
    self._link = metric.link
    self._weights_of = {}
    self._reference, self._scores_R = None, None

  def interval(self, pair: Pair) -> tuple[tuple[float, float] | None, int]:
    """(interval, number of clusters) of a pair; (None, 0) where both have no clusters in common."""
    clusters = pair.sample.clusters
    if clusters != pair.reference.clusters:
      return None, 0
    if not bootstrap.FEWEST <= len(clusters) <= bootstrap.MOST:
      return None, 0
    if self._reference is not pair.reference:
      self._reference, self._scores_R = pair.reference, self._resampled(pair.reference)
    ends = bootstrap.interval(self._resampled(pair.sample) - self._scores_R, len(clusters))
    return tuple(map(float, ends)), len(clusters)

  def _resampled(self, of: Sample) -> np.ndarray:
    number = len(of.clusters)
    if number not in self._weights_of:
      self._weights_of[number] = bootstrap.resamples(number)
    return bootstrap.resampled(of.top_SC, of.size_C[None], self._link, self._weights_of[number])
