"""What tables say of lines: differences up to L, past L from oneself, oneself truncated and the
windowed baseline; each number by hand, each mark planted.
"""

import math

import numpy as np
import pytest
from scipy import stats
from synthetic import extended, lines_of, row, rows_of, tasks

from posenc_jax.errors import UserError
from posenc_jax.reporting.comparisons import (
  bootstrap,
  difference_tables,
  multiple_tests,
  significance,
)
from posenc_jax.reporting.comparisons.contrast import Contrast, Difference
from posenc_jax.reporting.mpl import figures
from posenc_jax.reporting.table_forms import make_tables
from posenc_jax.rows.overrides import DOCUMENTS, EVALUATOR

LINK = lambda ratio: ratio / np.log(2)


def documents(bits, names='abcdef', **fields):
  """Rows of {label: {length: bits a seed}}, of documents of different size and hardness."""
  return [
    row(
      label, seed, length, value + 0.3 * d + 0.01 * ((seed + d) % 3), name, tokens=10 + d, **fields
    )
    for label, by_length in bits.items()
    for length, seeds in by_length.items()
    for seed, value in enumerate(seeds)
    for d, name in enumerate(names)
  ]


def near(mean, noise, seeds=5):
  """Scores of seeds about `mean`, with an uneven spread of `noise`."""
  return list(mean + noise * np.array([-1.1, 0.7, 0.2, 1.3, -0.9, 0.4])[:seeds])


def contrasts(rows, **settings):
  """{beginning of the title: table} of the differences."""
  made = make_tables(rows, **settings)
  return {table.title.split(', ')[0]: table for table in made if table.title.startswith('Diff')}


AT_L, OWN, OWN_WINDOWED, SHUFFLED, TRUNCATED, WINDOWED = (
  'Differences from rope up to L',
  'Differences from their own score at L',
  'Differences from their own score windowed at L',
  'Differences from their own score with other far tokens',
  'Differences from their own score truncated to L',
  'Differences from rope windowed at L',
)
PAST = 'Differences from rope past L'


def texts(table):
  return {line[0].text: [field.text for field in line[1:]] for line in lines_of(table)}


def marks(table):
  return {
    line[0].text: ''.join(field.mark or '.' for field in line[1:])
    for line in lines_of(table)
    if line[0].text != 'smallest marked'
  }


def record(table, line, length):
  (found,) = [r for r in table.records if (r['encoding'], r['length']) == (line, length)]
  return found


def sums(rows, line, length):
  """(top_SD, size_1D) of a line."""
  some = [r for r in rows if (r['label'], r['length']) == (line, length)]
  names = sorted({r['document'] for r in some})
  top_SD = np.zeros((1 + max(r['seed'] for r in some), len(names)))
  size_1D = np.zeros((1, len(names)))
  for r in some:
    top_SD[r['seed'], names.index(r['document'])] = r['nats']
    size_1D[0, names.index(r['document'])] = r['bytes']
  return top_SD, size_1D


def of_seeds(rows, line, length):
  top_SD, size_1D = sums(rows, line, length)
  return LINK(top_SD.sum(-1) / size_1D.sum(-1))


def interval_by_hand(rows, line, reference):
  weights = bootstrap.resamples(6)
  both = [bootstrap.resampled(*sums(rows, *at), LINK, weights) for at in (line, reference)]
  return bootstrap.interval(both[0] - both[1], 6)


BITS = {
  'rope': {8: [2.0, 2.1, 2.05], 16: [3.0, 3.3, 3.9]},
  't5': {8: [1.9, 1.95, 1.97], 16: [1.91, 1.94, 1.99]},
  'alibi': {8: [2.0, 2.2, 2.12], 16: [2.0, 2.2, 2.13]},
}
WINDOW = {'rope': {16: [2.01, 2.11, 2.05]}}


def windowed(bits=WINDOW, **fields):
  return documents(bits, control='windowed', **fields)


# Each number


def test_up_to_l_lines_are_compared_with_the_baseline_by_dunnetts_test():
  rows = documents(BITS)
  table = contrasts(rows)[AT_L]
  found = record(table, 't5', 8)
  scores = {line: of_seeds(rows, line, 8) for line in BITS}
  mean = scores['t5'].mean() - scores['rope'].mean()
  low, high = interval_by_hand(rows, ('t5', 8), ('rope', 8))
  assert [found[name] for name in ('difference', 'low', 'high')] == pytest.approx([mean, low, high])
  estimates = significance.pooled(
    [scores['alibi'], scores['t5']], scores['rope'], shares_seeds=True
  )
  dunnett = significance.Dunnett([3, 3], 3, 4)
  ps = [record(table, line, 8)['p_corrected'] for line in ('alibi', 't5')]
  assert ps == pytest.approx(list(map(dunnett.p, estimates)))
  limit = dunnett.limit()
  smallest = significance.smallest_detectable(estimates[0], limit)
  assert found['smallest_marked'] == pytest.approx(smallest)
  assert (found['clusters'], found['seeds'], found['baseline']) == (6, 3, 'rope')
  assert table.header == ['encoding', '8 (L)']
  assert texts(table)['t5'] == [f'{mean:+.3f} [{low:+.3f}, {high:+.3f}]']
  assert texts(table)['smallest marked'] == [f'{smallest:.3f}']
  assert 'seed does to all of them (4 degrees of freedom)' in table.caption


def test_lines_of_other_seeds_are_compared_without_taking_seeds_for_blocks():
  rows = [r for r in documents(BITS) if (r['label'], r['seed']) != ('alibi', 1)]
  table = contrasts(rows)[AT_L]
  alibi, t5, rope = (of_seeds(documents(BITS), line, 8) for line in ('alibi', 't5', 'rope'))
  rng = np.random.default_rng(0)
  theirs = stats.dunnett(alibi[[0, 2]], t5, control=rope, rng=rng)
  ps = [record(table, line, 8)['p_corrected'] for line in ('alibi', 't5')]
  assert ps == pytest.approx(theirs.pvalue, abs=5e-4)
  assert 'which are taken to spread alike (5 degrees of freedom)' in table.caption


def test_the_caption_says_in_which_columns_what_a_seed_does_to_all_is_left_out():
  bits = {line: {4: np.add(of_line[8], 0.1), 8: of_line[8]} for line, of_line in BITS.items()}
  lacking = lambda r: (r['label'], r['seed'], r['length']) == ('alibi', 1, 4)
  table = contrasts([r for r in documents(bits) if not lacking(r)])[AT_L]
  assert 'what a seed does to all of them at 8 (4, 5 degrees of freedom)' in table.caption
  assert 'what a seed does to all of them (4 degrees' in contrasts(documents(bits))[AT_L].caption


