"""What is asked of lines, in numbers: differences, intervals over documents, tests over seeds.

Up to the training length L a line is compared with the baseline. Past L, where a baseline may fail
altogether, each line is compared with itself at L (does it hold, does it gain), with itself where
it sees the last L tokens alone or attention is windowed at L (is far context used), and with the
baseline under a window of L, which is what one would take otherwise, or in protocols without
controls with the baseline as it is. Likelihoods are compared in bits per byte, whatever tables
print.
"""

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Callable, Collection

import numpy as np

from posenc_jax.errors import UserError, nearest
from posenc_jax.protocols import (
  CHOSEN_BY_MODEL,
  SAME_TARGETS,
  SHUFFLED_FAR,
  TRUNCATED,
  WINDOWED,
  of_rows,
)
from posenc_jax.reporting.comparisons import bootstrap, multiple_tests
from posenc_jax.reporting.comparisons.contrast import (
  BASELINE,
  BASELINE_OF_KEYS,
  BASELINE_PAST,
  BASELINE_TRUNCATED,
  BASELINE_WINDOWED,
  OWN,
  OWN_SHUFFLED,
  OWN_TRUNCATED,
  OWN_WINDOWED,
  Contrast,
  Difference,
  Pair,
  Reference,
)
from posenc_jax.reporting.comparisons.samples import Sample, sample
from posenc_jax.reporting.metrics import METRICS
from posenc_jax.reporting.scores.score import Scores
from posenc_jax.rows import clusters
from posenc_jax.rows.overrides import DOCUMENTS, EVALUATOR

DEFAULT_ENCODING = 'rope'  # of the baseline, where a study names none
METHOD = 'method'  # in rows whose label tells what evaluation overrode in the model
STUDY_LABEL = 'study_label'  # in these rows: the label without that
MOST_KEPT = 1000  # resampled scores of a sample: 0.3 GB


def of_label(row: dict) -> tuple[str]:
  """The name by which a study knows the line of a row."""
  return (row['label'],)


@dataclasses.dataclass
class Comparison:
  """Scores and what is asked of them; `left_out` says what could not be asked, and why."""

  scores: Scores
  contrasts: list[Contrast] = dataclasses.field(default_factory=list)
  left_out: list[str] = dataclasses.field(default_factory=list)


def compare_all(
  found: list[Scores],
  controls: bool = True,
  baseline: str | dict[str, str] | None = None,
  names_of: Callable[[dict], tuple] = of_label,
  is_paired: bool = False,
  lines: Collection[str] | None = None,
) -> list[Comparison]:
  """The comparison of each `Scores`; those of controls are compared with themselves at L alone.

  Args:
    found: all `Scores`, with those of controls.
    controls: whether controls have a comparison of their own.
    baseline: the whole name of a line, or one of the names that `names_of` gives its rows: a study
      knows labels, and one more evaluation divides a label into several lines. Of these the
      baseline is the line whose model was evaluated as it was trained, then the one with most
      scores, then the one at the last step, then the one whose label comes first, then the one
      that keeps its label as name. Lines that score other tokens than that one are compared with
      the line among themselves that is chosen likewise, if there is one. So are lines of another
      training length, but for those that `baseline` names, too. None: lines, chosen likewise, whose
      encoding is DEFAULT_ENCODING. {name: baseline}: one for each whole name of a line, which
      counts first, name that `names_of` gives, or label; lines of others are compared with
      themselves alone.
    is_paired: whether a seed does the same to all lines, which start from one trained model, say.
      The same trained models are paired in any case, and so are models of step 0 that have the
      seeds of the baseline: they are laid over trained ones, which may be its own.
    lines: the lines that are compared, None: all. Their differences and intervals are the same
      without the others; tests over seeds are of those that are compared.
  Raises:
    UserError: no scores have the line, or none of those that are to have one; their metric has no
      better end; nothing is left without controls.
  """
  plain = [scores for scores in found if scores.control is None]
  if not controls and not plain:
    wanted = list(dict.fromkeys(scores.protocol for scores in found))
    raise UserError(f'no rows of protocols={wanted} but those of controls; allowed: controls=True')
  baselines = [baselines_of_lines(scores, baseline, names_of) for scores in plain]
  wanted_names = ' or '.join(names_of_baselines(baseline))
  if baseline and plain and not any(baselines):
    raise no_rows(baseline, plain, names_of)
  if baseline and found[0].metric.best is None:
    raise UserError(
      f'table: metric={found[0].metric.name!r} with a baseline; allowed: one with a better end'
    )
  baselines_in = {s.protocol: of for s, of in zip(plain, baselines, strict=True)}
  made = []
  for scores in found if controls else plain:
    comparison = Comparison(scores)
    made.append(comparison)
    if scores.metric.best is None:
      continue
    comparer = _Comparer(scores, baselines_in.get(scores.protocol, {}), is_paired, lines)
    if scores.control is None:
      others = {s.control: s for s in found if s.protocol == scores.protocol}
      comparison.contrasts = comparer.all_contrasts(others, wanted_names)
      if comparison.contrasts:
        comparison.left_out = comparer.left_out
      else:
        scores.notes += comparer.left_out
    elif scores.control != TRUNCATED:
      comparison.contrasts = comparer.own_contrast()
  return made


