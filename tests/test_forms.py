"""Forms of papers from rows alone: each by hand, and laws over all: what is missing is named,
remade is the same.
"""

import csv
import itertools
import json
import random
import re
import shutil

import pytest
from synthetic import extended, lines_of, planted, realistic, row, rows_of, tasks, trained_at

from posenc_jax import config, storage
from posenc_jax.errors import UserError
from posenc_jax.reporting import cost_table, costs, places, study, table_writers
from posenc_jax.reporting.table_forms import FORMS, make_tables

BASE = 'configs/base.py'


CASES = {
  'lengths': (realistic(2), dict(baseline='rope')),
  'training_lengths': (trained_at(), {}),
  'methods': (extended(3), dict(baseline='rope, as trained, L = 8, 100 steps')),
  'distances': (planted(), {}),
  'effective_lengths': (tasks(2), dict(metric='exact_match')),
}


def texts(table):
  return [[field.text for field in line] for line in lines_of(table)]


# Laws


def test_every_form_has_a_case():
  assert CASES.keys() == FORMS.keys()


@pytest.mark.parametrize('form', CASES)
def test_a_table_remade_from_rows_in_any_order_is_the_same_to_the_byte(form, tmp_path):
  rows, settings = CASES[form]
  runs = sorted({r['run'] for r in rows})
  written = []
  for seed in range(2):
    rows = [json.loads(json.dumps(r)) for r in rows]
    random.Random(seed).shuffle(rows)
    (tmp_path / str(seed)).mkdir()
    tables = make_tables(rows, runs, form=form, **settings)
    table_writers.write(tables, tmp_path / str(seed), 'a')
    written.append(
      [(tmp_path / str(seed) / f'table.{end}').read_bytes() for end in ('md', 'tex', 'csv')]
    )
  assert written[0] == written[1]


def test_of_many_missing_runs_the_first_is_named():
  rows, settings = CASES['lengths']
  planned = [*sorted({r['run'] for r in rows}), *(f'gone {n}' for n in range(6))]
  (note,) = (
    n for n in make_tables(rows, planned, form='lengths', **settings)[0].notes if 'no rows' in n
  )
  assert note == f'no rows of 6 of {len(planned)} runs: gone 0 and others'
  few = make_tables(rows, planned[:-1], form='lengths', **settings)[0].notes
  assert f'no rows of 5 runs: {"; ".join(planned[-6:-1])}' in few


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


@pytest.mark.parametrize('control', ['windowed', 'shuffled_far'])
@pytest.mark.parametrize('form', CASES)
def test_a_control_that_ends_before_the_longest_length_changes_no_score(form, control):
  """As in a run that was stopped within its evaluation."""
  rows, settings = CASES[form]
  plain = [r for r in rows if r['control'] is None]
  longest = max(r['length'] for r in plain)
  shorter = [r | {'control': control} for r in plain if r['length'] < longest]
  both, alone = (make_tables(rows, form=form, **settings) for rows in (plain + shorter, plain))
  assert texts(both[0]) == texts(alone[0])


@pytest.mark.parametrize('form', CASES)
def test_latex_and_csv_have_all_columns_in_every_line(form, tmp_path):
  rows, settings = CASES[form]
  reference = (
    {'reference': [dict(line='A & B', values={512: 19.73}, source='them')]}
    if form not in ('distances', 'effective_lengths')
    else {}
  )
  found = make_tables(rows, form=form, **settings, **reference)
  for table in found:
    text = table_writers.latex(table, 'tab:a')
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
  table_writers.write(found, tmp_path, 'a')
  with open(tmp_path / 'table.csv', encoding='utf-8') as file:
    header, *lines = csv.reader(file)
  assert {len(line) for line in lines} == {len(header)}
  kinds = {line[header.index('table')] for line in lines}
  assert kinds <= {'scores', 'differences', 'effective_lengths', 'long_scores'}
  seeds = {r['seed'] for r in rows}
  assert {int(line[header.index('seed')]) for line in lines if line[header.index('seed')]} == seeds


# Each form


