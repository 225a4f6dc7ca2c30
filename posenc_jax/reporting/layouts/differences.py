"""The tables of a comparison, lines down and columns across, and captions that say all of it."""

import statistics
from collections.abc import Callable

from posenc_jax.protocols import of_rows
from posenc_jax.reporting.captions import join_unique
from posenc_jax.reporting.comparisons import bootstrap, significance
from posenc_jax.reporting.comparisons.block import (
  BASELINE,
  BETTER,
  EQUIVALENT,
  OWN,
  WORDS,
  WORSE,
  Block,
  Difference,
)
from posenc_jax.reporting.comparisons.compare import Comparison
from posenc_jax.reporting.metrics import DASH
from posenc_jax.reporting.table import Cell, RowGroup, Table, header, record_keys

SMALLEST = 'smallest marked'
CORRELATION = 'correlation of seeds'
OVER_COLUMN = 'Holm-corrected over the lines of a column'
POOLED = (
  "Dunnett's test of all lines of a column against {baseline}, with the variance over seeds pooled "
  'over lines, which are taken to spread alike{blocks} ({freedom} degrees of freedom)'
)
PAIRED, UNPAIRED = "a t-test of the seeds' own differences", "Welch's t-test over seeds"


def difference_tables(comparison: Comparison) -> list[Table]:
  """A table for each block; what was left out stands below the last."""
  tables = [_table(block) for block in comparison.blocks]
  if tables:
    tables[-1].notes = comparison.left_out
  return tables


def _table(block: Block) -> Table:
  scores, number = block.scores, block.metric.form.replace('{:', '{:+').format
  columns, found = block.columns, block.differences
  names = dict(zip(scores.columns, header(scores), strict=True))
  lines = [
    [Cell(scores.label(line)), *(cell(found.get((line, column)), number) for column in columns)]
    for line in block.lines
  ]
  heading = ['encoding', *(names[column] for column in columns)]
  if block.correlations:
    heading.append(CORRELATION)
    for line, some in zip(block.lines, lines, strict=True):
      r = block.correlations.get(line)
      some.append(Cell(DASH if r is None else f'{r:+.2f}'))
  smallest = _smallest(block)
  if smallest:
    texts = [block.metric.form.format(smallest[c]) if c in smallest else DASH for c in columns]
    lines.append([Cell(SMALLEST), *map(Cell, texts), *[Cell('')] * bool(block.correlations)])
  return Table(
    f'Differences from {block.reference.title.format(baseline=block.baseline)}, {scores.name}',
    _caption(block, bool(smallest)),
    heading,
    [RowGroup('', lines)],
    is_scored=False,
    records=_records(block),
  )


def cell(difference: Difference | None, number: Callable[[float], str]) -> Cell:
  """The difference with its interval and mark; `number` writes a number."""
  if difference is None:
    return Cell(DASH)
  text = number(difference.mean)
  if difference.interval:
    text += ' [{}, {}]'.format(*map(number, difference.interval))
  return Cell(text, mark=difference.mark)


def _smallest(block: Block) -> dict:
  """{column: the median over lines of the smallest difference that seeds mark}."""
  found = {}
  for column in block.columns:
    values = [
      difference.smallest
      for (_, place), difference in block.differences.items()
      if place == column and difference.smallest is not None
    ]
    if values:
      found[column] = statistics.median(values)
  return found


def _caption(block: Block, has_smallest: bool) -> str:
  scores = block.scores
  reference = block.reference.words.format(baseline=block.baseline)
  remark = block.reference.remark
  if block.reference is OWN and scores.control is None:
    remark = of_rows(scores.protocol).own_remark
  learned = ' that have learned' if any(scores.unlearned.values()) else ''
  numbers = {difference.seeds for difference in block.differences.values()}
  some = 'those that a line has of ' if len(numbers) > 1 else ''
  caption = (
    f'{block.metric.title}, difference from {reference}, mean over {some}seeds '
    f'{join_unique(scores.seeds)}{learned}; {scores.title}.{remark} {_interval_sentence(block)} '
  )
  is_tested = any(difference.p is not None for difference in block.differences.values())
  caption += (
    _test_sentence(block, has_smallest)
    if is_tested
    else 'Not tested: that needs seeds that differ.'
  )
  if block.correlations:
    caption += (
      f' {CORRELATION.capitalize()}: of a line and {block.baseline} at L; where it is high, seeds '
      'do the same to both.'
    )
  return caption


