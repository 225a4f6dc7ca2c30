"""Golden values, identities between encodings, and what bad hyperparameters get."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_laws import inputs, layer

from posenc_jax.encodings import ENCODINGS, Encoding, LengthError, make
from posenc_jax.encodings.alibi import slopes
from posenc_jax.encodings.rope import rotate
from posenc_jax.encodings.sharing import Layered
from posenc_jax.encodings.sinusoidal import sinusoid
from posenc_jax.encodings.t5 import bucket_row

SIZES = {'model_dim': 12, 'heads': 4, 'kv_heads': 2, 'head_dim': 8, 'train_length': 40}


def build(name, **hyper):
  return make(name, **SIZES, rngs=nnx.Rngs(0), **hyper)


# Golden values.


@pytest.mark.parametrize(
  ('buckets', 'most', 'starts'),
  [
    (32, 128, [16, 19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113]),
    (16, 128, [8, 12, 16, 23, 32, 46, 64, 91]),
    (32, 512, [16, 20, 25, 31, 39, 48, 59, 73, 91, 113, 140, 174, 216, 268, 332, 413]),
    (32, 1024, [16, 21, 27, 35, 46, 59, 77, 99, 128, 166, 216, 280, 363, 470, 609, 790]),
    (32, 2048, [16, 22, 30, 40, 54, 73, 99, 134, 182, 246, 332, 450, 609, 825, 1117, 1513]),
  ],
)
def test_t5_buckets_start_where_published(buckets, most, starts):
  row = bucket_row(buckets, most)
  np.testing.assert_array_equal(row[: buckets // 2], np.arange(buckets // 2))
  np.testing.assert_array_equal(np.flatnonzero(np.diff(row))[buckets // 2 - 1 :] + 1, starts)
  assert row[-1] == buckets - 1


def test_t5_far_and_future_distances():
  bias = lambda enc, r: np.asarray(enc.tables(jnp.array(r)))
  causal, both = build('t5'), build('t5', bidirectional=True)
  rows = lambda enc, numbers: np.float32(8**0.5) * np.asarray(enc.bias[...])[numbers]
  np.testing.assert_allclose(bias(causal, [113, 128, 10**6]), rows(causal, [31, 31, 31]))
  np.testing.assert_allclose(bias(causal, [-5, 0]), rows(causal, [0, 0]))
  np.testing.assert_allclose(bias(both, [-8, 8, -(10**6)]), rows(both, [16 + 8, 8, 31]))


@pytest.mark.parametrize(
  ('heads', 'golden'),
  [
    (8, [2.0**-n for n in range(1, 9)]),
    (12, [0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.00390625, 0.707107, 0.353553, 0.176777, 0.088388]),
    (6, [0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125]),
    (1, [2.0**-8]),
  ],
)
def test_alibi_slopes(heads, golden):
  np.testing.assert_allclose(slopes(heads), golden, atol=5e-7)


def test_rope_golden_values():
  frequencies = build('rope').frequencies()
  np.testing.assert_allclose(frequencies, [1, 0.1, 0.01, 0.001])
  one = jnp.array([[[[1.0, 1, 1, 1, 0, 0, 0, 0]]]])
  turned = rotate(one, jnp.asarray(3 * frequencies, jnp.float32)[None, None], 'half')
  golden = [-0.989992, 0.955336, 0.99955, 0.9999955, 0.14112, 0.29552, 0.0299955, 0.003]
  np.testing.assert_allclose(turned[0, 0, 0], golden, atol=1e-6)
  np.testing.assert_allclose(
    make('rope', **SIZES | {'head_dim': 16}, rngs=nnx.Rngs(0), fraction=0.25).frequencies(), [1, 0.01]
  )


def test_sinusoid_layouts_are_permutations_and_odd_widths_end_in_zero():
  t = np.arange(50)
  interleaved, concatenated = sinusoid(t, 10), sinusoid(t, 10, layout='concatenated')
  np.testing.assert_array_equal(interleaved, concatenated[:, [0, 5, 1, 6, 2, 7, 3, 8, 4, 9]])
  np.testing.assert_allclose(interleaved[:, :2], np.stack([np.sin(t), np.cos(t)], -1), atol=1e-5)
  longest = sinusoid(np.array([np.pi * 10_000]), 10, layout='tensor2tensor')  # half of the longest wavelength
  np.testing.assert_allclose(longest[0, -1], -1, atol=1e-5)
  assert sinusoid(t, 7).shape == (50, 7)
  assert np.all(sinusoid(t, 7)[:, -1] == 0)


# Identities.


def same(enc, other, scale_q=1.0, **options):
  x, weights, _ = inputs()
  run = jax.jit(lambda enc, w: layer(enc, w, x, backend='dense', **options))
  np.testing.assert_allclose(run(enc, weights), run(other, weights | {'q': scale_q * weights['q']}), atol=1e-5)


def zeroed(enc):
  return jax.tree.map(jnp.zeros_like, enc)


@pytest.mark.parametrize('name', ['shaw', 'transformer_xl', 'learned'])
def test_zero_parameters_are_nope(name):
  same(zeroed(build(name)), build('nope'))


def test_zero_deberta_and_t5_are_nope_at_their_scale():
  same(zeroed(build('deberta')), build('nope'), 3**-0.5)
  same(zeroed(build('deberta', p2c=False)), build('nope'), 2**-0.5)
  same(zeroed(build('t5')), build('nope'), 8**0.5)


def test_constant_t5_bias_is_no_bias():
  same(jax.tree.map(jnp.ones_like, build('t5')), zeroed(build('t5')))


def test_t5_with_linear_biases_is_alibi():
  """Inside the exact buckets any bias by distance can be written into T5's table."""
  t5 = jax.tree.map(
    lambda b: -jnp.multiply.outer(jnp.arange(32.0), jnp.array(slopes(4)) / 8**0.5).reshape(b.shape), build('t5')
  )
  same(t5, build('alibi'), 8**0.5)


