"""Effective lengths and LongScore, from rows."""

import itertools
import math
import random
import statistics

import numpy as np
import pytest
from synthetic import DOCUMENTS, lines_of, of_documents, row, rows_of

from posenc_jax.errors import UserError
from posenc_jax.reporting import report_settings, table_writers
from posenc_jax.reporting.board.lines import lines
from posenc_jax.reporting.comparisons import bootstrap, effective_length
from posenc_jax.reporting.comparisons.effective_length import EffectiveLength
from posenc_jax.reporting.comparisons.own_changes import finding
from posenc_jax.reporting.metrics import SLACK
from posenc_jax.reporting.scores.collecting import collect
from posenc_jax.reporting.series import length_series
from posenc_jax.reporting.table_forms import make_tables
from posenc_jax.reporting.table_forms.effective_lengths import after_lengths

FAILED = 'beyond_table'


def table(rows, **settings):
  (made,) = make_tables(rows, form='effective_lengths', **settings)
  return made


def texts(made):
  return {line[0].text: [cell.text for cell in line[1:]] for line in lines_of(made)}


@pytest.mark.parametrize(
  ('bits', 'expected'),
  [
    ((2.0, 2.019, 1.5, 2.0199), (64, True)),
    ((2.0, 2.019, 2.021, 2.0), (16, False)),  # what recovers does not count
    ((2.0, 2.021, 2.0, 2.0), (8, False)),
    ((2.0, FAILED, FAILED, FAILED), (8, False)),
    ((2.0, 2.0, 'not_finite', 2.0), (16, False)),
    ((FAILED, 2.0, 2.0, 2.0), None),
  ],
)
def test_the_largest_length_to_which_all_hold(bits, expected):
  rows = of_documents({'rope': {n: [b] for n, b in zip((8, 16, 32, 64), bits, strict=True)}})
  made = table(rows)
  cells = ['—', '—'] if expected is None else []
  if expected:
    length, is_longest = expected
    sign = '≥ ' * is_longest
    cells = [f'{sign}{length}', f'{sign}{length // 8}']
  assert texts(made) == {'rope': cells}
  says_it = 'a dash without a score at L, or where no interval past L says' in made.caption
  assert says_it == (expected is None)


def test_the_effective_length_is_the_last_of_all_lengths_up_to_which_all_hold():
  """Every series of scores that hold, do not hold, or failed, up to a length, is tried."""
  for scores in itertools.product((2.0, 2.009, 2.011, None), repeat=4):
    values = dict(zip((8, 16, 32, 64), scores, strict=True))
    found = effective_length.effective_length(
      values, 8, lambda score, own: score <= own + 0.01, values[8]
    )
    if values[8] is None:
      assert found is None
      continue
    holds = {n for n, score in values.items() if score and score <= values[8] + 0.01}
    (last,) = (n for n in holds if all(m in holds for m in values if m <= n) and 2 * n not in holds)
    assert found == EffectiveLength(last, last == 64)


def drawn_at_random(number):
  """{(line, seed, length, document): bits} of lines that hold or fail by seeds or by documents."""
  noise = random.Random(number)
  bits = {}
  for line in ('rope', 'alibi', 't5'):
    slope, of_seed, of_document = (noise.choice((0, most)) for most in (0.01, 0.02, 0.03))
    for length in (8, 16, 32, 64):
      of_seeds = [noise.gauss(0, of_seed) for _ in range(2)]
      for document in DOCUMENTS:
        drift = slope * math.log2(length / 8) + noise.gauss(0, of_document) * (length > 8)
        for seed in range(2):
          bits[line, seed, length, document] = 2 + drift + of_seeds[seed]
  return bits