def _interval_sentence(block: Block) -> str:
  clusters = {difference.clusters for difference in block.differences.values()} - {0}
  if not clusters:
    return (
      f'No intervals: they need rows of {bootstrap.FEWEST} or more single documents of different '
      'years or packages.'
    )
  return (
    f'In brackets the {bootstrap.LEVEL:.0%} bootstrap interval over documents '
    f'({join_unique(clusters)} of them, those of one year or package taken as one; '
    f'{bootstrap.RESAMPLES:,} resamples; the trained models stay as they are).'
  ).replace('%', ' %')


def _test_sentence(block: Block, has_smallest: bool) -> str:
  level = f'p < {significance.ALPHA:g}'
  sentence = (
    f'Marks are about other seeds. {BETTER} better, {WORSE} worse: {level} in {_tests(block)}. '
    f'{EQUIVALENT} equivalent: within {block.margin:g} of 0 though it may not be 0, {level} in two '
    f'such tests, one-sided, {OVER_COLUMN}. No mark: undecided, or too few seeds.'
  )
  if has_smallest:
    sentence += (
      f' {SMALLEST.capitalize()}: the true difference that is found with a chance of '
      f'{significance.POWER:.0%}, from the spread of these seeds (the median line).'
    )
  return sentence.replace('%', ' %')


def _tests(block: Block) -> str:
  """The words for the tests that lines were compared by."""
  unpaired = [line for line in block.lines if line not in block.paired]
  if not block.freedom:
    if block.paired and unpaired:
      of_paired = join_unique(line for line in block.lines if line in block.paired)
      return f'{UNPAIRED} (of {of_paired}, {PAIRED}), {OVER_COLUMN}'
    return f'{UNPAIRED if unpaired else PAIRED}, {OVER_COLUMN}'
  blocks = ', and without what a seed does to all of them' if block.same_seeds else ''
  if block.same_seeds and block.same_seeds != block.freedom.keys():
    blocks += f' at {join_unique(block.same_seeds)}'
  freedom = join_unique(block.freedom.values())
  words = POOLED.format(baseline=block.baseline, blocks=blocks, freedom=freedom)
  apart = {line for lines in block.apart.values() for line in lines}
  if apart - block.paired:
    words += (
      f'; of {join_unique(line for line in unpaired if line in apart)} in {UNPAIRED}, '
      f"{OVER_COLUMN} among themselves: they spread more over seeds (Cochran's test), have other "
      'seeds, are of another training length, or no model'
    )
  if apart & block.paired:
    same = join_unique(line for line in block.lines if line in apart & block.paired)
    words += f'; of {same}, the same trained models, in {PAIRED}, likewise corrected'
  return words


def _records(block: Block) -> list[dict]:
  """One record for each difference, for a file of comma-separated values."""
  made = []
  for (line, column), difference in block.differences.items():
    low, high = difference.interval or (None, None)
    record = record_keys(block.scores)
    record |= {'encoding': line, 'length': column, 'metric': block.metric.name}
    record |= {'compared_with': block.reference.name.format(baseline='baseline')}
    record |= {'baseline': block.baseline}
    record |= {'difference': difference.mean, 'low': low, 'high': high}
    record |= {'clusters': difference.clusters, 'seeds': difference.seeds}
    record |= {'p': difference.p, 'p_corrected': difference.corrected}
    record |= {'p_equivalent': difference.p_equivalent, 'margin': block.margin}
    record |= {'smallest_marked': difference.smallest, 'mark': WORDS[difference.mark]}
    if block.reference is BASELINE:
      record |= {'correlation': block.correlations.get(line)}
    made.append({name: _rounded(value) for name, value in record.items()})
  return made


def _rounded(value: object) -> object:
  """The value; a number with 9 digits, as the last ones differ from one processor to another."""
  return float(f'{value:.9g}') if isinstance(value, float) else value