def test_where_most_lines_have_the_seeds_of_the_baseline_others_are_tested_apart():
  """So that what a seed does to all of them can be left out."""
  bits = BITS | {'fire': {8: [2.02, 2.15, 2.05]}, 'nope': {8: [2.1, 2.3, 2.2]}}
  rows = [r for r in documents(bits) if (r['label'], r['seed']) != ('alibi', 1)]
  table = contrasts(rows)[AT_L]
  scores = {line: of_seeds(documents(bits), line, 8) for line in bits}
  pooled = [scores[line] for line in ('t5', 'fire', 'nope')]
  estimates = significance.pooled(pooled, scores['rope'], shares_seeds=True)
  dunnett = significance.Dunnett([3, 3, 3], 3, 6)
  for line, estimate in zip(('t5', 'fire', 'nope'), estimates, strict=True):
    assert record(table, line, 8)['p_corrected'] == pytest.approx(dunnett.p(estimate))
  theirs = stats.ttest_ind(scores['alibi'][[0, 2]], scores['rope'], equal_var=False).pvalue
  assert record(table, 'alibi', 8)['p_corrected'] == pytest.approx(theirs)
  assert 'without what a seed does to all of them (6 degrees of freedom); of alibi' in table.caption
  assert 'mean over those that a line has of seeds 0, 1, 2' in table.caption


def test_far_text_is_told_from_a_window():
  """Each score minus the own one at that length with attention windowed at L."""
  rows = documents(BITS) + windowed({'t5': {16: [1.95, 1.99, 2.01]}})
  found = record(contrasts(rows)[OWN_WINDOWED], 't5', 16)
  plain, of_window = (
    of_seeds(some, 't5', 16)
    for some in (documents(BITS), windowed({'t5': {16: [1.95, 1.99, 2.01]}}))
  )
  assert found['difference'] == pytest.approx((plain - of_window).mean())
  assert found['p'] == pytest.approx(stats.ttest_rel(plain, of_window).pvalue)


def test_an_earlier_model_of_a_training_is_no_line_of_the_family():
  """An extension leaves rows of the shorter training: they add no independent seeds."""
  bits = {'rope': {8: near(2, 0.01)}, 't5': {8: near(1.9, 0.012)}}
  (once,) = contrasts(documents(bits, step=200)).values()
  earlier = documents({label: {8: near(2.2, 0.01)} for label in bits}, step=100)
  rows = [*documents(bits, step=200), *earlier]
  (table,) = contrasts(rows, baseline='rope, step 200').values()
  was, now = record(once, 't5', 8), record(table, 't5, step 200', 8)
  assert now['p_corrected'] == pytest.approx(was['p_corrected'])
  assert '(4 degrees of freedom)' in table.caption


@pytest.mark.parametrize('is_named', [True, False])
def test_models_laid_over_those_of_the_baseline_are_paired_and_no_lines_of_the_family(is_named):
  """A run of step 0 has a name of its own, and no model of its own."""
  trained = documents({'rope': {8: near(2, 0.01)}, 't5': {8: near(1.9, 0.012)}})
  laid_over = documents({'rerope': {8: near(2, 0.01)}, 'dca': {8: near(2.3, 0.01)[::-1]}}, step=0)
  if is_named:
    laid_over = [
      r | {'parameters': {'run': f'encoding.name=rope,seed={r["seed"]}', 'step': 100}}
      for r in laid_over
    ]
  table = contrasts([*trained, *laid_over])[AT_L]
  once = contrasts(trained)[AT_L]
  for field in ('p_corrected', 'smallest_marked'):
    assert record(table, 't5', 8)[field] == record(once, 't5', 8)[field]
  scores = {line: of_seeds([*trained, *laid_over], line, 8) for line in ('rope', 'dca')}
  theirs = record(table, 'dca', 8)
  assert theirs['p'] == pytest.approx(stats.ttest_rel(scores['dca'], scores['rope']).pvalue)
  assert theirs['smallest_marked'] is None
  words = 'the same trained models' if is_named else 'of step 0, so laid over trained models that'
  assert f'(4 degrees of freedom); of dca, rerope, {words}' in table.caption


def test_past_l_a_model_of_step_0_is_compared_with_the_windowed_baseline_seed_by_seed():
  bits = {'rope': {8: near(2, 0.01), 16: near(3, 0.1)}, 't5': {16: near(2, 0.01)}}
  laid_over = documents({'dca': {8: near(2, 0.01), 16: near(2.1, 0.01)[::-1]}}, step=0)
  rows = documents(bits) + documents({'rope': {16: near(2.2, 0.01)}}, control='windowed')
  table = contrasts([*rows, *laid_over])[WINDOWED]
  dca_S = of_seeds(laid_over, 'dca', 16)
  rope_S = of_seeds([r for r in rows if r['control']], 'rope', 16)
  assert record(table, 'dca', 16)['p'] == pytest.approx(stats.ttest_rel(dca_S, rope_S).pvalue)
  assert '(of dca, rope, of step 0 or the same trained models, a t-test' in table.caption


def test_a_line_that_reads_the_models_of_another_line_is_no_line_of_the_family():
  trained = documents(
    {'rope': {8: near(2, 0.01)}, 't5': {8: near(1.9, 0.012)}, 'nope': {8: near(2.1, 0.013)}}
  )
  read = [
    r | {'parameters': {'run': f'encoding.name=nope,seed={r["seed"]}', 'step': 100}}
    for r in documents({'a_method': {8: near(2.15, 0.01)}}, step=0)
  ]
  table, once = contrasts([*trained, *read])[AT_L], contrasts(trained)[AT_L]
  for line in ('t5', 'nope'):
    assert record(table, line, 8) == record(once, line, 8)
  assert 'of a_method in Welch' in table.caption
  assert 'one that another line has' in table.caption


def test_lines_that_cannot_share_the_variance_are_a_family_of_their_own():
  """One that spreads more, one of another training length and an n-gram: Welch, and Holm."""
  alike = {'rope': {8: near(2, 0.01)}, 't5': {8: near(1.9, 0.012)}, 'alibi': {8: near(2.1, 0.009)}}
  wild = {'nope': {8: near(2.4, 0.2)}}
  rows = documents(alike | wild) + documents({'long': {8: near(1.8, 0.01)}}, train_length=32)
  rows += documents({'n-gram (5 bytes)': {8: near(2.5, 0.03)}}, encoding='n-gram')
  table = contrasts(rows)[AT_L]
  scores = {line: of_seeds(rows, line, 8) for line in (*alike, 'nope', 'long', 'n-gram (5 bytes)')}
  pooled = significance.pooled([scores['t5'], scores['alibi']], scores['rope'], shares_seeds=True)
  dunnett = significance.Dunnett([5, 5], 5, 8)
  for line, estimate in zip(('t5', 'alibi'), pooled, strict=True):
    assert record(table, line, 8)['p_corrected'] == pytest.approx(dunnett.p(estimate))
  apart = ('nope', 'long', 'n-gram (5 bytes)')
  ps = [stats.ttest_ind(scores[line], scores['rope'], equal_var=False).pvalue for line in apart]
  found = [record(table, line, 8)['p_corrected'] for line in apart]
  assert found == pytest.approx(significance.holm(ps))
  assert '(8 degrees of freedom); of long, nope, n-gram (5 bytes) in Welch' in table.caption