def test_learned_slopes_start_as_alibi_and_zero_slopes_are_nope():
  same(build('alibi', learned=True), build('alibi'), causal=False)
  same(zeroed(build('alibi', learned=True)), build('nope'))


def test_shaw_at_a_long_clip_holds_clipped_distances():
  """A table of clip 30 whose far rows repeat row 3 is a table of clip 3."""
  short, long = build('shaw', clip=3), build('shaw', clip=30)
  rows = np.clip(np.arange(-30, 31), -3, 3) + 3
  long.keys[...], long.values[...] = short.keys[...][rows], short.values[...][rows]
  same(long, short, causal=False)


def test_rope_layouts_are_one_permutation_apart():
  x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 5, 2, 8)), jnp.float32)
  angles = jnp.multiply.outer(jnp.arange(5.0)[None], jnp.asarray(build('rope').frequencies(), jnp.float32))
  permutation = np.array([0, 2, 4, 6, 1, 3, 5, 7])  # evens, then odds
  half = rotate(x[..., permutation], angles, 'half')
  np.testing.assert_allclose(half, rotate(x, angles, 'interleaved')[..., permutation], atol=1e-6)


def test_rope_keeps_norms_and_whole_fraction_is_rope():
  x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 5, 2, 8)), jnp.float32)
  angles = jnp.full((1, 5, 4), 123.456)
  np.testing.assert_allclose(
    jnp.linalg.norm(rotate(x, angles, 'half'), axis=-1), jnp.linalg.norm(x, axis=-1), rtol=1e-6
  )
  same(build('rope', fraction=1.0), build('rope'))


def test_two_bases_in_one_process_differ():
  x, weights, _ = inputs()
  run = lambda base: layer(build('rope', base=base), weights, x, backend='dense')
  assert np.abs(run(1e4) - run(5e5)).max() > 1e-3


def test_without_mask_only_order_free_encodings_forget_order():
  """Bidirectional attention without positions is equivariant to permutations: no second source of position is on."""
  x, weights, _ = inputs()
  order = np.random.default_rng(0).permutation(x.shape[1])
  for name in ENCODINGS:
    run = jax.jit(functools.partial(layer, build(name), weights, backend='dense', causal=False))
    change = np.abs(run(x[:, order]) - run(x)[:, order]).max()
    if name == 'nope':
      assert change < 1e-5
    else:
      assert change > 1e-3 * (0.1 if name == 'transformer_xl' else 1), name


# Sharing over layers.


