"""Which seeds have learned a task, and that no mean goes through those that have not."""

import math

import pytest
from synthetic import lines_of, row

from posenc_jax.reporting.html.gathered import Gathered
from posenc_jax.reporting.mpl import figures
from posenc_jax.reporting.scores.collecting import collect
from posenc_jax.reporting.series import length_series
from posenc_jax.reporting.table_forms import make_tables
from posenc_jax.reporting.tasks import learned

# {line: [(share of answers right, exact match) at 8 (L), at 16] of each seed}; chance is 0.2
STUDY = {
  'alibi': [[(1.0, 1.0), (1.0, 0.7)], [(0.9, 0.8), (0.8, 0.5)], [(0.8, 0.6), (0.7, 0.3)]],
  'nope': [[(0.3, 0.1), (0.3, 0.1)], [(0.2, 0.0), (0.2, 0.1)], [(0.6, 0.3), (0.3, 0.1)]],
  'rope': [[(1.0, 0.9), (0.5, 0.1)], [(0.61, 0.4), (0.5, 0.2)], [(0.59, 0.5), (0.9, 0.8)]],
}


def rows_of(study, accuracies=True):
  rows = []
  for label, of_seeds in study.items():
    for seed, of_lengths in enumerate(of_seeds):
      for length, (accuracy, exact) in zip((8, 16), of_lengths, strict=True):
        values = {'exact_match': exact}
        if accuracies:
          values |= {'token_accuracy': accuracy, 'token_chance': 0.2}
        for metric, value in values.items():
          fields = dict(protocol='copy', k=None, document=None, metric=metric, value=value)
          rows.append(row(label, seed, length, **fields))
  return rows


@pytest.fixture
def half(monkeypatch):
  """Whoever has gone half of the way from guessing has learned: a bound between the scores here."""
  monkeypatch.setattr(learned, 'PART', 0.5)


def cells(table):
  return {line[0].text: [cell.text for cell in line[1:]] for line in lines_of(table)}


@pytest.mark.usefixtures('half')
def test_means_are_over_seeds_that_have_learned_and_say_of_how_many():
  """At 8, halfway from 0.2 to 1 is 0.6: rope's seed 2 is below, alibi's are all above, nope's last
  is on the bound. What a seed does at 16 counts for nothing.
  """
  table, *_ = make_tables(rows_of(STUDY), metric='exact_match')
  assert cells(table) == {
    'alibi': ['0.800 ± 0.200', '0.500 ± 0.200'],
    'nope (0 of 3 learned)': ['—', '—'],
    'rope (2 of 3 learned)': ['0.650 ± 0.354', '0.150 ± 0.071'],
  }
  records = [(r['encoding'], r['seed'], r['learned']) for r in table.records if r['length'] == 16]
  seeds = {'alibi': [True] * 3, 'nope': [False] * 3, 'rope': [True, True, False]}
  assert records == [(line, i, said) for line, some in seeds.items() for i, said in enumerate(some)]
  assert 'over seeds 0, 1, 2 that have learned. The examples scored at L also decide' in (
    table.caption
  )
  assert table.notes == [
    'means are over the seeds that have learned: nope, 0 of 3 learned (not seed 0: 0.300, seed 1: '
    '0.200, seed 2: 0.600); rope, 2 of 3 learned (not seed 2: 0.590); a seed has learned where its '
    'share of answers right at the training length exceeds 0.600'
  ]
  ((_, _, every),) = table.per_seed
  assert [line[2] for line in every] == [
    *('1.000', '0.800', '0.600', '0.100', '0.000', '0.300', '0.900', '0.400', '0.500')
  ]


@pytest.mark.usefixtures('half')
@pytest.mark.parametrize('label', ['t5', 'nope'])
def test_seeds_that_other_examples_may_well_have_judged_otherwise_are_named(label):
  """Within a standard error of 0.6, which is 0.049 of 100 answers and 0.015 of 1,000."""
  shares = {'t5': (1.0, 0.64, 0.65), 'nope': (0.56, 0.64, 0.65)}[label]
  study = {label: [[(share, 0.5), (share, 0.5)] for share in shares]}
  close = {'t5': 'seed 1 of t5 (0.640)'}
  close |= {'nope': 'seed 0 of nope (0.560), seed 1 of nope (0.640)'}
  notes = {}
  for answers in (100, 1000):
    rows = [r | {'tokens': answers} for r in rows_of(study)]
    notes[answers] = make_tables(rows, metric='exact_match')[0].notes
  within = f'near 0.600, within the standard error of 100 answers, 0.049: {close[label]}'
  assert [note.endswith(within) for note in notes[100]] == [True]
  assert 'exceeds' in notes[100][0]
  assert not any('near' in note for note in notes[1000])
  rows = [r | {'tokens': 100} for r in rows_of(study)]
  judged = [r['learned'] for r in learned.mark(rows)]
  assert [r['learned'] for r in learned.mark(rows + rows)] == judged * 2  # as of two folders


