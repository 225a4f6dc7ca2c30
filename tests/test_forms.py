"""Forms of papers from rows alone: each by hand, and laws over all: what is missing is named,
remade is the same.
"""

import csv
import itertools
import json
import random
import re

import numpy as np
import pytest
from synthetic import extended, lines_of, realistic, row, rows_of, tasks, trained_at

from posenc_jax import config, storage
from posenc_jax.errors import UserError
from posenc_jax.reporting import significance, study, table_writers
from posenc_jax.reporting.layouts import LAYOUTS, costs, make_tables

BASE = 'configs/base.py'


def documents(bits, number=6, **fields):
  """Rows of {label: bits a seed}, of documents of different size and hardness."""
  return [
    row(
      label,
      seed,
      document=str(d),
      bits=value + 0.3 * d + 0.01 * ((seed + d) % 3),
      tokens=10 + d,
      **fields,
    )
    for label, seeds in bits.items()
    for seed, value in enumerate(seeds)
    for d in range(number)
  ]


CASES = {
  'lengths': (realistic(2), dict(baseline='rope')),
  'columns': (
    [r | {'corpus': c} for c in ('sotu', 'pg19') for r in realistic(2)],
    dict(by='corpus', baseline='rope'),
  ),
  'grid': (trained_at(), {}),
  'methods': (extended(3), dict(baseline='rope, as trained, L = 8, 100 steps')),
  'effective_lengths': (tasks(2), dict(metric='exact_match')),
  'ranks': (tasks(2), {}),
}


def texts(table):
  return [[field.text for field in line] for line in lines_of(table)]


def marks(table):
  return {
    line[0].text: ''.join(field.mark or '.' for field in line[1:]) for line in lines_of(table)
  }


# Laws


def test_every_form_has_a_case():
  assert CASES.keys() == LAYOUTS.keys()


@pytest.mark.parametrize('form', CASES)
def test_a_table_remade_from_rows_in_any_order_is_the_same_to_the_byte(form, tmp_path):
  rows, settings = CASES[form]
  runs = sorted({r['run'] for r in rows})
  written = []
  for seed in range(2):
    rows = [json.loads(json.dumps(r)) for r in rows]
    random.Random(seed).shuffle(rows)
    (tmp_path / str(seed)).mkdir()
    table_writers.write(make_tables(rows, runs, form=form, **settings), tmp_path / str(seed))
    written.append(
      [(tmp_path / str(seed) / f'table.{end}').read_bytes() for end in ('md', 'tex', 'csv')]
    )
  assert written[0] == written[1]


@pytest.mark.parametrize('form', CASES)
def test_a_run_that_is_missing_or_there_twice_is_named(form):
  rows, settings = CASES[form]
  runs = sorted({r['run'] for r in rows})
  assert not any(
    'no rows of run' in note
    for t in make_tables(rows, runs, form=form, **settings)
    for note in t.notes
  )
  left = make_tables([r for r in rows if r['run'] != runs[-1]], runs, form=form, **settings)
  assert any(f'no rows of run {runs[-1]}' in note for note in left[0].notes)
  if form != 'methods':  # there the run is all that has its seed
    label, seed = next((r['label'], r['seed']) for r in rows if r['run'] == runs[-1])
    assert any(
      'missing: ' in note and label in note and f'seed {seed}' in note for note in left[0].notes
    )
  again = [dict(r) for r in rows if r['run'] == runs[-1]]
  (doubled, *_) = make_tables(rows + again, runs, form=form, **settings)
  assert any(re.search(rf'repeat a key.*{re.escape(runs[-1])}', note) for note in doubled.notes)
  assert texts(doubled) == texts(make_tables(rows, runs, form=form, **settings)[0])
  other = [r | {'run': f'{r["run"]},optim.learning_rate=9'} for r in again]
  (mixed, *_) = make_tables(
    rows + other, form=form, **{k: v for k, v in settings.items() if k != 'baseline'}
  )
  assert any('several runs of one seed' in note for note in mixed.notes)


