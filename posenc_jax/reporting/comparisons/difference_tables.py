"""The tables of a comparison, lines down and columns across, and captions that say all of it."""

import math
import statistics
from collections.abc import Callable

from posenc_jax.protocols import of_rows
from posenc_jax.reporting.captions import join_unique
from posenc_jax.reporting.comparisons import bootstrap, significance
from posenc_jax.reporting.comparisons.compare import Comparison
from posenc_jax.reporting.comparisons.contrast import (
  BETTER,
  EQUIVALENT,
  OWN,
  WORDS,
  WORSE,
  Contrast,
  Difference,
)
from posenc_jax.reporting.metrics import DASH, MARGIN
from posenc_jax.reporting.table import Cell, RowGroup, Table, column_record, header, record_keys
from posenc_jax.rows import clusters

SMALLEST_MARKED = 'smallest marked'
OVER_COLUMN = 'Holm-corrected over the lines of a column'
POOLED = (
  "Dunnett's test of all lines of a column against {baseline}, with the variance over seeds pooled "
  'over lines, which are taken to spread alike{shared} ({freedom} degrees of freedom)'
)
MOST_NAMED = 8  # places in a sentence
MUCH = 1 / 3  # of what is scored: a cluster that has more decides what an interval says
PAIRED, UNPAIRED = "a t-test of the seeds' own differences", "Welch's t-test over seeds"


def difference_tables(comparison: Comparison) -> list[Table]:
  """A table for each contrast; what was left out stands below the last."""
  tables = [_table(contrast) for contrast in comparison.contrasts]
  if tables:
    tables[-1].notes = comparison.left_out
  return tables


def _table(contrast: Contrast) -> Table:
  scores, number = contrast.scores, contrast.metric.form.replace('{:', '{:+').format
  columns, found = contrast.columns, contrast.differences
  names = dict(zip(scores.columns, header(scores), strict=True))
  lines = [
    [Cell(scores.label(line)), *(cell(found.get((line, column)), number) for column in columns)]
    for line in contrast.lines
  ]
  heading = ['encoding', *(names[column] for column in columns)]
  title = contrast.reference.title.format(baseline=contrast.baseline)
  smallest = _smallest(contrast)
  if smallest:
    texts = [contrast.metric.form.format(smallest[c]) if c in smallest else DASH for c in columns]
    lines.append([Cell(SMALLEST_MARKED), *map(Cell, texts)])
  return Table(
    f'Differences from {title}, {scores.name}',
    _caption(contrast, bool(smallest)),
    heading,
    [RowGroup('', lines)],
    is_scored=False,
    records=_records(contrast),
  )


def cell(difference: Difference | None, number: Callable[[float], str]) -> Cell:
  """The difference with its interval and mark; `number` writes a number."""
  if difference is None:
    return Cell(DASH)
  text = number(difference.mean)
  if difference.interval:
    text += ' [{}, {}]'.format(*map(number, difference.interval))
  return Cell(text, mark=difference.mark)


def _smallest(contrast: Contrast) -> dict:
  """{column: the median over lines of the smallest difference that seeds mark}."""
  found = {}
  for column in contrast.columns:
    values = [
      difference.smallest
      for (_, place), difference in contrast.differences.items()
      if place == column and difference.smallest is not None
    ]
    if values:
      found[column] = statistics.median(values)
  return found


def _caption(contrast: Contrast, has_smallest: bool) -> str:
  scores = contrast.scores
  reference = contrast.reference.words.format(baseline=contrast.baseline)
  remark = contrast.reference.remark
  if contrast.reference is OWN and scores.control is None:
    remark = of_rows(scores.protocol).own_remark
  learned = ' that have learned' if any(scores.unlearned.values()) else ''
  numbers = {difference.seeds for difference in contrast.differences.values()}
  some = 'those that a line has of ' if len(numbers) > 1 else ''
  caption = (
    f'{contrast.metric.title}, difference from {reference}, mean over {some}seeds '
    f'{join_unique(scores.seeds)}{learned}; {scores.title}.{remark} {_interval_sentence(contrast)} '
  )
  is_tested = any(difference.p is not None for difference in contrast.differences.values())
  caption += (
    _test_sentence(contrast, has_smallest)
    if is_tested
    else 'Not tested: that needs seeds that differ.'
  )
  return caption


def _interval_sentence(contrast: Contrast) -> str:
  documents = documents_of_intervals(contrast)
  if not documents:
    return no_intervals(contrast)
  numbers = {
    bootstrap.number_of_resamples(difference.clusters)
    for difference in contrast.differences.values()
    if difference.interval is not None
  }
  resamples = join_unique(f'{number:,}' for number in sorted(numbers))
  sentence = (
    f'In brackets the {bootstrap.LEVEL:.0%} bootstrap interval over documents ({documents}; '
    f'{resamples} resamples; the trained models stay as they are).'
  )
  return sentence.replace('%', ' %') + _of_all_sentence(contrast)


def _of_all_sentence(contrast: Contrast) -> str:
  """Which intervals would include 0 if they were corrected for the number of lines."""
  leave_out = {
    place: difference
    for place, difference in contrast.differences.items()
    if difference.interval_of_all and not _includes_0(difference.interval)
  }
  if not leave_out:
    return ''
  lost = [place for place, found in leave_out.items() if _includes_0(found.interval_of_all)]
  if not lost:
    left = 'all that leave out 0 still do'
  elif len(lost) <= MOST_NAMED:
    left = f'those of {"; ".join(f"{line} at {column}" for line, column in lost)} would include 0'
  else:
    left = f'{len(leave_out) - len(lost)} of the {len(leave_out)} that leave out 0 still do'
  return f' Corrected for all lines of a column, by the largest of their differences, {left}.'