def test_without_lines_that_share_a_variance_all_are_tested_with_their_own():
  rows = documents({'rope': {8: near(2, 0.3)}, 't5': {8: near(1.9, 0.01)}})
  table = contrasts(rows)[AT_L]
  assert "in Welch's t-test over seeds, Holm-corrected" in table.caption
  assert 'degrees of freedom' not in table.caption


def test_one_trained_model_evaluated_in_several_ways_is_tested_seed_by_seed():
  rows = documents(BITS)
  of_rope = [r for r in rows if r['label'] == 'rope']
  overrides = {'encoding.base': 5e4}
  same = [r | {'overrides': overrides} for r in of_rope]  # what changes nothing at all
  worse = [
    r | {'overrides': {'encoding.base': 20.0}, 'nats': r['nats'] * (1.01 + r['seed'] / 10_000)}
    for r in of_rope
  ]
  table = contrasts([*rows, *same, *worse], baseline='rope')[AT_L]
  (same_line,) = [line for line in texts(table) if '50000' in line]
  (worse_line,) = [line for line in texts(table) if '20' in line and line != same_line]
  marks = {line[0].text: line[1].mark for line in lines_of(table)}
  assert (marks[same_line], marks[worse_line]) == ('=', '†')
  found, difference = (
    record(table, worse_line, 8),
    of_seeds(worse, 'rope', 8) - of_seeds(of_rope, 'rope', 8),
  )
  assert found['p'] == pytest.approx(stats.ttest_1samp(difference, 0).pvalue)
  assert found['smallest_marked'] is None
  assert "the same trained models, in a t-test of the seeds' own differences" in table.caption
  assert record(table, 't5', 8)['p'] == record(contrasts(rows)[AT_L], 't5', 8)['p'], (
    'as without them'
  )


def test_past_l_lines_are_compared_with_themselves_at_l():
  rows = documents(BITS)
  table = contrasts(rows)[OWN]
  assert table.header == ['encoding', '16']
  assert [*texts(table)] == ['alibi', 'rope', 't5'], 'few seeds of a line alone find what they may'
  ps = {}
  for line in BITS:
    difference = of_seeds(rows, line, 16) - of_seeds(rows, line, 8)
    found = record(table, line, 16)
    assert found['difference'] == pytest.approx(difference.mean())
    assert (found['low'], found['high']) == pytest.approx(
      interval_by_hand(rows, (line, 16), (line, 8))
    )
    ps[line] = stats.ttest_1samp(difference, 0).pvalue
    assert found['p'] == pytest.approx(ps[line])
  corrected = significance.holm(list(ps.values()))
  assert [record(table, line, 16)['p_corrected'] for line in ps] == pytest.approx(corrected)
  assert 'what is better uses more text than the L - k to L' in table.caption


def test_past_l_lines_are_compared_with_the_windowed_baseline():
  rows = documents(BITS)
  table = contrasts(rows + windowed())[WINDOWED]
  reference = of_seeds(windowed(), 'rope', 16)
  for line in BITS:
    found = record(table, line, 16)
    difference = of_seeds(rows, line, 16) - reference
    assert found['difference'] == pytest.approx(difference.mean())
    # rope and its windowed self are the same models
    theirs = (
      stats.ttest_1samp(difference, 0)
      if line == 'rope'
      else stats.ttest_ind(of_seeds(rows, line, 16), reference, equal_var=False)
    )
    assert found['p'] == pytest.approx(theirs.pvalue)
  assert 'windowed at L, the practical default' in table.caption


def test_past_l_lines_are_compared_with_the_truncated_baseline_if_there_is_no_windowed_one():
  rows = documents(BITS)
  cut = documents({'rope': {16: BITS['rope'][8]}}, control='truncated')
  table = contrasts(rows + cut)['Differences from rope truncated to L']
  reference = of_seeds(rows, 'rope', 8)  # of the same targets
  for line in BITS:
    difference = of_seeds(rows, line, 16) - reference
    assert record(table, line, 16)['difference'] == pytest.approx(difference.mean())
  assert 'rope given the last L tokens alone, the practical default' in table.caption
  past = [r for r in rows + cut if r['length'] > 8]
  assert 'Differences from rope truncated to L' not in contrasts(past)


def test_where_targets_move_with_length_the_use_of_far_context_needs_truncated_rows():
  of_excerpts = documents(BITS, protocol='non_overlapping', k=None)
  assert not any(made.notes for made in make_tables(of_excerpts))  # there is no such control
  assert PAST in contrasts(of_excerpts)
  fields = dict(protocol='copy', k=None)
  rows = documents(BITS, **fields)
  assert make_tables(rows)[-1].notes == [
    'use of far context is not told: no rows of control truncated',
    'not compared with rope windowed at L: no such rows of control windowed',
  ]
  cut = documents({'t5': {16: [1.94, 1.95, 2.0]}}, control='truncated', **fields)
  made = contrasts(rows + cut)
  assert 'farther back' not in made[OWN].caption
  assert 'uses text farther back than L / 2' in made[TRUNCATED].caption
  assert [*texts(made[TRUNCATED])] == ['t5']
  difference = of_seeds(rows, 't5', 16) - of_seeds(cut, 't5', 16)
  found = record(made[TRUNCATED], 't5', 16)
  assert found['difference'] == pytest.approx(difference.mean())
  assert found['p'] == pytest.approx(stats.ttest_1samp(difference, 0).pvalue)
  assert found['p_corrected'] == found['p']
  # of the same targets at every length, the own score at L says it
  assert TRUNCATED not in contrasts(
    documents(BITS) + documents({'t5': {16: [1.9] * 3}}, control='truncated')
  )


@pytest.mark.parametrize(
  ('protocol', 'fields'), [('sliding', {'stride': 4}), ('text_passkey', {'position': 50})]
)
def test_past_l_lines_are_compared_with_the_baseline_itself_where_a_protocol_has_no_controls(
  protocol, fields
):
  rows = documents(BITS, protocol=protocol, k=None, **fields)
  assert [*contrasts(rows)] == [AT_L, OWN, PAST]
  table = contrasts(rows)[PAST]
  assert table.header == ['encoding', '16']
  assert [*texts(table)] == ['alibi', 't5']
  assert 'difference from rope, mean' in table.caption
  assert 'Past L a baseline may fail altogether' in table.caption
  scores = {line: of_seeds(rows, line, 16) for line in BITS}
  found = record(table, 't5', 16)
  mean = (scores['t5'] - scores['rope']).mean()
  low, high = interval_by_hand(rows, ('t5', 16), ('rope', 16))
  assert [found[name] for name in ('difference', 'low', 'high')] == pytest.approx([mean, low, high])
  theirs = stats.ttest_ind(scores['t5'], scores['rope'], equal_var=False).pvalue
  assert found['p'] == pytest.approx(theirs)
  # where nothing but what lies past L was scored, too
  assert [*contrasts([r for r in rows if r['length'] > 8])] == [PAST]
  longer = trained_longer('t5')  # a line within its own L, past that of the baseline
  longer = [r | {'protocol': protocol, 'k': None} | fields for r in longer]
  made = contrasts(rows + longer, baseline='rope')
  assert f't5, {LONG}' in texts(made[PAST])
  assert f't5, {LONG}' in texts(made[AT_L])


