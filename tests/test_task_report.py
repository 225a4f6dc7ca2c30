"""Tables and figures of tasks: single answers beside exact match, and all of it by default."""

import dataclasses

import pytest
from synthetic import row, rows_of

from posenc_jax import storage, tasks
from posenc_jax.reporting import study
from posenc_jax.reporting.board.tables import task_tables
from posenc_jax.reporting.mpl import figures
from posenc_jax.reporting.scores.collecting import collect
from posenc_jax.reporting.table_forms import make_tables
from posenc_jax.reporting.tasks import examples, task_report
from posenc_jax.reporting.tasks.chance import chance_scores

METRICS = ('exact_match', 'token_accuracy', 'symbol_nats', 'chance', 'token_chance', 'nats_chance')


def answers(*protocols, metrics=METRICS):
  """Rows of two lengths of one run of each task, with values of 1/8, 2/8, ... by metric."""
  return [
    row('rope', length=length, protocol=p, k=None, document=None, metric=metric, value=value / 8)
    for p in protocols
    for length in (8, 16)
    for value, metric in enumerate(metrics, 1)
  ]


def named(settings):
  return [(some.get('form'), some.get('protocols'), some.get('metric')) for some in settings]


TEXT = rows_of({'rope': {8: [1.0], 16: [1.5]}})
EXACT = dict(protocols=['copy'], metric='exact_match')


@pytest.mark.parametrize(
  ('wanted', 'rows', 'expected'),
  [
    ([{}], TEXT, [(None, None, None)]),
    (
      [{}],
      answers('copy', 'mqar'),
      [(None, ['copy', 'mqar'], m) for m in ('exact_match', 'token_accuracy', 'symbol_nats')],
    ),
    (
      [{}],
      TEXT + answers('copy', metrics=['exact_match']),
      [(None, None, None), (None, ['copy'], 'exact_match')],
    ),
    (
      [EXACT, dict(form='methods', **EXACT)],
      answers('copy', metrics=['exact_match', 'token_accuracy']) + answers('mqar'),
      [
        (None, ['copy'], 'exact_match'),
        (None, ['copy'], 'token_accuracy'),
        ('methods', ['copy'], 'exact_match'),
      ],
    ),
    ([dict(metric='token_accuracy')], answers('copy'), [(None, None, 'token_accuracy')]),
    ([EXACT], [r | {'value': 0.5} for r in answers('copy')][:3], [(None, ['copy'], 'exact_match')]),
  ],
)
def test_tables_of_single_answers_follow_exact_match(wanted, rows, expected):
  assert named(task_report.tables(wanted, rows)) == expected


def test_what_others_published_is_printed_once():
  wanted = [EXACT | {'reference': [{'source': 'a'}], 'baseline': 'rope'}]
  first, *others = task_report.tables(wanted, answers('copy'))
  assert first == wanted[0]
  assert [other.pop('metric') for other in others] == ['token_accuracy', 'symbol_nats']
  assert others == [{'protocols': ['copy'], 'baseline': 'rope'}] * 2


@pytest.mark.parametrize(
  ('wanted', 'rows', 'names'),
  [
    ({'extrapolation': {}}, TEXT, {'extrapolation'}),
    ({'extrapolation': {}}, answers('copy'), {'copy', 'copy-accuracy', 'copy-nats'}),
    (
      {'extrapolation': {}},
      TEXT + answers('copy', metrics=['exact_match']),
      {'extrapolation', 'copy'},
    ),
    (
      {'a': dict(protocol='copy', metric='exact_match'), 'b': dict(form='heat_map')},
      answers('copy'),
      {'a', 'a-accuracy', 'a-nats', 'b'},
    ),
    ({'a': dict(protocol='copy', metric='token_accuracy')}, answers('copy'), {'a'}),
  ],
)
def test_figures_of_single_answers_stand_beside_exact_match(wanted, rows, names):
  made = task_report.figures(wanted, rows)
  assert {*made} == names
  assert {name: made[name] for name in wanted if name in made and wanted[name]} == {
    name: settings for name, settings in wanted.items() if settings
  }


