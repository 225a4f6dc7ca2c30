"""Statistics against scipy, by hand, and by simulation: intervals cover, tests err and find what
they say as often as they say.

A simulation of n tables is held to three standard errors of its share, 3 sqrt(p (1 - p) / n).
"""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from posenc_jax.reporting.comparisons import bootstrap, significance
from posenc_jax.reporting.comparisons.significance import ALPHA, POWER, Dunnett, holm
from posenc_jax.rows.clusters import FEWEST, clusters_of, kinds_of, taken_as_one

SAME = lambda ratio: ratio
RESAMPLES = 4000  # of simulations, which would take long with as many as tables have


def three_errors(share, number):
  return 3 * math.sqrt(share * (1 - share) / number)


# Documents


def simulated(number, seeds, clusters, rng, each=1, difference=0.0, link=SAME):
  """(line, baseline, truth): (top [N, S, C], size [N, 1, C]) of documents whose hardness and size
  both lines share, summed over the `each` documents of a cluster, which are alike.

  Each model's own error a byte is drawn once for a cluster. The truth is the difference of scores
  over infinitely many documents, with these models: a document's size is independent of its
  hardness.
  """
  size_NC = rng.integers(200, 2000, (number, 1, clusters, each)).sum(-1).astype(float)
  hardness_NC = rng.normal(2.0, 0.3, (number, 1, clusters))
  of_model_NS = rng.normal(0.0, 0.05, (2, number, seeds, 1))
  own_NSC = rng.normal(0.0, 0.05, (2, number, seeds, clusters))
  of_model_NS[0] += difference
  sums = [((hardness_NC + of_model_NS[i] + own_NSC[i]) * size_NC, size_NC) for i in (0, 1)]
  means = link(2.0 + of_model_NS[..., 0]).mean(-1)
  return sums[0], sums[1], means[0] - means[1]


def interval_of(line, baseline, link, weights_CR):
  both = (bootstrap.resampled(*sums, link, weights_CR) for sums in (line, baseline))
  return bootstrap.interval(np.subtract(*both), len(weights_CR))