def test_a_table_of_training_lengths_ends_with_the_models_trained_at_each_length():
  (table,) = make_tables(trained_at(), form='training_lengths', metric='bpb')
  assert table.header == ['training length', '32', '64', '128', '256']
  assert [group.name for group in table.groups] == ['alibi', 't5']
  for group in table.groups:
    names, *columns = zip(*([field.text for field in line] for line in group.lines), strict=True)
    assert names == ('L = 32', 'L = 64', 'L = 128', 'trained at the evaluation length')
    for i, column in enumerate(columns):
      assert [text == '—' for text in column[:3]] == [i < j for j in range(3)]
      assert column[3] == (column[i] if i < 3 else '—')
  assert table.notes == []  # a model is not asked for less than it was trained at


def test_of_all_training_lengths_of_all_encodings_one_is_the_best():
  bits = {('alibi', 8): 2.0, ('alibi', 16): 1.5, ('t5', 8): 1.9, ('t5', 16): 1.6}
  rows = [
    row(label, 0, 16, value, run=f'{label} {length}', train_length=length)
    for (label, length), value in bits.items()
  ]
  (table,) = make_tables(rows, form='training_lengths', metric='bpb')
  best = [
    (group.name, line[0].text) for group in table.groups for line in group.lines if line[1].is_best
  ]
  assert best == [('alibi', 'L = 16')]


def test_a_table_of_training_lengths_does_not_add_up_a_training_after_two_numbers_of_steps():
  longer = [r | {'step': 2 * r['step']} for r in trained_at() if r['train_length'] == 64]
  rows = [*trained_at(), *longer]
  (table,) = make_tables(rows, form='training_lengths', metric='bpb')
  for group in table.groups:
    assert [line[0].text for line in group.lines] == [
      *('L = 32', 'L = 64, 50 steps', 'L = 64, 100 steps', 'L = 128'),
      'trained at the evaluation length',
    ]
  (once,) = make_tables(trained_at(), form='training_lengths', metric='bpb')
  assert [f.text for f in table.groups[0].lines[1][1:]] == [
    f.text for f in once.groups[0].lines[1][1:]
  ]


def test_methods_are_lines_and_trainings_are_groups():
  change = {'train_length': 32, 'step': 10, 'label': 'yarn'}
  rows = extended() + [
    r | change | {'run': f'y{r["seed"]}'} for r in extended() if r['overrides'] is None
  ]
  table, *_ = make_tables(rows, form='methods', metric='bpb')
  assert [(group.name, [line[0].text for line in group.lines]) for group in table.groups] == [
    (
      'L = 8, 100 steps',
      [
        'rope, as trained',
        'rope, scaling.factor=4, scaling.rope_type=linear',
        'rope, scaling.factor=4, scaling.rope_type=yarn',
      ],
    ),
    ('L = 32, 10 steps', ['yarn, as trained']),
  ]
  assert table.notes == []
  # renamed by one more evaluation
  for baseline in ('rope, L = 8, 100 steps', 'rope, as trained, L = 8, 100 steps'):
    longer = [r | {'overrides': {'max(eval.lengths)': 99}} for r in rows if r['overrides'] is None]
    difference = make_tables(rows + longer, form='methods', baseline=baseline)[1]
    assert difference.title.startswith('Differences from rope, as trained, L = 8, 100 steps up to')
  table, *_ = make_tables([r for r in rows if r['overrides'] is None], form='methods')
  assert [line[0].text for line in lines_of(table)] == ['rope', 'yarn']
  other = [r | {'overrides': {**(r['overrides'] or {}), 'eval.documents': 3}} for r in extended()]
  table, *_ = make_tables(extended() + other, form='methods')
  assert 'mixed overrides, each a line of its own: null, {eval.documents: 3}' in table.notes


def test_of_methods_the_baseline_is_the_model_as_trained():
  """Also where a method has more scores than it."""
  rows = [row('rope', seed, n) for seed in range(2) for n in (8, 16)]
  yarn = {'encoding.scaling': {'rope_type': 'yarn'}}
  rows += [row('rope', seed, n, overrides=yarn) for seed in range(2) for n in (8, 16, 32)]
  titles = [table.title for table in make_tables(rows, form='methods', metric='bpb')]
  assert 'Differences from rope, as trained, L = 8, 100 steps up to L, last_k' in titles


