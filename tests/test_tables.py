"""Tables from rows alone: scores by hand, what is compared with what, and that all that is amiss is
named.
"""

import csv
import gzip
import io
import math
import random
import re
import shutil
from collections import Counter

import pytest
from rich.console import Console
from synthetic import LENGTHS, LN2, NINE, lines_of, of_documents, realistic, row, rows_of, tasks

from posenc_jax import config, storage
from posenc_jax.config import BASE
from posenc_jax.errors import UserError
from posenc_jax.reporting import captions, row_files, study, table_writers
from posenc_jax.reporting.html.configurations import configurations
from posenc_jax.reporting.scores.collecting import collect
from posenc_jax.reporting.table_forms import make_tables
from posenc_jax.rows import row_schema, sessions
from posenc_jax.rows.overrides import DOCUMENTS, EVALUATOR


def one(rows, **settings):
  (scores,) = collect(rows, **settings)
  return scores


def made(rows, **settings):
  return make_tables(rows, **settings)[0]


def shown(table):
  text = lambda field: f'*{field.text}*' if field.is_best else field.text
  return {
    line[0].text: [text(field) + field.mark for field in line[1:]] for line in lines_of(table)
  }


# Scores


def test_what_is_bold_is_the_best_of_those_that_score_the_same_tokens():
  """An easier text makes no line the best, and one that is alone on its text is none."""
  rows = rows_of({'rope': {8: [2.0]}, 'alibi': {8: [1.9]}})
  bold = lambda made: [line[0].text for line in lines_of(made) if line[1].is_best]
  (alone, *_), (both, *_) = (
    make_tables([*rows, *rows_of(easier, corpus='code')])
    for easier in ({'rope': {8: [1.0]}}, {'rope': {8: [1.0]}, 'alibi': {8: [1.1]}})
  )
  assert [bold(alone), bold(both)] == [['alibi'], ['alibi', 'rope, corpus code']]
  assert 'The best of each column, among those that score the same tokens, is bold.' in both.caption
  assert 'The best of each column is bold.' in make_tables(rows)[0].caption


@pytest.mark.parametrize(
  ('metric', 'size', 'bold'),
  [
    ('bpb', {'tokens': 10, 'bytes': 30}, ['alibi', 'wide']),  # as many tokens, of other text
    ('ppl', {'tokens': 10, 'bytes': 30}, ['alibi', 'wide']),
    ('bpb', {'tokens': 5, 'bytes': 10}, ['wide']),  # the same text
    ('ppl', {'tokens': 5, 'bytes': 10}, ['alibi', 'wide']),  # in fewer tokens
  ],
)
def test_what_is_bold_of_two_tokenizers_is_of_the_same_text(metric, size, bold):
  rows = rows_of({'rope': {8: [2.0], 16: [2.0]}, 'alibi': {8: [1.9], 16: [1.9]}})
  tokens = dict(size, tokenizer=64 * 'a')
  rows += rows_of(
    {'wide': {8: [1.0]}, 'wider': {8: [1.1]}, 'failed': {8: ['not_finite']}}, **tokens
  )
  table = made(rows, metric=metric)
  assert [line[0].text for line in lines_of(table) if line[1].is_best] == bold
  assert [line[0].text for line in lines_of(table) if line[2].is_best] == ['alibi']
  is_said = ', among those that score the same tokens,' in table.caption
  assert is_said == (len(bold) > 1)


def test_of_key_tokens_that_each_model_chose_none_is_the_best():
  """Also where but one line has a score in a column."""
  bits = {'rope': {16: [2.0], 32: [2.0]}, 'alibi': {16: [1.9], 32: ['no_key_tokens']}}
  rows = rows_of(bits, protocol='long_ppl', k=None)
  assert not any(cell.is_best for line in lines_of(made(rows)) for cell in line)
  evaluator = {EVALUATOR: {'run': 'other', 'step': 1, 'config': 'a'}}
  judged = [r | {'overrides': evaluator} for r in rows]
  best = [[cell.is_best for cell in line[1:]] for line in lines_of(made(judged))]
  assert best == [[True, False], [False, True]]  # alibi, rope


def test_nats_are_summed_over_documents_and_divided_once():
  rows = [
    row('rope', document='a', nats=10.0, tokens=10, bytes=20),
    row('rope', document='b', nats=100.0, tokens=20, bytes=30),
  ]
  assert one(rows, metric='bpb').seed_scores('rope', 8) == pytest.approx([110 / 50 / LN2])
  assert one(rows, metric='ppl').seed_scores('rope', 8) == pytest.approx([math.exp(110 / 30)])
  assert '30 tokens of 2 documents' in captions.caption(one(rows))


def test_a_table_by_hand():
  bits = {
    'rope': {8: [1.0, 2.0, 4.0], 16: [3.0, 3.0, 3.0]},
    'alibi': {8: [2.5, 2.5, 2.5], 16: [2.0004, 2.0, 2.0]},
    't5': {8: [3.0, 3.0, 3.0], 16: [2.0, 2.0, 2.0]},
    'learned': {8: [1.0, 5.0, 6.0], 16: ['beyond_table'] * 3},
  }
  table = made(rows_of(bits))
  assert table.header == ['encoding', '8 (L)', '16']
  assert shown(table) == {
    'rope': ['*2.333 ± 1.528*', '3.000 ± 0.000'],
    'alibi': ['2.500 ± 0.000', '*2.000 ± 0.000*'],  # equal as printed, so both are best
    't5': ['3.000 ± 0.000', '*2.000 ± 0.000*'],
    'learned': ['4.000 ± 2.646', '—'],
  }
  assert table.notes == ['longer than the table of positions: learned at 16']
  assert 'over seeds 0, 1, 2' in table.caption
  assert 'the last 4 tokens' in table.caption
  assert '100 steps at length L = 8' in table.caption