@pytest.mark.parametrize(
  ('seeds', 'clusters', 'link', 'number'),
  [
    (3, FEWEST, SAME, 1600),
    (1, 40, SAME, 1600),
    (2, 60, np.exp, 1600),
    pytest.param(3, 12, SAME, 8000, marks=pytest.mark.slow),
    pytest.param(3, 100, SAME, 2000, marks=pytest.mark.slow),
  ],
)
def test_the_interval_covers_the_truth_as_often_as_it_says(seeds, clusters, link, number):
  rng, chunk = np.random.default_rng(1), 100
  weights_CR = bootstrap.resamples(clusters)[:, :RESAMPLES]
  covered = []
  for _ in range(number // chunk):
    line, baseline, truth_N = simulated(chunk, seeds, clusters, rng, link=link)
    low_N, high_N = interval_of(line, baseline, link, weights_CR)
    covered += [(low_N <= truth_N) & (truth_N <= high_N)]
  # The simulations share their resamples, whose two tails have errors of their own; and the sums of
  # so few clusters as FEWEST have other tails than t.
  slack = 2 * math.sqrt(0.025 * 0.975 / RESAMPLES) + (0.02 if clusters == FEWEST else 0)
  level = bootstrap.LEVEL
  assert abs(np.mean(covered) - level) < three_errors(level, number) + slack


def test_documents_of_a_year_that_count_by_themselves_would_make_intervals_too_narrow():
  rng, number, weights = np.random.default_rng(2), 1000, {}
  for clusters in (20, 40):
    weights[clusters] = bootstrap.resamples(clusters)[:, :RESAMPLES]
  hardness_NC = rng.normal(2.0, 0.3, (number, 1, 20))
  size_NC = rng.integers(200, 2000, (number, 1, 40)).astype(float)
  apart = hardness_NC.repeat(2, -1) * size_NC, size_NC
  together = [sums.reshape(number, 1, 20, 2).sum(-1) for sums in apart]
  covered = {}
  for clusters, sums in ((20, together), (40, apart)):
    means_NR = bootstrap.resampled(*sums, SAME, weights[clusters])
    low_N, high_N = bootstrap.interval(means_NR, clusters)
    covered[clusters] = np.mean((low_N <= 2.0) & (high_N >= 2.0))
  assert abs(covered[20] - bootstrap.LEVEL) < three_errors(bootstrap.LEVEL, number) + 0.01
  assert covered[40] < 0.88


@pytest.mark.parametrize(
  ('document', 'cluster'),
  [
    ('dns/rdtypes/ANY', 'dns/rdtypes/ANY'),
    ('1790-Washington-1', '1790'),
    ('1790-Washington-2', '1790'),
    ('1790', '1790'),
    ('17901-x', '17901-x'),
    ('a-1790-1', 'a-1790-1'),
    ('١٧٩٠-x', '١٧٩٠-x'),
    ('', ''),
  ],
)
def test_a_document_of_a_year_is_of_its_cluster(document, cluster):
  for corpus in ('sotu', 'planted'):
    assert clusters_of([document, 'other'], corpus) == {document: cluster, 'other': 'other'}
  assert clusters_of([document], 'texts') == {document: document}


def test_a_package_is_a_cluster_and_so_is_a_folder_where_there_are_enough_of_them():
  """Files of one project share names and style whatever the corpus is called: without regard to
  that an interval would be too narrow. But a few folders, such as 'text' or 'train', are no
  projects, and would leave no interval at all.
  """
  documents = ('dns', 'dns/rdtypes', 'dns/rdtypes/ANY')
  assert {*clusters_of(documents, 'code').values()} == {'dns'}
  projects = [f'p{n}' for n in range(FEWEST)]
  many = [f'{project}/{file}' for project in projects for file in ('a', 'b/c')]
  for corpus in ('texts', 'hf:them/set'):
    assert clusters_of(documents, corpus) == {document: document for document in documents}
    assert clusters_of(many, corpus) == {name: name.partition('/')[0] for name in many}
    assert clusters_of(many[:-2], corpus) == {name: name for name in many[:-2]}
    loose = [*many[:2], *'abcdef']  # files of no folder
    assert clusters_of(loose, corpus) == {name: name for name in loose}
    assert kinds_of((corpus, name) for name in many) == ['folder']
    assert kinds_of((corpus, name) for name in (*many[:-4], *documents)) == []


def test_it_is_said_which_documents_are_one_cluster():
  code = [('code', 'dns/a'), ('code', 'dns/b')]
  years = [('planted', '1790-x-1'), ('planted', '1790-x-2'), ('sotu', '1790-x-1')]
  assert taken_as_one(kinds_of(years)) == ', those of one year taken as one'
  assert taken_as_one(kinds_of(code + years)) == ', those of one year or package taken as one'
  assert taken_as_one(kinds_of([*code[1:], *years[1:]])) == ''


def test_the_interval_is_that_of_a_bootstrap_by_loops():
  """Documents drawn by their numbers, one resample after another."""
  line, baseline, _ = simulated(1, 2, 12, np.random.default_rng(0), difference=0.03, link=np.exp)
  line, baseline = ([a[0] for a in sums] for sums in (line, baseline))
  weights_CR = bootstrap.resamples(12)
  assert weights_CR.shape == (12, 40_000)
  assert (weights_CR.sum(0) == 12).all()
  weights_CR = weights_CR[:, :RESAMPLES]
  differences = []
  for weights_C in weights_CR.T:
    drawn = [document for document, times in enumerate(weights_C) for _ in range(int(times))]
    means = []
    for top, size in (line, baseline):
      of_seeds = [math.exp(sum(t[d] for d in drawn) / sum(size[0][d] for d in drawn)) for t in top]
      means.append(sum(of_seeds) / 2)
    differences.append(means[0] - means[1])
  found = interval_of(line, baseline, np.exp, weights_CR)
  outward = stats.norm.cdf(-stats.t.isf(0.025, 11) * math.sqrt(12 / 11))
  assert outward < 0.025
  ends = np.quantile(differences, [outward, 1 - outward])
  assert found == pytest.approx(tuple(ends), rel=1e-12)
  assert interval_of(line, line, SAME, weights_CR) == (0.0, 0.0)


@pytest.mark.parametrize('clusters', [8, 47])
def test_other_resamples_would_hardly_move_an_interval(clusters):
  line, baseline, _ = simulated(1, 3, clusters, np.random.default_rng(3))
  line, baseline = ([a[0] for a in sums] for sums in (line, baseline))
  ends, errors = [], []
  for seed in range(12):
    weights_CR = bootstrap.resamples(clusters)
    if seed:
      equal_C = np.full(clusters, 1 / clusters)
      number = weights_CR.shape[1]
      weights_CR = np.random.default_rng(seed).multinomial(clusters, equal_C, size=number).T
    ends.append(interval_of(line, baseline, SAME, weights_CR))
    both = (bootstrap.resampled(*sums, SAME, weights_CR) for sums in (line, baseline))
    errors.append(np.subtract(*both).std())
  moved = np.std(ends, axis=0, ddof=1) / np.mean(errors)
  assert (moved > 0).all()
  assert moved.max() < (0.04 if clusters == 8 else 0.025)


def test_as_many_resamples_are_drawn_as_memory_allows():
  numbers = {n: bootstrap.number_of_resamples(n) for n in (8, 500, 501, 2000, 5000, 10**6)}
  assert numbers == {8: 40_000, 500: 40_000, 501: 39_920, 2000: 10_000, 5000: 4000, 10**6: 4000}


def test_the_standard_error_is_that_of_a_mean_and_of_the_bootstrap():
  rng = np.random.default_rng(0)
  top_SC = rng.normal(2, 1, (3, 30))
  mean_C = top_SC.mean(0)
  error = bootstrap.standard_error(top_SC, np.ones((1, 30)), SAME)
  assert error == pytest.approx(mean_C.std(ddof=1) / math.sqrt(30), rel=1e-12)
  (top, size), _, _ = simulated(1, 3, 200, rng)
  scores_R = bootstrap.resampled(top[0], size[0], np.exp, bootstrap.resamples(200))
  assert bootstrap.standard_error(top[0], size[0], np.exp) == pytest.approx(
    scores_R.std(), rel=0.05
  )


# Seeds: estimates and p by scipy


def test_estimates_give_the_ps_of_scipy():
  a, b = [1.0, 2.0, 4.0], [0.5, 1.4, 3.5, 3.0]
  own = significance.paired(np.subtract(a, 1.5))
  assert significance.two_sided(own) == pytest.approx(stats.ttest_1samp(a, 1.5).pvalue, rel=1e-12)
  welch = significance.welch(a, b)
  theirs = stats.ttest_ind(a, b, equal_var=False)
  assert significance.two_sided(welch) == pytest.approx(theirs.pvalue, rel=1e-12)
  (pooled,) = significance.pooled([a], b, shares_seeds=False)
  assert significance.two_sided(pooled) == pytest.approx(stats.ttest_ind(a, b).pvalue, rel=1e-12)
  (paired,) = significance.pooled([a], b[:3], shares_seeds=True)
  theirs = stats.ttest_rel(a, b[:3])
  assert significance.two_sided(paired) == pytest.approx(theirs.pvalue, rel=1e-12)
  for margin in (0.1, 2.0):
    sides = [
      stats.ttest_1samp(np.subtract(a, 1.5), end, alternative=way).pvalue
      for end, way in ((-margin, 'greater'), (margin, 'less'))
    ]
    assert significance.equivalence(own, margin) == pytest.approx(max(sides), rel=1e-12)


def test_the_pooled_variance_is_of_all_lines():
  lines, baseline = [[1.0, 3.0], [5.0, 5.0, 8.0]], [2.0, 2.0]
  first, second = significance.pooled(lines, baseline, shares_seeds=False)
  variance = (2 + 6 + 0) / (1 + 2 + 1)
  assert first[:3] == pytest.approx((0.0, math.sqrt(variance * (1 / 2 + 1 / 2)), 4))
  assert second[:3] == pytest.approx((4.0, math.sqrt(variance * (1 / 3 + 1 / 2)), 4))


def test_the_line_that_spreads_too_much_is_that_of_cochrans_table():
  """Cochran 1941: the largest of k variances of 4 degrees of freedom, as a share of their sum."""
  unit = np.array([-2.0, -1, 0, 1, 2])
  for lines, printed in ((2, 0.9057), (3, 0.7457), (5, 0.5441), (9, 0.3584), (10, 0.3311)):
    for share, wide in ((printed - 1e-4, None), (printed + 1e-4, 1)):
      factor = math.sqrt(share * (lines - 1) / (1 - share))
      every = [unit * (factor if n == 1 else 1) + n for n in range(lines)]
      assert significance.cochran_outlier(every) == wide
  assert significance.cochran_outlier([[1.0, 1, 1], [2.0, 2, 2]]) is None
  assert significance.cochran_outlier([[1.0, 1, 1], [2.0, 2, 5], [3.0]]) == 1
  assert significance.cochran_outlier([[1.0, 2, 3]]) is None


@pytest.mark.parametrize('a', [[1.0], [0.1, 0.1 + 1e-16], [0.3, 0.3, 0.3]])
def test_without_seeds_or_spread_there_is_no_estimate(a):
  assert significance.paired(a) is None
  assert significance.welch(a, [0.0] * len(a)) is None
  assert significance.pooled([a], [0.0] * len(a), shares_seeds=True) == []


@pytest.mark.parametrize('error', [significance.ROUNDING, 0.001])
def test_shares_are_equivalent_only_where_examples_are_enough(error):
  """All right of n bounds the wrong by the rule of three, 3 / n, so that they are within 0.01 where
  n is 300 or more. Where seeds spread, too, it takes more.
  """
  same = significance.Estimate(0.0, error, 2)
  assert significance.equivalence(same, 0.01) < 0.01
  called = {
    number: significance.equivalence(
      significance.with_examples(same, (1.0, 1.0), (number, number)), 0.01
    )
    for number in (100, 220, 440, 2000)
  }
  assert called[100] > called[220] > 0.05 > called[440] > called[2000]
  of_three = [
    significance.equivalence(
      significance.with_examples(same, (1.0, 1.0), (number, number)), 3 / number
    )
    for number in (50, 300, 1000)
  ]
  assert min(of_three) > 0.049
  wider = significance.with_examples(same, (0.9, 0.9), (440, 440))
  assert significance.equivalence(wider, 0.01) > 0.3
  unknown = significance.with_examples(same, (1.0, 1.0), (2000, None))
  assert significance.equivalence(unknown, 0.01) == 0.5


@pytest.mark.parametrize('share', [0.5, 0.9, 0.985])
def test_shares_that_differ_by_the_margin_are_called_equivalent_as_seldom_as_it_says(share):
  """Two models whose seeds all answer the same 1,000 examples, the same ones right: of other
  examples they differ by 0.01 in truth.
  """
  rng, number, examples = np.random.default_rng(3), 4000, 1000
  right = rng.binomial(examples, [[share], [share + 0.01]], (2, number)) / examples
  called = [
    significance.equivalence(
      significance.with_examples(
        significance.Estimate(a - b, significance.ROUNDING, 2), (a, b), (examples, examples)
      ),
      0.01,
    )
    < ALPHA
    for a, b in right.T
  ]
  assert np.mean(called) < ALPHA + three_errors(ALPHA, number)


def test_what_is_the_same_in_every_seed_is_equivalent():
  same = significance.paired([0.0, 1e-16])
  assert significance.two_sided(same) == 1
  assert significance.equivalence(same, 0.01) < 1e-6
  assert significance.paired([0.0]) is None


# Seeds: families


def test_holm_by_hand_and_by_its_definition():
  assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
  assert holm([0.9, 0.8]) == [1.0, 1.0]
  assert holm([]) == []
  # Closed testing: a hypothesis falls if every set of hypotheses with it falls by Bonferroni.
  rng = np.random.default_rng(0)
  for _ in range(50):
    ps = list(rng.random(4) ** 3)
    for i, corrected in enumerate(holm(ps)):
      sets = [s for size in range(1, 5) for s in itertools.combinations(range(4), size) if i in s]
      assert corrected == pytest.approx(max(min(1.0, len(s) * min(ps[j] for j in s)) for s in sets))


@pytest.mark.parametrize('sizes', [(3, 3, 3, 3), (2, 4, 3, 5)])
def test_dunnetts_ps_are_scipys(sizes):
  rng = np.random.default_rng(1)
  *lines, baseline = [rng.normal(0.8 * i, 1.0, size) for i, size in enumerate((*sizes, 3))]
  estimates = significance.pooled(lines, baseline, shares_seeds=False)
  ours = [Dunnett(sizes, 3, estimates[0].freedom).p(estimate) for estimate in estimates]
  theirs = stats.dunnett(*lines, control=baseline, rng=np.random.default_rng(2)).pvalue
  assert ours == pytest.approx(theirs, abs=5e-4)  # theirs are integrals by random numbers
  assert min(ours) < 0.1


def test_dunnetts_limits_are_the_printed_ones_and_those_of_one_t_test():
  """Dunnett 1964, table II: two-sided, joint level .95."""
  for tests, freedom, printed in ((2, 5, 3.03), (4, 20, 2.65), (9, 10, 3.24)):
    assert Dunnett([6] * tests, 6, freedom).limit() == pytest.approx(printed, abs=0.006)
  alone = Dunnett([3], 3, 4)
  assert alone.limit() == pytest.approx(stats.t.isf(ALPHA / 2, 4), rel=1e-9)
  assert alone.exceeds(2.0) == pytest.approx(2 * stats.t.sf(2.0, 4), rel=1e-9)


@pytest.mark.parametrize(('limit', 'freedom'), [(12.59, 2), (2.9, 18), (3.3, 6.7)])
def test_the_smallest_difference_is_that_of_the_noncentral_t(limit, freedom):
  shift = significance.smallest_detectable(significance.Estimate(0.0, 0.1, freedom), limit) / 0.1
  found = stats.nct.sf(limit, freedom, shift) + stats.nct.cdf(-limit, freedom, shift)
  assert found == pytest.approx(POWER, abs=1e-5)


# Seeds: simulations


def dunnett_hits(number, seeds, lines, rng, shift=0.0, spread=1.0, of_seed=None):
  """[N, lines]: which lines are marked against a baseline; the first differs by `shift`.

  Seeds are blocks where `of_seed` says how far they spread, for all lines alike.
  """
  shares_seeds = of_seed is not None
  limit = Dunnett([seeds] * lines, seeds, (seeds - 1) * (lines + 1 - shares_seeds)).limit()
  scores_NLS = rng.normal(0.0, spread, (number, lines + 1, seeds))
  scores_NLS[:, 0] += shift
  scores_NLS += rng.normal(0.0, of_seed or 0.0, (number, 1, seeds))
  hits = []
  for scores_LS in scores_NLS:
    estimates = significance.pooled(scores_LS[:-1], scores_LS[-1], shares_seeds)
    hits.append([abs(e.mean) > limit * e.error for e in estimates])
  return np.array(hits)


@pytest.mark.parametrize('of_seed', [None, 0.0, 3.0])
@pytest.mark.parametrize(
  ('seeds', 'lines', 'number'), [(3, 8, 2000), pytest.param(5, 24, 4000, marks=pytest.mark.slow)]
)
def test_at_l_a_family_without_differences_has_a_mark_as_often_as_it_says(
  seeds, lines, number, of_seed
):
  hits_NL = dunnett_hits(number, seeds, lines, np.random.default_rng(3), of_seed=of_seed)
  assert abs(hits_NL.any(1).mean() - ALPHA) < three_errors(ALPHA, number)


@pytest.mark.parametrize('of_seed', [None, 0.1])
@pytest.mark.parametrize(
  ('seeds', 'lines', 'number'), [(3, 8, 2000), pytest.param(5, 24, 4000, marks=pytest.mark.slow)]
)
def test_at_l_the_smallest_difference_is_found_as_often_as_it_says(seeds, lines, number, of_seed):
  """With the true spread, where tables have the estimated one."""
  freedom = (seeds - 1) * (lines + (of_seed is None))
  limit = Dunnett([seeds] * lines, seeds, freedom).limit()
  estimate = significance.Estimate(0.0, (2 / seeds) ** 0.5 * 0.02, freedom)
  shift = significance.smallest_detectable(estimate, limit)
  rng = np.random.default_rng(4)
  hits_NL = dunnett_hits(number, seeds, lines, rng, shift, 0.02, of_seed)
  assert abs(hits_NL[:, 0].mean() - POWER) < three_errors(POWER, number)


def marked(estimates):
  """Which differences of a column past L are marked."""
  return [p < ALPHA for p in holm([significance.two_sided(e) for e in estimates])]


def past_l(kind, number, rng, seeds=4, lines=6, shift=0.0):
  """Estimates [N][lines] of differences whose spreads differ by a thousand times; the first line
  has spread 1 and differs by `shift`.
  """
  spread_L1 = np.geomspace(1, 1000, lines)[:, None]
  scores_NLS = spread_L1 * rng.normal(0.0, 1.0, (number, lines, seeds))
  scores_NLS[:, 0] += shift
  if kind == 'paired':
    return [[significance.paired(line_S) for line_S in scores_LS] for scores_LS in scores_NLS]
  reference_NS = rng.normal(0.0, 1.0, (number, seeds))
  return [
    [significance.welch(line_S, reference_S) for line_S in scores_LS]
    for scores_LS, reference_S in zip(scores_NLS, reference_NS, strict=True)
  ]


@pytest.mark.parametrize('kind', ['paired', 'welch'])
@pytest.mark.parametrize('number', [1500, pytest.param(6000, marks=pytest.mark.slow)])
def test_past_l_a_family_without_differences_has_a_mark_no_more_often_than_it_says(kind, number):
  family = [any(marked(e)) for e in past_l(kind, number, np.random.default_rng(5))]
  assert 0.02 < np.mean(family) < ALPHA + three_errors(ALPHA, number)


@pytest.mark.parametrize(
  ('true', 'low', 'high'), [(0.01, 0.03, ALPHA), (0.02, 0.0, 0.01), (0.0, 0.9, 1.0)]
)
def test_what_lies_at_the_margin_is_called_equivalent_as_seldom_as_it_says(true, low, high):
  rng, number = np.random.default_rng(7), 2000
  called = [
    significance.equivalence(significance.paired(difference_S), 0.01) < ALPHA
    for difference_S in rng.normal(true, 0.004, (number, 5))
  ]
  assert low <= np.mean(called) < high + three_errors(ALPHA, number)


def test_a_family_at_the_margin_has_a_false_equivalence_no_more_often_than_it_says():
  rng, number = np.random.default_rng(8), 1500
  differences_NLS = rng.normal(0.01, 0.004, (number, 6, 4))
  called = [
    any(
      p < ALPHA
      for p in holm([significance.equivalence(significance.paired(d_S), 0.01) for d_S in d_LS])
    )
    for d_LS in differences_NLS
  ]
  assert 0.02 < np.mean(called) < ALPHA + three_errors(ALPHA, number)