def oracle(bits, line, kept_line, slack):
  """The rule as a loop: the length that the line holds to, None where not even to L."""
  score = lambda name, seed, length: statistics.fmean(
    bits[name, seed, length, document] for document in DOCUMENTS
  )
  weights_CR = bootstrap.resamples(len(DOCUMENTS))
  reached = None
  for length in (8, 16, 32, 64):
    for seed in range(2):
      if score(line, seed, length) > score(kept_line, seed, 8) + slack:
        return reached
    if (line, length) != (kept_line, 8):
      change_C = np.array(
        [
          sum(bits[line, s, length, d] - bits[kept_line, s, 8, d] for s in range(2)) / 2
          for d in DOCUMENTS
        ]
      )
      _, upper = bootstrap.interval(change_C @ weights_CR / len(DOCUMENTS), len(DOCUMENTS))
      if upper > slack:
        return reached
    reached = length
  return reached


def test_one_rule_says_how_far_lines_hold_in_tables_on_the_board_and_in_titles():
  """Seeds and intervals both: of random lines the three say what the loop says."""
  seen = set()
  for number in range(12):
    bits = drawn_at_random(number)
    rows = [row(*key[:3], value, key[3], corpus='planted') for key, value in bits.items()]
    expected = {line: oracle(bits, line, line, SLACK) for line in ('rope', 'alibi', 't5')}
    words = lambda n: '—' if n is None else '≥ ' * (n == 64) + f'{n}'
    assert {line: cells[0] for line, cells in texts(table(rows)).items()} == {
      line: words(length) for line, length in expected.items()
    }
    on_board = lines(rows, (), (), 'planted')
    assert {line.name: line.holds_to for line in on_board} == expected
    title = finding(length_series(collect(rows)[0], rows))
    holding = sum(length == 64 for length in expected.values())
    assert title.startswith(f'Of 3 encodings, {holding or "none"} hold')
    kept = texts(table(rows, baseline='rope', score_to_keep='baseline'))
    assert {line: cells[0] for line, cells in kept.items()} == {
      line: words(oracle(bits, line, 'rope', SLACK)) for line in expected
    }
    seen |= {*expected.values()}
  assert seen == {8, 16, 32, 64}


def test_without_intervals_it_is_not_said_how_far_a_line_holds():
  """Only that it does not, where a seed loses more."""
  bits = {'rope': {8: [2.0], 16: [2.0]}, 't5': {8: [2.0], 16: [2.1]}}
  assert texts(table(rows_of(bits))) == {'rope': ['—', '—'], 't5': ['8', '1']}
  assert 'a dash where no interval past L says whether it is' in table(rows_of(bits)).caption


def test_a_line_of_other_tokens_is_held_against_the_baseline_of_its_own():
  """The score of a model on other text, or of other tokens, is not to be kept."""
  bits = {'none': {8: [2.0], 16: [3.0]}, 'yarn': {8: [2.0], 16: [2.0]}}
  easier = {name: {n: [some[0] - 1] for n, some in by.items()} for name, by in bits.items()}
  other = {'eval.k': 2}
  rows = of_documents(bits) + of_documents(easier, k=2, overrides=other)
  asked = dict(baseline='none', score_to_keep='baseline')
  found = texts(table(rows, **asked))
  assert sorted(found.values()) == [['8', '1'], ['8', '1'], ['≥ 16', '≥ 2'], ['≥ 16', '≥ 2']]
  alone = of_documents(bits) + of_documents({'yarn': easier['yarn']}, k=2, overrides=other)
  made = table(alone, **asked)
  (name,) = {*texts(made)} - {'none', 'yarn'} - {n for n in texts(made) if n.endswith('k=4')}
  assert texts(made)[name] == ['—', '—']
  (note,) = [note for note in made.notes if note.startswith('not judged')]
  assert note.endswith(f'has no score of their tokens: {name}')