@pytest.mark.parametrize('form', CASES)
def test_latex_and_csv_have_all_columns_in_every_line(form, tmp_path):
  rows, settings = CASES[form]
  reference = (
    {'reference': [dict(line='A & B', values={512: 19.73}, source='them')]}
    if form not in ('ranks', 'effective_lengths')
    else {}
  )
  found = make_tables(rows, form=form, **settings, **reference)
  for table in found:
    text = table_writers.latex(table)
    body = re.sub(
      r'\\multicolumn.*', '', text[text.index(r'\toprule') : text.index(r'\bottomrule')]
    )
    lines = [line for line in body.splitlines() if line.endswith(r'\\')]
    assert len(lines) == 1 + len(lines_of(table))
    assert {len(re.findall(r'(?<!\\)&', line)) for line in lines} == {len(table.header) - 1}
    assert text.isascii()
    assert not re.search(r'[ }]-\d', text)  # a minus is no hyphen
    plain = text.replace(r'\{', '').replace(r'\}', '')
    assert plain.count('{') == plain.count('}')
    pipes = [line for line in table_writers.markdown(table).splitlines() if line.startswith('|')]
    assert len(pipes) >= len(lines_of(table)) + 2
  table_writers.write(found, tmp_path)
  with open(tmp_path / 'table.csv', encoding='utf-8') as file:
    header, *lines = csv.reader(file)
  assert {len(line) for line in lines} == {len(header)}
  seeds = {r['seed'] for r in rows}
  assert {int(line[header.index('seed')]) for line in lines if line[header.index('seed')]} == seeds


# Differences


def test_a_difference_its_interval_and_its_p_are_those_of_the_statistics():
  bits = {'rope': [2.0, 2.1, 2.05], 't5': [1.9, 1.95, 1.97]}
  rows = documents(bits)
  main, difference = make_tables(rows, baseline='rope')
  top, size = (np.zeros((2, 3, 6)) for _ in range(2))
  for r in rows:
    at = list(bits).index(r['label']), r['seed'], int(r['document'])
    top[at], size[at] = r['nats'], r['bytes']
  link = lambda ratio: ratio / np.log(2)
  low, high = significance.interval(
    (top[1], size[1]), (top[0], size[0]), link, significance.resamples(6)
  )
  p = significance.paired_t(*(link(top[i].sum(-1) / size[i].sum(-1)) for i in (1, 0)))
  mean = significance.score(top[1], size[1], link) - significance.score(top[0], size[0], link)
  assert texts(difference) == [['t5', f'{mean:+.3f} [{low:+.3f}, {high:+.3f}]']]
  (found,) = difference.records
  assert [found[name] for name in ('difference', 'low', 'high')] == pytest.approx(
    [mean, low, high], rel=1e-12
  )
  assert (found['p'], found['p_holm'], found['documents']) == (
    pytest.approx(p),
    pytest.approx(p),
    6,
  )
  assert (
    '95 % percentile interval of a paired bootstrap over 6 documents (10,000 resamples'
    in difference.caption
  )
  assert 'Holm' in main.caption


def test_planted_differences_are_marked_and_others_are_not():
  noise = np.random.default_rng(0)
  hard = noise.normal(0, 0.1, 5)  # what a seed does to all lines alike
  near = lambda shift: list(2.0 + hard + shift + noise.normal(0, 0.01, 5))
  bits = {'better': near(-0.2), 'rope': near(0), 'same': near(0), 'worse': near(0.2)}
  main, difference = make_tables(documents(bits), baseline='rope')
  assert marks(main) == {'rope': '.', 'same': '.', 'better': '*', 'worse': '†'}
  assert marks(difference) == {'same': '.', 'better': '*', 'worse': '†'}
  (main, _) = make_tables(documents(bits), form='columns', baseline='rope')
  assert [field.mark for field in lines_of(main)[0]] == ['', '*', '', '', '†']
  more = [r | {'metric': 'exact_match', 'value': r['bpb'], 'nats': None} for r in documents(bits)]
  # more is better
  assert marks(make_tables(more, metric='exact_match', baseline='rope')[0])['better'] == '†'


def test_marks_are_corrected_for_the_lines_of_a_column():
  rng = np.random.default_rng(1)
  bits = {'rope': [2.0] * 5} | {
    f'line{i}': list(rng.normal(2 - 0.01 * i, 0.02, 5)) for i in range(8)
  }
  difference = make_tables(documents(bits), baseline='rope')[1]
  ps = [r['p'] for r in difference.records]
  assert [r['p_holm'] for r in difference.records] == significance.holm(ps)
  assert any(r['p'] < significance.ALPHA <= r['p_holm'] for r in difference.records)
  assert any(r['p_holm'] < significance.ALPHA for r in difference.records)
  is_marked = {r['encoding']: r['p_holm'] < significance.ALPHA for r in difference.records}
  assert {line: mark != '.' for line, mark in marks(difference).items()} == is_marked
  alone = make_tables(
    [r for r in documents(bits) if r['label'] in ('rope', 'line0')], baseline='rope'
  )[1]
  assert alone.records[0]['p_holm'] == alone.records[0]['p'] == ps[0]