def test_one_seed_has_no_spread():
  table = made(rows_of({'rope': {8: [2.0]}}))
  assert shown(table) == {'rope': ['*2.000*']}
  assert 'Seed 0.' in table.caption


def test_the_mean_of_the_seeds_that_survived_is_not_shown():
  table = made(rows_of({'rope': {8: [1.0, 'not_finite']}, 'alibi': {8: [2.0, 2.0]}}))
  assert shown(table) == {'rope': ['—'], 'alibi': ['*2.000 ± 0.000*']}
  assert table.notes == ['not finite: rope seed 1']


def test_the_order_of_rows_changes_nothing_and_lines_follow_the_runs():
  rows, runs = (
    realistic(),
    [f'encoding.name={label},seed={seed}' for label in NINE for seed in range(3)],
  )
  first = make_tables(rows, runs)
  random.Random(1).shuffle(rows)
  again = make_tables(rows, runs)
  scores = [table for table in again if table.title.startswith('Extrapolation')]
  assert [list(shown(table)) for table in scores] == [list(NINE)] * 2
  assert again == first


def test_each_protocol_and_each_control_has_a_table_of_its_own():
  rows = [
    row('rope'),
    row('rope', protocol='non_overlapping', k=None, document=None),
    row('rope', control='windowed', bits=1.5),
  ]
  # these rows are told apart by position: no such table
  rows += [
    row('rope', protocol=protocol, position=place, bits=5.0)
    for protocol in ('by_position', 'planted')
    for place in (0, 16)
  ]
  rows += [row('rope', protocol='planted', position=None)]  # the text between names
  found = make_tables(rows)
  assert [t.title for t in found] == [
    f'Extrapolation, {name}' for name in ('last_k', 'last_k, windowed', 'non_overlapping')
  ]
  assert [shown(t) for t in found] == [
    {'rope': ['*2.000*']},
    {'rope': ['*1.500*']},
    {'rope': ['*2.000*']},
  ]
  assert 'attention windowed at the training length' in found[1].caption
  assert 'documents' not in found[2].caption  # a row over all documents does not say how many
  found = make_tables(rows, protocols=['non_overlapping', 'last_k'], controls=False)
  assert [t.title for t in found] == ['Extrapolation, non_overlapping', 'Extrapolation, last_k']


# What is not averaged, and what is named


@pytest.mark.parametrize(
  ('field', 'other', 'tokens'),
  [
    ('train_length', 4, 10),
    ('step', 50, 10),
    # where these differ, other tokens are scored, and as many as one likes
    ('corpus', 'tfds:x', 99),
    ('split', 'validation', 99),
    ('stride', 2, 99),
    ('k', 2, 99),
    ('overrides', {'eval.documents': 5}, 99),
  ],
)
def test_what_differs_in_more_than_the_seed_is_a_line_of_its_own(field, other, tokens):
  rows = [
    row('rope', 0, bits=1.0),
    row('rope', 1, bits=3.0, tokens=tokens, **{field: other}),
    row('t5', 0),
    row('t5', 1),
  ]
  table = one(rows)
  means = [table.seed_scores(line, 8) for line in table.lines if line.startswith('rope')]
  assert sorted(map(tuple, means)) == [pytest.approx((1.0,)), pytest.approx((3.0,))]
  assert any(f'mixed {field}' in note for note in table.notes)


YARN = {'encoding.scaling.factor': 4, 'encoding.scaling.rope_type': 'yarn'}


@pytest.mark.parametrize(
  ('change', 'name'),
  [
    ({'overrides': YARN}, 'rope (scaling.factor=4, scaling.rope_type=yarn)'),
    ({'overrides': {'encoding.base': 5.0, 'eval.spans': 2}}, 'rope (base=5.0, eval.spans=2)'),
    ({'overrides': {'eval.documents': 5}}, 'rope (eval.documents=5)'),
    (
      {'overrides': {'encoding.window': 3, 'encoding.name': 'rerope'}, 'encoding': 'rerope'},
      'rope (evaluated as rerope, window=3)',
    ),
    ({'k': 2}, 'rope, k 2'),
    (
      {'split': 'train', 'overrides': {'eval.documents': 5}},
      'rope, split train (eval.documents=5)',
    ),
  ],
)
def test_one_more_evaluation_is_one_more_line_and_renames_no_other(change, name):
  rows = realistic()
  more = [r | change for r in rows if (r['label'], r['seed'], r['control']) == ('rope', 0, None)]
  before, after = one(rows, controls=False), one(rows + more, controls=False)
  assert sorted(after.lines) == sorted([*before.lines, name])
  for line in before.lines:
    for column in before.columns:
      assert after.seed_scores(line, column) == before.seed_scores(line, column)
  assert all(after.seed_scores(name, column) for column in after.columns)


def test_rows_at_another_length_join_their_line():
  rows = rows_of({'rope': {8: [1.0, 2.0]}, 't5': {8: [1.0, 2.0]}})
  assert set(one([*rows, row('rope', length=64)]).lines) == {'rope', 't5'}