def test_the_placebo_tells_whether_it_is_the_text_that_is_used():
  placebo = {'t5': {16: near(2.0, 0.02), 32: near(1.8, 0.02)}}
  model = {'t5': {8: near(2.0, 0.02), 16: near(1.8, 0.01), 32: near(1.8, 0.02)}}
  rows = documents(model) + documents(placebo, control='shuffled_far')
  of_control = next(made for made in make_tables(rows) if made.title.endswith(', shuffled_far'))
  far = '; tokens more than the training length before the first scored one are of another document'
  assert far in of_control.caption
  found = contrasts(rows)[SHUFFLED]
  assert 'uses what text farther back than L says' in found.caption
  assert marks(found) == {'t5': '*='}
  difference = np.subtract(model['t5'][16], placebo['t5'][16])
  assert record(found, 't5', 16)['difference'] == pytest.approx(difference.mean())
  assert record(found, 't5', 16)['p'] == pytest.approx(stats.ttest_1samp(difference, 0).pvalue)


def test_tables_of_perplexity_are_compared_in_bits():
  rows = documents(BITS) + windowed()
  in_bits = {title: table.records for title, table in contrasts(rows).items()}
  assert {title: table.records for title, table in contrasts(rows, metric='ppl').items()} == in_bits
  assert make_tables(rows, metric='ppl')[0].caption.startswith('Perplexity')


def test_controls_are_compared_with_themselves_alone():
  rows = documents(BITS)
  for control in ('windowed', 'shuffled_far', 'truncated'):
    rows += documents(BITS, control=control)
  titles = [table.title for table in make_tables(rows)]
  assert [title for title in titles if 'shuffled_far' in title] == [
    'Extrapolation, last_k, shuffled_far',
    f'{OWN}, last_k, shuffled_far',
  ]
  assert [title for title in titles if 'truncated' in title] == ['Extrapolation, last_k, truncated']
  without = [table.title for table in make_tables(rows, controls=False)]
  assert without == [
    f'{t}, last_k' for t in ('Extrapolation', AT_L, OWN, OWN_WINDOWED, SHUFFLED, WINDOWED)
  ]


# Marks


PLANTED = {
  'rope': {8: near(2.0, 0.002), 16: near(5.0, 0.3)},
  'better': {8: near(1.8, 0.002), 16: near(1.7, 0.02)},
  'worse': {8: near(2.2, 0.002), 16: near(2.4, 0.02)},
  'same': {8: near(2.001, -0.001), 16: near(2.002, -0.0005)},
  'unknown': {8: near(1.998, -0.002), 16: near(1.9, 0.5)},
}


def test_what_is_planted_is_marked_and_nothing_else():
  rows = documents(PLANTED) + windowed({'rope': {16: near(2.0, 0.001)}})
  made = contrasts(rows)
  assert marks(made[AT_L]) == {'better': '*', 'same': '=', 'unknown': '=', 'worse': '†'}
  assert marks(made[OWN]) == {'better': '*', 'rope': '†', 'same': '=', 'unknown': '.', 'worse': '†'}
  assert marks(made[WINDOWED]) == {
    'better': '*',
    'rope': '†',
    'same': '=',
    'unknown': '.',
    'worse': '†',
  }
  assert record(made[OWN], 'same', 16)['mark'] == 'equivalent'
  assert {record(made[OWN], line, 16)['mark'] for line in ('rope', 'unknown')} == {'worse', ''}
  assert 'within 0.01 of 0' in made[OWN].caption
  assert not any(field.mark for line in lines_of(make_tables(rows)[0]) for field in line)


def test_where_more_is_better_more_is_marked():
  rows = [
    r | {'metric': 'exact_match', 'value': r['bpb'] / 10} | dict.fromkeys(('nats', 'bpb', 'ppl'))
    for r in documents(PLANTED)
  ]
  made = contrasts(rows, metric='exact_match')
  assert marks(made[AT_L])['better'] == '†'
  assert marks(made[OWN])['worse'] == '*'


def test_what_differs_within_the_margin_is_equivalent_whatever_its_sign():
  bits = {'rope': {8: near(2, 0.01), 16: near(2.003, 0.01)}}
  bits['rope'][16][0] += 1e-5
  found = record(contrasts(documents(bits))[OWN], 'rope', 16)
  assert found['p_corrected'] < 0.001
  assert found['mark'] == 'equivalent'


def test_a_family_is_one_column():
  rows = documents(PLANTED)
  more = documents({line: {32: by_length[16][::-1]} for line, by_length in PLANTED.items()})
  alone, both = (contrasts(some)[OWN] for some in (rows, rows + more))
  assert [r for r in both.records if r['length'] == 16] == alone.records
  fewer = contrasts([r for r in rows if r['label'] in ('rope', 'worse')])[OWN]
  ps = [record(table, 'worse', 16)['p_corrected'] for table in (fewer, alone)]
  assert ps[0] < ps[1]


def test_models_that_do_not_change_past_l_are_equivalent():
  bits = {'rope': {8: [2.0, 2.1], 16: [2.0, 2.1]}, 'flat': {8: [2.0, 2.1], 16: [2.5, 2.6]}}
  table = contrasts(documents(bits))[OWN]
  assert marks(table) == {'rope': '=', 'flat': '.'}  # a spread of nothing tests nothing
  assert record(table, 'flat', 16)['p'] is None


@pytest.mark.parametrize(('examples', 'mark'), [(220, '.'), (440, '='), (None, '.')])
def test_all_answers_right_are_equivalent_only_of_enough_examples(examples, mark):
  """The rule of three: of 220 right, 3 of 220 may be wrong of others, which is more than 0.01."""
  fields = dict(protocol='needle', k=None, document=None)
  guessing = {'chance': 1 / 16**2, 'nats_chance': math.log(16)}
  if examples is None:
    del guessing['nats_chance']
  rows = [
    row('rope', seed, length, metric=metric, value=value, **fields)
    | {'tokens': 2 * (examples or 9)}
    for seed in range(3)
    for length in (8, 16)
    for metric, value in {'exact_match': 1.0, 'symbol_nats': 0.5, **guessing}.items()
  ]
  table = contrasts(rows, metric='exact_match')[OWN]
  assert marks(table) == {'rope': mark}
  assert 'one-sided and allowing for other examples, too, Holm' in table.caption
  nats = contrasts(rows, metric='symbol_nats')[OWN]
  assert marks(nats) == {'rope': '='}  # a likelihood
  assert 'other examples' not in nats.caption