def test_a_figure_of_the_study_keeps_its_name():
  wanted = {
    'a': dict(protocol='copy', metric='exact_match'),
    'a-nats': dict(protocol='copy', metric='token_accuracy'),
  }
  assert task_report.figures(wanted, answers('copy'))['a-nats'] == wanted['a-nats']


@pytest.mark.parametrize('names', [('copy', 'b'), ('b', 'copy')])
def test_a_figure_that_is_named_like_a_task_keeps_its_name(names):
  wanted = {'copy': dict(protocol='copy', metric='token_accuracy'), 'b': {}}
  made = task_report.figures({name: wanted[name] for name in names}, answers('copy', 'mqar'))
  assert made['copy'] == wanted['copy']
  assert made['mqar'] == dict(protocol='mqar', metric='exact_match')


def test_a_folder_of_tasks_without_a_study_has_all_tables_and_figures(tmp_path, capsys):
  storage.append_rows(tmp_path / 'rows.jsonl', answers('copy'))
  report = study.load(tmp_path)
  assert report.write_all_possible() == {}
  assert {path.name for path in tmp_path.glob('*.png')} == {
    *('copy.png', 'copy-accuracy.png', 'copy-nats.png')
  }
  assert [table.title for table in report.all_tables()] == [
    'Extrapolation, copy, exact match',
    'Effective length, copy',
    'Extrapolation, copy, share of answers right',
    'Extrapolation, copy, nats per answer',
  ]
  assert capsys.readouterr().out.count('Nats per answer; copy.') == 1
  assert [line.text for line in report.all_tables()[3].groups[0].lines[-1]] == [
    *('chance', '0.750', '0.750')
  ]


def test_a_folder_without_rows_says_so_of_each_figure(tmp_path):
  report = dataclasses.replace(study.load(tmp_path), figures={'a': {}, 'b': {}})
  assert {*report.write_all_possible()} == {'tables', 'figure a', 'figure b'}


def of_task(task, length, number, metrics=METRICS, **fields):
  """Rows of what `number` examples of a task score and guess."""
  drawn = [tasks.make(task, tuple).example('test', 0, n, length, length) for n in range(number)]
  fields |= dict(protocol=task, k=None, document=None)
  guessing = tasks.chance(drawn)
  values = dict.fromkeys(METRICS[:3], 0.5) | dict(
    zip(('chance', 'token_chance', 'nats_chance'), guessing, strict=True)
  )
  answers = sum(int(example.answers_T.sum()) for example in drawn)
  return [
    row('rope', length=length, metric=metric, value=values[metric], **fields) | {'tokens': answers}
    for metric in metrics
  ]


@pytest.mark.parametrize('task', [name for name in tasks.TASKS if name != 'passkey'])
def test_rows_say_how_many_examples_they_are_of(task):
  """All but those whose examples of one length have different numbers of answers."""
  rows = examples.mark(of_task(task, 128, 33))
  found = {r['metric']: r.get('examples') for r in rows}
  has_no_one_number = task in ('addition', 'flip_flop', 'stack')
  assert found == dict.fromkeys(METRICS) | dict.fromkeys(
    METRICS[:3], None if has_no_one_number else 33
  )
  assert examples.mark(rows) == rows


def test_examples_too_long_to_be_guessed_are_as_many_as_shorter_ones():
  rows = of_task('copy', 64, 5) + of_task('copy', 2000, 5)
  assert [r['value'] for r in rows if r['metric'] == 'chance'][1] == 0
  assert {r['examples'] for r in examples.mark(rows) if r['metric'] == 'exact_match'} == {5}
  unknown = examples.mark(rows[len(METRICS) :])
  assert {r['examples'] for r in unknown if r['metric'] == 'exact_match'} == {None}
  other = [r | {'overrides': {'eval.examples': 7}} for r in of_task('copy', 64, 7)]
  found = [r['examples'] for r in examples.mark(rows + other) if r['metric'] == 'exact_match']
  assert found == [5, 5, 7]