def test_a_line_is_named_by_what_differs_and_nothing_else():
  rows = [row('rope'), row('rope', k=2, overrides={'encoding.base': 5.0})]
  rows += [row('t5'), row('alibi', step=50)]
  table = one(rows)
  assert set(table.lines) == {'rope', 'rope, k 2 (base=5.0)', 't5', 'alibi'}
  assert 'mixed k, each a line of its own: 2, 4' in table.notes
  assert 'step differs between lines: alibi 50; rope 100; t5 100' in table.notes
  table = one([*rows, row('fire')])
  assert 'step differs between lines: alibi 50; others 100' in table.notes
  both = {'eval.spans': 4}
  rows = [row('rope', overrides=both | {'eval.documents': n}) for n in (5, 6)]
  assert one(rows).lines == ['rope (eval.documents=5)', 'rope (eval.documents=6)']
  # What was measured is the same in all; that the model is not as trained is said even so.
  assert one([row('rope', overrides=both)]).lines == ['rope']
  assert one([row('rope', overrides=YARN | both)]).lines == [
    'rope (scaling.factor=4, scaling.rope_type=yarn)'
  ]
  # Of two values that as many runs have, the first in what was read is the study's own.
  assert one([row('rope'), row('rope', k=2)]).lines == ['rope, k 2', 'rope']


def test_a_line_says_which_documents_a_folder_had_where_it_has_changed():
  def on_texts(label, digest):
    return row(label, corpus='texts', overrides={DOCUMENTS: digest})

  rows = [*map(row, ('rope', 't5')), *(on_texts(label, 'aa') for label in ('rope', 't5'))]
  scores = one(rows)
  assert {*scores.lines} == {'rope', 't5', 'rope, corpus texts', 't5, corpus texts'}
  assert not any('documents' in note for note in scores.notes)
  assert {*one([*rows, on_texts('rope', 'bb')]).lines} == {
    *('rope', 't5', 'rope, corpus texts (data.documents=bb)'),
    *(f'{label}, corpus texts (data.documents=aa)' for label in ('rope', 't5')),
  }
  scores = one([on_texts('rope', 'aa'), on_texts('t5', 'bb')])
  assert {*scores.lines} == {'rope', 't5'}
  differ = 'overrides differs between lines: rope {data.documents: aa}; t5 {data.documents: bb}'
  assert scores.notes == [differ]


def test_a_line_of_another_folder_is_named_by_its_last_part():
  """Whole where another folder has the same."""
  named = lambda *corpora: {
    *one([row('rope'), *(row('rope', corpus=corpus) for corpus in corpora)]).lines
  }
  assert named('/home/me/texts', '../code/') == {'rope', 'rope, corpus texts', 'rope, corpus code'}
  assert named('/a/wiki', '/b/wiki') == {'rope', 'rope, corpus /a/wiki', 'rope, corpus /b/wiki'}


def test_a_model_under_overrides_is_compared_with_the_others():
  rows = [r for r in realistic() if r['control'] is None]
  more = [r | {'overrides': YARN} for r in rows if r['label'] == 'rope']
  fewer = {'overrides': {'eval.documents': 5}, 'document': 'b'}
  other = [r | fewer for r in rows if r['label'] == 't5']
  assert not any('not compared' in note for note in made(rows + more, baseline='rope').notes)
  notes = made(rows + other, baseline='rope').notes
  assert any(note.startswith('not compared with rope') and 't5 (eval.' in note for note in notes)
  less = [r | {'overrides': YARN, 'tokens': 9} for r in rows if r['label'] == 'rope']
  assert any(
    note.startswith('incomplete: rope (scaling') for note in one(rows + less, controls=False).notes
  )


def test_runs_that_differ_in_a_swept_field_keep_their_seeds_together():
  def run(rate, seed):
    return f'encoding.name=rope,seed={seed},optim.learning_rate={rate}'

  rows = [
    row('rope', seed, bits=bits, run=run(rate, seed))
    for rate, bits in ((0.1, 1.0), (0.2, 3.0))
    for seed in (0, 1)
  ]
  table = one(rows)
  assert {line: table.seed_scores(line, 8) for line in table.lines} == {
    'rope [encoding.name=rope,optim.learning_rate=0.1]': pytest.approx([1.0, 1.0]),
    'rope [encoding.name=rope,optim.learning_rate=0.2]': pytest.approx([3.0, 3.0]),
  }
  assert table.notes == ['several runs of one seed, each a line of its own: rope']


def test_seeds_of_runs_whose_names_end_with_a_hash_stay_together():
  rows = [
    row('chain', seed, bits=bits, run=f'seed={seed},encoding.members=-{member}--{end}')
    for member, bits, ends in (('rope', 1.0, 'a0398090 1f00aa00'), ('t5', 3.0, '2c542b85 47503e57'))
    for seed, end in enumerate(ends.split())
  ]
  table = one(rows)
  assert {line: table.seed_scores(line, 8) for line in table.lines} == {
    'chain [encoding.members=-rope-]': pytest.approx([1.0, 1.0]),
    'chain [encoding.members=-t5-]': pytest.approx([3.0, 3.0]),
  }


def test_a_line_has_one_name_under_all_controls():
  """Also where one more evaluation was made without controls."""
  more = [r | {'overrides': {'eval.documents': 5}} for r in realistic() if r['control'] is None]
  found = collect([*realistic(), *more], protocols=['last_k'])
  plain = next(scores for scores in found if scores.control is None)
  for scores in found:
    assert set(scores.lines) <= set(plain.lines)
  steps = [r | {'step': 2 * r['step']} for r in realistic()]
  found = collect([*realistic(), *(r for r in steps if r['control'] is None)], protocols=['last_k'])
  for scores in found:
    assert all(', step' in line for line in scores.lines)