def test_one_seed_gives_intervals_but_no_mark():
  made = contrasts(
    documents({line: {n: v[:1] for n, v in of.items()} for line, of in BITS.items()})
  )
  for table in made.values():
    assert 'Not tested: that needs seeds that differ.' in table.caption
    assert {*marks(table)} == {*texts(table)}
    assert all('[' in fields[0] and len(fields) == 1 for fields in texts(table).values())
    assert not any(field.mark for line in lines_of(table) for field in line)


# Documents


def test_documents_of_a_year_are_one_cluster():
  names = [f'{1790 + d // 2}-x-{d}' for d in range(14)]
  rows = documents(BITS, names)
  table = contrasts(rows)[OWN]
  assert {r['clusters'] for r in table.records} == {7}
  assert '(7 of them, those of one year taken as one; 40,000 resamples;' in table.caption
  (main, *_) = make_tables(rows)
  top_SD, size_1D = sums(rows, 't5', 8)
  error = bootstrap.standard_error(
    top_SD.reshape(3, 7, 2).sum(-1), size_1D.reshape(1, 7, 2).sum(-1), LINK
  )
  assert texts(main)['t5'][0].endswith(f' ({error:.3f})')
  assert 'In parentheses: the standard error over documents' in main.caption
  few = contrasts(documents(BITS, names[:10]))[OWN]
  assert 'the same 6 or more single documents, of different years.' in few.caption
  assert few.records[0]['low'] is None


@pytest.mark.parametrize(
  ('sizes', 'words'),
  [
    (
      (19, 6, 3, 3, 1, 1, 1, 1),
      '; the largest has 54 % of what is scored, so that all tell as much as 2.9 equal ones; ',
    ),
    ((5,) * 8, '(8 of them; '),
    ((5, 4, 3, 1, 1, 1, 1, 1), '(8 of them; '),
  ],
)
def test_a_document_that_decides_what_an_interval_says_is_named(sizes, words):
  """(19 + 6 + 3 + 3 + 4)^2 / (19^2 + 6^2 + 2 x 3^2 + 4) is 2.92."""
  rows = [
    r for n, size in enumerate(sizes) for r in rows_of(BITS, document=f'd{n}', tokens=10 * size)
  ]
  assert words in contrasts(rows)[OWN].caption
  figure = figures.draw(
    rows + [r | {'control': 'windowed'} for r in rows if r['length'] == 16], form='differences'
  )
  assert words.strip('(; ') in ' '.join(figure.get_supxlabel().split())


def test_files_of_one_folder_are_one_cluster_and_the_caption_says_so():
  names = [f'{folder}/{file}' for folder in 'abcdefg' for file in ('x', 'y')]
  table = contrasts(documents(BITS, names, corpus='texts'))[OWN]
  assert {r['clusters'] for r in table.records} == {7}
  assert '(7 of them, those of one folder taken as one; ' in table.caption
  table = contrasts(documents(BITS, names[:10], corpus='texts'))[OWN]
  assert {r['clusters'] for r in table.records} == {10}
  assert '(10 of them; ' in table.caption


def test_folders_are_counted_with_those_in_which_nothing_was_scored():
  """Key tokens lie in five folders of six, which is enough to count by folder."""
  evaluator = {EVALUATOR: {'run': 'other', 'step': 1, 'config': 'a'}}
  fields = dict(corpus='texts', protocol='long_ppl', k=None, overrides=evaluator)
  rows = documents(BITS, [f'{folder}/{file}' for folder in 'abcde' for file in 'xy'], **fields)
  empty = [
    row(label, seed, length, document='f/x', status='no_key_tokens', **fields)
    for label, seed, length in {(r['label'], r['seed'], r['length']) for r in rows}
  ]
  for some, number, is_said in ((rows, 10, False), (rows + empty, 0, True)):
    (main, differences) = make_tables(some)
    assert {r['clusters'] for r in differences.records} == {number}
    assert ('those of one folder taken as one' in main.caption) == is_said


def test_without_single_documents_there_is_no_interval_and_no_standard_error():
  rows = rows_of(BITS, document=None)
  (main, *_) = make_tables(rows)
  assert texts(main)['t5'][0] == '1.940 ± 0.036'
  assert 'parentheses' not in main.caption
  assert 'No intervals' in contrasts(rows)[OWN].caption


def test_very_many_clusters_are_drawn_in_groups(monkeypatch):
  rows = documents({line: BITS[line] for line in ('rope', 't5')})
  _, all_apart, *_ = make_tables(rows)
  monkeypatch.setattr(bootstrap, 'MOST', 5)
  _, table, *_ = make_tables(rows)
  top, size = (
    [np.stack([some[..., i::5].sum(-1) for i in range(5)], -1) for some in sums(rows, line, 8)]
    for line in ('t5', 'rope')
  )
  found = record(table, 't5', 8)
  assert found['clusters'] == 6
  assert found['difference'] == record(all_apart, 't5', 8)['difference']
  weights_CR = bootstrap.resamples(5)
  (line_R, other_R) = (bootstrap.resampled(*some, LINK, weights_CR) for some in (top, size))
  low, high = bootstrap.interval(line_R - other_R, 6)
  assert [found['low'], found['high']] == pytest.approx([low, high])


def test_intervals_of_all_lines_are_as_wide_as_the_largest_difference_needs():
  rows = documents(BITS)
  table = contrasts(rows)[AT_L]
  weights_CR = bootstrap.resamples(6)
  score_R = {line: bootstrap.resampled(*sums(rows, line, 8), LINK, weights_CR) for line in BITS}
  difference = {line: score_R[line] - score_R['rope'] for line in ('alibi', 't5')}
  largest = [
    max(abs(some[r] - some.mean()) / some.std() for some in difference.values())
    for r in range(len(score_R['rope']))
  ]
  outward = math.sqrt(6 / 5) * stats.t.ppf(0.975, 5) / stats.norm.ppf(0.975)
  for line, some in difference.items():
    found = record(table, line, 8)
    half = np.quantile(largest, 0.95) * outward * some.std()
    both = (
      min(found['low'], found['difference'] - half),
      max(found['high'], found['difference'] + half),
    )
    assert (found['low_of_all'], found['high_of_all']) == pytest.approx(both)