def test_what_is_not_paired_is_named_and_not_compared():
  rows = documents({'rope': [2.0, 2.1, 2.2], 't5': [1.9, 2.0, 2.2], 'alibi': [1.8, 1.9]})
  main, difference = make_tables(rows, baseline='rope')
  assert 'compared with rope over the seeds that both have: alibi at 8 over 0, 1' in main.notes
  rows = [
    r | ({'document': 'other'} if (r['label'], r['document']) == ('t5', '3') else {}) for r in rows
  ]
  main, difference = make_tables(rows, baseline='rope')
  assert 'not compared with rope, as seeds or scored tokens differ: t5 at 8' in main.notes
  assert texts(difference)[1] == ['t5', '—']
  # other tokens of the same documents
  for change in ({'position': 9}, {'overrides': {'max(eval.lengths)': 64}}):
    moved = [
      r | change if r['label'] == 't5' else r
      for r in documents({'rope': [2.0, 2.1], 't5': [1.9, 2.0]})
    ]
    main, *_ = make_tables(moved, baseline='rope')
    assert any(note.startswith('not compared with rope') and 't5' in note for note in main.notes)


@pytest.mark.parametrize('form', ['lengths', 'columns'])
@pytest.mark.parametrize(
  ('change', 'line'),
  [
    ({'overrides': {'encoding.base': 5.0}}, 'rope'),
    ({'step': 50}, 'rope, step 100'),
    ({'step': 200, 'run': 'another'}, 'rope, step 200'),
    ({'k': 2}, 'rope'),
  ],
)
def test_one_more_evaluation_leaves_the_baseline_what_it_was(form, change, line):
  """It divides the baseline's label into two lines, one of which is meant."""
  rows = documents({'rope': [2.0, 2.1, 2.2], 't5': [1.0, 1.1, 1.2]})
  some = rows if line == 'rope, step 200' else [r for r in rows if r['seed'] == 0]
  again = [r | change for r in some if r['label'] == 'rope']
  made = make_tables(rows + again, form=form, metric='bpb', baseline='rope')
  assert any(f'difference from {line}, mean' in table.caption for table in made)
  elsewhere = [r | {'protocol': 'non_overlapping', 'k': None} for r in rows if r['label'] == 't5']
  made = make_tables(rows + elsewhere, form=form, metric='bpb', baseline='rope')
  assert any(
    'not compared with rope, which has no rows here' in note
    for table in made
    for note in table.notes
  )
  assert any('difference from rope, mean' in table.caption for table in made)
  with pytest.raises(UserError, match=r"table: baseline='roep' has no rows; did you mean 'rope'\?"):
    make_tables(rows + again, form=form, baseline='roep')


def test_one_seed_gives_an_interval_but_no_mark():
  main, difference = make_tables(documents({'rope': [2.0], 't5': [1.0]}), baseline='rope')
  assert marks(main) == {'rope': '.', 't5': '.'}
  assert re.fullmatch(
    r'-1.000 \[-1\.0\d\d, -0\.9\d\d\]|-1.000 \[-1.000, -1.000\]', texts(difference)[0][1]
  )
  assert 'One seed: nothing is tested against rope.' in main.caption


def test_without_single_documents_there_is_no_interval():
  rows = [
    row(label, seed, bits=bits, document=None)
    for label, seed, bits in (('a', 0, 2), ('a', 1, 2.2), ('b', 0, 1))
  ]
  difference = make_tables([*rows, row('b', 1, bits=1.1, document=None)], baseline='a')[1]
  assert texts(difference) == [['b', '-1.050']]
  assert 'No intervals' in difference.caption


def test_over_very_many_documents_there_is_no_interval(monkeypatch):
  monkeypatch.setattr(significance, 'MOST_DOCUMENTS', 5)
  rows = documents({'rope': [2.0, 2.1], 't5': [1.9, 2.1]}, number=6)
  main, difference = make_tables(rows, baseline='rope')
  assert 'no intervals over more than 5 documents: t5 at 8' in main.notes
  assert '[' not in texts(difference)[0][1]
  assert difference.records[0]['p'] is not None


