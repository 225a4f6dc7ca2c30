"""The task `grid`: its shapes and its two positions a token, from examples to training, stops and
evaluation.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_runs import BASE, TINY_TASK, dotted

from posenc_jax import config, data, storage, tasks
from posenc_jax.encodings import make
from posenc_jax.errors import UserError
from posenc_jax.evaluation import evaluate, preflight, runs
from posenc_jax.model.decoder import build
from posenc_jax.model.token_nll import token_nll
from posenc_jax.training import loop

PLACED = 'task:grid/symbols=6/queries=2/positions=grid'
TINY = {
  **TINY_TASK,
  'model.layers': 2,
  'encoding.name': 'axial_rope',
  'data.corpus': PLACED,
  'train.length': 24,
  'eval.lengths': (21, 40),
  'eval.examples': 8,
}


def tiny(**fields):
  return config.load(BASE, TINY | dotted(fields))


def words_of(task, example):
  return [task.token_names[token] for token in example.tokens_T]


def by_a_loop(words):
  """(row, column) of each word, one after another."""
  row, column, found = 1, 0, []
  while words[len(found)] != '?':
    column += 1
    found.append((row, column))
    if words[len(found) - 1] == '/':
      row, column = row + 1, 0
  behind = max(max(place) for place in found)
  for _ in words[len(found) :]:
    behind += 1
    found.append((behind, behind))
  return found


@pytest.mark.parametrize('options', ['', '/queries=10', '/neighbor=right'])
def test_positions_are_those_of_a_loop_over_words_and_no_two_alike(options):
  task, plain = (
    tasks.make(f'grid{options}{positions}', tuple) for positions in ('/positions=grid', '')
  )
  assert (task.carried_positions, plain.carried_positions) == (
    tasks.CarriedPositions('integers', 2),
    None,
  )
  for index in range(60):
    example, same = (t.example('train', 1, index, task.shortest, 150) for t in (task, plain))
    np.testing.assert_array_equal(example.tokens_T, same.tokens_T)
    np.testing.assert_array_equal(example.choices_T, same.choices_T)
    assert same.positions_T is None
    places = by_a_loop(words_of(task, example))
    assert list(map(tuple, example.positions_T.tolist())) == places
    assert len({*places, (0, 0)}) == len(places) + 1, 'BOS is at 0, 0'
    assert example.positions_T.dtype == np.int32


@pytest.mark.parametrize('length', [17 + 8, 60, 209])
def test_positions_have_a_bound(length):
  task = tasks.make('grid/positions=grid', tuple)
  largest = max(
    task.example('train', 0, index, task.shortest, length).positions_T.max() for index in range(400)
  )
  assert task.largest_position(length) - 3 <= largest <= task.largest_position(length)


def test_positions_say_nothing_but_the_shape_of_the_grid():
  """So none tells where a symbol asked for stood, nor what stands below it."""
  task, of_shape = tasks.make('grid/positions=grid', tuple), {}
  for index in range(300):
    example = task.example('train', 0, index, 60, 60)
    columns = words_of(task, example).index('/')
    of_shape.setdefault(columns, set()).add(example.positions_T.tobytes())
  assert sorted(of_shape) == list(range(3, 11))
  assert all(len(positions) == 1 for positions in of_shape.values())


@pytest.mark.parametrize(('size', 'columns'), [(16, (2, 6)), (64, (4, 12)), (256, (8, 24))])
def test_rows_and_columns_grow_with_the_length(size, columns):
  task = tasks.make('grid', tuple)
  seen = set()
  for index in range(300):
    words = words_of(task, task.example('test', 0, index, size + 9, size + 9))
    rows = [row.split() for row in ' '.join(words[: words.index('?')]).split('/')]
    assert sum(map(len, rows)) + len(rows) - 1 == size
    assert {len(row) for row in rows[:-1]} == {len(rows[0])}
    assert len(rows[-1]) <= len(rows[0])
    seen.add(len(rows[0]))
  assert seen == set(range(columns[0], columns[1] + 1))


@pytest.mark.parametrize('neighbor', ['below', 'right'])
@pytest.mark.parametrize('queries', [1, 4, 5, 30])
def test_there_are_enough_cells_to_ask_for(neighbor, queries):
  """At each of the shortest lengths, whatever the number of columns."""
  task = tasks.make(f'grid/symbols=40/queries={queries}/neighbor={neighbor}', tuple)
  for length in range(task.shortest, task.shortest + 30):
    for index in range(30):
      words = words_of(task, task.example('train', 0, index, length, length))
      at = words.index('?')
      assert len(words) == length
      asked = words[at + 1 :: 2]
      assert len({*asked}) == queries
      assert all(words[:at].count(symbol) == 1 for symbol in asked)


@pytest.mark.parametrize(
  ('name', 'hyper', 'words'),
  [
    ('rope', {}, 'carries 2 a token, integers; allowed: 1, floats, for RoPE'),
    ('alibi', {}, 'carries 2 a token, integers; allowed: 1, integers, for ALiBi'),
    ('axial_rope', {'axes': 4}, 'carries 2 a token, integers; allowed: 4, floats, for AxialRoPE'),
    ('random_positions', {}, 'carries positions, and RandomPositions samples its own'),
    (
      'position_coupling',
      {'levels': 2, 'max_length': 13},
      'config.train.length=24: positions reach 14, but those of PositionCoupling end at 13',
    ),
  ],
)
def test_encodings_that_do_not_take_two_positions_are_named(name, hyper, words):
  with pytest.raises(UserError) as error:
    preflight.check_model(tiny(encoding={'name': name, **hyper}))
  assert words in str(error.value)


@pytest.mark.parametrize('inner', [{'name': 'axial_rope'}, {'name': 'sinusoidal', 'axes': 2}])
def test_cape_moves_the_places_of_the_data_in_training_alone(inner):
  c = tiny(encoding={'name': 'cape', 'inner': inner, 'stretch': 2.0, 'axis_stretch': 1.5})
  preflight.check_model(c)
  model, plain = build(c, 9, nnx.Rngs(0)), build(tiny(encoding=inner), 9, nnx.Rngs(0))
  tokens_BT = np.random.default_rng(0).integers(8, size=(2, 12))
  places = np.stack(np.divmod(np.arange(12), 4), axis=1)[None]
  run = jax.jit(lambda model, places, key: model(tokens_BT, position_ids=places, key=key))
  np.testing.assert_array_equal(run(model, places, None), run(plain, places, None))
  key = jax.random.key(1)
  moved = model.encodings.first_layers[0].sample_positions(places, 2, key)
  np.testing.assert_allclose(run(model, places, key), run(plain, moved, None), atol=1e-5)
  assert np.abs(run(model, places, key) - run(plain, places, None)).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
  'encoding',
  [
    {'name': 'cape', 'inner': 'rope_mixed'},
    {'name': 'pattern', 'layers': ('rope_mixed', 'nope')},
    {'name': 'chain', 'members': ('kv_shift', 'axial_rope')},
    {'name': 'chain', 'members': ({'name': 'sinusoidal', 'axes': 2}, 'axial_rope')},
    {'name': 'learned_fourier', 'axes': 2},
    {'name': 'position_coupling', 'levels': 2, 'max_length': 30},
  ],
)
def test_encodings_of_two_axes_and_of_none_train_on_it(encoding, tmp_path):
  c = tiny(encoding=encoding, train__steps=1)
  preflight.check_model(c)
  loop.train(c, tmp_path)
  (row,) = [row for row in storage.read_rows(tmp_path / 'metrics.jsonl') if 'loss' in row]
  assert np.isfinite(row['loss'])


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('unbroken') / 'run'
  loop.train(tiny(), workdir)
  evaluate.evaluate(tiny(), workdir)
  return workdir


def test_rows_of_an_evaluation_are_those_of_single_examples_at_their_places(unbroken):
  """At 21 tokens, and at 40 of a model for 24, all or a window of 24."""
  c = tiny()
  corpus = data.opened(c.data, 'test')
  model, _ = runs.restore(c, corpus, unbroken)
  rows = storage.read_rows(unbroken / 'eval.jsonl')
  for length, control in ((21, None), (40, None), (40, 'windowed')):
    nats, window = [], 24 if control else None
    run = jax.jit(
      lambda tokens, places, window=window: token_nll(
        model, tokens, token_positions=places, window=window
      )
    )
    for example in corpus.examples(8, length):
      found = run(example.tokens_T[None], example.positions_T[None])[0]
      nats += found[example.answers_T].tolist()
    (value,) = [
      row['value']
      for row in rows
      if (row['length'], row['control'], row['metric']) == (length, control, 'symbol_nats')
    ]
    assert value == pytest.approx(np.mean(nats), rel=1e-5)
  assert len(rows) == 2 * 2 * 6  # lengths, controls, metrics
  assert {row['protocol'] for row in rows} == {'grid'}


@pytest.mark.parametrize(
  'encoding',
  [
    {'name': 'axial_rope'},
    {'name': 'rope_mixed'},
    {'name': 'golden_gate_rope'},
    *({'name': name, 'axes': 2} for name in ('cayley_string', 'harope', 'alibi')),
    {'name': 'swin'},
    {'name': 'spiral_rope'},
  ],
)
def test_a_model_sees_the_grid_wherever_it_stands(encoding):
  """Moved along both axes it gives the same outputs, and cut into other rows it does not."""
  c = tiny(encoding=encoding)
  model = build(c, 9, nnx.Rngs(0))
  tokens_BT = np.random.default_rng(0).integers(8, size=(1, 12))
  places = np.stack(np.divmod(np.arange(12), 4), axis=1)[None]
  run = jax.jit(lambda places: model(tokens_BT, position_ids=places))
  np.testing.assert_allclose(run(places + np.array([5, 9])), run(places), atol=1e-4)
  other = np.stack(np.divmod(np.arange(12), 3), axis=1)[None]
  assert np.abs(run(other) - run(places)).max() > 1e-3


def waves_of_axes(places_Tn, D):
  """MAE's sines and cosines by loops: D / 2 channels of the row, then as many of the column."""
  out = np.zeros((len(places_Tn), D))
  for t, place in enumerate(places_Tn):
    for n, where in enumerate(place):
      for m in range(D // 4):
        angle = where * 1e4 ** (-m / (D // 4))
        out[t, n * D // 2 + m], out[t, n * D // 2 + D // 4 + m] = np.sin(angle), np.cos(angle)
  return out[None]


def test_waves_of_rows_and_columns_are_added_at_the_input_of_a_model():
  """At the places that are given, those further on alike, and in order where none are, which
  begin anew with each segment.
  """
  c = tiny(encoding={'name': 'sinusoidal', 'axes': 2, 'layout': 'half'})
  preflight.check_model(c)
  model, bare = build(c, 9, nnx.Rngs(0)), build(tiny(encoding={'name': 'nope'}), 9, nnx.Rngs(0))
  tokens_BT = np.random.default_rng(0).integers(8, size=(1, 12))
  places = np.stack(np.divmod(np.arange(12), 4), axis=1)
  segments = np.repeat([[0, 1]], (5, 7), axis=1)
  in_order = np.repeat([*range(5), *range(7)], 2).reshape(12, 2)
  run = jax.jit(lambda model, **options: model(tokens_BT, **options))
  with_waves = lambda places, **options: run(
    bare, added_BTD=waves_of_axes(places, c.model.model_dim), **options
  )
  at_places = run(model, position_ids=places[None])
  np.testing.assert_allclose(at_places, with_waves(places), atol=1e-4)
  moved = places + np.array([5, 9])
  further = run(model, position_ids=moved[None])
  np.testing.assert_allclose(further, with_waves(moved), atol=1e-4)
  assert np.abs(further - at_places).max() > 1e-2, 'it is absolute'
  packed = run(model, segment_ids=segments)
  np.testing.assert_allclose(packed, with_waves(in_order, segment_ids=segments), atol=1e-4)


def test_waves_of_three_axes_stand_one_after_another():
  """Each axis has a third of the channels, and the waves of that width."""
  sizes = dict(heads=2, head_dim=4, train_length=8, rngs=nnx.Rngs(0))
  places = np.random.default_rng(0).integers(9, size=(2, 5, 3))
  add = lambda enc, width, places: enc.add_to_input(jnp.zeros((2, 5, width)), places)
  alone = make('sinusoidal', model_dim=4, **sizes)
  expected = [add(alone, 4, places[..., n]) for n in range(3)]
  together = add(make('sinusoidal', model_dim=12, axes=3, **sizes), 12, places)
  np.testing.assert_array_equal(together, np.concatenate(expected, axis=-1))


def test_axes_of_waves_share_the_channels_evenly():
  with pytest.raises(UserError, match=r'axes=3; allowed: 1, or a divisor of half of model_dim=\d+'):
    preflight.check_model(tiny(encoding={'name': 'sinusoidal', 'axes': 3}))