@pytest.mark.parametrize('field', ['source', 'tokenizer'])
def test_models_of_other_sources_or_tokenizers_may_have_fewer_tokens(field):
  a, b = {field: 'a' * 64}, {field: 'b' * 64}
  rows = [row('smol', tokens=12, **a), row('pythia', tokens=9, **b), row('bytes', tokens=40)]
  assert not any('incomplete' in note for note in one(rows).notes)
  less = [row('smol', seed, tokens=tokens, **a) for seed, tokens in ((0, 12), (1, 9))]
  assert one(less).notes == ['incomplete: smol seed 1']


def test_runs_that_only_their_folder_tells_apart_are_not_averaged():
  table = one([row('rope', bits=1.0, run='x,seed=0'), row('rope', bits=3.0, run='x')])
  assert sorted(table.seed_scores(line, 8)[0] for line in table.lines) == pytest.approx([1.0, 3.0])


def test_rows_that_no_score_is_of_get_no_key(monkeypatch):
  rows = rows_of({'rope': {8: [1.0]}})
  others = [row('rope', protocol='sliding', stride=4, k=None), row('rope', control='windowed')]
  without = collect(rows, protocols=['last_k'], controls=False)
  keyed, key = [], row_schema.key
  monkeypatch.setattr(row_schema, 'key', lambda row: keyed.append(row) or key(row))
  assert collect([*others, *rows], protocols=['last_k'], controls=False) == without
  assert {(row['protocol'], row['control']) for row in keyed} == {('last_k', None)}


def test_a_repeated_key_counts_once_and_is_named():
  rows = rows_of({'rope': {8: [1.0, 2.0]}})
  table = one([*rows, row('rope', 0, bits=9.0)])
  assert table.seed_scores('rope', 8) == pytest.approx([1.0, 2.0])
  assert table.notes == [
    '1 rows repeat a key, only the first of each counts: encoding.name=rope,seed=0'
  ]


def test_a_run_that_lacks_a_protocol_or_a_control_of_others_is_named():
  """But not one that was asked about another text."""
  rows = rows_of({name: {8: [1.0]} for name in ('rope', 'alibi', 't5', 'nope')})
  run_of = {r['label']: r['run'] for r in rows}
  rows = [r | {'corpus': 'code'} if r['label'] == 'nope' else r for r in rows]
  some = [r for r in rows if r['label'] in ('rope', 'alibi')]
  rows += [r | {'protocol': 'sliding'} for r in some] + [some[0] | {'control': 'windowed'}]
  found = collect(rows, runs=run_of.values())
  named = lambda scores: [note for note in scores.notes if note.startswith('no rows')]
  windowed = 'no rows of protocol last_k with control windowed of'
  assert list(map(named, found)) == [
    [],
    [f'{windowed} 2 runs: {run_of["alibi"]}; {run_of["t5"]}'],
    [f'no rows of protocol sliding of run {run_of["t5"]}'],
  ]
  (_, scores, _) = collect(rows, runs=run_of.values(), labels=('rope', 'alibi'))
  assert named(scores) == [f'{windowed} run {run_of["alibi"]}']


def test_what_is_missing_is_named():
  rows = rows_of({'rope': {8: [1.0, 2.0], 16: [1.0]}, 'alibi': {8: [3.0], 16: [3.0]}})
  table = one(
    rows,
    runs=[*(f'encoding.name={name},seed=0' for name in ('rope', 'alibi', 't5'))],
    protocols=['last_k', 'non_overlapping'],
  )
  assert table.notes == [
    'no rows of run encoding.name=t5,seed=0',
    'no rows of protocol non_overlapping',
    'missing: rope seed 1 at 16; alibi seed 1',
  ]
  assert (table.seed_scores('rope', 8), table.seed_scores('rope', 16)) == (
    pytest.approx([1.0, 2.0]),
    pytest.approx([1.0]),
  )


def test_a_seed_that_a_line_has_no_rows_of_is_in_a_note_alone(tmp_path):
  """Markdown and the file have no line of it; they have one of a seed that failed."""
  bits = {'rope': {8: [1.0, 2.0, 3.0], 16: [1.0]}, 'alibi': {8: [3.0, 'not_finite']}}
  (table, *_) = tables = make_tables(rows_of(bits))
  there = [['rope', '0'], ['rope', '1'], ['rope', '2'], ['alibi', '0'], ['alibi', '1']]
  ((_, _, every),) = table.per_seed
  assert sorted(line[:2] for line in every) == sorted(there)
  assert ['alibi', '1', '—', '—'] in every
  table_writers.write(tables, tmp_path, 'a')
  with open(tmp_path / 'table.csv', encoding='utf-8') as file:
    of_scores = [line for line in csv.DictReader(file) if line['table'] == 'scores']
  places = [[line['encoding'], line['seed']] for line in of_scores]
  assert sorted(places) == sorted(2 * there)
  assert (tmp_path / 'table.md').read_text(encoding='utf-8').count('| alibi ') == 1 + 2
  assert table.notes == [
    'missing: alibi seed 0, 1 at 16; alibi seed 2; rope seed 1, 2 at 16',
    'not finite: alibi seed 1 at 8',
  ]


def test_seeds_that_most_lines_lack_are_told_by_those_that_have_them():
  bits = {name: {8: [1.0, 2.0]} for name in ('alibi', 'nope', 'fire', 'shaw', 't5', 'fox')}
  rows = rows_of({'rope': {8: [1.0, 2.0, 3.0]}} | bits)
  assert one(rows).notes == ["missing: seed 2 of all lines but 'rope'"]
  assert one([r for r in rows if r['label'] != 'fox']).notes == [
    'missing: alibi seed 2; fire seed 2; nope seed 2; shaw seed 2; t5 seed 2'
  ]
  n_gram = [r | {'encoding': 'n-gram', 'label': 'n-gram', 'run': 'n-gram'} for r in rows[:1]]
  assert one([*rows, *n_gram]).notes == ["missing: seed 2 of all lines but 'rope', 'n-gram'"]


