"""Encodings by layer, and positions that are drawn once a forward."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled_models import logits, nll
from flax import nnx
from test_model import VOCAB, config, tokens

from posenc_jax.config.overlays import overlay
from posenc_jax.data import Batch
from posenc_jax.encodings import make
from posenc_jax.model.decoder import build
from posenc_jax.model.layer import Layer
from posenc_jax.model.token_nll import token_nll
from posenc_jax.training.optimizer import make_optimizer
from posenc_jax.training.step import make_step_fns

SIZES = dict(model_dim=16, heads=4, head_dim=6, train_length=16)


def of(encoding: dict, **overrides):
  c = config(**overrides)
  overlay(c, {'encoding': encoding})
  return build(c, VOCAB, nnx.Rngs(0))


def pattern(*layers, **overrides):
  return of({'name': 'pattern', 'layers': layers}, **overrides)


chain = lambda *members: {'name': 'chain', 'members': members}


def test_what_is_observed_of_layers_is_stacked_in_their_order():
  """Five layers of a period of two: two whole periods and a rest."""
  m = pattern('alibi', {'name': 'rope', 'attention_window': 4}, model__layers=5)
  observe = lambda layer, x_BTD, enc, options: (
    layer.w_q[...].sum(),
    jnp.array(options.get('window', 0)),
    x_BTD,
  )
  observed = jax.jit(lambda m, x: m(x, observe=observe))
  same_logits_BTV, (sums_N, windows_N, x_NBTD) = observed(m, tokens())
  np.testing.assert_array_equal(sums_N, m.layers.w_q[...].sum(axis=(1, 2)))
  assert windows_N.tolist() == [0, 4, 0, 4, 0]
  np.testing.assert_array_equal(same_logits_BTV, logits(m, tokens()))
  np.testing.assert_array_equal(x_NBTD[0], x_NBTD.shape[-1] ** 0.5 * m.embedding[...][tokens()])


@pytest.mark.parametrize('unroll', [1, 0])
def test_a_pattern_is_a_loop_over_layers_each_with_its_own_encoding_and_window(unroll):
  """Seven layers of a period of three: two whole periods and a rest."""
  m = pattern(
    'alibi', {'name': 'shaw', 'attention_window': 4}, 'shaw', model__layers=7, model__unroll=unroll
  )
  alibi, shaw = m.encodings.variants
  x, y, seen = tokens(), 4 * m.embedding[...][tokens()], {0: 0, 1: 0}
  for n in range(7):
    kind, window = [(0, None), (1, 4), (1, None)][n % 3]
    enc = (alibi, shaw)[kind].layer(seen[kind])
    seen[kind] += 1
    y, _ = jax.jit(Layer.__call__, static_argnames='window')(
      jax.tree.map(lambda p, n=n: p[n], m.layers), y, enc, window=window
    )
  np.testing.assert_allclose(m.norm(y) @ m.embedding[...].T, logits(m, x), atol=3e-5)


def test_a_pattern_of_one_is_the_encoding():
  x = tokens()
  np.testing.assert_array_equal(nll(pattern('t5'), x), nll(of({'name': 't5'}), x))
  np.testing.assert_array_equal(nll(pattern('t5', 't5'), x), nll(of({'name': 't5'}), x))


def test_layers_of_equal_encodings_share_what_it_shares():
  shapes = lambda m: sorted(p.shape for p in jax.tree.leaves(m.encodings))
  assert shapes(pattern({'name': 't5', 'attention_window': 3}, 't5', 'nope')) == [(32, 4)]
  assert shapes(pattern('t5', {'name': 't5', 'buckets': 8})) == [(8, 4), (32, 4)]
  assert shapes(pattern('fox', 'nope')) == [(2, 4), (2, 16, 4)]  # layers 1 and 3
  assert shapes(pattern('t5', 'nope', model__share_encoding='none')) == [(2, 32, 4)]


def test_the_smaller_window_counts():
  x, m = tokens(), pattern({'name': 'rope', 'attention_window': 4}, 'nope')
  narrow = pattern({'name': 'rope', 'attention_window': 2}, {'name': 'nope', 'attention_window': 2})
  np.testing.assert_allclose(nll(m, x, window=2), nll(narrow, x), atol=2e-5)
  np.testing.assert_allclose(nll(m, x, window=12), nll(m, x), atol=2e-5)


def test_layers_have_chunks_and_sink_tokens_of_their_own():
  """As those of the call, or else the smaller chunk and the more sink tokens: a control of
  evaluation that shows some shows them in every layer.
  """
  x, same = tokens(), functools.partial(np.testing.assert_allclose, atol=2e-5)
  rope, nope = {'name': 'rope', 'attention_chunk': 4}, {'name': 'nope', 'attention_chunk': 4}
  bare = pattern('rope', 'nope')
  same(nll(pattern(rope, nope), x), nll(bare, x, chunk=4))
  same(nll(pattern(rope, 'nope'), x, chunk=3), nll(bare, x, chunk=3))
  assert np.abs(nll(pattern(rope, 'nope'), x) - nll(bare, x)).max() > 1e-3
  with_sinks = [layer | {'attention_sink_tokens': 2} for layer in (rope, nope)]
  same(nll(pattern(*with_sinks), x, sink_tokens=1), nll(bare, x, chunk=4, sink_tokens=2))
  same(nll(pattern(*with_sinks), x, sink_tokens=3), nll(bare, x, chunk=4, sink_tokens=3))
  assert np.abs(nll(pattern(*with_sinks), x) - nll(pattern(rope, nope), x)).max() > 1e-3


def test_positions_that_a_layer_does_not_take_are_refused_before_the_input():
  x, positions = tokens(), 0.5 * jnp.arange(12)[None]
  assert np.isfinite(nll(pattern('rope', 'nope'), x, position_ids=positions)).all()
  for name in ('learned', 'alibi'):
    with pytest.raises(
      ValueError, match=r'^position_ids has dtype float32; allowed: integers, for'
    ):
      pattern('rope', name)(x, position_ids=positions)


def test_learned_positions_in_a_pattern_end_and_are_added_once():
  """As if they were part of the embeddings, where each token has a place of its own."""
  m, bare = (pattern(name, 'alibi', model__tie_embeddings=False) for name in ('learned', 'nope'))
  assert m.max_length == 16
  with pytest.raises(ValueError, match='17 positions, but those of Learned end at 16'):
    m(tokens(T=17))
  x = jnp.arange(12)[None]
  at_input = m.encodings.first_layers[0].add_to_input(jnp.zeros((1, 12, 16)), x)
  assert np.abs(at_input).max() > 0.1
  bare.embedding[...] = bare.embedding[...].at[:12].add(at_input[0] / 16**0.5)
  np.testing.assert_allclose(logits(m, x), logits(bare, x), atol=2e-5)


def test_one_bipe_of_a_pattern_adds_its_places():
  """The others, which only place attention, add none: as if all layers had the first."""
  places, nowhere = {'name': 'bipe'}, {'name': 'bipe', 'places': 1}
  x = jnp.where(tokens() % 5 == 0, 10, tokens())
  m = pattern(places, nowhere, {'name': 'rope'})
  np.testing.assert_allclose(
    nll(pattern(places, nowhere), x), nll(pattern(places, places), x), atol=2e-5
  )
  assert np.abs(nll(m, x) - nll(of(places), x)).max() > 1e-3


@pytest.mark.parametrize(
  ('encoding', 'message'),
  [
    *(
      (
        {'name': 'pattern', 'layers': layers},
        f'encoding.layers: {kind} would be added to the input for each of 2 encodings; allowed: '
        'one of them, which adds for all layers$',
      )
      for layers, kind in (
        ((chain('learned', 'sink'), 'nope', chain('learned', 'alibi')), 'Learned'),
        (('sinusoidal', {'name': 'shape_offset', 'inner': 'sinusoidal'}), 'Sinusoidal'),
        (('bipe', {'name': 'bipe', 'inner': 'nope'}), 'BiPE'),
      )
    ),
    ({'name': 'pattern'}, r'encoding.layers=\(\); allowed: names of encodings, or dicts'),
    ({'name': 'pattern', 'layers': 'rope,pattern'}, 'allowed: names of encodings'),
    ({'name': 'pattern', 'layers': ({'base': 3},)}, 'allowed: names of encodings'),
    (
      {'name': 'pattern', 'layers': 'rope,nopee'},
      "encoding.name='nopee': no such encoding; did you mean 'nope'",
    ),
    (
      {'name': 'pattern', 'layers': 'rope', 'base': 3},
      "encoding pattern has no hyperparameter 'base'; it has: layers, of which",
    ),
    (
      {'name': 'pattern', 'layers': ({'name': 'rope', 'sliding_window': 4}, 'nope')},
      'a mask is attention.window, and attention_window in a layer of a pattern',
    ),
    (
      {'name': 'pattern', 'layers': ({'name': 't5', 'chunk_size': 4}, 'nope')},
      'a mask is attention.chunk, and attention_chunk in a layer of a pattern',
    ),
    (
      {'name': 'pattern', 'layers': 'rope,nope,rope,nope'},
      'a pattern of 4 layers; allowed: at most model.layers=3',
    ),
    (
      {'name': 'pattern', 'layers': ({'name': 'rope', 'attention_window': 0},)},
      'attention_window=0; allowed: 1 or',
    ),
    (
      {'name': 'pattern', 'layers': ({'name': 'rope', 'attention_sink_tokens': 1.5},)},
      'attention_sink_tokens=1.5; allowed: 1 or',
    ),
    ({'name': 'random_positions', 'inner': 'learned'}, 'ends at 16, before longest=256'),
    (
      {'name': 'random_positions', 'longest': 8},
      'longest=8; allowed: at least the training length 16',
    ),
    (
      {'name': 'random_positions', 'longest': 32, 'shortest': 9},
      'shortest=9; allowed: from 16 to 32',
    ),
    ({'name': 'random_positions', 'each': 'token'}, "each='token'; allowed: batch, example"),
    ({'name': 'random_positions', 'kind': 'reals'}, "kind='reals'; allowed: integers, floats"),
    ({'name': 'random_positions', 'eval_seed': -1}, 'eval_seed=-1; allowed: from 0 to 4294967295'),
    (
      {'name': 'random_positions', 'kind': 'floats', 'inner': 't5'},
      "inner='t5' takes integers; allowed: one that takes kind='floats'",
    ),
    (
      {'name': 'random_positions', 'kind': 'floats', 'longest': 0},
      'longest=0; allowed: at least 1',
    ),
    ({'name': 'random_positions', 'inner': 'shape_offset'}, 'samples positions itself'),
    ({'name': 'shape_offset', 'inner': 'learned'}, 'ends at 16; allowed: 32 positions or more'),
    ({'name': 'pose', 'longest': 15}, 'longest=15; allowed: at least the training length 16'),
    ({'name': 'pose', 'inner': 'learned'}, 'ends at 16, before longest=128'),
    ({'name': 'chain', 'members': 'rope,pose'}, 'pose samples positions for all'),
    ({'name': 'chain', 'members': 'shape_offset,fox'}, 'shape_offset samples positions for all'),
  ],
)
def test_what_is_no_pattern_and_no_draw(encoding, message):
  with pytest.raises(ValueError, match=message):
    of(encoding)


@pytest.mark.parametrize('each', ['batch', 'example'])
def test_random_positions_are_different_and_in_order(each):
  enc = make('random_positions', **SIZES, rngs=nnx.Rngs(0), longest=20, each=each)
  drawn = jax.jit(lambda key: enc.sample_positions(jnp.arange(16)[None], 64, key))
  draws = np.concatenate([drawn(jax.random.key(n)) for n in range(40)])
  assert len(draws) == {'batch': 40, 'example': 40 * 64}[each]
  assert np.all(np.diff(draws) > 0)
  assert draws.min() == 0
  assert draws.max() == 19 == enc.max_sampled_distance(16)
  # uniform: every subset of 16 of 20 alike, so every position stands in 16 of 20 draws
  if each == 'example':
    share = np.bincount(draws.ravel(), minlength=20) / len(draws)
    assert np.abs(share - 0.8).max() < 5 * np.sqrt(0.8 * 0.2 / len(draws))


def test_a_packed_document_stands_where_it_would_alone():
  enc = make('random_positions', **SIZES, rngs=nnx.Rngs(0), longest=32)
  positions = jnp.array([[0, 1, 2, 3, 4, 0, 1, 2], [0, 1, 0, 1, 0, 1, 0, 1]])
  draws = np.asarray(enc.sample_positions(positions, 2, jax.random.key(3)))
  for row, starts in zip(draws, ([0, 5], [0, 2, 4, 6]), strict=True):
    for document in np.split(row, starts[1:]):
      assert np.all(np.diff(document) > 0)
      alone = enc.sample_positions(jnp.arange(len(document))[None], 1, jax.random.key(3))
      np.testing.assert_array_equal(document, alone[0])
  assert draws.min() >= 0
  assert draws.max() < 32


@pytest.mark.parametrize('kind', ['integers', 'floats'])
def test_positions_of_evaluation_are_the_same_with_any_generator(kind):
  enc = make('random_positions', **SIZES, rngs=nnx.Rngs(0), kind=kind)
  sample = lambda: enc.sample_positions(jnp.arange(9)[None], 1, None)
  expected = sample()
  with jax.default_prng_impl('rbg'):
    np.testing.assert_array_equal(sample(), expected)


@pytest.mark.parametrize('kind', ['integers', 'floats'])
def test_eval_seed_makes_the_draw_of_evaluation_and_no_other(kind):
  def drawn(key, **hyper):
    enc = make('random_positions', **SIZES, rngs=nnx.Rngs(0), kind=kind, longest=64, **hyper)
    return np.asarray(enc.sample_positions(jnp.arange(9)[None], 1, key))[0]

  def expected(seed):
    key = jax.random.key(seed)
    if kind == 'floats':
      return np.sort(jax.random.uniform(key, (9,), maxval=64))
    return np.sort(jax.random.permutation(key, 64)[:9])

  np.testing.assert_array_equal(drawn(None), expected(0))
  for seed in (7, 2**32 - 1):
    np.testing.assert_array_equal(drawn(None, eval_seed=seed), expected(seed))
  assert not np.array_equal(expected(0), expected(7))
  key = jax.random.key(3)
  np.testing.assert_array_equal(drawn(key, eval_seed=7), drawn(key))


@pytest.mark.parametrize('each', ['batch', 'example'])
def test_random_floats_are_uniform_and_in_order_at_every_length(each):
  """Sorted draws: the n-th of T has the mean n / (T + 1) of the range; documents for themselves."""
  enc = make('random_positions', **SIZES, rngs=nnx.Rngs(0), kind='floats', longest=20, each=each)
  for T in (4, 40):  # more tokens than the range has integers
    draw = jax.jit(lambda key, T=T: enc.sample_positions(jnp.arange(T)[None], 8, key))
    draws = np.concatenate([draw(jax.random.key(n)) for n in range(400)])
    assert draws.dtype == np.float32
    assert len(draws) == {'batch': 400, 'example': 3200}[each]
    assert np.all(np.diff(draws) >= 0)
    assert draws.min() >= 0
    assert draws.max() < 20
    means = 20 * np.arange(1, T + 1) / (T + 1)
    assert np.abs(draws.mean(axis=0) - means).max() < 5 * 20 / 2 / np.sqrt(400 * (T + 2))
  packed = jnp.array([[0, 1, 2, 3, 4, 0, 1, 2], [0, 1, 0, 1, 0, 1, 0, 1]])
  draws = np.asarray(enc.sample_positions(packed, 2, jax.random.key(3)))
  for row, starts in zip(draws, ([5], [2, 4, 6]), strict=True):
    assert all(np.all(np.diff(document) > 0) for document in np.split(row, starts))


@pytest.mark.parametrize('kind', ['integers', 'floats'])
@pytest.mark.parametrize('each', ['batch', 'example'])
def test_ranges_of_random_positions_are_log_uniform(kind, each):
  """T of n integers, uniformly: n is what (T + 1) / T of the largest, less 1, is on average."""

  def build(**hyper):
    hyper |= {'longest': 512, 'each': each, 'kind': kind}
    return make('random_positions', **SIZES, rngs=nnx.Rngs(0), **hyper).sample_positions

  ids, T = jnp.arange(16)[None], 16
  ranged, fixed, keys = build(shortest=32), build(), jax.random.split(jax.random.key(0), 400)
  draws = np.asarray(jax.jit(jax.vmap(lambda key: ranged(ids, 4, key)))(keys))
  assert draws.shape == (400, {'batch': 1, 'example': 4}[each], T)
  assert np.all(np.diff(draws) > 0)
  assert draws.min() >= 0
  assert draws.max() < 512
  if each == 'example':
    assert np.all(np.ptp(draws[:, :, -1], axis=1) > 0)
  ends = draws[..., -1] * (T + 1) / T
  mean = (512 - 32) / np.log(512 / 32)  # of what has a uniform logarithm
  assert abs(ends.mean() - mean) < 5 * ends.std() / np.sqrt(ends.size)
  for low, high in ((32, 64), (64, 128), (128, 256), (256, 512)):  # a quarter of the draws each
    near = 5 * np.sqrt(0.25 * 0.75 / ends.size) + 0.06  # ends are estimated from one number
    assert abs(np.mean((ends >= low) & (ends < high)) - 0.25) < near
  key = jax.random.key(2)
  np.testing.assert_array_equal(build(shortest=512)(ids, 4, key), fixed(ids, 4, key))
  np.testing.assert_array_equal(ranged(ids, 4, None), fixed(ids, 4, None))


def test_shortest_range_has_room_in_training_alone():
  enc = make('random_positions', **SIZES, rngs=nnx.Rngs(0), longest=64, shortest=16)
  sample = enc.sample_positions
  assert sample(jnp.arange(16)[None], 1, jax.random.key(0)).shape == (1, 16)
  assert sample(jnp.arange(17)[None], 1, None).shape == (1, 17)
  with pytest.raises(ValueError, match='17 tokens, which may be one document, for 16 positions'):
    sample(jnp.arange(17)[None], 1, jax.random.key(0))


RANDOM_FLOATS = {'name': 'random_positions', 'kind': 'floats', 'longest': 9}
SCALED = {'name': 'rope', 'scaling': {'rope_type': 'linear', 'factor': 8.0}}


@pytest.mark.parametrize(
  ('wrapper', 'inner', 'largest_distance'),
  [
    (RANDOM_FLOATS, {'name': 'rope'}, None),
    ({'name': 'random_positions'}, {'name': 'alibi'}, 255),
    ({'name': 'random_positions', 'shortest': 16}, {'name': 'rope'}, 255),
    ({'name': 'shape_offset'}, {'name': 'sinusoidal'}, None),
    ({'name': 'cape'}, {'name': 'sinusoidal'}, None),
    ({'name': 'pose'}, SCALED, 127),
  ],
)
def test_all_layers_of_a_model_stand_at_the_one_draw(wrapper, inner, largest_distance):
  """A model that draws is the model without, given those positions; in evaluation, where most draw
  nothing, it is that model.
  """
  m, plain, x = of(wrapper | {'inner': inner}), of(inner), tokens()
  draw = lambda key: m.encodings.first_layers[0].sample_positions(jnp.arange(12)[None], 2, key)
  at = functools.partial(nll, plain, x, max_position_distance=largest_distance)
  key, evaluated = jax.random.key(2), nll(m, x)
  trained = nll(m, x, key=key)
  np.testing.assert_allclose(trained, at(position_ids=draw(key)), atol=2e-5)
  assert np.abs(trained - evaluated).max() > 1e-3
  if (drawn := draw(None)) is not None:
    np.testing.assert_allclose(evaluated, at(position_ids=drawn), atol=2e-5)
    return
  np.testing.assert_array_equal(evaluated, nll(plain, x))
  packed = {'segment_ids': jnp.array([[0] * 4 + [1] * 8] * 2)}
  np.testing.assert_array_equal(nll(m, x, **packed), nll(plain, x, **packed))


def test_random_positions_without_room_are_those_in_order():
  m = of({'name': 'random_positions', 'inner': 'sinusoidal', 'longest': 16})
  plain, x = of({'name': 'sinusoidal'}), tokens(T=16)
  np.testing.assert_allclose(nll(m, x, key=jax.random.key(5)), nll(plain, x), atol=3e-5)
  with pytest.raises(ValueError, match='17 positions, but those of RandomPositions end at 16'):
    m(tokens(T=17))


@pytest.mark.parametrize(
  'wrapper',
  [
    *({'name': 'random_positions', 'each': each} for each in ('batch', 'example')),
    RANDOM_FLOATS | {'inner': 'rope'},
  ],
)
def test_evaluation_draws_alike_whatever_stands_beside(wrapper):
  m, x = of(wrapper), tokens(B=4)
  np.testing.assert_allclose(nll(m, x)[2:3], nll(m, x[2:3]), atol=2e-5)
  assert np.abs(nll(m, x) - nll(of({'name': 'rope'}), x)).max() > 1e-3


def test_shape_offset_moves_whole_examples():
  x, key = jnp.tile(tokens(B=1), (6, 1)), jax.random.key(1)
  enc = make('shape_offset', **SIZES, rngs=nnx.Rngs(0))
  moved = enc.sample_positions(jnp.arange(12)[None], 6, key)
  offsets = np.asarray(moved[:, 0])
  assert len(np.unique(offsets)) > 1
  assert offsets.max() <= 16
  np.testing.assert_array_equal(moved, offsets[:, None] + np.arange(12))
  relative, rope = of({'name': 'shape_offset', 'inner': 'rope'}), of({'name': 'rope'})
  np.testing.assert_allclose(nll(relative, x, key=key), nll(rope, x), atol=2e-5)


def test_pose_has_one_gap_of_every_width_in_training_alone():
  enc = make('pose', **SIZES, rngs=nnx.Rngs(0), longest=24)
  draws = np.asarray(enc.sample_positions(jnp.arange(16)[None], 4000, jax.random.key(0)))
  widths, (rows, places) = np.diff(draws) - 1, np.nonzero(np.diff(draws) - 1)
  assert np.all(draws[:, 0] == 0)
  assert draws.max() == 23 == enc.max_sampled_distance(16)
  assert len(np.unique(rows)) == len(rows), 'one gap'
  for values, choices in ((places + 1, range(1, 9)), (widths.sum(axis=1), range(9))):
    share = np.bincount(values, minlength=choices[-1] + 1)[choices[0] :] / len(values)
    assert len(share) == len(choices)
    assert np.abs(share - 1 / len(choices)).max() < 5 * np.sqrt(1 / len(choices) / len(values))
  contiguous = jnp.arange(40)[None]
  assert enc.sample_positions(contiguous, 2, None) is None
  with pytest.raises(ValueError, match=r'^PoSE: 40 tokens, but longest=24'):
    enc.sample_positions(contiguous, 2, jax.random.key(0))


def test_cape_stretches_and_moves_examples_and_tokens_in_training_alone():
  enc = make('cape', **SIZES, rngs=nnx.Rngs(0), shift=2.0, jitter=0.5, stretch=1.5)
  T, n = 16, 4000
  in_order = jnp.arange(T)[None]
  assert enc.sample_positions(in_order, 2, None) is None
  draws = enc.sample_positions(in_order, n, jax.random.key(0))
  assert draws.dtype == jnp.float32
  draws = np.asarray(draws, np.float64)
  assert draws.shape == (n, T)
  assert np.all(np.diff(draws) > 0), 'no token passes another'
  # a line through the positions of an example: its slope is lambda, up to what tokens are moved
  slopes, starts = np.polyfit(np.arange(T), draws.T, 1)
  away = draws - starts[:, None] - slopes[:, None] * np.arange(T)
  off = 0.5 / np.sqrt(12 * T * (T**2 - 1) / 12 / T)  # of a slope
  assert np.abs(np.log(slopes)).max() < np.log(1.5) + 5 * off
  for value, most in ((np.log(slopes), np.log(1.5)), (starts / slopes, 2.0)):
    quarters = np.histogram(value, np.linspace(-most, most, 5))[0] / n
    assert np.abs(quarters - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / n) + 0.01
  deviation = 0.5 / np.sqrt(12) * np.sqrt(1 - 2 / T)
  assert np.std(away / slopes[:, None]) == pytest.approx(deviation, rel=0.02)
  assert draws.max() - draws.min(axis=1).max() < enc.max_sampled_distance(T)
  still = make('cape', **SIZES, rngs=nnx.Rngs(0), shift=0.0, jitter=0.0, stretch=1.0)
  np.testing.assert_array_equal(still.sample_positions(in_order, 1, jax.random.key(0)), in_order)


def test_cape_of_several_axes_moves_and_stretches_each():
  """Places of one image in a batch keep their order along each axis; of one draw all are alike."""
  hyper = dict(inner='axial_rope', shift=2.0, jitter=0.0, stretch=1.5, axis_stretch=1.2)
  enc = make('cape', **SIZES | {'head_dim': 8}, rngs=nnx.Rngs(0), **hyper)
  places = np.stack(np.divmod(np.arange(12), 4), axis=1)[None]
  n = 2000
  draws = np.asarray(enc.sample_positions(places, n, jax.random.key(0)), np.float64)
  assert draws.shape == (n, 12, 2)
  slopes = np.stack([draws[:, 4, 0] - draws[:, 0, 0], draws[:, 1, 1] - draws[:, 0, 1]])
  exact = slopes.T[:, None] * places + draws[:, :1]
  np.testing.assert_allclose(draws, exact, atol=1e-4)
  assert np.abs(np.log(slopes)).max() < np.log(1.5 * 1.2)
  apart = np.log(slopes[0] / slopes[1])  # without lambda
  assert 0.9 * 2 * np.log(1.2) < np.abs(apart).max() < 2 * np.log(1.2)
  starts = draws[:, 0] / slopes.T
  assert np.abs(starts).max(axis=0).min() > 0.95 * 2
  assert np.abs(starts).max() < 2
  assert np.abs(np.corrcoef(starts.T)[0, 1]) < 0.1
  assert np.abs(draws[:, :, None] - draws[:, None]).max() < enc.max_sampled_distance(4)
  once = make('cape', **SIZES | {'head_dim': 8}, rngs=nnx.Rngs(0), **hyper, each='batch')
  assert once.sample_positions(places, n, jax.random.key(0)).shape == (1, 12, 2)


def test_a_step_draws_by_seed_and_step_and_validation_draws_nothing():
  c = config(seed=3, optim__warmup=0)
  overlay(c, {'encoding': {'name': 'pose'}})
  m, x, optimizer = build(c, VOCAB, nnx.Rngs(0)), tokens(), make_optimizer(c.optim, c.train.steps)
  step, validate = make_step_fns(c, optimizer)
  np.testing.assert_allclose(validate(m, Batch(x)), nll(m, x).mean(), rtol=1e-5)
  state = m, optimizer.init(m)
  for n in range(2):
    key = jax.random.fold_in(jax.random.key(3), n)
    desired = jax.jit(lambda m, key: token_nll(m, x, key=key).mean())(state[0], key)
    *state, metrics = step(*state, Batch(x))
    np.testing.assert_allclose(metrics['loss'], desired, rtol=1e-5)


def test_a_pattern_by_names_and_commas():
  assert of({'name': 'pattern', 'layers': 'rope,rope,nope'}).encodings.order == (0, 0, 1)