def _includes_0(interval: tuple[float, float]) -> bool:
  return interval[0] <= 0 <= interval[1]


def no_intervals(contrast: Contrast) -> str:
  """The sentence on what documents intervals would need."""
  alike = ' or '.join(f'{kind}s' for kind in contrast.scores.alike)
  different = alike and f', of different {alike}'
  return (
    f'No intervals: they need rows of the same {clusters.FEWEST} or more single documents'
    f'{different}.'
  )


def documents_of_intervals(contrast: Contrast) -> str:
  """What the documents are that intervals are over: '18 of them, those of one year taken as one';
  '' where there is no interval.

  Where the largest cluster has more than MUCH of what is scored, how many equal ones would tell as
  much: Kish's effective number, the square of the sum of weights over the sum of their squares
  (Kish 1965, section 11.7).
  """
  differences = [some for some in contrast.differences.values() if some.interval is not None]
  if not differences:
    return ''
  number = join_unique({difference.clusters for difference in differences})
  words = f'{number} of them{clusters.taken_as_one(contrast.scores.alike)}'
  least_even = max((difference.shares for difference in differences), key=max)
  if max(least_even) > MUCH:
    up_to = 'up to ' * (len({round(max(difference.shares), 2) for difference in differences}) > 1)
    equal = 1 / math.fsum(share**2 for share in least_even)
    words += (
      f'; the largest has {up_to}{max(least_even):.0%} of what is scored, so that all tell as '
      f'much as {equal:.1f} equal ones'
    )
  return words


def _test_sentence(contrast: Contrast, has_smallest: bool) -> str:
  level = f'p < {significance.ALPHA:g}'
  examples = ' and allowing for other examples, too' * contrast.metric.is_accuracy
  sentence = (
    f'Marks are about other seeds. {BETTER} better, {WORSE} worse: {level} in {_tests(contrast)}. '
    f'{EQUIVALENT} equivalent: within {MARGIN:g} of 0 though it may not be 0, {level} in '
    f'two such tests, one-sided{examples}, {OVER_COLUMN}. No mark: undecided, or too few seeds.'
  )
  if has_smallest:
    sentence += (
      f' {SMALLEST_MARKED.capitalize()}: the true difference that is found with a chance of '
      f'{significance.POWER:.0%}, from the spread of these seeds (the median line).'
    )
  return sentence.replace('%', ' %')


def _tests(contrast: Contrast) -> str:
  """The words for the tests that lines were compared by."""
  unpaired = [line for line in contrast.lines if line not in contrast.paired]
  if not contrast.freedom:
    if contrast.paired and unpaired:
      of_paired = join_unique(line for line in contrast.lines if line in contrast.paired)
      if contrast.laid_over:
        of_paired += ', of step 0 or the same trained models'
      return f'{UNPAIRED} (of {of_paired}, {PAIRED}), {OVER_COLUMN}'
    return f'{UNPAIRED if unpaired else PAIRED}, {OVER_COLUMN}'
  shared = ', and without what a seed does to all of them' if contrast.same_seeds else ''
  if contrast.same_seeds and contrast.same_seeds != contrast.freedom.keys():
    shared += f' at {join_unique(contrast.same_seeds)}'
  freedom = join_unique(contrast.freedom.values())
  words = POOLED.format(baseline=contrast.baseline, shared=shared, freedom=freedom)
  apart = {line for lines in contrast.apart.values() for line in lines}
  if apart - contrast.paired:
    words += (
      f'; of {join_unique(line for line in unpaired if line in apart)} in {UNPAIRED}, '
      f"{OVER_COLUMN} among themselves: they spread more over seeds (Cochran's test), have other "
      'seeds, are of another training length, no model, an earlier model of a training or one that '
      'another line has'
    )
  return words + _of_paired(contrast, apart)


def _of_paired(contrast: Contrast, tested: set[str]) -> str:
  """The words for lines that are tested apart from a pooled variance, and seed by seed."""
  laid_over = contrast.laid_over
  kinds = (
    (contrast.paired - laid_over, 'the same trained models'),
    (laid_over, f'of step 0, so laid over trained models that may be those of {contrast.baseline}'),
  )
  words = ''
  for lines, what in kinds:
    if some := [line for line in contrast.lines if line in lines & tested]:
      words += f'; of {join_unique(some)}, {what}, in {PAIRED}, likewise corrected'
  return words


def _records(contrast: Contrast) -> list[dict]:
  """One record for each difference, for a file of comma-separated values."""
  made = []
  for (line, column), difference in contrast.differences.items():
    low, high = difference.interval or (None, None)
    record = record_keys(contrast.scores, 'differences') | {'encoding': line}
    record |= column_record(contrast.scores, line, column) | {'metric': contrast.metric.name}
    record |= {'compared_with': contrast.reference.name.format(baseline='baseline')}
    record |= {'baseline': contrast.baseline}
    record |= {'difference': difference.mean, 'low': low, 'high': high}
    low, high = difference.interval_of_all or (None, None)
    record |= {'low_of_all': low, 'high_of_all': high}
    record |= {'clusters': difference.clusters, 'seeds': difference.seeds}
    record |= {'p': difference.p, 'p_corrected': difference.corrected}
    record |= {'p_equivalent': difference.p_equivalent, 'margin': MARGIN}
    record |= {'smallest_marked': difference.smallest, 'mark': WORDS[difference.mark]}
    made.append({name: _rounded(value) for name, value in record.items()})
  return made


def _rounded(value: object) -> object:
  """The value; a number with 9 digits, as the last ones differ from one processor to another."""
  return float(f'{value:.9g}') if isinstance(value, float) else value