def test_a_run_that_was_evaluated_in_part_is_not_averaged():
  rows = [row('rope', seed, document=name, bits=seed + 1.0) for seed in (0, 1) for name in 'ab']
  table = one(rows[:-1])
  assert table.seed_scores('rope', 8) == pytest.approx([1.0])
  assert table.notes == ['incomplete: rope seed 1']


def test_models_of_different_numbers_of_heads_are_both_whole():
  heads = lambda label, number: [
    row(label, document=None, position=h, metric='attention_distance', value=3.0 + h, k=None)
    for h in range(number)
  ]
  rows = [r | {'protocol': 'attention_distance'} for r in heads('rope', 2) + heads('rope_pp', 4)]
  table = one(rows, metric='attention_distance')
  assert table.seed_scores('rope', 8) == pytest.approx([3.5])
  assert not any('incomplete' in note for note in table.notes)


@pytest.mark.parametrize('form', ['training_lengths', 'methods'])
def test_rows_of_controls_alone_are_no_table_without_controls(form):
  rows = [row('rope', control='windowed', length=n) for n in (8, 16)]
  with pytest.raises(UserError, match=r'but those of controls; allowed: controls=True'):
    make_tables(rows, form=form, metric='bpb')


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'metric': 'bbp'}, r"metric='bbp'; did you mean 'bpb'\?"),
    ({'metric': 'exact_match'}, r'allowed: a metric that rows have, not exact_match'),
    ({'protocols': ['sliding']}, r'allowed: last_k'),
    ({'baseline': 'ropee'}, r"baseline='ropee' has no rows; did you mean 'rope'\?"),
  ],
)
def test_bad_settings_are_one_line(settings, message):
  with pytest.raises(UserError, match=message):
    make_tables([row('rope')], **settings)


# Reading and writing


def test_a_folder_of_runs_and_their_collected_rows_give_the_same_table(tmp_path):
  rows = realistic()
  storage.append_rows(tmp_path / 'collected.jsonl', rows)
  collected = (tmp_path / 'collected.jsonl').read_bytes()
  for r in rows:
    (tmp_path / 'runs' / r['run']).mkdir(parents=True, exist_ok=True)
    storage.append_rows(tmp_path / 'runs' / r['run'] / 'eval.jsonl', [r])
  for folder, name, data in (
    ('a', 'rows.jsonl', collected),
    ('b', 'rows.jsonl.gz', gzip.compress(collected)),
  ):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / name).write_bytes(data)
  sources = [tmp_path / 'runs', tmp_path / 'a', tmp_path / 'b', tmp_path / 'a' / 'rows.jsonl']
  found = [
    [dict(sorted(shown(t).items())) for t in make_tables(row_files.read(source))]
    for source in sources
  ]
  assert all(some == found[0] for some in found)


def test_runs_of_one_label_that_differ_in_more_than_their_seed_are_not_averaged(tmp_path):
  """A pilot of another rate that the study no longer plans, or what was put beside by hand."""
  for seed, rate in enumerate((3e-3, 1e-3, 1e-3)):
    run = tmp_path / f'seed={seed}'
    run.mkdir()
    settings = {'seed': seed, 'optim.learning_rate': rate, 'train.init_from': f'runs/{run.name}'}
    settings |= {'eval.lengths': (8, 16 + seed), 'train.log_every': 5 + seed}
    storage.write_json(run / 'config.json', config.to_json(config.load(BASE, settings)))
    storage.append_rows(run / 'eval.jsonl', [row('rope', seed, bits=1.0 + seed, run=run.name)])
  table = one(row_files.of_runs(tmp_path))
  assert {line: table.seed_scores(line, 8) for line in table.lines} == {
    'rope, optim.learning_rate 0.003': pytest.approx([1.0]),
    'rope, optim.learning_rate 0.001': pytest.approx([2.0, 3.0]),
  }
  note = 'runs of rope differ in optim.learning_rate, each value a line of its own'
  assert table.notes[0] == note
  study.Report(tmp_path).write_tables()
  assert note in (tmp_path / 'table.md').read_text()
  assert 'config' not in row_files.read(tmp_path)[0]  # what keep.py writes


def test_by_which_code_runs_were_made_is_shown_under_their_tables(tmp_path, monkeypatch, capsys):
  for seed, name in enumerate('ab'):
    (tmp_path / name).mkdir()
    storage.append_rows(tmp_path / name / 'eval.jsonl', [row('rope', seed, run=name)])
  study.Report(tmp_path).write_tables()
  assert 'Runs made' not in capsys.readouterr().out  # nothing is on record
  for name in 'ab':
    monkeypatch.setattr(sessions, 'code', lambda name=name: (name * 40, False))
    sessions.add([tmp_path / name], sessions.TRAINING, '1 x cpu')
  study.Report(tmp_path).write_tables()
  assert f'by commit {"a" * 10}, {"b" * 10} with jax ' in capsys.readouterr().out
  assert 'Runs made' not in (tmp_path / 'table.md').read_text()