@pytest.mark.parametrize(
  ('baseline', 'lines'),
  [
    ({'rope': 'rope'}, ['linear', 'yarn']),
    ({'rope, scaling.factor=4, scaling.rope_type=yarn': 'rope, as trained'}, ['yarn']),
  ],
)
def test_a_label_with_a_baseline_of_its_own_is_that_of_all_its_methods(baseline, lines):
  """The name of a method alone counts, too."""
  made = make_tables(extended(), form='methods', metric='bpb', baseline=baseline)
  titles = {table.title: table for table in made}
  table = titles['Differences from rope, as trained, L = 8, 100 steps up to L, last_k']
  names = [line[0].text for line in lines_of(table) if 'rope_type' in line[0].text]
  assert [name.partition('rope_type=')[2].partition(',')[0] for name in names] == lines


def test_longer_windows_of_one_run_leave_the_others_in_the_table():
  """Those that lack the windows of a table are named: they have rows, and are not missing."""
  rows = planted()
  more = [r | {'length': 64} for r in rows if (r['label'], r['seed']) == ('alibi', 0)]
  runs = sorted({r['run'] for r in rows})
  before, after = (make_tables(some, runs, form='distances') for some in (rows, rows + more))
  assert [lines_of(table) for table in after] == [lines_of(table) for table in before]
  assert [table.notes for table in after] == [table.notes for table in before]
  few = [r for r in rows if (r['label'], r['seed']) != ('alibi', 0)]
  (table,) = make_tables(few + more, runs, form='distances')
  assert not any('no rows of run' in note for note in table.notes)
  assert 'no planted in windows of 32 tokens: alibi seed 0' in table.notes


def test_text_between_names_is_a_column_of_its_own():
  rows = [r for r in planted() if (r['label'], r['position']) != ('fox', None)]
  (table,) = make_tables(rows, form='distances')
  assert table.header == ['encoding', 'text', '0', '16', '32', '64']
  assert 'text: the bytes between names.' in table.caption
  assert 'missing: fox at text' in table.notes
  assert {record['distance'] for record in table.records} == {'', 0, 16, 32, 64}
  (without,) = make_tables([r for r in rows if r['position'] is not None], form='distances')
  assert 'text' not in without.header
  assert 'between names' not in without.caption


def test_a_caption_calls_step_0_no_training():
  trained, imported = rows_of({'a': {8: [1.0]}}), {'step': 0, 'source': '0a' * 32}
  read = [r | {'step': 0, 'label': name, 'run': name} for r in trained for name in 'bc']
  other = [r | imported | {'label': 'd', 'run': 'd'} for r in trained]
  of = lambda *rows: make_tables([r for some in rows for r in some])[0].caption
  assert '. Trained for 100 steps at length L = 8; evaluated' in of(trained)
  said = (
    'Trained for 100 steps at length L = 8, but for 2 lines with the parameters of other runs; '
  )
  assert said in of(trained, read)
  assert '. Lines of imported models, not trained here; L = 8; evaluated' in of(other)
  both = of(trained, other)
  assert 'Trained for 100 steps at length L = 8, but for 1 line of imported models; ' in both
  assert '. Lines with the parameters of other runs, not trained here; L = 8; ' in of(read)