def test_intervals_of_all_lines_cover_all_as_often_as_they_say():
  """Ten lines that do not differ: in some 95 % of data sets all intervals include 0."""
  rng, data_sets, clusters = np.random.default_rng(0), 300, 12
  covered = alone = 0
  for _ in range(data_sets):
    difference_LC = rng.standard_normal((10, clusters))
    weights_CR = rng.multinomial(clusters, np.full(clusters, 1 / clusters), 1000).T / clusters
    resampled_LR = difference_LC @ weights_CR
    limit = bootstrap.limit_of_all(resampled_LR, clusters)
    middle_L = abs(difference_LC.mean(1))
    covered += (middle_L < limit * resampled_LR.std(1)).all()
    low_L, high_L = bootstrap.interval(resampled_LR, clusters)
    alone += ((low_L < 0) & (high_L > 0)).all()
  assert 0.9 < covered / data_sets < 0.995
  assert alone / data_sets < 0.75


def of_all_sentence(intervals: dict) -> str:
  """Of {(line, column): (interval, interval of all lines)}."""
  differences = {
    place: Difference(0.0, 3, alone, 6, interval_of_all=of_all)
    for place, (alone, of_all) in intervals.items()
  }
  return difference_tables._of_all_sentence(Contrast(None, None, None, '', differences))


def test_a_caption_says_which_intervals_a_correction_would_take_back():
  stays, lost, not_shown = (
    ((0.1, 0.3), (0.05, 0.35)),
    ((-0.3, -0.1), (-0.5, 0.0)),
    ((-0.1, 0.1), (-0.2, 0.2)),
  )
  begin = ' Corrected for all lines of a column, by the largest of their differences, '
  assert of_all_sentence({('a', 8): not_shown, ('b', 8): not_shown}) == ''
  assert of_all_sentence({('a', 8): ((0.1, 0.3), None)}) == '', 'one line has nothing to correct'
  some = {('a', 8): stays, ('b', 8): not_shown}
  assert of_all_sentence(some) == begin + 'all that leave out 0 still do.'
  some |= {('c, fast', 8): lost, ('c, fast', 16): lost}
  assert of_all_sentence(some) == begin + 'those of c, fast at 8; c, fast at 16 would include 0.'
  some |= {('50%', n): lost for n in range(7)}
  assert of_all_sentence(some) == begin + '1 of the 10 that leave out 0 still do.'


def test_a_line_alone_has_no_interval_of_all():
  table = contrasts(documents({line: BITS[line] for line in ('rope', 't5')}))[AT_L]
  assert record(table, 't5', 8)['low'] is not None
  assert record(table, 't5', 8)['low_of_all'] is None
  assert 'Corrected' not in table.caption


def test_an_interval_of_all_lines_holds_that_of_each():
  """Also where one document has nearly all of a difference, which skews its resamples."""
  rows = documents(BITS)
  for some in rows:
    if some['label'] == 't5' and some['document'] == rows[0]['document']:
      some['nats'], some['bpb'] = 3 * some['nats'], 3 * some['bpb']
  found = record(contrasts(rows)[AT_L], 't5', 8)
  assert found['low_of_all'] <= found['low'] < found['high'] <= found['high_of_all']
  middle = (found['low_of_all'] + found['high_of_all']) / 2
  assert abs(middle - found['difference']) > 1e-3, 'the plain one reaches farther to one side'


def test_each_line_may_have_a_baseline_of_its_own():
  """One set of tables: each baseline is compared with its lines, and own scores stand once."""
  rows = documents(BITS) + windowed() + documents({'rope, fast': BITS['rope']})
  of_label = {'rope': 'rope', 't5': 'rope', 'rope, fast': 'rope, fast', 'alibi': 'rope, fast'}
  made = make_tables(rows, baseline=of_label)
  compared = {table.title: table for table in made if table.title.startswith('Diff')}
  alone = {table.title: table for table in make_tables(rows, baseline='rope')}
  of_own = f'{OWN}, last_k'
  assert {title: [*texts(table)] for title, table in compared.items() if 'own' not in title} == {
    f'{AT_L}, last_k': ['t5', 'smallest marked'],
    'Differences from rope, fast up to L, last_k': ['alibi', 'smallest marked'],
    f'{WINDOWED}, last_k': ['rope', 't5'],
  }
  assert texts(compared[of_own]) == texts(alone[of_own])
  assert {r['baseline'] for r in compared[of_own].records} == {''}
  assert {r['baseline'] for r in compared[f'{WINDOWED}, last_k'].records} == {'rope'}
  with pytest.raises(UserError, match="baseline='roep' has no rows"):
    make_tables(rows, baseline={'t5': 'roep'})
  message = r"table: baseline: labels=\['t55'\] have no rows; did you mean 't5'\?"
  for more in ({}, {'form': 'effective_lengths', 'score_to_keep': 'baseline'}):
    with pytest.raises(UserError, match=message):
      make_tables(rows, baseline={'t55': 'rope'}, **more)


def test_other_tokens_are_not_compared_but_named():
  one = lambda r: (r['label'], r['length'], r['document']) == ('t5', 8, 'a')
  line = lambda r: r['label'] == 't5'
  for change, is_moved in (
    ({'position': 9}, one),
    ({'document': 'z'}, one),
    ({'overrides': {'data.text_field': 'abstract'}}, line),
  ):
    moved = [r | change if is_moved(r) else r for r in documents(BITS)]
    main, *_ = make_tables(moved)
    assert any(note.startswith('not compared with rope, as scored tokens') for note in main.notes)
    assert 't5' not in texts(contrasts(moved)[AT_L])
  odd = [r | {'position': 9} if one(r) and r['seed'] == 0 else r for r in documents(BITS)]
  main, *_ = make_tables(odd)
  assert 'not compared, as its seeds scored different tokens: t5 at 8' in main.notes


# As evaluation states them: each against the config of its run, and documents where they are others
# than those of the training.
CHOSEN = {'eval.documents': 6, 'eval.spans': 1, 'eval.target_context': 16}
IMPORTED = CHOSEN | {DOCUMENTS: '1a2b3c4d'}


def before_and_after(before, after):
  """Rows of a model and of what was tuned from it, both of RoPE and step 0 and 100, under these
  overrides.
  """
  of = lambda run, bits, **fields: [
    r | {'run': run} for r in documents({'rope': {8: [bits], 16: [bits]}}, corpus='texts', **fields)
  ]
  return [*of('llama', 2.0, step=0, overrides=before), *of('tuned', 1.8, step=100, overrides=after)]


@pytest.mark.parametrize(
  ('after', 'metric'),
  [(CHOSEN, 'bpb'), (None, 'bpb'), (IMPORTED, 'bpb'), (IMPORTED | {'eval.documents': 0}, 'ppl')],
)
def test_runs_that_state_their_choice_in_other_words_are_compared_on_what_they_scored(
  after, metric
):
  rows = before_and_after(IMPORTED, after)
  main, *tables = make_tables(rows, metric=metric)
  (table,) = (some for some in tables if ' up to L' in some.title)
  assert [round(abs(r['difference']), 6) for r in table.records] == [0.2]
  assert all(r['low'] < r['difference'] + 1e-9 and r['clusters'] == 6 for r in table.records)
  assert [line[1].is_best for line in lines_of(main)].count(True) == 1
  assert not any('not compared with' in note for note in main.notes)
  (judged,) = make_tables(
    rows, form='effective_lengths', baseline=table.records[0]['baseline'], score_to_keep='baseline'
  )
  assert not any('not judged' in note for note in judged.notes)