def test_damaged_sessions_are_named_before_a_table_is_written(tmp_path):
  (tmp_path / 'a').mkdir()
  storage.append_rows(tmp_path / 'a' / 'eval.jsonl', [row('rope', run='a')])
  (tmp_path / 'a' / sessions.FILE).write_text('damaged\n')
  failed = study.Report(tmp_path, figures={}).write_all_possible()
  assert f'{sessions.FILE}:1: ' in failed['tables']
  assert not (tmp_path / 'table.md').exists()


def test_a_config_that_is_damaged_is_named(tmp_path, capsys):
  runs_of_configs(tmp_path, {f'seed={n}': {'seed': n, 'label': 'x'} for n in range(2)})
  path = tmp_path / 'seed=1' / 'config.json'
  path.write_text('{')
  assert len(row_files.of_runs(tmp_path)) == 2
  assert capsys.readouterr().err.startswith(f'{path} is damaged: ')


def runs_of_configs(folder, fields_of):
  """Runs of one label in a folder, {name: fields of its config}, each with a row."""
  for name, fields in fields_of.items():
    c = config.load(BASE, fields)
    (folder / name).mkdir()
    storage.write_json(folder / name / 'config.json', config.to_json(c))
    own = row(c.label, c.seed, bits=1.0 + c.seed, run=name)
    storage.append_rows(folder / name / 'eval.jsonl', [own])


@pytest.mark.parametrize(
  'encoding_of',
  [
    lambda n: {'name': 'random_positions', 'eval_seed': n},
    lambda n: {'name': 'pape_ri', 'seed': n},
    lambda n: {'name': 'random_positions', 'inner': {'name': 'fope', 'seed': n}},
    lambda n: {'name': 'chain', 'members': ('kv_shift', {'name': 'fope', 'seed': n})},
    lambda n: {'name': 'pattern', 'layers': ('rope', {'name': 'fope', 'seed': n})},
  ],
)
def test_seeds_whose_encodings_draw_otherwise_are_one_line(encoding_of, tmp_path):
  own = [{'seed': n, 'encoding': encoding_of(n), 'label': 'x'} for n in range(3)]
  runs_of_configs(tmp_path, {f'seed={n}': fields for n, fields in enumerate(own)})
  rows = row_files.of_runs(tmp_path)
  scores = one(rows)
  assert scores.lines == ['x']
  assert scores.seed_scores('x', 8) == pytest.approx([1.0, 2.0, 3.0])
  saved = {f'seed={n}': config.saved_config(tmp_path / f'seed={n}') for n in range(3)}
  (found,), _ = configurations(rows, saved)
  assert found.seeds == [0, 1, 2]


def test_rows_of_a_renamed_run_are_of_the_folder_as_it_is_named_now(tmp_path):
  """So a new run of the old name is another one, with a config of its own."""
  runs_of_configs(tmp_path, {'a': {'label': 'x', 'optim.learning_rate': 1e-3}})
  (tmp_path / 'a').rename(tmp_path / 'b')
  runs_of_configs(tmp_path, {'a': {'label': 'x', 'optim.learning_rate': 2e-3, 'seed': 1}})
  rows = row_files.of_runs(tmp_path)
  assert {r['run']: r['config']['optim.learning_rate'] for r in rows} == {'a': 2e-3, 'b': 1e-3}
  assert len(one(rows).lines) == 2
  (tmp_path / 'c').symlink_to(tmp_path / 'b')
  assert {r['run'] for r in row_files.read(tmp_path / 'c')} == {'c'}


def test_a_copy_of_a_run_beside_it_is_no_other_run(tmp_path):
  runs_of_configs(tmp_path, {'a': {'label': 'x'}, 'b': {'label': 'x', 'seed': 1}})
  alone = one(row_files.of_runs(tmp_path))
  for name in ('0', 'z'):
    shutil.copytree(tmp_path / 'a', tmp_path / name)
  scores = one(row_files.of_runs(tmp_path))
  assert scores.lines == alone.lines
  assert scores.seed_scores('x', 8) == alone.seed_scores('x', 8)
  assert any('repeat' in note for note in scores.notes)


def test_rows_measured_again_after_a_run_was_renamed_take_the_place_of_those_before(tmp_path):
  for name in ('a', 'b'):
    runs_of_configs(tmp_path, {name: {'label': 'x'}})
  again = row('x', 0, bits=5.0, run='b')
  (tmp_path / 'b' / 'eval.jsonl').unlink()
  for rows in ([row('x', 0, bits=1.0, run='old'), again], [again, row('x', 0, run='old')]):
    storage.append_rows(tmp_path / 'b' / 'eval.jsonl', rows)
    assert row_files.read(tmp_path / 'b') == [again, again]
    (tmp_path / 'b' / 'eval.jsonl').unlink()


def test_what_is_laid_over_a_run_that_was_renamed_has_its_parameters_still(tmp_path):
  runs_of_configs(tmp_path, {'base': {'label': 'base'}, 'laid': {'label': 'laid'}})
  start = {'run': 'base', 'step': 3}
  (tmp_path / 'laid' / 'eval.jsonl').unlink()
  storage.append_rows(tmp_path / 'laid' / 'eval.jsonl', [row('laid', run='laid', parameters=start)])
  (tmp_path / 'base').rename(tmp_path / 'moved')
  found = {r['run']: r.get('parameters') for r in row_files.read(tmp_path)}
  assert found == {'moved': None, 'laid': {'run': 'moved', 'step': 3}}
  (tmp_path / 'base').symlink_to(tmp_path / 'moved')  # of which both are one run
  found = {r['run']: r.get('parameters') for r in row_files.read(tmp_path)}
  assert len(found) == 2
  assert found['laid']['run'] in found