def test_a_line_is_as_long_as_its_worst_seed_and_every_seed_is_listed():
  bits = {
    'rope': {8: [2.0, 2.5], 16: [2.0, 2.5], 32: [1.5, 2.6]},
    't5': {8: [2.0, 2.0], 16: [2.0, 2.0], 32: [2.0, 2.0]},
    'learned': {8: [2.0, FAILED], 16: [2.0, 2.0], 32: [2.0, 2.0]},
  }
  made = table(of_documents(bits))
  assert made.header == ['encoding', 'effective length', 'in L', 'each seed']
  assert texts(made) == {
    'rope': ['16', '2', '≥ 32, 16'],
    't5': ['≥ 32', '≥ 4', '≥ 32, ≥ 32'],
    'learned': ['—', '—', '≥ 32, —'],
  }
  assert 'no seed is more than 0.02 bits a byte worse than the own score at L' in made.caption
  csv = table_writers.csv_lines([made])
  last = dict(zip(csv[0], csv[-1], strict=True))
  assert (last['encoding'], last['effective_length'], last['is_longest']) == ('t5', 32, True)
  assert last['margin'] == 0.02
  assert len(csv) == 1 + 3 + 6, 'of the lines and of their seeds'


def test_perplexities_are_compared_in_bits():
  rows = of_documents({'rope': {8: [2.0], 16: [2.019], 32: [2.021]}})
  for metric in ('bpb', 'ppl'):
    assert texts(table(rows, metric=metric)) == {'rope': ['16', '2']}


def test_a_line_may_be_asked_to_keep_the_score_of_the_baseline():
  """What damages the model at L holds that for ever, and has no effective length; each seed is
  compared with the same one.
  """
  bits = {
    'none': {8: [2.0, 2.1], 16: [3.0, 3.0], 32: [4.0, 4.0]},
    'linear': {8: [2.4, 2.5], 16: [2.4, 2.5], 32: [2.4, 2.5]},
    'yarn': {8: [2.019, 2.119], 16: [2.0, 2.1], 32: [2.0, 2.1]},
    'ntk': {8: [2.0, 2.1], 16: [2.019, 2.119], 32: [2.019, 2.121]},
  }
  rows = of_documents(bits)
  assert texts(table(rows))['linear'] == ['≥ 32', '≥ 4', '≥ 32, ≥ 32']
  made = table(rows, baseline='none', score_to_keep='baseline')
  assert texts(made) == {
    'none': ['8', '1', '8, 8'],
    'linear': ['—', '—', '—, —'],
    'yarn': ['≥ 32', '≥ 4', '≥ 32, ≥ 32'],
    'ntk': ['16', '2', '≥ 32, 16'],
  }
  assert 'more than 0.02 bits a byte worse than the score at L of none, and' in made.caption
  assert 'a dash where it is not so at L itself, or where no interval' in made.caption
  assert {record['baseline'] for record in made.records} == {'none'}
  one = of_documents({'none': {8: [2.0], 16: [3.0]}, 'ntk': {8: [2.0, 2.0], 16: [2.0, 2.0]}})
  made = table(one, baseline='none', score_to_keep='baseline')
  assert texts(made)['ntk'] == ['≥ 16', '≥ 2', '≥ 16']  # nothing to keep by the second seed
  assert 'not judged, as none has no score at L of these: ntk seed 1' in made.notes


def test_the_caption_says_what_cells_are_and_not_which_score_is_better():
  (made,) = (table(rows_of({'rope': {8: [2.0, 2.1], 16: [2.0, 2.1]}})),)
  assert '. Of seeds 0, 1. Trained' in made.caption
  assert 'Mean ±' not in made.caption
  assert 'Lower' not in made.caption
  assert 'What holds at this scale' in made.caption


def test_accuracies_may_be_asked_to_keep_that_of_the_baseline():
  rows = accuracies(
    {'none': {8: 0.9, 16: 0.2}, 'linear': {8: 0.7, 16: 0.7}, 'yarn': {8: 0.8, 16: 0.78}}
  )
  settings = dict(metric='exact_match', baseline='none', score_to_keep='baseline')
  found = texts(table(rows, **settings))
  assert {name: cells[0] for name, cells in found.items()} == {
    'none': '8',
    'linear': '—',
    'yarn': '≥ 16',
  }