@pytest.mark.usefixtures('half')
def test_where_rows_tell_examples_seeds_are_close_by_so_many_examples():
  """Each of two answers: 200 answers that are guessed with a chance of 1/5 each."""
  rows = [r | {'tokens': 200} for r in rows_of({'t5': [[(0.64, 0.5), (0.64, 0.5)]]})]
  guessing = {'chance': 0.2**2, 'nats_chance': math.log(5)}
  fields = dict(protocol='copy', k=None, document=None)
  rows += [
    row('t5', 0, 8, metric=metric, value=value, **fields) | {'tokens': 200}
    for metric, value in guessing.items()
  ]
  (note,) = make_tables(rows, metric='exact_match')[0].notes
  assert 'near 0.600, within the standard error of 100 examples, 0.049: seed 0 of t5' in note


def test_the_bound_is_95_per_cent_of_the_way_from_guessing():
  table, *_ = make_tables(rows_of(STUDY), metric='exact_match')
  number = {'alibi': 1, 'nope': 0, 'rope': 1}  # whose share is above 0.96
  assert [*cells(table)] == [f'{line} ({n} of 3 learned)' for line, n in number.items()]


@pytest.mark.usefixtures('half')
def test_curves_go_through_learned_seeds_and_show_every_seed():
  rows = learned.mark(rows_of(STUDY))
  (scores,) = collect(rows, metric='exact_match')
  curves = length_series(scores, rows).curves
  assert curves['rope'].mean == pytest.approx([0.65, 0.15])
  assert curves['rope'].label == 'rope (2 of 3 learned)'
  assert curves['alibi'].label == 'alibi'
  assert curves['nope'].mean == [None, None]
  assert curves['nope'].by_seed == {0: [0.1, 0.1], 1: [0.0, 0.1], 2: [0.3, 0.1]}


def test_curves_of_the_page_go_through_learned_seeds_too():
  exact, accuracy = Gathered(rows_of(STUDY), [], {}, []).series('bpb')
  assert exact.curves['rope'].mean == pytest.approx([0.9, 0.1])
  assert exact.curves['rope'].label == accuracy.curves['rope'].label == 'rope (1 of 3 learned)'
  assert accuracy.curves['nope'].mean == [None, None]


@pytest.mark.usefixtures('half')
@pytest.mark.parametrize('metric', ['exact_match', 'symbol_nats'])
def test_a_figure_names_the_learned_and_draws_every_seed_thin(metric):
  rows = rows_of(STUDY)
  if metric == 'symbol_nats':
    rows += [r | {'metric': metric} for r in rows if r['metric'] == 'exact_match']
  figure = figures.draw(rows, protocol='copy', metric=metric)
  (axes,) = figure.axes
  names = ['alibi', 'nope (0 of 3 learned)', 'rope (2 of 3 learned)']
  assert sorted(text.get_text() for text in axes.texts if text.get_text() in names) == names
  thin = [line for line in axes.lines if line.get_alpha() == 0.5]
  assert len(thin) == 9
  assert not axes.collections  # no bands
  assert {line.get_label() for line in axes.lines} & {*STUDY} == {'alibi', 'rope'}
  assert 'rope, 2 of 3 learned (not seed 2: 0.590)' in ' '.join(
    figure.get_supxlabel().replace('\n', ' ').split()
  )


def test_a_figure_of_no_nats_at_all_is_drawn(tmp_path):
  rows = rows_of({label: [[(1.0, 0.0), (1.0, 0.0)]] for label in ('rope', 'alibi')})
  rows = [r | {'metric': 'symbol_nats'} if r['metric'] == 'exact_match' else r for r in rows]
  figures.save(figures.draw(rows, protocol='copy', metric='symbol_nats'), tmp_path / 'a')