def no_rows(
  baseline: str | dict[str, str], found: list[Scores], names_of: Callable[[dict], tuple] = of_label
) -> UserError:
  """The error of a baseline that no line of any scores is compared with."""
  lines = [(line, row) for scores in found for line, row in scores.exemplar_row.items()]
  known = {name for line, row in lines for name in (line, *names_of(row))}
  labels = {row.get(STUDY_LABEL) for _, row in lines}
  if isinstance(baseline, dict) and not (known | labels) & baseline.keys():
    allowed = nearest(next(iter(baseline)), known)
    return UserError(f'table: baseline: labels={[*baseline]} have no rows; {allowed}')
  names = ' or '.join(names_of_baselines(baseline))
  return UserError(f'table: baseline={names!r} has no rows; {nearest(names, known)}')


def names_of_baselines(baseline: str | dict[str, str] | None) -> list[str]:
  """The names that a setting `baseline` has, each once."""
  if isinstance(baseline, dict):
    return list(dict.fromkeys(baseline.values()))
  return [baseline] if baseline else []


def baselines_of_lines(
  scores: Scores, baseline: str | dict[str, str] | None, names_of: Callable[[dict], tuple]
) -> dict[str, str]:
  """{line: the line that it is compared with} of all lines that have one, as `compare_all` says."""
  if isinstance(baseline, dict):
    of_each = {
      name: baselines_of_lines(scores, name, names_of) for name in names_of_baselines(baseline)
    }
    found = {}
    for line, row in scores.exemplar_row.items():
      names = (line, *names_of(row), row.get(STUDY_LABEL))
      wanted = next((baseline[name] for name in names if name in baseline), None)
      if of_each.get(wanted):
        found[line] = of_each[wanted][line]
    return found
  first = line_of_baseline(scores, baseline, names_of)
  if not first:
    return {}
  chosen = lambda among: line_of_baseline(scores, baseline, names_of, among)
  is_named = lambda line: _has_name(scores, line, baseline, names_of)
  found = {}
  for lines in sorted(scores.by_tokens, key=lambda lines: first not in lines):
    own = first if first in lines else chosen(lines) or first
    by_length = defaultdict(list)
    for line in sorted(lines, key=lambda line: line != first):
      by_length[scores.exemplar_row[line]['train_length']].append(line)
    for some in by_length.values():
      of_length = chosen(some) or own
      found |= {line: own if is_named(line) else of_length for line in some}
  return found


def changes_from(
  scores: Scores, to_keep: dict[str, str] | None = None
) -> dict[str, dict[int, Difference]]:
  """{line: {length: its change from the score to keep}} past the training lengths of the lines.

  Args:
    to_keep: {line: the line whose score at its own training length is to keep}, of the lines that
      are asked about, which are then compared at their training length, too; None: each its own.
  """
  comparer = _Comparer(scores, {}, is_paired=to_keep is not None, asked=to_keep)
  found = defaultdict(dict)
  for contrast in comparer.own_contrast(to_keep):
    for (line, length), difference in contrast.differences.items():
      found[line][length] = difference
  return found


def line_of_baseline(
  scores: Scores,
  baseline: str | None,
  names_of: Callable[[dict], tuple] = of_label,
  among: Collection[str] | None = None,
) -> str:
  """The line that `baseline` means in these scores, as `compare_all` says, or ''; `among` these
  lines, None: all.
  """
  among = scores.lines if among is None else among
  labels = list(dict.fromkeys(row['label'] for row in scores.exemplar_row.values()))

  def rank(line):
    row = scores.exemplar_row[line]
    scored = sum(len(scores.seed_scores(line, column)) for column in scores.columns)
    changed = (row['overrides'] or {}).keys() - {DOCUMENTS, EVALUATOR}
    is_changed = bool(changed or row.get(METHOD))
    return is_changed, -scored, -row['step'], labels.index(row['label']), line != row['label']

  if baseline in among:
    return baseline
  named = [line for line in among if _has_name(scores, line, baseline, names_of)]
  return min(named, key=rank, default='')


def _has_name(
  scores: Scores, line: str, baseline: str | None, names_of: Callable[[dict], tuple]
) -> bool:
  """Whether `baseline` names this line; None: whether its encoding is DEFAULT_ENCODING."""
  row = scores.exemplar_row[line]
  return baseline in (line, *names_of(row)) if baseline else row['encoding'] == DEFAULT_ENCODING