def test_chance_is_printed_and_never_bold():
  table, *_ = make_tables(tasks(names=['copy']), metric='exact_match')
  assert texts(table)[-1] == ['chance', *['0.100'] * 6]
  assert not any(field.is_best for field in lines_of(table)[-1])
  shares = [
    r | {'metric': 'token_accuracy'} if r['metric'] != 'chance' else r
    for r in tasks(names=['copy'])
  ]
  table, *_ = make_tables(shares, metric='token_accuracy')
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
  assert 'published, other scale' in table_writers.latex(theirs, 'tab:a')


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
  (table,) = cost_table.cost_tables(rows, [*made, 'd'])
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
  (table,) = cost_table.cost_tables(rows, [*made, *(f'd{n}' for n in range(9))])
  assert table.notes[0] == 'no costs of 9 of 13 runs: d0 and others'
  assert (
    cost_table.scale(rows, made[:3])
    == ' 1 to 1.1 million parameters, 1.23 to 2.46 million tokens a run, trained in float32.'
  )
  tokens = dict(parameters=None, compute_dtype='bfloat16')
  for number, printed in ((999.4, '999'), (999.6, '1,000'), (21_099.6, '21,100')):
    scale = cost_table.scale([tokens | {'tokens': round(number * 1e6)}], [])
    assert scale == f' {printed} million tokens a run, trained in bfloat16.'
  assert cost_table.scale([], []) == ''
  costs.write(tmp_path / 'a0', rows)
  assert costs.read(tmp_path / 'a0') == rows  # what is kept of runs says the same
  costs.write(tmp_path, rows)
  for run in ('a0', 'a1'):
    shutil.rmtree(tmp_path / run)
  assert {row['run'] for row in costs.read(tmp_path)} == {'b', 'c'}  # none of runs that are gone
  storage.append_rows(tmp_path / 'rows.jsonl', [row('rope', run='a0')])
  kept = [row for row in rows if row['run'] != 'a1']
  assert sorted(map(repr, costs.read(tmp_path))) == sorted(map(repr, kept))  # but of kept rows
  assert cost_table.cost_tables(costs.read(tmp_path / 'b'), []) == []


def test_the_onset_is_where_half_the_bits_of_planted_names_are_first_known(tmp_path):
  """62 letters may stand at a place: these are 5.95 bits."""
  name = run_of(tmp_path, 'a', [{'step': 0}], **{'train.batch': 4, 'train.length': 32})
  (row,) = costs.read(tmp_path)
  assert row['onset_tokens'] is None
  metrics = tmp_path / name / 'metrics.jsonl'
  storage.append_rows(metrics, [{'step': 5, 'loss': 1.0}])
  for step, bits, onset in ((10, 5.9, None), (20, 3.0, None), (30, 2.9, 30), (40, 1.0, 30)):
    storage.append_rows(metrics, [{'step': step, 'split': 'validation', 'recall_bits': bits}])
    (row,) = costs.read(tmp_path)
    assert row['onset_tokens'] == (onset and onset * 4 * 32)


def test_a_report_reads_the_rows_of_its_folder_once(tmp_path, monkeypatch):
  storage.append_rows(tmp_path / 'rows.jsonl', rows_of({'rope': {8: [1.0], 16: [1.0]}}))
  read, of_runs = [], study.row_files.of_runs
  monkeypatch.setattr(study.row_files, 'of_runs', lambda folder: read.append(1) or of_runs(folder))
  report = study.Report(tmp_path)
  report.write_tables()
  report.write_figures()
  assert len(read) == 1
  (place,) = places.read([tmp_path])
  assert place.report.rows == report.rows
  assert len(read) == 2


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
  study.Report(tmp_path, tables=[{}, {'form': 'training_lengths'}]).write_tables()
  text = (tmp_path / 'table.md').read_text(encoding='utf-8')
  assert text.count('0.001 million parameters, 2.46 million tokens a run, trained in float32.') == 2
  assert '## Cost' in text
  assert re.search(r'\| rope +\| +1,000 \| +8 \| +2,457,600 \| +500\.0 \|', text)
  assert 'Equal tokens: 2,457,600. Equal parameters: 1,000.' in capsys.readouterr().out.replace(
    '\n', ' '
  )
  before = {name: (tmp_path / f'table.{name}').read_bytes() for name in ('md', 'tex', 'csv')}
  kept = tmp_path / 'kept' / tmp_path.name  # labels of LaTeX have the name of the folder
  kept.mkdir(parents=True)
  (kept / 'rows.jsonl').write_bytes(
    b''.join(path.read_bytes() for path in sorted(tmp_path.glob('*/eval.jsonl')))
  )
  (kept / 'costs.jsonl').write_bytes((tmp_path / 'costs.jsonl').read_bytes())
  study.Report(kept, tables=[{}, {'form': 'training_lengths'}]).write_tables()
  assert before == {name: (kept / f'table.{name}').read_bytes() for name in before}