@pytest.mark.parametrize(
  ('after', 'moved'),
  [
    (CHOSEN | {DOCUMENTS: '99999999'}, {}),  # the folder holds other documents now
    (CHOSEN | {'data.text_field': 'abstract'}, {}),
    (CHOSEN, {'position': 9}),
    (CHOSEN, {'document': 'z'}),
    (CHOSEN, {'bytes': 8}),
  ],
)
def test_runs_that_scored_other_tokens_stay_apart(after, moved):
  rows = before_and_after(IMPORTED, after)
  is_moved = lambda r: (r['run'], r['document']) == ('tuned', 'a')
  rows = [r | moved if is_moved(r) else r for r in rows]
  main, *tables = make_tables(rows)
  assert not any(' up to L' in table.title for table in tables)
  assert not any(line[1].is_best for line in lines_of(main))  # each is alone
  (name,) = (line for line in texts(main) if line.startswith('rope, step 0'))
  main, *_ = make_tables(rows, baseline=name)
  assert any(f'not compared with {name}, as scored tokens differ' in n for n in main.notes)


def test_runs_that_state_their_choice_in_other_words_are_told_apart_without_single_documents():
  rows = [r | {'document': None, 'position': None} for r in before_and_after(IMPORTED, CHOSEN)]
  rows = list({(r['run'], r['length']): r for r in rows}.values())
  assert not any(' up to L' in table.title for table in make_tables(rows))


def test_a_difference_from_oneself_is_of_the_seeds_that_both_lengths_have():
  bits = {'rope': {8: [2.0, 2.1, 2.3], 16: [3.0, 3.3]}}
  rows = documents(bits)
  found = record(contrasts(rows)[OWN], 'rope', 16)
  both = [of_seeds(rows, 'rope', 16), of_seeds(rows, 'rope', 8)[:2]]
  assert found['difference'] == pytest.approx((both[0] - both[1]).mean())
  assert found['seeds'] == 2


# Baselines


def test_the_baseline_is_the_line_whose_encoding_is_rope_unless_named():
  rows = [r | {'label': 'plain'} if r['label'] == 'rope' else r for r in documents(BITS)]
  made = contrasts(rows)
  assert 'Differences from plain up to L' in made
  assert 'Differences from t5 up to L' in contrasts(rows, baseline='t5')
  others = [r for r in rows if r['label'] != 'plain']
  _, own = make_tables(others)
  assert own.title == f'{OWN}, last_k'
  assert 'no line has the encoding rope' in own.notes[0]
  (main,) = make_tables([r for r in others if r['length'] == 8])
  assert main.notes == own.notes
  with pytest.raises(UserError, match=r"table: baseline='roep' has no rows; did you mean 'rope'\?"):
    make_tables(documents(BITS), baseline='roep')


@pytest.mark.parametrize(
  ('change', 'line'),
  [
    ({'overrides': {'encoding.base': 5.0}}, 'rope'),
    ({'step': 50}, 'rope, step 100'),
    ({'step': 200, 'run': 'another'}, 'rope, step 200'),
    ({'k': 2}, 'rope'),
  ],
)
@pytest.mark.parametrize('baseline', [None, 'rope'])
def test_one_more_evaluation_leaves_the_baseline_what_it_was(change, line, baseline):
  """It divides the baseline's label into two lines, one of which is meant."""
  bits = {'rope': {8: [2.0, 2.1, 2.2]}, 't5': {8: [1.0, 1.1, 1.2]}}
  rows = documents(bits)
  some = rows if line == 'rope, step 200' else [r for r in rows if r['seed'] == 0]
  again = [r | change for r in some if r['label'] == 'rope']
  made = make_tables(rows + again, baseline=baseline)
  assert any(table.title.startswith(f'Differences from {line} up to L') for table in made)
  if baseline:
    elsewhere = [r | {'protocol': 'sliding', 'k': None} for r in rows if r['label'] == 't5']
    made = make_tables(rows + elsewhere, baseline=baseline)
    notes = [note for table in made for note in table.notes]
    assert any('not compared with rope, which has no rows here' in note for note in notes)


@pytest.mark.parametrize(
  'stated', [{DOCUMENTS: '1a2b3c4d'}, {EVALUATOR: {'run': 'long', 'step': 3, 'config': '1a2b3c4d'}}]
)
def test_what_rows_of_all_models_state_makes_no_other_model_of_the_baseline(stated):
  rows = documents({'rope': {8: [2.0, 2.1], 16: [2.0, 2.1]}, 't5': {8: [1.0, 1.1]}})
  plain = [r | {'overrides': stated} for r in rows if (r['label'], r['length']) != ('rope', 16)]
  scaled = [
    r | {'overrides': {'encoding.factor': 4} | stated} for r in rows if r['label'] == 'rope'
  ]
  made = make_tables(plain + scaled)
  assert any(table.title.startswith('Differences from rope up to L') for table in made)


@pytest.mark.parametrize('baseline', [None, 'rope'])
@pytest.mark.parametrize(
  'change', [{'k': 2}, {'corpus': 'B'}, {'overrides': {'eval.documents': 9}}]
)
def test_all_runs_evaluated_once_more_keep_their_differences(change, baseline):
  """What is added is compared with the baseline's line of the same tokens, in tables of its own."""
  rows = documents(BITS) + windowed({'rope': {16: [1.95, 1.99, 2.01]}})
  again = [r | change for r in rows]
  before, after = contrasts(rows, baseline=baseline), contrasts([*rows, *again], baseline=baseline)
  for title in (AT_L, WINDOWED):
    assert lines_of(after[title]) == lines_of(before[title])
  ((name, value),) = change.get('overrides', change).items()
  more = f'rope ({name}={value})' if name == 'eval.documents' else f'rope, {name} {value}'
  made = make_tables([*rows, *again], baseline=baseline)
  (added,) = (x for x in made if x.title == f'Differences from {more} up to L, last_k')
  assert [some[1] for some in lines_of(added)] == [some[1] for some in lines_of(before[AT_L])]
  assert not any('not compared' in note for table in made for note in table.notes)


def trained_longer(*labels):
  """Rows of models of these labels as in BITS, trained at 16."""
  rows = documents({label: BITS[label] for label in labels}, train_length=16)
  return [r | {'run': f'longer,{r["run"]}'} for r in rows]


def compared_up_to_l(rows, **settings):
  """{baseline: the lines that are compared with it up to L}."""
  tables = [table for table in make_tables(rows, **settings) if ' up to L' in table.title]
  return {table.records[0]['baseline']: {r['encoding'] for r in table.records} for table in tables}