@pytest.mark.parametrize('is_there', [True, False])
def test_seeds_that_start_from_runs_which_started_from_others_are_one_line(is_there, tmp_path):
  """Named as configs/drope.py names them; the runs that they start from may be gone."""
  every = {}
  for seed in (0, 1):
    first, hexes = f'seed={seed},label=rope', f'{seed}a52ffac'
    second = f'seed={seed},label=drope,train.init_from.seed={seed},train.init_from.label=rope'
    nested = f'train.init_from.seed={seed},train.init_from.label=drope,train.init_from.train'
    nested += f'.init_from.seed={seed}-{hexes}'
    every[first] = {'seed': seed, 'label': 'rope'}
    every[second] = {'seed': seed, 'label': 'drope', 'train.init_from': f'runs/{first}'}
    third = {'seed': seed, 'label': 'temperature', 'train.init_from': f'runs/{second}'}
    every[f'seed={seed},label=temperature,{nested}'] = third
  if not is_there:
    every = {name: fields for name, fields in every.items() if fields['label'] == 'temperature'}
  runs_of_configs(tmp_path, every)
  scores = one(row_files.of_runs(tmp_path))
  assert scores.seed_scores('temperature', 8) == pytest.approx([1.0, 2.0])
  assert not any('differ in' in note for note in scores.notes)


def test_what_starts_from_runs_that_differ_in_more_than_their_seed_is_not_averaged(tmp_path):
  """Runs made by hand, whose names say nothing of seeds."""
  every = {}
  for number, steps in enumerate((600, 600, 700)):
    a, seed = f'a{number}', {'seed': number}
    every[a] = seed | {'label': 'start', 'train.steps': steps, 'eval.k': 8 + number}
    every[f'b{number}'] = seed | {'label': 'b', 'train.init_from': f'runs/{a}'}
    every[f'c{number}'] = seed | {'label': 'c', 'train.init_from': f'runs/b{number}'}
  runs_of_configs(tmp_path, every)
  scores = one(row_files.of_runs(tmp_path))
  by_line = {line: scores.seed_scores(line, 8) for line in scores.lines}
  for steps, expected in ((600, [1.0, 2.0]), (700, [3.0])):
    assert by_line[f'b, train.init_from {{train.steps: {steps}}}'] == pytest.approx(expected)
  assert sorted(len(scores) for line, scores in by_line.items() if line[0] == 'c') == [1, 2]
  assert 'runs of b differ in train.init_from, each value a line of its own' in scores.notes


def test_models_of_two_corpora_that_are_evaluated_on_one_are_not_averaged(tmp_path):
  """A folder of text may lie elsewhere on another machine."""
  corpora = ('/a/text', '/b/text', '/b/other', 'hf:a/text', 'hf:b/text')
  every = {f'r{n}': {'seed': n, 'label': 'r', 'data.corpus': x} for n, x in enumerate(corpora)}
  runs_of_configs(tmp_path, every)
  scores = one(row_files.of_runs(tmp_path))
  assert {line: len(scores.seed_scores(line, 8)) for line in scores.lines} == {
    'r, data.corpus text': 2,
    **{f'r, data.corpus {corpus}': 1 for corpus in ('other', 'hf:a/text', 'hf:b/text')},
  }


def test_runs_of_two_formulas_of_an_own_encoding_are_not_averaged(tmp_path):
  """One that keeps no hash, as of an earlier version, is taken as it is."""
  hashes = {'a': None, 'b': 'a' * 64, 'c': 'b' * 64}
  runs_of_configs(tmp_path, {run: {'seed': n, 'label': 'mine'} for n, run in enumerate(hashes)})
  for run in 'bc':
    storage.write_json(tmp_path / run / 'encodings.json', {'sha256': {'mine': hashes[run]}})
  assert one(row_files.of_runs(tmp_path)).lines == [
    *('mine', 'mine, code of mine aaaaaaaa', 'mine, code of mine bbbbbbbb')
  ]
  (tmp_path / 'c' / 'encodings.json').unlink()
  assert one(row_files.of_runs(tmp_path)).lines == ['mine']


@pytest.mark.parametrize('sha256', ['a' * 64, 'b' * 64])
def test_kept_rows_of_another_formula_are_not_averaged_with_those_of_runs(sha256, tmp_path):
  """What was kept has no configs, and beside its rows the code of all."""
  for folder in ('kept', 'runs'):
    (tmp_path / folder).mkdir()
  storage.append_rows(tmp_path / 'kept' / 'rows.jsonl', [row('mine', 0, bits=1.0)])
  storage.write_json(tmp_path / 'kept' / 'encodings.json', {'sha256': {'mine': 'a' * 64}})
  runs_of_configs(tmp_path / 'runs', {'r': {'seed': 1, 'label': 'mine'}})
  storage.write_json(tmp_path / 'runs' / 'r' / 'encodings.json', {'sha256': {'mine': sha256}})
  rows = [row for folder in ('kept', 'runs') for row in row_files.of_runs(tmp_path / folder)]
  codes = {f'mine, code of mine {digit * 8}' for digit in ('a', sha256[0])}
  assert {*one(rows).lines} == (codes if len(codes) == 2 else {'mine'})


def test_markdown_lists_every_seed_and_every_note():
  text = table_writers.markdown(
    made(rows_of({'a|b': {8: [1.0, 2.0]}, 'c': {8: [3.0, 'no_weight']}}))
  )
  assert '| a\\|b       | **1.500 ± 0.707** |' in text
  assert '- a head weighs no key but the first: c seed 1' in text
  assert [line.split('|')[-2].strip() for line in text.splitlines()[-4:]] == [
    '1.000',
    '2.000',
    '3.000',
    '—',
  ]
  assert 'Every seed' not in table_writers.markdown(made([row('rope')]))