# Each form


def test_columns_has_a_group_for_each_corpus_or_protocol_and_the_best_of_each_line():
  bits = {'rope': {8: [1.0, 1.0], 16: [3.0, 3.0]}, 't5': {8: [2.0, 2.0], 16: [2.0, 2.0]}}
  rows = rows_of(bits) + rows_of(bits | {'alibi': {8: [0.0, 0.0]}}, corpus='pg19')
  (table,) = make_tables(rows, form='columns', by='corpus', metric='bpb')
  assert table.header == ['length', 'alibi', 'rope', 't5']
  assert [group.name for group in table.groups] == ['pg19, last_k', 'sotu, last_k']
  second, first = (
    [[field.text for field in line] for line in group.lines] for group in table.groups
  )
  assert first == [
    ['8 (L)', '—', '1.000 ± 0.000', '2.000 ± 0.000'],
    ['16', '—', '3.000 ± 0.000', '2.000 ± 0.000'],
  ]
  assert [[f.is_best for f in line] for line in table.groups[1].lines] == [
    [0, 0, 1, 0],
    [0, 0, 0, 1],
  ]
  assert second[0][1] == '0.000 ± 0.000'
  assert {(r['corpus'], r['encoding']) for r in table.records} >= {
    ('sotu', 'rope'),
    ('pg19', 'alibi'),
  }
  assert 'pg19, last_k: missing: alibi at 16' in table.notes
  assert [title for title, *_ in table.per_seed] == [
    'Every seed, pg19, last_k:',
    'Every seed, sotu, last_k:',
  ]
  both = rows_of(bits) + rows_of(bits, protocol='non_overlapping', k=None)
  (table,) = make_tables(both, form='columns', metric='bpb')
  assert [group.name for group in table.groups] == ['last_k', 'non_overlapping']
  assert 'the last 4 tokens' in table.caption
  assert 'windows that do not overlap' in table.caption


@pytest.mark.parametrize(
  ('form', 'settings'), [('columns', {'by': 'corpus', 'metric': 'exact_match'}), ('ranks', {})]
)
def test_corpora_with_runs_of_their_own_miss_no_others(form, settings):
  rows = [r | {'corpus': r['protocol'], 'run': f'{r["protocol"]},{r["run"]}'} for r in tasks(2)]
  runs = sorted({r['run'] for r in rows})
  assert make_tables(rows, runs, form=form, **settings)[0].notes == []
  (table,) = make_tables([r for r in rows if r['run'] != runs[0]], runs, form=form, **settings)
  assert table.notes == [f'no rows of run {runs[0]}', 'copy, copy: missing: alibi seed 0']
  one = [r | {'protocol': 'copy'} for r in rows]  # options of a task make corpora, not protocols
  (table,) = make_tables(one, form='ranks')
  assert [line[0].text for line in lines_of(table)[:2]] == ['copy, copy', 'sort, copy']


def test_the_grid_ends_with_the_models_trained_at_each_length():
  (table,) = make_tables(trained_at(), form='grid', metric='bpb')
  assert table.header == ['training length', '32', '64', '128', '256']
  assert [group.name for group in table.groups] == ['alibi', 't5']
  for group in table.groups:
    names, *columns = zip(*([field.text for field in line] for line in group.lines), strict=True)
    assert names == ('L = 32', 'L = 64', 'L = 128', 'trained at the evaluation length')
    for i, column in enumerate(columns):
      assert [text == '—' for text in column[:3]] == [i < j for j in range(3)]
      assert column[3] == (column[i] if i < 3 else '—')
  assert table.notes == []  # a model is not asked for less than it was trained at