@pytest.mark.parametrize(
  ('chance', 'nats'), [(1 - 1e-16, 1e300), (1.0, 0.0), (0.5, -1.0), (0.5, 1e-300), (1.000001, 1.0)]
)
def test_guessing_that_no_task_has_tells_no_number(chance, nats):
  values = {'chance': chance, 'nats_chance': nats, 'token_chance': chance}
  rows = [r | {'value': values.get(r['metric'], 0.5)} for r in of_task('copy', 8, 3)]
  assert {r['examples'] for r in examples.mark(rows) if 'examples' in r} == {None}
  assert {r.get('examples') for r in examples.mark([r | {'tokens': None} for r in rows])} == {None}
  (table, *_) = make_tables(rows, metric='exact_match')
  assert 'each score of' not in table.caption


def test_captions_say_how_many_examples_were_scored():
  rows = [
    r | {'label': label, 'run': label, 'position': depth}
    for label in ('rope', 't5')
    for depth in (0, 50, 100)
    for length in (64, 128)
    for r in of_task('needle', length, 20)
  ]
  table, *_ = make_tables(rows, metric='exact_match')
  assert 'test split: each score of 60 examples, the same for all lines. Higher' in table.caption
  figure = figures.draw(rows, form='heat_map')
  assert 'each score of 20 examples, the same for all lines.' in ' '.join(
    figure.get_supxlabel().split()
  )
  (board,) = task_tables(rows)
  assert board.notes[0] == 'needle: sotu, L = 8; each score of 60 examples'
  lacking = [r for r in rows if r['metric'] != 'nats_chance']
  assert 'test split. Higher' in make_tables(lacking, metric='exact_match')[0].caption
  asked = [
    row(
      'rope', document=f'd{n // 2}', position=50 * (n % 2), protocol='text_passkey', k=None, **some
    )
    for n in range(4)
    for some in ({'bits': 3.0}, {'metric': 'exact_match', 'value': float(n == 3)})
  ]
  exact, *_ = make_tables(asked, metric='exact_match')
  assert 'asked for in words. Seed' in exact.caption
  assert 'test split: each score of 4 examples of 2 documents. Higher' in exact.caption
  bits, *_ = make_tables(asked)
  assert (
    'asked for in words; bytes are its digits (to guess one costs 3.32 bits). S' in bits.caption
  )


@pytest.mark.parametrize(('right', 'text'), [(0, '0.000 (—)'), (1, '0.250 (0.250)')])
def test_documents_that_all_have_the_same_share_right_tell_no_error(right, text):
  shares = [float(n < right) for n in range(4)]
  rows = [
    row(
      'rope', document=f'd{n}', protocol='text_passkey', k=None, metric='exact_match', value=share
    )
    for n, share in enumerate(shares)
  ]
  table, *_ = make_tables(rows, metric='exact_match')
  assert table.groups[0].lines[0][1].text == text
  assert 'over documents; a dash where all have the same share right.' in table.caption


def test_chance_is_not_averaged_over_corpora():
  fields = dict(protocol='needle', k=None, document=None)
  rows = [
    row('t5', seed, corpus=corpus, metric=metric, value=value, **fields)
    for seed in range(2)
    for corpus, chance in (('task:needle:1', 1 / 16), ('task:needle:2', 1 / 256))
    for metric, value in (('exact_match', 0.5), ('chance', chance))
  ]
  (scores,) = collect(rows, metric='exact_match')
  assert chance_scores(rows, scores) == {8: None}
  assert chance_scores(rows[:2], scores) == {8: pytest.approx(1 / 16)}
