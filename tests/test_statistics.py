"""Statistics against scipy, by hand, and by simulation: what does not differ is starred as often as
it should be.
"""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from posenc_jax.reporting.significance import (
  ALPHA,
  LEVEL,
  holm,
  interval,
  paired_t,
  resamples,
  score,
)

SAME = lambda ratio: ratio


def simulated(number, seeds, documents, rng, difference=0.0, link=SAME):
  """(line, baseline, truth): sums [N, S, D] of documents whose hardness and size both lines share.

  Each model's own error a byte is drawn once for a document. The truth is the difference of scores
  over infinitely many documents, with these models: a document's size is independent of its
  hardness.
  """
  size_ND = rng.integers(200, 2000, (number, 1, documents)).astype(float)
  hardness_ND = rng.normal(2.0, 0.3, (number, 1, documents))
  of_model_NS = rng.normal(0.0, 0.05, (2, number, seeds, 1))
  own_NSD = rng.normal(0.0, 0.05, (2, number, seeds, documents))
  of_model_NS[0] += difference
  sums = [
    ((hardness_ND + of_model_NS[i] + own_NSD[i]) * size_ND, size_ND.repeat(seeds, 1))
    for i in (0, 1)
  ]
  means = link(2.0 + of_model_NS[..., 0]).mean(-1)
  return sums[0], sums[1], means[0] - means[1]


@pytest.mark.parametrize(
  ('seeds', 'documents', 'link'), [(1, 40, SAME), (3, 40, SAME), (3, 200, SAME), (2, 60, np.exp)]
)
def test_the_interval_covers_the_truth_as_often_as_it_says(seeds, documents, link):
  rng, number, chunks = np.random.default_rng(1), 100, 16
  weights_RD = resamples(documents, 4000)
  covered = []
  for _ in range(chunks):
    line, baseline, truth_N = simulated(number, seeds, documents, rng, link=link)
    low_N, high_N = interval(line, baseline, link, weights_RD)
    covered += [(low_N <= truth_N) & (truth_N <= high_N)]
  # What a percentile interval covers of a normal mean: it takes z for t and divides by D where it
  # should by D - 1.
  z = stats.norm.ppf((1 + LEVEL) / 2)
  expected = 1 - 2 * stats.t.sf(z * math.sqrt((documents - 1) / documents), documents - 1)
  assert 0.93 < expected < LEVEL
  standard_error = math.sqrt(expected * (1 - expected) / (number * chunks))
  # 2 * 0.0025 more: the standard error, twice, of two tails of 4000 resamples, which all
  # simulations share.
  assert abs(np.mean(covered) - expected) < 3 * standard_error + 2 * math.sqrt(0.025 * 0.975 / 4000)


def test_the_interval_is_that_of_a_bootstrap_by_loops():
  """Documents drawn by their numbers, one resample after another; scipy's interval of the same
  differences.
  """
  line, baseline, _ = simulated(1, 2, 12, np.random.default_rng(0), difference=0.03, link=np.exp)
  line, baseline = ([a[0] for a in sums] for sums in (line, baseline))
  weights_RD = resamples(12, 500)
  assert weights_RD.shape == (500, 12)
  assert (weights_RD.sum(1) == 12).all()
  differences = []
  for weights_D in weights_RD:
    drawn = [document for document, times in enumerate(weights_D) for _ in range(times)]
    means = []
    for top, size in (line, baseline):
      of_seeds = [
        math.exp(sum(t[d] for d in drawn) / sum(s[d] for d in drawn))
        for t, s in zip(top, size, strict=True)
      ]
      means.append(sum(of_seeds) / 2)
    differences.append(means[0] - means[1])
  found = interval(line, baseline, np.exp, weights_RD)
  assert found == pytest.approx(tuple(np.percentile(differences, [2.5, 97.5])), rel=1e-12)

  def statistic(documents, axis):
    del axis
    parts = [
      np.exp(top[:, documents].sum(-1) / size[:, documents].sum(-1)).mean(0)
      for top, size in (line, baseline)
    ]
    return parts[0] - parts[1]

  theirs = stats.bootstrap(
    (np.arange(12),), statistic, method='percentile', rng=np.random.default_rng(3)
  )
  ours = interval(line, baseline, np.exp, resamples(12))
  width = ours[1] - ours[0]
  assert ours == pytest.approx(tuple(theirs.confidence_interval), abs=0.03 * width)