def test_without_accuracies_at_the_training_length_nothing_is_known():
  at_16 = [r for r in rows_of(STUDY) if r['metric'] == 'exact_match' or r['length'] == 16]
  for rows in (rows_of(STUDY, accuracies=False), at_16):
    assert {r['learned'] for r in learned.mark(rows)} == {None}
    if rows:
      assert {r['learned'] for r in make_tables(rows, metric='exact_match')[0].records} == {''}
    table, *_ = make_tables(rows, metric='exact_match')
    assert [*cells(table)] == [*STUDY]
    assert table.notes == []
    of_tasks = [r | {'corpus': 'task:copy'} for r in rows]
    table, *_ = make_tables(of_tasks, metric='exact_match')
    (note,) = table.notes
    assert note.endswith('at the training length: means of all lines are over all seeds')
    of_nope = [r for r in of_tasks if r['label'] == 'nope']
    table, *_ = make_tables(
      [r | {'corpus': 'task:copy'} for r in rows_of(STUDY) if r['label'] != 'nope'] + of_nope,
      metric='exact_match',
    )
    assert any(note.endswith('length: means of nope are over all seeds') for note in table.notes)


def test_a_model_is_judged_by_its_own_rows():
  """By those of its task and step, as it was trained if possible, without a control, of all depths
  together.
  """
  base = dict(protocol='needle', k=None, document=None, train_length=8)

  def rows(value, **fields):
    return [
      row('rope', metric=metric, value=share, **base | fields)
      for metric, share in (('token_accuracy', value), ('token_chance', 0.0))
    ]

  marked = learned.mark(
    [
      *rows(0.2, position=0),
      *rows(1.0, position=100),
      *rows(0.1, position=0, step=50),
      *rows(0.1, position=0, control='windowed'),
      *rows(0.3, position=0, overrides={'encoding.base': 1.0}),
      *rows(0.9, position=0, protocol='copy', overrides={'encoding.base': 1.0}),
    ]
  )
  found = {(r['protocol'], r['step'], bool(r['overrides'])): r['learned'].accuracy for r in marked}
  assert found == pytest.approx(
    {
      ('needle', 100, False): 0.6,
      ('needle', 50, False): 0.1,
      ('needle', 100, True): 0.6,
      ('copy', 100, True): 0.9,
    }
  )


def test_a_model_with_the_parameters_of_a_run_is_judged_in_the_task_of_that_run():
  """If rows say of one alone what it is; a run that is asked another task, in each by itself."""

  def rows(value, corpus, run='rope', **fields):
    base = dict(protocol='copy', k=None, document=None, train_length=8, corpus=corpus)
    return [
      row('rope', metric=metric, value=share, **base | fields | {'run': run})
      for metric, share in (('token_accuracy', value), ('token_chance', 0.0))
    ]

  def judged(rows):
    return {(r['run'], r['corpus']): (r['learned'].accuracy, r['learned'].corpus) for r in rows}

  other = {'run': 'other', 'step': 0, 'parameters': {'run': 'rope', 'step': 100}}
  trained, asked = rows(1.0, 'task:a'), rows(0.3, 'task:b', **other)
  for some in (trained + asked, asked + trained):
    found = judged(learned.mark(some))
    assert found == {('rope', 'task:a'): (1.0, ''), ('other', 'task:b'): (1.0, 'task:a')}
  assert judged(learned.mark(asked)) == {('other', 'task:b'): (0.3, '')}
  same = judged(learned.mark(rows(1.0, 'task:b') + asked))
  assert same == {('rope', 'task:b'): (1.0, ''), ('other', 'task:b'): (0.3, '')}
  twice = [*trained, *rows(0.2, 'task:c')]
  for some in (twice + asked, twice[::-1] + asked):
    found = judged(learned.mark(some))
    assert found == {
      ('rope', 'task:a'): (1.0, ''),
      ('rope', 'task:c'): (0.2, ''),
      ('other', 'task:b'): (0.3, ''),
    }
  (table,) = make_tables(trained + asked, metric='token_accuracy')
  assert any('in the task of their training, task:a: ' in note for note in table.notes)
  failed = rows(0.3, 'task:a')
  alone = [r for r in learned.mark(failed + asked) if r['run'] == 'other']
  says = 'The examples scored at L also decide which have learned'
  for some, said in (
    (failed, f'{says}. '),
    (failed + asked, f'{says}, but for lines that are judged in another task. '),
    (alone, ''),
    (trained + asked, ''),  # all have learned
  ):
    (table,) = make_tables(some, metric='token_accuracy')
    assert said in table.caption
    assert (says in table.caption) == bool(said)


@pytest.mark.usefixtures('half')
def test_a_seed_that_failed_later_spoils_no_mean_if_it_never_learned():
  rows = [
    r | {'status': 'not_finite', 'value': None}
    if (r['encoding'], r['seed'], r['length'], r['metric']) == ('rope', 2, 16, 'exact_match')
    else r
    for r in rows_of(STUDY)
  ]
  table, *_ = make_tables(rows, metric='exact_match')
  assert cells(table)['rope (2 of 3 learned)'] == ['0.650 ± 0.354', '0.150 ± 0.071']