def test_the_score_to_keep_of_a_baseline_needs_one():
  (checked,) = report_settings.check_tables(
    'table()', {'baseline': 'none', 'score_to_keep': 'baseline'}
  )
  assert after_lengths([checked])[1] == {'form': 'effective_lengths', **checked}
  assert after_lengths([checked | {'score_to_keep': 'own'}])[1] == {'form': 'effective_lengths'}
  for settings, message in (
    ({'score_to_keep': 'baseline'}, "score_to_keep='baseline'; allowed: with the field baseline"),
    ({'score_to_keep': 'best'}, "score_to_keep='best'; allowed: own, baseline"),
  ):
    for form in ('lengths', 'effective_lengths'):
      with pytest.raises(UserError, match=message):
        report_settings.check_tables('table()', {'form': form} | settings)
  rows = rows_of({'rope': {8: [2.0], 16: [2.0]}})
  with pytest.raises(UserError, match="baseline='none' has no rows"):
    table(rows, baseline='none', score_to_keep='baseline')


def test_what_was_not_evaluated_says_nothing():
  """A length that only other lines have is passed over, and so is a seed without rows."""
  rows = of_documents({'rope': {8: [2.0], 32: [2.0]}, 't5': {8: [2.0, 2.0], 16: [2.0, 2.0]}})
  assert texts(table(rows)) == {
    'rope': ['≥ 32', '≥ 4', '≥ 32'],
    't5': ['≥ 16', '≥ 2', '≥ 16, ≥ 16'],
  }


def accuracies(shares, chance=0.1, seed=0):
  fields = dict(protocol='copy', k=None, document=None)
  return [
    row(label, seed, length, metric=name, value=value, **fields)
    for label, by_length in shares.items()
    for length, share in by_length.items()
    for name, value in (('exact_match', share), ('chance', chance))
  ]


def test_accuracies_hold_at_a_share_of_their_own_and_guessing_does_not():
  rows = accuracies(
    {
      'rope': {4: 1.0, 8: 0.8, 16: 0.68, 32: 0.67},
      'nope': {4: 0.5, 8: 0.11, 16: 0.11, 32: 0.11},  # 0.85 of 0.11 is less than guessing
      't5': {4: 0.0, 8: 0.0, 16: 0.0, 32: 0.0},
    }
  )
  made = table(rows, metric='exact_match')
  found = texts(made)
  assert {name: cells[0] for name, cells in found.items()} == {'rope': '16', 'nope': '—', 't5': '—'}
  assert made.header == [
    *('encoding', 'effective length', 'in L', 'LongScore at 16', 'LongScore at 32', 'mean')
  ]
  # Base 0.9: (0.68 - 0.9) / 0.9 and (0.67 - 0.9) / 0.9
  assert found['rope'][2:] == ['-0.244', '-0.256', '-0.250']
  assert found['t5'][2:] == ['—', '—', '—']
  kinds = {(r['table'], r['metric'], 'long_score' in r) for r in made.records}
  assert kinds == {
    ('effective_lengths', 'exact_match', False),
    ('long_scores', 'exact_match', True),
  }
  by_length = {
    r['length']: r['long_score']
    for r in made.records
    if r['encoding'] == 'rope' and 'long_score' in r
  }
  assert by_length == pytest.approx({16: (0.68 - 0.9) / 0.9, 32: (0.67 - 0.9) / 0.9})


def test_seeds_that_have_not_learned_are_left_out():
  rows = []
  for seed, at_8 in ((0, 1.0), (1, 0.2)):
    rows += accuracies({'rope': {8: at_8, 16: 1.0}}, seed=seed)
    for metric, value in (('token_accuracy', at_8), ('token_chance', 0.1)):
      fields = dict(protocol='copy', k=None, document=None, metric=metric, value=value)
      rows.append(row('rope', seed, 8, **fields))
  expected = ['≥ 16', '≥ 2', '≥ 16', '+0.000', '+0.000']
  assert texts(table(rows, metric='exact_match')) == {'rope (1 of 2 learned)': expected}