@pytest.mark.parametrize('width', [40, 80, 140])
def test_a_terminal_of_any_width_shows_every_number_mark_and_head(width):
  bits = {name: {n: [2.0 + n / 99] * 2 for n in LENGTHS} for name in ('rope', 'transformer_xl')}
  scores = of_documents(bits, train_length=LENGTHS[0])
  wanted = dict(form='effective_lengths', metric='exact_match', protocols=['copy'])
  differences = next(table for table in make_tables(scores) if '[' in lines_of(table)[0][1].text)
  long_scores = make_tables(tasks(names=('copy',)), **wanted)
  long_name = 'a' * 60
  long_names = make_tables(rows_of({'rope': {8: [1.0]}, long_name: {8: [2.0]}}))
  for table in (differences, *long_scores, *make_tables(realistic()), *long_names):
    file = io.StringIO()
    Console(file=file, width=width).print(table_writers.on_screen(table, width))
    lines = file.getvalue().split('\n')
    assert '…' not in file.getvalue()
    assert max(map(len, lines)) <= width
    texts = [cell.text + cell.mark for line in lines_of(table) for cell in line]
    texts = [group.name for group in table.groups] + [text for text in texts if text != long_name]
    # a deviation is not parted from its sign
    words = lambda text: Counter(re.findall(r'± \S+|\S+', text))
    assert words(' '.join([*table.header, *texts])) <= words(file.getvalue())


def test_latex_escapes_names_and_balances():
  text = table_writers.latex(
    made(
      rows_of(
        {'a_b & 5% #1 ~ ^ {x} \\y $ < |': {8: [1.0, 2.0]}, 'c': {8: ['no_weight', 'no_weight']}}
      )
    ),
    'tab:a',
  )
  name = r'a\_b \& 5\% \#1 \textasciitilde{} \textasciicircum{} \{x\} \textbackslash{}y \$ $<$ '
  name += r'\textbar{}'
  assert name + r' & \textbf{1.500 $\pm$ 0.707} \\' in text
  assert r'c & --- \\' in text
  plain = text.replace(r'\{', '').replace(r'\}', '')
  assert plain.count('{') == plain.count('}')
  assert text.isascii()


def test_latex_has_a_short_caption_a_label_and_all_else_below(tmp_path):
  table = made(rows_of({'c': {8: [1.0, 'no_weight']}}))
  text = table_writers.latex(table, 'tab:a')
  assert '\\caption{Extrapolation, last\\_k}\n\\label{tab:a}\n' in text
  above, below = text.split('\\end{tabular}')
  assert 'Bits per byte; ' not in above
  assert 'Bits per byte; ' in below
  assert 'a head weighs no key but the first: c seed 1' in below
  table_writers.write([table, table], tmp_path, 'my_board')
  written = (tmp_path / 'table.tex').read_text(encoding='utf-8')
  labels = re.findall(r'\\label{(.*)}', written)
  assert labels == ['tab:my-board-extrapolation-last-k', 'tab:my-board-extrapolation-last-k-2']


def test_labels_of_latex_are_plain_and_each_is_there_once():
  labels = table_writers.latex_labels(['a b', 'A_b', 'a b 2', '±', '', 'a b', '%}{'], '_±')
  assert len({*labels}) == len(labels)
  assert all(re.fullmatch('tab:[a-z0-9-]*', label) for label in labels), labels


@pytest.mark.parametrize(
  ('corpus', 'shown'),
  [
    ('/home/me/texts', 'texts'),
    ('../texts/', 'texts'),
    ('hf:/home/me/texts:first=9', 'hf:texts:first=9'),
    ('hf:owner/name', 'hf:owner/name'),
    ('tfds:lm1b/subwords8k', 'tfds:lm1b/subwords8k'),
    ('task:copy/symbols=16', 'task:copy/symbols=16'),
  ],
)
def test_captions_name_a_folder_of_text_by_its_last_part(corpus, shown):
  table = made([r | {'corpus': corpus} for r in rows_of({'c': {8: [1.0]}})])
  assert f' {shown}, test split' in table.caption


def test_captions_name_folders_whole_whose_last_parts_are_the_same():
  scores = rows_of({'c': {8: [1.0]}, 'd': {8: [1.0]}})
  folders = {'c': '/a/wiki', 'd': '/b/wiki'}
  table = made([r | {'corpus': folders[r['label']]} for r in scores])
  assert '/a/wiki' in table.caption
  assert '/b/wiki' in table.caption


def test_csv_holds_every_seed_in_full_precision(tmp_path):
  rows = realistic()
  table_writers.write(make_tables(rows), tmp_path, 'a')
  with open(tmp_path / 'table.csv', encoding='utf-8') as file:
    lines = [line for line in csv.DictReader(file) if line['seed']]
  assert len(lines) == 2 * len(NINE) * 3 * len(LENGTHS)
  some = [r for r in lines if (r['encoding'], r['length'], r['control']) == ('rope', '512', '')]
  assert [float(r['bpb']) for r in some] == collect(rows)[0].seed_scores('rope', 512)
  assert {r['status'] for r in lines if r['encoding'] == 'learned'} == {'ok', 'beyond_table'}
  for name, start in (('table.md', '## Extrapolation, last_k'), ('table.tex', r'\begin{table}')):
    assert (tmp_path / name).read_text(encoding='utf-8').startswith(start)