def test_pairing_makes_the_interval_narrow_and_what_is_equal_has_none():
  line, baseline, _ = simulated(1, 3, 40, np.random.default_rng(0), difference=-0.1)
  line, baseline = ([a[0] for a in sums] for sums in (line, baseline))
  weights_RD = resamples(40)
  low, high = interval(line, baseline, SAME, weights_RD)
  shuffled = [a[:, np.random.default_rng(1).permutation(40)] for a in baseline]
  wide_low, wide_high = interval(line, shuffled, SAME, weights_RD)
  assert high - low < 0.3 * (wide_high - wide_low)
  assert low < score(*line, SAME) - score(*baseline, SAME) < high
  assert interval(line, line, SAME, weights_RD) == (0.0, 0.0)
  assert interval(line, baseline, SAME, resamples(40)) == (low, high)  # deterministic


def test_the_t_test_is_scipys_and_by_hand():
  a, b = [1.0, 2.0, 4.0], [0.5, 1.0, 3.5]
  t = (2 / 3) / (math.sqrt(1 / 12) / math.sqrt(3))
  assert paired_t(a, b) == pytest.approx(2 * stats.t.sf(t, 2), rel=1e-12)
  assert paired_t(a, b) == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-12)
  assert paired_t(b, a) == paired_t(a, b)


@pytest.mark.parametrize(
  ('a', 'b'),
  [
    ([1.0], [2.0]),
    ([], []),
    ([1.0, 2.0], [1.0, 2.0]),
    ([0.1, 0.2, 0.3], [1.1, 1.2, 1.3]),
    ([0, 0], [0, 0]),
  ],
)
def test_without_seeds_or_spread_there_is_no_p(a, b):
  assert paired_t(a, b) is None


def test_holm_by_hand_and_by_its_definition():
  assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
  assert holm([0.5, None, 0.02]) == [0.5, None, 0.04]
  assert holm([0.9, 0.8]) == [1.0, 1.0]
  assert holm([]) == []
  # Closed testing: a hypothesis falls if every set of hypotheses with it falls by Bonferroni.
  rng = np.random.default_rng(0)
  for _ in range(50):
    ps = list(rng.random(4) ** 3)
    for i, corrected in enumerate(holm(ps)):
      sets = [s for size in range(1, 5) for s in itertools.combinations(range(4), size) if i in s]
      assert corrected == pytest.approx(max(min(1.0, len(s) * min(ps[j] for j in s)) for s in sets))


def test_null_lines_are_starred_at_the_nominal_rate_and_planted_ones_always():
  """Five seeds, four lines without a difference to the baseline, in each of 1500 tables; then one
  with a difference.
  """
  rng, number = np.random.default_rng(5), 1500
  scores_NLS = rng.normal(2.0, 0.1, (number, 1, 5)) + rng.normal(0.0, 0.02, (number, 5, 5))
  single, family, planted = [], [], []
  for scores_LS in scores_NLS:
    ps = [paired_t(line_S, scores_LS[0]) for line_S in scores_LS[1:]]
    single.append(ps[0] < ALPHA)
    family.append(any(p < ALPHA for p in holm(ps)))
  error = 3 * math.sqrt(ALPHA * (1 - ALPHA) / number)
  assert abs(np.mean(single) - ALPHA) < error
  # at most ALPHA; less, as the lines share a baseline
  assert 0.02 < np.mean(family) < ALPHA + error
  for scores_LS in scores_NLS[:100]:
    scores_LS[2] -= 0.5
    corrected = holm([paired_t(line_S, scores_LS[0]) for line_S in scores_LS[1:]])
    planted.append(corrected[1] < ALPHA)
  assert all(planted)
