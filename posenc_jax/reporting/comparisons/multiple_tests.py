"""Tests of the lines of one column over seeds, by families, and the marks that come of them."""

from posenc_jax.reporting.comparisons import significance
from posenc_jax.reporting.comparisons.contrast import (
  BASELINE,
  BETTER,
  EQUIVALENT,
  WORSE,
  Contrast,
  Pair,
)
from posenc_jax.reporting.metrics import MARGIN
from posenc_jax.rows import row_schema


def test(contrast: Contrast, column, pairs: dict[str, Pair]) -> None:
  """Tests the differences of the lines in one column of the contrast, and marks them."""
  alike = _alike(contrast, pairs) if contrast.reference is BASELINE else {}
  apart = {line: pair for line, pair in pairs.items() if line not in alike}
  if alike:
    _test_together(contrast, column, alike)
  _test_apart(contrast, column, apart)
  paired = {line: pair for line, pair in pairs.items() if pair.is_paired}
  contrast.paired |= paired.keys()
  contrast.laid_over |= {
    line for line, pair in paired.items() if pair.has_unknown_models and not pair.has_same_models
  }
  if contrast.reference is BASELINE:
    tested = [line for line in apart if contrast.differences[line, column].p is not None]
    contrast.apart[column] = tested


def _alike(contrast: Contrast, pairs: dict[str, Pair]) -> dict[str, Pair]:
  """The pairs of lines that may share one variance over seeds with the baseline: models of its
  training length that do not spread more than the others; where most of them have the seeds of
  the baseline, those, so that what a seed does to all can be left out. Of a training that is there
  after several numbers of steps, the last: earlier models of it are not independent of that. Nor
  are the models of another line, or those that may be: of these the line that trained them counts.
  """
  rows, runs_of = contrast.scores.exemplar_row, contrast.scores.runs_of
  is_superseded = lambda line: any(
    runs_of[other] & runs_of[line] and rows[other]['step'] > rows[line]['step'] for other in rows
  )
  trained_by = {}
  # that of a line that trained its models comes first, then of several that read them the first
  is_read = lambda line: row_schema.PARAMETERS in rows[line]
  for line in sorted(pairs, key=is_read):
    for model in pairs[line].sample.models:
      trained_by.setdefault(model, line)
  is_copy = lambda line: any(trained_by[model] != line for model in pairs[line].sample.models)
  kind_of = lambda line: (rows[line]['encoding'] == row_schema.N_GRAM, rows[line]['train_length'])
  kind = kind_of(contrast.baseline)
  alike = {
    line: pair
    for line, pair in pairs.items()
    if kind_of(line) == kind
    and not (pair.is_paired or pair.has_unknown_models)
    and not (is_superseded(line) or is_copy(line))
  }
  same_seeds = {line: pair for line, pair in alike.items() if len({*pair.seeds}) == 1}
  if len(same_seeds) > len(alike) / 2:
    alike = same_seeds
  while alike:
    every = [pair.sample.scores_S for pair in alike.values()]
    every.append(next(iter(alike.values())).reference.scores_S)
    found = significance.cochran_outlier(every)
    if found is None:
      break
    if found == len(alike):
      return {}  # the baseline itself
    del alike[list(alike)[found]]
  return alike


def _test_together(contrast: Contrast, column, pairs: dict[str, Pair]) -> None:
  """Tests the differences of lines from the baseline with one variance, by Dunnett's test."""
  baseline_S = next(iter(pairs.values())).reference.scores_S
  lines = [pair.sample.scores_S for pair in pairs.values()]
  shares_seeds = len({seeds for pair in pairs.values() for seeds in pair.seeds}) == 1
  estimates = significance.pooled(lines, baseline_S, shares_seeds)
  if not estimates:
    return
  contrast.freedom[column] = estimates[0].freedom
  if shares_seeds:
    contrast.same_seeds.add(column)
  dunnett = significance.Dunnett(list(map(len, lines)), len(baseline_S), estimates[0].freedom)
  limit = dunnett.limit()
  smallest = [significance.smallest_detectable(estimate, limit) for estimate in estimates]
  corrected = list(map(dunnett.p, estimates))
  of_lines = dict(zip(pairs, estimates, strict=True))
  _mark(contrast, column, pairs, of_lines, corrected, smallest)


def _test_apart(contrast: Contrast, column, pairs: dict[str, Pair]) -> None:
  """Tests the differences of lines each with variances of its own, corrected by Holm's method."""
  estimates = {}
  for line, (sample, reference, is_paired) in pairs.items():
    if is_paired:
      estimate = significance.paired(sample.scores_S - reference.scores_S)
    else:
      estimate = significance.welch(sample.scores_S, reference.scores_S)
    if estimate is not None:
      estimates[line] = estimate
  corrected = significance.holm(list(map(significance.two_sided, estimates.values())))
  _mark(contrast, column, pairs, estimates, corrected, [None] * len(estimates))


def _mark(
  contrast: Contrast,
  column,
  pairs: dict[str, Pair],
  estimates: dict[str, significance.Estimate],
  corrected: list[float],
  smallest: list[float | None],
) -> None:
  """Writes what tests found of one family of lines, {line: its estimate}, into the contrast."""
  whole = estimates
  if contrast.metric.is_accuracy:
    whole = {line: pairs[line].with_examples(estimate) for line, estimate in estimates.items()}
  equivalent = significance.holm(
    [significance.equivalence(estimate, MARGIN) for estimate in whole.values()]
  )
  for (line, estimate), p, p_equivalent, least in zip(
    estimates.items(), corrected, equivalent, smallest, strict=True
  ):
    if p_equivalent < significance.ALPHA:
      mark = EQUIVALENT
    elif p >= significance.ALPHA:
      mark = ''
    else:
      mark = BETTER if (estimate.mean < 0) == (contrast.metric.best is min) else WORSE
    contrast.differences[line, column] = contrast.differences[line, column]._replace(
      p=significance.two_sided(estimate),
      corrected=p,
      p_equivalent=p_equivalent,
      smallest=least,
      mark=mark,
    )