def test_one_rule_says_which_accuracies_are_kept_in_tables_and_in_titles():
  """Two seeds keep all and one 0.70, of which the mean of 0.9 says nothing. Seeds that have not
  learned are none of those that have to keep it.
  """

  def rows_of_seeds(line, *at_16, learned=1.0):
    rows = []
    for seed, share in enumerate(at_16):
      rows += accuracies({line: {8: 1.0, 16: share}}, seed=seed)
      fields = dict(protocol='copy', k=None, document=None)
      rows.append(row(line, seed, 8, metric='token_accuracy', value=learned, **fields))
      rows.append(row(line, seed, 8, metric='token_chance', value=0.1, **fields))
    return rows

  title_of = lambda rows: finding(length_series(collect(rows, metric='exact_match')[0], rows))
  rows = rows_of_seeds('rope', 1.0, 1.0, 0.7) + rows_of_seeds('t5', 1.0, 0.9, 0.85)
  found = texts(table(rows, metric='exact_match'))
  assert {name: cells[0] for name, cells in found.items()} == {'rope': '8', 't5': '≥ 16'}
  said = 'copy: of 2 encodings, 1 keeps 85 % of its exact match at L up to 2 L with every seed'
  assert title_of(rows) == said
  unlearned = rows_of_seeds('t5', 0.1, 0.1, 0.1, 0.0, learned=0.2)
  rows += [r for r in unlearned if r['seed'] == 3]
  found = texts(table(rows, metric='exact_match'))
  assert found['t5 (3 of 4 learned)'][0] == '≥ 16'
  assert title_of(rows) == f'{said} that has learned'


def test_long_score_is_averaged_over_seeds():
  rows = [
    r
    for seed, at_16 in ((0, 0.5), (1, 0.7))
    for r in accuracies({'rope': {8: 1.0, 16: at_16}}, seed=seed)
  ]
  assert texts(table(rows, metric='exact_match'))['rope'] == [
    *('8', '1', '8, 8', '-0.400 ± 0.141', '-0.400 ± 0.141')
  ]


def test_lines_of_different_training_lengths_have_each_their_own():
  rows = of_documents({'rope': {8: [2.0], 16: [2.0], 32: [3.0]}})
  rows += of_documents({'long': {16: [2.0], 32: [2.0]}}, train_length=16)
  assert sorted(texts(table(rows)).values()) == [['16', '2'], ['≥ 32', '≥ 2']]


def test_no_table_without_lengths_past_the_training_length():
  assert make_tables(rows_of({'rope': {4: [2.0], 8: [2.0]}}), form='effective_lengths') == []


@pytest.mark.parametrize('protocol', ['long_ppl', 'non_overlapping', 'sliding'])
def test_a_protocol_whose_lengths_are_not_alike_says_of_no_line_that_it_holds(protocol):
  """Tokens are others at another length, or longer windows have fewer starts."""
  rows = of_documents({'rope': {8: [2.0], 16: [1.9]}}, protocol=protocol, k=None)
  assert make_tables(rows, form='effective_lengths') == []
  assert finding(length_series(collect(rows)[0], rows)) == ''


def test_tables_of_scores_by_length_are_followed_by_it():
  wanted = [{}, {'metric': 'exact_match', 'protocols': ['copy']}, {'form': 'methods'}]
  assert after_lengths(wanted) == [
    {},
    {'form': 'effective_lengths'},
    wanted[1],
    {'form': 'effective_lengths', **wanted[1]},
    {'form': 'methods'},
  ]
  own = [{'metric': 'token_accuracy'}, {'controls': False}, {'form': 'effective_lengths'}]
  assert after_lengths(own) == own
  assert after_lengths(own[:2]) == own


def test_bad_settings_are_one_line():
  rows = accuracies({'rope': {8: 1.0, 16: 0.5}})
  with pytest.raises(
    UserError, match="metric='chance' of effective_lengths; allowed: a likelihood"
  ):
    make_tables(rows, form='effective_lengths', metric='chance')


def test_every_order_of_rows_gives_the_same():
  rows = of_documents({'rope': {8: [2.0], 16: [2.0], 32: [3.0]}})
  for number in range(6):
    order = random.Random(number).sample(rows, len(rows))
    assert texts(table(order)) == {'rope': ['16', '2']}
  assert effective_length.summary({}) is None