class _Comparer:
  """Makes the contrasts of one `Scores`; what cannot be compared it names in their notes."""

  def __init__(
    self, scores: Scores, baselines: dict[str, str], is_paired: bool, asked: Collection[str] | None
  ):
    self.scores, self.baselines = scores, baselines
    self.is_paired, self.asked = is_paired, scores.lines if asked is None else asked
    self.metric = METRICS['bpb'] if scores.metric.denominator else scores.metric
    self.left_out = []
    self._samples = {}  # {(control, line, column): sample}
    self._resampled = {}  # {(place of a sample, its seeds): its score in each resample}

  def all_contrasts(self, others: dict[str | None, Scores], wanted: str) -> list[Contrast]:
    """The contrasts of scores without a control.

    Args:
      others: {control: its scores}.
      wanted: the name of the baseline that a study asked for, or ''.
    """
    scores, L = self.scores, self._train_length
    is_past = lambda line, column: column > L(line)
    # Key tokens of one length are others than those of another: no line has an own score to keep.
    # And only where a common evaluator found them are those of two lines the same.
    is_of_keys = scores.protocol in CHOSEN_BY_MODEL
    has_evaluator = lambda line: EVALUATOR in (scores.exemplar_row[line]['overrides'] or {})
    baselines, contrasts = list(dict.fromkeys(self.baselines.values())), []
    for baseline in baselines:
      contrasts += self._contrast(
        BASELINE_OF_KEYS if is_of_keys else BASELINE,
        lambda line, column, baseline=baseline: (
          line != baseline
          and (has_evaluator(line) if is_of_keys else column <= min(L(line), L(baseline)))
        ),
        lambda line, column, baseline=baseline: (scores, baseline, column),
        baseline=baseline,
      )
    if not baselines and wanted:
      self.left_out.append(f'not compared with {wanted}, which has no rows here')
    elif not baselines and len(scores.lines) > 1:
      self.left_out.append(
        f'not compared with each other: no line has the encoding {DEFAULT_ENCODING}, and no '
        'baseline is named'
      )
    if is_of_keys or scores.columns[-1] <= min(scores.train_lengths):
      return contrasts
    contrasts += self.own_contrast()
    of_controls = {WINDOWED: OWN_WINDOWED, SHUFFLED_FAR: OWN_SHUFFLED}
    if scores.protocol not in SAME_TARGETS:  # or else the own score at L is of the same tokens
      of_controls[TRUNCATED] = OWN_TRUNCATED
    for control, reference in of_controls.items():
      if other := others.get(control):
        contrasts += self._contrast(
          reference, is_past, lambda line, column, other=other: (other, line, column)
        )
      elif control == TRUNCATED and control in of_rows(scores.protocol).controls:
        self.left_out.append(f'use of far context is not told: no rows of control {TRUNCATED}')
    has_rows = lambda control, line: control in others and line in others[control].exemplar_row
    lacking = []
    for baseline in baselines:
      is_asked = lambda line, column, baseline=baseline: column > L(baseline)
      if has_rows(WINDOWED, baseline):
        reference = BASELINE_WINDOWED
        other_of = lambda line, column, baseline=baseline: (others[WINDOWED], baseline, column)
      elif scores.protocol in SAME_TARGETS and has_rows(TRUNCATED, baseline):
        reference = BASELINE_TRUNCATED
        other_of = lambda line, column, baseline=baseline: (scores, baseline, L(baseline))
      elif not of_rows(scores.protocol).controls:
        reference = BASELINE_PAST
        other_of = lambda line, column, baseline=baseline: (scores, baseline, column)
        is_asked = lambda line, column, baseline=baseline: (
          line != baseline and column > min(L(line), L(baseline))
        )
      else:
        lacking.append(baseline)
        continue
      contrasts += self._contrast(reference, is_asked, other_of, baseline=baseline)
    if lacking:
      names = ' or '.join(lacking)
      self.left_out.append(
        f'not compared with {names} windowed at L: no such rows of control {WINDOWED}'
      )
    return contrasts

  def own_contrast(self, to_keep: dict[str, str] | None = None) -> list[Contrast]:
    """The contrast with the own score at L, or with the score `to_keep`, as `changes_from` says."""
    L, kept = self._train_length, to_keep or {}
    kept_by = lambda line: kept.get(line, line)
    return self._contrast(
      OWN,
      lambda line, column: column > L(line) or (line in kept and column == L(line)),
      lambda line, column: (self.scores, kept_by(line), L(kept_by(line))),
      is_on_same_tokens=self.scores.protocol in SAME_TARGETS,
    )

  def _train_length(self, line: str) -> int:
    return self.scores.exemplar_row[line]['train_length']

  def _contrast(
    self,
    reference: Reference,
    is_asked: Callable[[str, int], bool],
    other_of: Callable[[str, int], tuple[Scores, str, int]],
    is_on_same_tokens: bool = True,
    baseline: str = '',
  ) -> list[Contrast]:
    """The contrast of all lines and columns that `is_asked` holds for, in a list; [] without any.

    Args:
      other_of: (line, column) -> the scores, line and column that it is compared with.
      is_on_same_tokens: whether both must have been scored on the same tokens.
      baseline: where `reference` is one: the line. Lines with another one are not compared.
    """
    pairs_of, differences, unlike = defaultdict(dict), {}, []
    for line, column in itertools.product(self.scores.lines, self.scores.columns):
      if line not in self.asked or not is_asked(line, column):
        continue
      if baseline and self.baselines.get(line) != baseline:
        continue
      line_sample = self._sample(self.scores, line, column)
      other = self._sample(*other_of(line, column))
      if line_sample is None or other is None:
        continue
      if is_on_same_tokens and not line_sample.has_same_tokens(other):
        unlike.append(f'{line} at {column}')
        continue
      pair = self._pair(line_sample, other)
      if not pair.sample.seeds:
        continue
      interval = self._interval(pair)
      difference = Difference(pair.mean, len(pair.sample.seeds), *interval)
      if difference.interval is not None:
        sizes_C = pair.sample.size_C
        difference = difference._replace(shares=tuple(sizes_C / sizes_C.sum()))
      differences[line, column] = difference
      pairs_of[column][line] = pair
    if unlike:
      name = reference.name.format(baseline=baseline)
      self.scores.notes.append(
        f'not compared with {name}, as scored tokens differ: {"; ".join(unlike)}'
      )
    if not differences:
      return []
    contrast = Contrast(self.scores, self.metric, reference, baseline, differences)
    for column, pairs in pairs_of.items():
      multiple_tests.test(contrast, column, pairs)
      self._correct_intervals(contrast, column, pairs)
    return [contrast]

  def _correct_intervals(self, contrast: Contrast, column, pairs: dict[str, Pair]) -> None:
    """Sets `interval_of_all` of a column's lines that have intervals over the same clusters."""
    together = defaultdict(dict)
    for line, pair in pairs.items():
      if contrast.differences[line, column].interval is not None:
        difference_R = self._difference(pair)
        if difference_R.std() > 0:  # not that of a line that is equal to the last bit
          together[pair.sample.clusters][line] = difference_R
    for same_clusters, differences in together.items():
      if len(differences) < 2:
        continue
      limit = bootstrap.limit_of_all(np.stack([*differences.values()]), len(same_clusters))
      for line, difference_R in differences.items():
        difference = contrast.differences[line, column]
        half = limit * float(difference_R.std())
        low, high = difference.interval  # which skewed clusters may carry farther to one side
        of_all = min(low, difference.mean - half), max(high, difference.mean + half)
        contrast.differences[line, column] = difference._replace(interval_of_all=of_all)

  def _sample(self, scores: Scores, line: str, column) -> Sample | None:
    key = scores.control, line, column
    if key not in self._samples:
      self._samples[key] = sample(scores, line, column, self.metric)
      if self._samples[key] is None and scores.seed_scores(line, column):
        self.scores.notes.append(
          f'not compared, as its seeds scored different tokens: {line} at {column}'
        )
    return self._samples[key]

  def _pair(self, sample: Sample, reference: Sample) -> Pair:
    common = Pair(sample, reference, is_paired=True).of_common_seeds()
    if self.is_paired or common.has_same_models:
      return common
    if common.has_unknown_models and {*sample.seeds} <= {*reference.seeds}:
      return common
    return Pair(sample, reference, is_paired=False)

  def _interval(self, pair: Pair) -> tuple[tuple[float, float] | None, int]:
    """(interval, number of clusters) of a pair; (None, 0) where it has too few of them, or its two
    samples have not the same.
    """
    number = len(pair.sample.clusters)
    if number < clusters.FEWEST or pair.sample.clusters != pair.reference.clusters:
      return None, 0
    return tuple(map(float, bootstrap.interval(self._difference(pair), number))), number

  def _difference(self, pair: Pair) -> np.ndarray:
    """The difference in each resample."""
    return self._resample(pair.sample) - self._resample(pair.reference)

  def _resample(self, sample: Sample) -> np.ndarray:
    """scores_R of a sample. They are kept, a line's being those of several contrasts, as long as
    they are not too many for memory.
    """
    key = sample.place, sample.seeds
    if key not in self._resampled:
      if len(self._resampled) >= MOST_KEPT:
        self._resampled.clear()
      weights_CR = bootstrap.resamples(len(sample.size_C))
      sums = sample.top_SC, sample.size_C[None]
      self._resampled[key] = bootstrap.resampled(*sums, self.metric.link, weights_CR)
    return self._resampled[key]