@pytest.mark.parametrize('name', ENCODINGS)
@pytest.mark.parametrize('share', ['paper', 'all', 'none'])
def test_sharing(name, share):
  rngs = nnx.Rngs(0)
  one = make(name, **SIZES, rngs=rngs)
  sizes = {path[0].name: leaf.size for path, leaf in jax.tree_util.tree_flatten_with_path(one)[0]}
  build_layers = lambda: Layered(lambda: make(name, **SIZES, rngs=rngs), 3, share)
  if share == 'none' and name == 'learned':
    with pytest.raises(ValueError, match='acts once, at the input'):
      build_layers()
    return
  layered = build_layers()
  own = {'paper': set(one.per_layer), 'all': set(), 'none': set(sizes)}[share]
  assert sum(p.size for p in jax.tree.leaves(layered)) == sum(n * (3 if p in own else 1) for p, n in sizes.items())
  stacked, layer_of = layered.split()
  encodings = [layer_of([p[n] for p in stacked]) for n in range(3)]
  for parameter in sizes:
    first, second = (np.asarray(getattr(e, parameter)[...]) for e in encodings[:2])
    assert np.array_equal(first, second) == (parameter not in own)


# Bad input.


@pytest.mark.parametrize(
  ('name', 'hyper', 'message'),
  [
    ('rop', {}, "encoding.name='rop' is unknown; nearest: rope"),
    ('rope', {'bass': 1.0}, "encoding rope has no hyperparameter 'bass'; it has: base"),
    ('nope', {'base': 1.0}, "encoding nope has no hyperparameter 'base'; it has: none"),
    ('rope', {'base': 0.5}, 'rope: base=0.5 must be greater than 1'),
    ('rope', {'layout': 'split'}, "rope: layout='split' must be one of half, interleaved"),
    ('rope', {'fraction': 0.4}, 'rope: fraction=0.4 of head_dim=8 must be an even number of channels'),
    ('sinusoidal', {'layout': 'x'}, "sinusoidal: layout='x' must be one of interleaved, concatenated, tensor2tensor"),
    ('shaw', {'clip': 0}, 'shaw: clip=0 must be at least 1'),
    ('t5', {'buckets': 7}, 't5: buckets=7 must be even and at least 4'),
    ('t5', {'max_distance': 16}, 't5: max_distance=16 must exceed the 16 exact buckets'),
    ('deberta', {'span': 0}, 'deberta: span=0 must be at least 1'),
    ('deberta', {'c2p': False, 'p2c': False}, 'leave no position term'),
    ('learned', {'max_length': 0}, 'learned: max_length=0 must be at least 1'),
    ('transformer_xl', {'clamp_length': 0}, 'transformer_xl: clamp_length=0 must be at least 1'),
  ],
)
def test_bad_hyperparameters(name, hyper, message):
  with pytest.raises(ValueError, match=re.escape(message)) as error:
    build(name, **hyper)
  assert '\n' not in str(error.value)


def test_odd_head_width_and_heads_that_do_not_divide():
  with pytest.raises(ValueError, match='head_dim=7 must be an even number'):
    make('rope', **SIZES | {'head_dim': 7}, rngs=nnx.Rngs(0))
  with pytest.raises(ValueError, match='heads=4 must be a multiple of kv_heads=3'):
    make('rope', **SIZES | {'kv_heads': 3}, rngs=nnx.Rngs(0))


def test_learned_table_ends():
  """Past the table: an error where the length is known, NaN where it is not; never the last row again."""
  x, weights, _ = inputs()
  short = build('learned', max_length=10)
  with pytest.raises(LengthError, match='11 positions, but the table of Learned ends at 10'):
    layer(short, weights, x)
  read = short.embed(jnp.zeros((1, 3, 12)), jnp.array([[0, 9, 10]]))
  assert np.isfinite(read[0, :2]).all()
  assert np.isnan(read[0, 2]).all()


@pytest.mark.parametrize('name', ENCODINGS)
def test_every_entry_declares_itself(name):
  enc = make(name, **SIZES, rngs=nnx.Rngs(0))
  assert isinstance(enc, Encoding)
  assert enc.paper or name == 'nope'
  assert type(enc).__doc__
  names = {path[0].name for path, _ in jax.tree_util.tree_flatten_with_path(enc)[0]}
  assert set(enc.per_layer) <= names
  assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(enc))