SHORT, LONG = 'train_length 8', 'train_length 16'


@pytest.mark.parametrize('baseline', [None, 'rope', {'t5': 'rope', 'rope': f'rope, {SHORT}'}])
def test_a_line_is_compared_with_the_baseline_of_its_own_training_length(baseline):
  """If there is one, and this one is not the line of a whole name."""
  labels = 'rope', 't5'
  rows = documents({label: BITS[label] for label in labels})
  assert compared_up_to_l(rows + trained_longer(*labels), baseline=baseline) == {
    f'rope, {SHORT}': {f'rope, {LONG}', f't5, {SHORT}'},
    f'rope, {LONG}': {f't5, {LONG}'},
  }
  assert compared_up_to_l(rows + trained_longer(*labels), baseline=f'rope, {SHORT}') == {
    f'rope, {SHORT}': {f'rope, {LONG}', f't5, {SHORT}', f't5, {LONG}'}
  }
  of_label = {'t5': 'rope'} if isinstance(baseline, dict) else baseline
  assert compared_up_to_l(rows + trained_longer('t5'), baseline=of_label) == {
    'rope': {f't5, {SHORT}', f't5, {LONG}'}
  }


def test_of_several_labels_of_rope_the_first_is_the_baseline_at_its_training_lengths():
  """Also where another keeps its label as name."""
  yarn = [r | {'label': 'yarn', 'run': f'yarn,{r["run"]}'} for r in trained_longer('rope')]
  rows = documents({'rope': BITS['rope']}) + trained_longer('t5') + yarn
  assert compared_up_to_l(rows) == {'rope': {'yarn'}, 'yarn': {'t5'}}
  assert compared_up_to_l(rows, baseline='rope') == {'rope': {'t5', 'yarn'}}
  assert compared_up_to_l(rows + trained_longer('rope')) == {
    f'rope, {SHORT}': {f'rope, {LONG}', 'yarn'},
    f'rope, {LONG}': {'t5'},
  }


def test_a_line_with_a_baseline_of_its_own_may_have_its_whole_name():
  rows = documents(BITS) + trained_longer('t5')
  asked = {f't5, {LONG}': 'alibi', 't5': 'rope'}
  assert compared_up_to_l(rows, baseline=asked) == {
    'rope': {f't5, {SHORT}'},
    'alibi': {f't5, {LONG}'},
  }
  alone = {f't5, {LONG}': f't5, {SHORT}'}
  assert compared_up_to_l(rows, baseline=alone) == {f't5, {SHORT}': {f't5, {LONG}'}}


def test_methods_are_compared_with_the_baseline_up_to_l_and_with_themselves_past_it():
  tuned = [
    r | {'train_length': 32, 'step': 10, 'label': 'tuned', 'run': f't{r["seed"]}'}
    for r in extended(3)
    if r['overrides'] is None
  ]
  made = make_tables(extended(3) + tuned, form='methods', baseline='rope, L = 8, 100 steps')
  at_l, own = made[1:]
  assert at_l.header[:2] == ['encoding', '8']
  assert at_l.title.startswith('Differences from rope, as trained, L = 8, 100 steps up to L')
  assert [*texts(own)] == [
    'rope, as trained, L = 8, 100 steps',
    'rope, scaling.factor=4, scaling.rope_type=linear, L = 8, 100 steps',
    'rope, scaling.factor=4, scaling.rope_type=yarn, L = 8, 100 steps',
  ]
  # A tuned model is another one, which started from that of its seed.
  apart = [r | {'label': 'tuned', 'step': 10, 'run': f't{r["seed"]}'} for r in extended(3)]
  apart = [r | {'nats': r['nats'] * 1.1} for r in apart if r['overrides'] is None]
  of_rope = [r for r in extended(3) if r['overrides'] is None]
  at_l = make_tables(of_rope + apart, form='methods', baseline='rope, L = 8, 100 steps')[1]
  difference = of_seeds(apart, 'tuned', 8) - of_seeds(of_rope, 'rope', 8)
  found = record(at_l, 'tuned, L = 8, 10 steps', 8)
  assert found['p'] == pytest.approx(stats.ttest_1samp(difference, 0).pvalue)
  assert "worse: p < 0.05 in a t-test of the seeds' own differences" in at_l.caption


# All of it


def test_tasks_are_compared_like_text():
  made = contrasts(tasks(lines=('nope', 'rope'), names=['copy']), metric='exact_match')
  assert {*made} == {AT_L, OWN}
  assert made[AT_L].header[1:3] == ['4', '8 (L)']


@pytest.mark.slow
def test_whole_tables_without_differences_are_marked_as_seldom_as_they_say(monkeypatch):
  """200 tables of five lines, three seeds, and documents: the shares of columns with a mark."""
  monkeypatch.setattr(multiple_tests, 'MARGIN', 1e-9)
  rng, number = np.random.default_rng(0), 200
  any_mark = {AT_L: 0, OWN: 0, WINDOWED: 0}
  for _ in range(number):
    scores = lambda n: list(rng.normal(2.0, 0.02, n))
    bits = {line: {8: scores(3), 16: scores(3)} for line in ('rope', 'a', 'b', 'c', 'd')}
    rows = rows_of(bits) + rows_of({'rope': {16: scores(3)}}, control='windowed')
    tables = contrasts(rows)
    for title in any_mark:
      any_mark[title] += any(set(text) & {*'*†'} for text in marks(tables[title]).values())
  shares = np.array([any_mark[title] / number for title in (AT_L, OWN, WINDOWED)])
  assert (shares < 0.05 + 3 * (0.05 * 0.95 / number) ** 0.5).all()
  assert shares[0] > 0.01


def test_key_tokens_of_one_evaluator_are_compared_at_each_length():
  """At another length there are others: no line is compared with itself at L."""
  evaluator = {EVALUATOR: {'run': 'other', 'step': 1, 'config': 'a'}}
  fields = {'protocol': 'long_ppl', 'k': None, 'overrides': evaluator}
  bits = {'rope': {16: [3.0], 32: [3.5]}, 'alibi': {16: [2.5], 32: [2.0]}}
  rows = documents(bits, **fields)
  empty = [row(name, 0, 32, document='z', status='no_key_tokens', **fields) for name in bits]
  for some in (rows, rows + empty):
    (table,) = contrasts(some).values()
    assert table.title == 'Differences from rope on the same key tokens, long_ppl'
    assert texts(table) == {'alibi': ['-0.500 [-0.500, -0.500]', '-1.500 [-1.500, -1.500]']}
  others = documents({'rope': bits['rope']}, **fields)
  others += documents({'alibi': bits['alibi']}, names='abcde', **fields)
  assert not contrasts(others)
  # Each its own: that they are as many is no sign that they are the same.
  assert not contrasts(rows_of(bits, document=None, **fields | {'overrides': None}))