def test_methods_are_lines_and_trainings_are_groups():
  change = {'train_length': 32, 'step': 10, 'label': 'yarn'}
  rows = extended() + [
    r | change | {'run': f'y{r["seed"]}'} for r in extended() if r['overrides'] is None
  ]
  (table, difference) = make_tables(
    rows, form='methods', metric='bpb', baseline='rope, as trained, L = 8, 100 steps'
  )
  assert [(group.name, [line[0].text for line in group.lines]) for group in table.groups] == [
    (
      'L = 8, 100 steps',
      ['rope, as trained', 'rope, rope_type=linear, factor=4', 'rope, rope_type=yarn, factor=4'],
    ),
    ('L = 32, 10 steps', ['yarn, as trained']),
  ]
  assert [line[0].text for line in lines_of(difference)] == [
    'rope, rope_type=linear, factor=4, L = 8, 100 steps',
    'rope, rope_type=yarn, factor=4, L = 8, 100 steps',
    'yarn, as trained, L = 32, 10 steps',
  ]
  assert table.notes == []
  # renamed by one more evaluation
  for baseline in ('rope, L = 8, 100 steps', 'rope, as trained, L = 8, 100 steps'):
    longer = [r | {'overrides': {'max(eval.lengths)': 99}} for r in rows if r['overrides'] is None]
    difference = make_tables(rows + longer, form='methods', baseline=baseline)[1]
    assert difference.title.startswith(
      'Differences from rope, as trained, L = 8, 100 steps, last_k'
    )
  (table,) = make_tables([r for r in rows if r['overrides'] is None], form='methods')
  assert [line[0].text for line in lines_of(table)] == ['rope', 'yarn']
  other = [r | {'overrides': {**(r['overrides'] or {}), 'eval.documents': 3}} for r in extended()]
  (table,) = make_tables(extended() + other, form='methods')
  assert 'mixed overrides, each a line of its own: null, {eval.documents: 3}' in table.notes


def test_ranks_by_hand():
  def of(task, **values):
    fields = dict(protocol=task, metric='exact_match', k=None, document=None)
    return [
      row(label, seed, length, value=value / 2 if length == 32 else value, **fields)
      for label, seeds in values.items()
      for seed, value in enumerate(seeds)
      for length in (8, 16, 32)  # 8 is the training length and does not count
    ]

  rows = of('copy', a=[1.0, 0.8], b=[0.4, 0.4], c=[0.0, 0.0]) + of(
    'sort', a=[0.2, 0.2], b=[0.8, 0.8], c=[0.2, 0.2]
  )
  rows += of('tally', a=[0.4], b=[0.4])
  (table,) = make_tables(rows, form='ranks')
  assert texts(table) == [
    ['copy', '0.675 ± 0.106', '0.300 ± 0.000', '0.000 ± 0.000'],
    ['sort', '0.150 ± 0.000', '0.600 ± 0.000', '0.150 ± 0.000'],
    ['tally', '0.300', '0.300', '—'],
    ['mean rank', '1.75', '1.50', '2.75'],  # 1 and 2.5; 2 and 1; 3 and 2.5
    ['mean reciprocal rank', '0.70', '0.75', '0.37'],
  ]
  assert 'tally is left out of the ranks: no score of c' in table.notes
  assert ['copy', '1', '0.600', '0.300', '0.000'] in table.per_seed[0][2]


def test_chance_is_printed_and_never_bold():
  (table,) = make_tables(tasks(names=['copy']), metric='exact_match')
  assert texts(table)[-1] == ['chance', *['0.100'] * 6]
  assert not any(field.is_best for field in lines_of(table)[-1])
  shares = [
    r | {'metric': 'token_accuracy'} if r['metric'] != 'chance' else r
    for r in tasks(names=['copy'])
  ]
  (table,) = make_tables(shares, metric='token_accuracy')
  assert texts(table)[-1][0] != 'chance'  # that of exact matches is not that of tokens
  odd = [
    r | {'value': r['seed'] / 10} if r['metric'] == 'chance' else r for r in tasks(names=['copy'])
  ]
  assert texts(make_tables(odd, metric='exact_match')[0])[-1] == ['chance', *['—'] * 6]


def test_any_metric_of_rows_is_printed_but_only_known_ones_have_a_best():
  (table,) = make_tables([row('a', metric='brier', value=0.25)], metric='brier')
  assert texts(table) == [['a', '0.250']]
  assert not lines_of(table)[0][1].is_best
  with pytest.raises(UserError, match=r"metric='brier' with a baseline"):
    make_tables([row('a', metric='brier', value=0.25)], metric='brier', baseline='a')


def test_what_is_published_stands_apart():
  reference = [
    dict(line='ALiBi, 247M', values={512: 19.73, 1024: 18.81}, source='Press et al. 2021, table 5'),
    dict(line='T5', values={512: '19.65'}, source='Press et al. 2021, table 2'),
  ]
  rows = rows_of({'rope': {8: [1.0, 2.0]}})
  ours, theirs = make_tables(rows, reference=reference)
  assert ours == make_tables(rows)[0]
  assert theirs.header == ['encoding', '512', '1024', 'source']
  assert texts(theirs)[1] == ['T5', '19.65', '—', 'Press et al. 2021, table 2']
  assert not any(field.is_best or field.mark for line in lines_of(theirs) for field in line)
  assert theirs.records == []
  assert 'published, other scale' in table_writers.latex(theirs)


# Costs


def run_of(folder, name, timing, **settings):
  (folder / name).mkdir(parents=True)
  run = config.load(BASE, settings)
  storage.write_json(folder / name / 'config.json', config.to_json(run))
  storage.append_rows(folder / name / 'timing.jsonl', timing)
  return name


def test_costs_are_read_from_runs_and_what_differs_is_named(tmp_path):
  sizes = dict(parameters=1_000_000, encoding_parameters=0)
  steps = [
    dict(step=n, seconds_per_step=s) for n, s in ((1, 9.0), (20, 0.010), (40, 0.012), (60, 0.020))
  ]
  rope, t5 = {'encoding.name': 'rope'}, {'encoding.name': 't5', 'train.steps': 300}
  larger = dict(parameters=1_100_000, encoding_parameters=100_000)
  made = [
    run_of(tmp_path, 'a0', [{'step': 0, **sizes}, *steps], **rope),
    run_of(tmp_path, 'a1', [{'step': 0, **sizes}, *steps], **rope, seed=1),
    run_of(tmp_path, 'b', [{'step': 0, **larger}, *steps], **t5),
    run_of(tmp_path, 'c', [{'step': 0}], label='old'),
  ]
  rows = costs.read(tmp_path)
  (table,) = costs.tables(rows, [*made, 'd'])
  assert texts(table) == [
    ['rope', '1,000,000', '0', '2,457,600', '12.0'],  # step 1, which compiles, does not count
    ['t5', '1,100,000', '100,000', '1,228,800', '12.0'],
    ['old', '—', '—', '2,457,600', '—'],
  ]
  assert (
    "the run's own training: without that of a run it started from, with the padding of tasks"
    in table.caption
  )
  assert 'Unequal tokens: 1,228,800 to 2,457,600, 100.0 % more.' in table.caption
  assert 'Unequal parameters: 1,000,000 to 1,100,000, 10.0 % more.' in table.caption
  assert table.notes == ['no costs of run d', 'no parameter count in timing.jsonl: c']
  assert (
    costs.scale(rows, made[:3])
    == ' 1 to 1.1 million parameters, 1.23 to 2.46 million tokens a run, trained in float32.'
  )
  assert costs.scale([], []) == ''
  costs.write(tmp_path / 'a0', rows)
  assert costs.read(tmp_path / 'a0') == rows  # what is kept of runs says the same
  assert costs.tables(costs.read(tmp_path / 'b'), []) == []


def test_a_report_prints_costs_and_says_the_scale(tmp_path, capsys):
  for seed, label in itertools.product(range(2), ('rope', 't5')):
    timing = [
      dict(step=0, parameters=1000, encoding_parameters=8),
      dict(step=20, seconds_per_step=0.5),
    ]
    name = run_of(tmp_path, f'{label}{seed}', timing, seed=seed, **{'encoding.name': label})
    storage.append_rows(
      tmp_path / name / 'eval.jsonl', [row(label, seed, run=name, bits=2.0 + seed)]
    )
  study.Report(tmp_path, tables=[{}, {'form': 'columns'}]).write_tables()
  text = (tmp_path / 'table.md').read_text(encoding='utf-8')
  assert text.count('0.001 million parameters, 2.46 million tokens a run, trained in float32.') == 2
  assert '## Cost' in text
  assert re.search(r'\| rope +\| +1,000 \| +8 \| +2,457,600 \| +500\.0 \|', text)
  assert 'Equal tokens: 2,457,600. Equal parameters: 1,000.' in capsys.readouterr().out.replace(
    '\n', ' '
  )
  before = {name: (tmp_path / f'table.{name}').read_bytes() for name in ('md', 'tex', 'csv')}
  kept = tmp_path / 'kept'
  kept.mkdir()
  (kept / 'rows.jsonl').write_bytes(
    b''.join(path.read_bytes() for path in sorted(tmp_path.glob('*/eval.jsonl')))
  )
  (kept / 'costs.jsonl').write_bytes((tmp_path / 'costs.jsonl').read_bytes())
  study.Report(kept, tables=[{}, {'form': 'columns'}]).write_tables()
  assert before == {name: (kept / f'table.{name}').read_bytes() for name in before}
