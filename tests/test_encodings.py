"""Golden values, identities between encodings, and what bad hyperparameters get."""

import ast
import dataclasses
import functools
import math
import re
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from kinds import daily_if, representatives, slow
from ml_collections import ConfigDict
from oracles import RECORDS, attention_layer
from scipy import stats
from test_laws import VARIANTS, WRAPPERS, inputs, layer, parameters

from posenc_jax.attention import attend
from posenc_jax.attention.positions import positions_in_order
from posenc_jax.attention.tiled.tile import ScoreTile
from posenc_jax.encodings import ENCODINGS, Dims, Encoding, LengthError, hyperparameters, make, wall
from posenc_jax.encodings.alibi import balanced_slopes, slopes
from posenc_jax.encodings.core.base import HOOKS, MASKED
from posenc_jax.encodings.core.registry import OF_CONFIGS
from posenc_jax.encodings.core.running_sums import difference_of_sums, running_sum
from posenc_jax.encodings.deberta import log_bucket_row
from posenc_jax.encodings.entmax import entmax
from posenc_jax.encodings.golden_gate_rope import directions
from posenc_jax.encodings.liere import expm1_skew
from posenc_jax.encodings.path import lower_inverse
from posenc_jax.encodings.rope import rotate
from posenc_jax.encodings.sinusoidal import sinusoid
from posenc_jax.encodings.t5 import bucket_row, buckets_of
from posenc_jax.encodings.transformer_xl import enformer_features
from posenc_jax.model.layer_sharing import StackedEncoding
from posenc_jax.xla_ops import scaled_dot_if_any

SIZES = {'model_dim': 12, 'heads': 4, 'kv_heads': 2, 'head_dim': 8, 'train_length': 40}


YARN = {'rope_type': 'yarn', 'factor': 4.0}
YARN_OF_AXES = YARN | {'original_max_position_embeddings': 40}
DYNAMIC_YARN = {'rope_type': 'dynamic_yarn', 'original_max_position_embeddings': 4096}


def build(name, **hyper):
  return make(name, **SIZES | {'kv_heads': hyper.pop('kv_heads', 2)}, rngs=nnx.Rngs(0), **hyper)


def without_numbers(name, **hyper):
  """The encoding with the shapes of its parameters alone: numbers take most of the time to make."""
  return nnx.eval_shape(lambda: build(name, **hyper))


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


@pytest.mark.parametrize(
  ('buckets', 'most', 'starts'),
  [
    (8, 33, [5, 9, 17, 33]),
    (6, 9, [4, 5, 9]),
    (32, 128, [17, 19, 22, 25, 28, 32, 37, 43, 49, 56, 64, 74, 84, 97, 111, 128]),
  ],
)
def test_log_buckets_of_deberta_start_where_released(buckets, most, starts):
  """Those beyond half of them; at 256 to the distance 512, by the code's own formula."""
  row = log_bucket_row(buckets, most)
  assert list(row[: buckets // 2 + 1]) == list(range(buckets // 2 + 1))
  assert [int(np.argmax(row >= n)) for n in range(buckets // 2 + 1, buckets + 1)] == starts
  far = np.arange(129, 513)
  released = np.ceil(np.log(far / 128) / np.log(511 / 128) * 127) + 128
  np.testing.assert_array_equal(log_bucket_row(256, 512)[129:], released)


def test_t5_far_and_future_distances():
  bias = lambda enc, r: np.asarray(enc.bias(jnp.array(r)))
  causal, both = build('t5'), build('t5', bidirectional=True)
  rows = lambda enc, numbers: np.float32(8**0.5) * np.asarray(enc.table[...])[numbers]
  np.testing.assert_allclose(bias(causal, [113, 128, 10**6]), rows(causal, [31, 31, 31]))
  np.testing.assert_allclose(bias(causal, [-5, 0]), rows(causal, [0, 0]))
  np.testing.assert_allclose(bias(both, [-8, 8, -(10**6)]), rows(both, [16 + 8, 8, 31]))
  np.testing.assert_allclose(bias(both, [-3, 0, 3, 299]), rows(both, [16 + 3, 0, 3, 15]))


@pytest.mark.parametrize(
  ('heads', 'golden'),
  [
    (8, [2.0**-n for n in range(1, 9)]),
    (
      12,
      [
        0.5,
        0.25,
        0.125,
        0.0625,
        0.03125,
        0.015625,
        0.0078125,
        0.00390625,
        0.707107,
        0.353553,
        0.176777,
        0.088388,
      ],
    ),
    (6, [0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125]),
    (1, [2.0**-8]),
  ],
)
def test_alibi_slopes(heads, golden):
  np.testing.assert_allclose(slopes(heads), golden, atol=5e-7)


def test_alibi_is_steeper_with_an_exponent_and_interpolated_by_a_factor():
  np.testing.assert_allclose(slopes(8, 16), [4.0**-n for n in range(1, 9)])
  np.testing.assert_allclose(slopes(3, 16), [2.0**-8, 2.0**-16, 2.0**-4])
  near, far = jnp.arange(-3, 4), 4 * jnp.arange(-3, 4)
  np.testing.assert_array_equal(build('alibi', factor=4.0).bias(far), build('alibi').bias(near))


@pytest.mark.parametrize('heads', [2, 4, 12])
def test_alibi_that_is_spread_keeps_its_steepest_slope_and_interpolates_the_flattest(heads):
  """NTK-ALiBi; those between are on the way in log, whatever the order of heads."""
  far = np.array([-9, 0, 1, 4000])
  sizes = {'heads': heads, 'kv_heads': heads}
  of = lambda **h: np.asarray(make('alibi', **SIZES | sizes, rngs=nnx.Rngs(0), **h).bias(far))
  plain, spread, interpolated = of(), of(factor=8.0, spread=True), of(factor=8.0)
  own = [float(m) for m in slopes(heads)]
  first, last = own.index(max(own)), own.index(min(own))
  np.testing.assert_array_equal(spread[:, first], plain[:, first])
  np.testing.assert_allclose(spread[:, last], interpolated[:, last], rtol=1e-6)
  for h, m in enumerate(own):
    part = np.log(max(own) / m) / np.log(max(own) / min(own))
    np.testing.assert_allclose(spread[:, h], -m / 8**part * np.abs(far), rtol=1e-6)


def test_balanced_alibi_falls_in_half_of_the_heads_and_grows_in_the_others():
  np.testing.assert_array_equal(balanced_slopes(6), [0.5, 0.25, 0.125, -0.5, -0.25, -0.125])
  enc, bias = build('alibi', balanced=True, factor=2.0), [-1.0, -0.5, 1.0, 0.5]
  np.testing.assert_array_equal(enc.bias(jnp.array([-4, 0, 4])), [bias, [0] * 4, bias])
  same(build('alibi', balanced=True, learned=True), build('alibi', balanced=True))


def test_kv_shift_by_learned_numbers_starts_as_published():
  """As a part of the token before and the rest of the token itself, drawn for keys and values of
  each head apart; without the token before it does nothing.
  """
  enc = build('kv_shift', gate='learned', kv_heads=4)
  drawn = np.array([enc.w_k[...], enc.w_v[...]])
  assert drawn.shape == (2, 2, 4)
  np.testing.assert_allclose(drawn.sum(axis=1), 1, rtol=1e-6)
  assert ((drawn > 0) & (drawn < 1)).all()
  assert len(np.unique(drawn[:, 0])) == 8
  enc = build('kv_shift', gate='learned')
  for w in (enc.w_k, enc.w_v):
    w[...] = jnp.array([[0.0, 0.0], [1.0, 1.0]])
  same(enc, build('nope'))


def test_shaw_may_look_less_far_ahead_than_back():
  """w2v-BERT's ranges: a row for each of 64 tokens back, for itself and for each of 8 ahead."""
  enc = build('shaw', max_distance=64, max_later=8, value_rows=False)
  table = enc.keys[...]
  assert table.shape == (73, 8)
  r = jnp.array([10**6, 65, 64, 1, 0, -1, -8, -9, -(10**6)])
  rows = [0, 0, 0, 63, 64, 65, 72, 72, 72]
  np.testing.assert_array_equal(enc.relative_keys(r)[:, 0], table[jnp.array(rows)])
  zero = build('shaw', max_distance=64, max_later=8, beyond='zero').relative_values(r)[:, 0]
  assert [bool(row.any()) for row in zero] == [False, False, *[True] * 5, False, False]


def test_kerple_log_golden_values():
  enc = build('kerple_log')
  enc.p[...], enc.a[...] = jnp.ones(4), jnp.full(4, 0.5)
  golden = [0, -0.4055, -1.7918, -3.9318, -6.2166]
  for sign in (1, -1):
    np.testing.assert_allclose(
      enc.bias(sign * jnp.array([0, 1, 10, 100, 1000]))[:, 2], golden, atol=5e-5
    )


def test_kerple_power_golden_values():
  enc = build('kerple_power')
  enc.p[...], enc.a[...] = jnp.full(4, 0.5), jnp.full(4, 0.1)
  for sign in (1, -1):
    bias = enc.bias(sign * jnp.array([0, 1, 10, 100, 1000]))[:, 2]
    np.testing.assert_allclose(bias, [0, -0.1, -0.31623, -1, -3.16228], atol=5e-6)


def test_bam_golden_values():
  enc = build('bam', learned_mean=True)
  enc.log_size[...], enc.exponent[...] = jnp.full(4, np.log(0.5)), jnp.full(4, 0.5)
  for sign in (1, -1):
    bias = enc.bias(sign * jnp.array([0, 1, 100, 10_000]))[:, 1]
    np.testing.assert_allclose(bias, [-0.00158114, -0.500003, -5, -50], rtol=2e-6)
  enc.theta[...] = jnp.full(4, -np.arcsinh(1.5))  # a mean of three tokens before the query
  np.testing.assert_allclose(
    enc.bias(jnp.array([3, 4, 2, 12]))[:, 0], [-0.00158, -0.5, -0.5, -1.5], atol=2e-4
  )


def test_wavelet_golden_values():
  """Two scales of four shifts: at the distance 0 u is 0, -1, -2, -3 and half of it."""
  enc = build('wavelet', scales=2)
  golden = [1, 0, -0.406006, -0.0888720, 1, 0.661873, 0, -0.405815]
  np.testing.assert_allclose(enc.relative_keys(jnp.array([0]))[0, 0], golden, atol=1e-6)
  np.testing.assert_allclose(enc.relative_keys(jnp.array([3]))[0, 0, [3, 7]], [1, 1])


@pytest.mark.parametrize('hyper', [{}, {'scales': 2, 'first': 3}])
def test_wavelets_have_ended_where_they_are_declared_constant(hyper):
  enc = build('wavelet', **hyper)
  end, largest = enc.max_relative_distance, 2 ** (enc.first + enc.scales - 1)
  far = enc.relative_keys(jnp.array([end, -end, end + 1, 10**7, -(10**7)]))
  assert np.all(far == 0)
  assert enc.relative_keys(jnp.array([end - 2 * largest])).min() < 0


def test_waves_of_compact_relative_golden_values():
  """z of the released formula at 0 and at a key one token and one far later: 0.1217, pi / 2."""
  enc = build('compact_relative')
  waves = enc.waves(jnp.array([0, -1, 1, -(10**9)]))
  np.testing.assert_allclose(waves[0], [*[1, 0] * 23, 1, 1])
  z = np.arctan(2 * np.pi / 48 * 48**0.5 * np.log(1 + 48**-0.5))
  assert z == pytest.approx(0.1217, abs=5e-5)
  np.testing.assert_allclose(
    waves[1, [0, 1, 44, 45]], [f(n * z) for n in (1, 23) for f in (np.cos, np.sin)], atol=1e-6
  )
  np.testing.assert_allclose(waves[2, 1::2][:-1], -waves[1, 1::2][:-1])
  # so slowly does the angle reach pi / 2
  far = np.arctan(2 * np.pi / 48 * 48**0.5 * np.log(1 + 1e9 * 48**-0.5))
  np.testing.assert_allclose(waves[3, :2], [np.cos(far), np.sin(far)], atol=1e-6)


def scores(enc, x, positions):
  """The scores of q = k = 0, less that of the first key: float [T, H, S]."""
  S, H = x.shape[1], enc.dims.heads
  q = jnp.zeros((1, S, H, 8))
  values = jnp.broadcast_to(jnp.eye(S, 8)[None, :, None], q.shape)
  weights = attend(q, q, values, enc, x=x, position_ids=positions, is_causal=False, backend='dense')
  logs = np.log(np.asarray(weights, np.float64)[0, :, :, :S])
  return logs - logs[:, :, :1]


def test_ultravico_golden_values():
  """Scores are log 4, -log 3, log 16, 0 at the distances 3, 2, 1, 0; those beyond 1 change."""
  enc, s = build('ultravico', window=1, alpha=0.5, kv_heads=4), np.zeros((4, 4))
  s[3] = np.log([4, 1 / 3, 16, 1])
  weights = attended(enc, s)
  np.testing.assert_allclose(weights[3, :, 0] * (2 + 1 / 3 + 16 + 1), [2, 1 / 3, 16, 1], rtol=1e-5)


def test_ultravico_leaves_what_is_within_its_window():
  same(build('ultravico', window=10, alpha=0.0), build('nope'))
  same(build('ultravico', window=0, alpha=1.0), build('nope'), is_causal=False)
  assert build('ultravico').window == 20


@pytest.mark.parametrize('backend', ['dense', 'blockwise'])
def test_ultravico_counts_tokens_that_have_several_positions(backend):
  """Positions of a video: time, row and column of each token, seen both ways."""
  grid = {'name': 'axial_rope', 'axes': 3, 'sections': (2, 1, 1)}
  members = (grid, {'name': 'ultravico', 'window': 3, 'alpha': 0.3})
  enc, (x, weights, _) = build('chain', members=members), inputs()
  B, S, _ = x.shape
  positions = np.random.default_rng(0).integers(0, 4, (B, S, 3))
  options = {'is_causal': False, 'position_ids': positions, 'backend': backend}
  w, x64 = jax.tree.map(lambda a: np.asarray(a, np.float64), (weights, x))
  oracle = RECORDS['chain'].oracle(Dims(**SIZES), {'members': members}, {})
  desired = attention_layer(oracle, w, x64, positions, np.ones((B, S, S), bool))
  sizes = None if backend == 'dense' else (3, 5)
  found = jax.jit(lambda x: layer(enc, weights, x, block_sizes=sizes, **options))(x)
  np.testing.assert_allclose(found, desired, atol=2e-5)


def test_screening_golden_values():
  """By hand, without rotations: keys at the cosines 1, 0.8, 0.6 and 0 of the last query; r = 1/2,
  and in the last head 0.8. Windows are longer than the threshold, 3 tokens.
  """
  enc = build('screening', threshold=2.5, kv_heads=4)
  enc.a[...] = jnp.full(4, np.log(2), jnp.float32)
  enc.b[...] = jnp.array([0, 0, 0, np.log(4)], jnp.float32)
  k = np.zeros((4, 8))
  k[:, 4:6] = [[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1]]
  heads = lambda x: jnp.broadcast_to(jnp.asarray(x, jnp.float32)[None, :, None], (1, 4, 4, 8))
  q, k, v = map(heads, (7 * k[[0] * 4], 3 * k, np.eye(4, 8)))
  o = np.asarray(attend(q, k, v, enc, backend='dense'), np.float64)[0]
  length = np.linalg.norm(o, axis=-1, keepdims=True)
  weights = o * np.arctanh(length) / length
  m = [0, 0.25, 0.75, 1]  # (1 + cos(pi d / 3)) / 2
  np.testing.assert_allclose(weights[3, 0, :4], np.array([1, 0.36, 0.04, 0]) * m, atol=1e-5)
  np.testing.assert_allclose(weights[3, 3, :4], np.array([1, 0.5625, 0.25, 0]) * m, atol=1e-5)


def test_windows_of_screening():
  """They start from 2 to threshold + 1, where nothing rotates; opened, long ones have no end."""
  for kv_heads, starts in ((1, [65]), (2, [2, 65])):
    windows = build('screening', threshold=64.0, kv_heads=kv_heads).windows()
    np.testing.assert_allclose(windows, starts, rtol=1e-6)
  enc = build('screening', threshold=64.0, kv_heads=4)
  np.testing.assert_allclose(enc.windows(), [2, 5, 17, 65], rtol=1e-6)
  r = jnp.array([-1, 0, 1, 2, 32, 65, 1000])
  m = enc.tables(r)
  np.testing.assert_allclose(m[:4, 0], [0, 1, 0.5, 0], atol=1e-6)
  np.testing.assert_allclose(m[4:, 3], [(1 + np.cos(np.pi * 32 / 65)) / 2, 0, 0], atol=1e-6)
  opened = build('screening', threshold=64.0, kv_heads=4, open_windows=True).tables(r)
  np.testing.assert_array_equal(opened[:, :3], m[:, :3])
  np.testing.assert_array_equal(opened[:, 3], [0, 1, 1, 1, 1, 1, 1])
  x = jnp.ones((1, 2, 4, 8))
  turned = enc.turn(x, jnp.array([[0.0, 3.0]]))[0] * 8**0.5
  angles = [3 * np.pi * (1 + np.cos(np.pi * w / 64)) / 2 / w for w in (2, 5, 17)]
  np.testing.assert_allclose(turned[1, :3, 0], np.cos(angles) - np.sin(angles), atol=1e-5)
  np.testing.assert_allclose(turned[1, :3, 2:], 1, atol=1e-5)
  np.testing.assert_allclose(turned[1, 3], 1, atol=1e-5)


@pytest.mark.ci
def test_screening_of_nothing_is_nothing_and_has_finite_gradients():
  """Queries let no key through, and zeros stand in the place of vectors."""
  enc = build('screening', kv_heads=4)
  run = lambda q, k: attend(q, k, k, enc, backend='dense')
  gradients = jax.grad(lambda q, k: jnp.sum(run(q, k) ** 2), argnums=(0, 1))
  for size in (0.0, 1.0):
    k = jnp.full((1, 3, 4, 8), size)
    np.testing.assert_array_equal(run(-k, k), 0)
    assert all(np.isfinite(gradient).all() for gradient in gradients(-k, k))


def test_pape_golden_values():
  """A parabola of one head by hand: p = t / 2, a = log(1 + e^0), b = 3, at the distances 0 to 3."""
  enc, x = zeroed(build('pape', parabolas=1, kv_heads=4)), np.zeros((1, 4, 12), 'f4')
  x[0, :, 0] = 1.0
  enc.w_p[...] = jnp.full((1, 4, 1), 0.5)
  enc.w_b[...] = jnp.zeros((12, 4, 1)).at[0, 1].set(3.0)
  by_hand = lambda b, d: (b * d / 2 - np.log(2) * (d / 2) ** 2) / 8**0.5
  found = scores(enc, x, jnp.array([[0, 1, 2, 3]]))[3]
  for head, b in ((0, 0.0), (1, 3.0)):
    expected = by_hand(b, np.array([3, 2, 1, 0]))
    np.testing.assert_allclose(found[head], expected - expected[0], atol=1e-5)


def test_pape_is_its_expanded_squares():
  """As the released code has it, of wider queries and keys, in a plane."""
  enc, rng = away(build('pape', parabolas=3, axes=2, kv_heads=4)), np.random.default_rng(1)
  x, t = rng.standard_normal((1, 4, 12)).astype('f4'), np.array([[0, 0], [0, 1], [1, 0], [2, 1]])
  p = np.einsum('sa,ahn->shn', t, np.asarray(enc.w_p[...]))
  a = np.log1p(np.exp(np.einsum('sd,dhn->shn', x[0], np.asarray(enc.w_a[...]))))
  b = np.einsum('sd,dhn->shn', x[0], np.asarray(enc.w_b[...]))
  ones = np.ones((4, 4, 1))
  q = [-(a * p**2).sum(-1, keepdims=True), a, 2 * a * p, (b * p).sum(-1, keepdims=True), b]
  k = [ones, -(p**2), p, ones, -p]
  q, k = np.concatenate(q, axis=-1), np.concatenate(k, axis=-1)
  expected = np.einsum('ihc,jhc->ihj', q, k) / 8**0.5
  found = scores(enc, x, jnp.asarray(t)[None])
  np.testing.assert_allclose(found, expected - expected[:, :, :1], atol=1e-4)


def test_pape_ri_is_alike_in_all_directions():
  """Rotated positions give the same; and with one axis it is `pape` with one parabola."""
  enc, t = away(build('pape_ri', axes=2, kv_heads=4)), jnp.array([[[0.0, 1], [2, 2], [3, -1]]])
  x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 3, 12)), jnp.float32)
  turn = jnp.array([[0.6, -0.8], [0.8, 0.6]])
  np.testing.assert_allclose(scores(enc, x, t), scores(enc, x, t @ turn), atol=1e-5)
  flat, whole = away(build('pape_ri')), zeroed(build('pape', parabolas=1))
  whole.w_p[...] = jnp.asarray(flat.factors(), jnp.float32)[None, :, None]
  whole.w_a[...] = flat.w_a[...][..., None]
  same(whole, flat)


WINDOW = np.stack(np.divmod(np.arange(6), 3), axis=1)  # of two rows of three


def test_swin_reads_its_table_as_released():
  """By one index of both distances: (2 W - 1) places of a row follow those of the row before."""
  enc = away(build('swin', sizes=(2, 3), kv_heads=4))
  rows, columns = np.moveaxis(WINDOW[:, None] - WINDOW[None], 2, 0)
  index = (rows + 1) * 5 + columns + 2
  expected = np.moveaxis(np.asarray(enc.table[...]).reshape(15, 4)[index], 2, 1)
  found = scores(enc, np.zeros((1, 6, 12), 'f4'), jnp.asarray(WINDOW)[None])
  np.testing.assert_allclose(found, expected - expected[:, :, :1], atol=1e-5)


def test_swin_v2_golden_values():
  """A hidden unit that sees columns alone gives 16 sigmoid(log2(1 + 8 d / 2) / 3), and 8 to keys on
  the right.
  """
  enc = zeroed(build('swin_v2', sizes=(2, 3), hidden=1, kv_heads=4))
  enc.w_in[...], enc.w_out[...] = jnp.array([[0.0], [1.0]]), jnp.ones((1, 4))
  found = scores(enc, np.zeros((1, 6, 12), 'f4'), jnp.asarray(WINDOW)[None])
  # log2(5) / 3 = 0.773976, log2(9) / 3 = 1.056642
  by_distance = {0: 8.0, 1: 10.950086, 2: 11.872772}
  own = np.array([[by_distance[max(i - j, 0)] for j in WINDOW[:, 1]] for i in WINDOW[:, 1]])
  np.testing.assert_allclose(found, np.repeat((own - own[:, :1])[:, None], 4, axis=1), atol=1e-5)


def test_alibi_of_two_axes_is_that_of_croma():
  """Slopes of four heads by hand, at distances of 0, 1, 2, 1, sqrt(2) and sqrt(5)."""
  enc = build('alibi', axes=2, kv_heads=4, learned=True)
  found = scores(enc, np.zeros((1, 6, 12), 'f4'), WINDOW[None])[0]
  by_hand = np.multiply.outer([0.25, 0.0625, 0.015625, 0.00390625], [0, 1, 2, 1, 2**0.5, 5**0.5])
  np.testing.assert_allclose(found, -by_hand, atol=1e-6)
  q = jnp.ones((1, 6, 4, 8))
  run = lambda enc: attend(q, q, q, enc, position_ids=WINDOW[None], backend='blockwise').sum()
  with jax.debug_nans(True):  # each query stands where one key does
    jax.grad(run)(enc)


def test_p_rope_golden_values():
  of_width = lambda K: make('p_rope', **SIZES | {'head_dim': K}, rngs=nnx.Rngs(0), p=0.25)
  frequencies = of_width(16).spectrum(90)[0]
  np.testing.assert_allclose(frequencies, [1, 0.316228, 0, 0, 0, 0, 0, 0], atol=5e-7)
  assert np.count_nonzero(of_width(128).spectrum(90)[0]) == 16


# How far outputs move with all positions, where not by some 0.01.
MOVED = dict.fromkeys(('resonance_rope', 'ms_poe', 'mobius_rope', 'jordan_rope'), 0.02)
MOVED |= {'vo_rope': 0.04, 'rope_mixed': 0.08, 'golden_gate_rope': 0.15}
NOT_MOVED = {  # by angles of attention
  *('transformer_xl', 'shaw', 't5', 'deberta', 'alibi', 'kerple_log', 'kerple_power', 'sandwich'),
  *('tisa', 'dape', 'relative_projection', 'music_transformer', 'scale_invariant', 'nape', 'bam'),
  *('grape_a', 'dca', 'wavelet', 'tapa', 'dape_v2', 'mlp_bias', 'hard_alibi', 'urpe'),
  *('hyperbolic_rope', 'gated_t5', 'compact_relative', 'pape', 'pape_ri', 'group_bias'),
  *('swin', 'swin_v2'),
}
# Read at absolute positions, which means something else there, or in a state; or NaN as declared;
# or with no weight on keys that are not alike.
UNASKED = {
  *('sinusoidal', 'learned_fourier', 'cape', 'shape_offset', 'fire', 'fope', 'grape_ap', 'goat'),
  *('tape', 'liere', 'screening', 'darope'),
}


def positions_without_end():
  for name in ENCODINGS:
    enc = without_numbers(name)
    if enc.position_kind is not None and enc.max_length is None and name not in UNASKED:
      yield name


OF_EVERY_DAY = ('rope', 'vo_rope', 'rope_mixed', 'cayley_string', 'streaming_rope', 'xpos', 'dca')


@pytest.mark.parametrize(
  'name',
  [pytest.param(n, marks=daily_if(n in OF_EVERY_DAY, 'ci')) for n in positions_without_end()],
)
def test_angles_a_million_positions_out_are_as_coarse_as_declared(name):
  """Heads of 64 channels, tokens of unit variance: within a third of what `limit` says."""
  sizes = {'model_dim': 256, 'heads': 4, 'head_dim': 64, 'train_length': 512}
  enc = make(name, **sizes, rngs=nnx.Rngs(0))
  rng = np.random.default_rng(0)
  q, k, v = rng.standard_normal((3, 2, 64, 4, 64)).astype(np.float32)
  x = rng.standard_normal((2, 64, 256)).astype(np.float32)
  at = lambda shift: shift + positions_in_order(enc, 64)
  others = {'x': x, 'max_position_distance': 63, 'outer_hooks_applied': True, 'backend': 'dense'}
  run = jax.jit(lambda shift: attend(q, k, v, enc, position_ids=at(shift), **others))
  found = np.abs(run(10**6) - run(0)).max()
  if name in NOT_MOVED:
    assert found < 1e-5
    assert 'angles are float32' not in (enc.limit or '')
  else:
    moved = MOVED.get(name, 0.01)
    assert f'outputs move by some {moved}' in enc.limit
    assert found == pytest.approx(moved, rel=1 / 3)


OF_AXES = [(name, {'axes': 2}) for name in ('alibi', 'pape', 'pape_ri')]


@pytest.mark.ci
@pytest.mark.parametrize(
  ('name', 'hyper'), [(n, {}) for n in positions_without_end() if n in NOT_MOVED] + OF_AXES
)
def test_what_loses_whole_positions_from_2_to_the_24_on_says_so(name, hyper):
  sizes = {'model_dim': 256, 'heads': 4, 'head_dim': 64, 'train_length': 512}
  enc, rng = make(name, **sizes, rngs=nnx.Rngs(0), **hyper), np.random.default_rng(0)
  q, k, v = rng.standard_normal((3, 1, 16, 4, 64)).astype(np.float32)
  x = rng.standard_normal((1, 16, 256)).astype(np.float32)
  options = {'x': x, 'max_position_distance': 15, 'outer_hooks_applied': True, 'backend': 'dense'}
  at = lambda shift: shift + positions_in_order(enc, 16)
  run = jax.jit(lambda shift: attend(q, k, v, enc, position_ids=at(shift), **options))
  is_lost = np.abs(run(2**25) - run(0)).max() > 1e-4
  of_axes = 'with `axes`' in (enc.limit or '')  # alibi's, and of what it is within
  is_said = 'float32: ' in (enc.limit or '') and (bool(hyper) or not of_axes)
  if name == 'hyperbolic_rope':  # of what positions grow by along a row
    assert is_said
    assert not is_lost
  else:
    assert is_lost == is_said


@pytest.mark.parametrize('name', ['sinusoidal', 'learned_fourier'])
def test_waves_at_the_input_a_million_positions_out_are_off_as_declared(name):
  """In models of 256 channels, against float64."""
  sizes = {'model_dim': 256, 'heads': 4, 'head_dim': 64, 'train_length': 512}
  enc, ids = make(name, **sizes, rngs=nnx.Rngs(0)), 10**6 + np.arange(64)
  found = enc.add_to_input(jnp.zeros((1, 64, 256)), jnp.asarray(ids)[None])[0]
  if name == 'sinusoidal':
    angles = np.multiply.outer(ids, 1e4 ** (-np.arange(128) / 128))
    exact = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(64, 256)
  else:
    # Angles less whole turns, which float32 knows well.
    angles = np.multiply.outer(ids, np.asarray(enc.frequencies[...], np.float64)) % (2 * np.pi)
    f = np.concatenate([np.cos(angles), np.sin(angles)], axis=-1) / 128**0.5
    u = jax.nn.gelu(jnp.asarray(f @ np.asarray(enc.w_in[...]), jnp.float32), approximate=False)
    exact = np.asarray(u, np.float64) @ np.asarray(enc.w_out[...])
  moved = {'sinusoidal': 0.06, 'learned_fourier': 0.01}[name]
  assert enc.limit.endswith(f'some {moved}')
  assert np.abs(found - exact).max() == pytest.approx(moved, rel=1 / 3)


@pytest.mark.parametrize('name', ['fox', 'cable', 'wall'])
def test_sums_of_gates_are_exact_as_far_as_declared(name):
  assert '2^24' in without_numbers(name).limit
  for first, is_exact in ((-(2.0**23), True), (-(2.0**25), False)):
    gates = jnp.full((1, 9, 1), -1.0).at[:, 0].set(first)
    whole, rest = (np.asarray(part, np.float64)[0, :, 0] for part in running_sum(gates))
    assert np.array_equal(np.diff(whole + rest), np.full(8, -1.0)) == is_exact


def test_differences_of_sums_are_exact_where_one_tile_is_a_long_row():
  """Gates of 1,000 tokens sum to a million, next to which those of the others would be rounded."""
  gates = jnp.full((1, 1200, 1), -0.01).at[:, :1000].set(-1024.0)
  c, tile = (
    running_sum(gates),
    SimpleNamespace(difference=functools.partial(ScoreTile.difference, None)),
  )
  found_TS = np.asarray(difference_of_sums(tile, c, c))[0, 0]
  steps_T = np.diagonal(found_TS, offset=-1)
  np.testing.assert_allclose(steps_T, gates[0, 1:, 0], atol=1e-6)
  few = tuple(x[:, -150:] for x in c)  # in a tile of few rows
  np.testing.assert_allclose(
    np.asarray(difference_of_sums(tile, few, few))[0, 0], found_TS[-150:, -150:], atol=1e-5
  )


def test_waves_of_fope_a_million_positions_out_are_off_as_declared():
  enc = make('fope', **SIZES | {'head_dim': 64, 'train_length': 512}, rngs=nnx.Rngs(0))
  assert enc.limit.endswith('some 0.02')
  position_ids = 10**6 + np.arange(64)[None]
  angles_BSD = np.multiply.outer(position_ids, enc.frequencies())
  found = enc.coordinates(None, jnp.asarray(position_ids), None, None)
  for axis, mixture_GDM, wave_BSGM in zip((np.cos, np.sin), enc.mixtures(), found, strict=True):
    exact_BSGM = np.einsum('bsd,gdm->bsgm', axis(angles_BSD), mixture_GDM)
    off = np.abs(wave_BSGM[..., : exact_BSGM.shape[-1]] - exact_BSGM).max()
    assert off == pytest.approx(0.02, rel=1 / 3)


def test_what_screening_rotates_a_million_positions_out_is_off_as_declared():
  """In the head that rotates fastest, from where the first of some tokens is."""
  enc, ids = build('screening', kv_heads=4), 10**6 + np.arange(64)
  assert enc.limit.endswith('some 0.08')
  x = jnp.zeros((1, 64, 4, 8)).at[..., 0].set(1.0)
  real, imaginary = np.moveaxis(enc.turn(x, jnp.asarray(ids)[None])[0, :, 0, :2], 1, 0)
  turned = (real + 1j * imaginary) * (real[0] - 1j * imaginary[0])
  exact = np.exp(1j * (ids - ids[0]) * np.pi * (1 + np.cos(np.pi / 128)) / 4)
  assert np.abs(turned - exact).max() == pytest.approx(0.08, rel=1 / 3)


def test_sandwich_golden_values():
  bias_RH = make('sandwich', **SIZES | {'heads': 8}, rngs=nnx.Rngs(0)).bias(
    jnp.array([0, 1, 10, 100, 1000, -10])
  )
  first = np.array([0, -1.447, -19.341, -33.319, -53.390, -19.341])
  np.testing.assert_allclose(bias_RH[:, 0], first, atol=5e-4)
  np.testing.assert_allclose(bias_RH[:, 7], first / 8, atol=5e-4 / 8)


def fire_bias(enc, i, r):
  """The bias of FIRE's first head at each (i, i - r)."""
  tile = SimpleNamespace(
    i=jnp.asarray(i, jnp.float32)[None], distance=jnp.asarray(r)[None, :, None]
  )
  return enc.score(jnp.zeros((1, 4, len(i), 1)), None, None, tile)[0, 0, :, 0]


def identity_fire(**hyper):
  """FIRE whose MLP is the identity, so that the bias is its argument."""
  enc = build('fire', hidden=1, **hyper)
  enc.w_in[...], enc.b_in[...], enc.w_out[...] = jnp.ones(1), jnp.zeros(1), jnp.ones((1, 4))
  return enc


def test_fire_golden_values():
  argument = fire_bias(identity_fire(), [10, 511, 2047, 2047, 0], [1, 100, 100, 2047, 0])
  np.testing.assert_allclose(argument, [0.024098, 0.606282, 0.450189, 1, 0], atol=1e-6)


def test_fire_threshold_has_a_gradient_where_it_is_the_context():
  """d/dmu of psi(r) / psi(512 mu) by hand, and none for queries beyond; c has one everywhere but at
  r = 0.
  """
  i, r = [10, 400, 600, 600], [1, 100, 100, 0]
  enc = identity_fire()
  slopes = jax.jit(jax.jacobian(lambda enc: fire_bias(enc, i, r)))(enc)
  psi = lambda x: np.log(0.1 * x + 1)
  by_hand = [-psi(x) / psi(512) ** 2 * 51.2 / 52.2 for x in (1, 100)]
  np.testing.assert_allclose(slopes.mu[...], [*by_hand, 0, 0], rtol=1e-4)
  np.testing.assert_array_equal(np.asarray(slopes.c[...]) != 0, [True, True, True, False])


def test_rope_golden_values():
  frequencies = build('rope').frequencies()
  np.testing.assert_allclose(frequencies, [1, 0.1, 0.01, 0.001])
  one = jnp.array([[[[1.0, 1, 1, 1, 0, 0, 0, 0]]]])
  angles = jnp.asarray(3 * frequencies, jnp.float32)[None, None]
  turned = rotate(one, angles, 'half')
  golden = [-0.989992, 0.955336, 0.99955, 0.9999955, 0.14112, 0.29552, 0.0299955, 0.003]
  np.testing.assert_allclose(turned[0, 0, 0], golden, atol=1e-6)
  wider = jnp.concatenate([one, 7 * one], axis=-1)  # what has no angles stays
  expected = np.concatenate([turned, 7 * one], axis=-1)
  np.testing.assert_array_equal(rotate(wider, angles, 'half'), expected)
  with pytest.raises(ValueError, match=r'^4 angles for 2 channels; allowed: at most 1$'):
    rotate(one[..., :2], angles, 'half')  # it would be of 8 channels
  np.testing.assert_allclose(
    make('rope', **SIZES | {'head_dim': 16}, rngs=nnx.Rngs(0), fraction=0.25).frequencies(),
    [1, 0.01],
  )


def test_sinusoid_layouts_are_permutations_and_odd_widths_end_in_zero():
  t = np.arange(50)
  interleaved, half = sinusoid(t, 10), sinusoid(t, 10, layout='half')
  np.testing.assert_array_equal(interleaved, half[:, [0, 5, 1, 6, 2, 7, 3, 8, 4, 9]])
  np.testing.assert_allclose(interleaved[:, :2], np.stack([np.sin(t), np.cos(t)], -1), atol=1e-5)
  # half of the longest wavelength
  longest = sinusoid(np.array([np.pi * 10_000]), 10, layout='tensor2tensor')
  np.testing.assert_allclose(longest[0, -1], -1, atol=1e-5)
  assert sinusoid(t, 7).shape == (50, 7)
  assert np.all(sinusoid(t, 7)[:, -1] == 0)


# Identities.


# One for all, so that what many are compared with is compiled once.
run_layer = jax.jit(
  lambda enc, weights, **options: layer(enc, weights, inputs()[0], backend='dense', **options),
  static_argnames=('is_causal', 'window', 'sink_tokens'),
)


def same(enc, other, scale_q=1.0, **options):
  _, weights, _ = inputs()
  np.testing.assert_allclose(
    run_layer(enc, weights, **options),
    run_layer(other, weights | {'q': scale_q * weights['q']}, **options),
    atol=1e-5,
  )


def away(enc):
  """The encoding with all parameters away from where they start."""
  rng = np.random.default_rng(0)
  return jax.tree.map(
    # by NumPy, which compiles nothing
    lambda p: jnp.asarray(np.asarray(p) + 0.3 * rng.standard_normal(p.shape), jnp.float32),
    enc,
  )


def zeroed(enc):
  return jax.tree.map(lambda p: jnp.asarray(np.zeros_like(p)), enc)


@pytest.mark.parametrize('name', ['fire', 'path'])
def test_nothing_is_divided_by_parameters_of_zero(name):
  same(zeroed(build(name)), build('nope'))


def test_gated_t5_begins_as_t5_with_a_steady_gate():
  """Both sigmoids of zeros are 1/2, and g = 1/2 (1/2 - 1) + 2."""
  gated, t5 = build('gated_t5'), build('t5')
  gated.w_g[...] = jnp.zeros_like(gated.w_g[...])
  t5.table[...] = 1.75 * gated.table[...] / 8**0.5
  same(gated, t5, scale_q=8**-0.5)


def test_gated_t5_needs_heads_that_divide_the_width_of_the_model():
  with pytest.raises(ValueError, match='gated_t5: heads=4; allowed: divisors of model_dim=14'):
    make('gated_t5', **SIZES | {'model_dim': 14}, rngs=nnx.Rngs(0))


def test_learned_slopes_start_as_alibi_and_keep_their_signs():
  """Also after steps that are far larger than the flattest slope."""
  same(build('alibi', learned=True), build('alibi'), is_causal=False)
  for balanced in (False, True):
    enc, fixed = (build('alibi', learned=is_on, balanced=balanced) for is_on in (True, False))
    far = jnp.array([-3, 5])
    np.testing.assert_allclose(enc.bias(far), fixed.bias(far), rtol=1e-6)
    for step in (-1.0, 1.0):
      moved = jax.tree.map(lambda p, step=step: p + step, enc)
      np.testing.assert_array_equal(np.sign(moved.bias(far)), np.sign(fixed.bias(far)))


def test_cope_starts_as_nope():
  same(build('cope'), build('nope'))


def test_fox_of_both_ways_is_fox_under_a_causal_mask_and_alibi_with_fixed_gates():
  times = {'shortest': 4.0, 'longest': 256.0}
  both, fox = build('fox', both_ways=True), build('fox')
  both.w_f[...] = jnp.concatenate([fox.w_f[...], both.w_f[...][:, 4:]], axis=1)
  same(both, fox)
  fixed = build('fox', gate='fixed', both_ways=True, **times)
  same(fixed, build('alibi'), is_causal=False)


def test_fox_with_fixed_gates_is_alibi_and_learned_gates_start_there():
  """Slopes 1/T_h, T_h spaced evenly in log: as 2^(-8h/H) is."""
  times = {'shortest': 4.0, 'longest': 256.0}  # the slopes of 4 heads
  same(build('fox', gate='fixed', **times), build('alibi'))
  same(build('fox', gate='learned', **times), build('alibi'))
  np.testing.assert_allclose(build('fox', gate='fixed').times, 2 * 20 ** (np.arange(4) / 3))


@pytest.mark.parametrize('gate', ['fixed', 'learned'])
def test_a_lone_head_of_fox_remembers_longest(gate):
  alone = SIZES | {'heads': 1, 'kv_heads': 1, 'rngs': nnx.Rngs(0), 'gate': gate}
  assert make('fox', **alone).times == (40,)
  assert make('fox', **alone, longest=9.0).times == (9,)
  with pytest.raises(ValueError, match=r'fox: shortest=9\.0; allowed: None, unless there are sev'):
    make('fox', **alone, shortest=9.0)


@pytest.mark.parametrize('exponent', [-9.0, 9.0])
def test_a_bias_of_bam_that_is_too_large_stays_finite(exponent):
  """Its keys lose to all others, but not to those that are masked; and its gradient is a number."""
  enc = build('bam', kv_heads=4)
  enc.exponent[...] = jnp.full(enc.dims.heads, exponent)
  q = jax.random.normal(jax.random.key(0), (1, 6, enc.dims.heads, enc.dims.head_dim))
  first = jax.jit(lambda q: attend(q, q, q, enc, backend='dense'))(q)[:, 0]
  np.testing.assert_allclose(first, q[:, 0], rtol=1e-6)  # the first query sees its own key alone
  far = jnp.array([0, 1, 131_072])
  slopes = nnx.jit(nnx.grad(lambda enc: enc.bias(far).sum()))(enc)
  assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(slopes))


def test_bam_starts_as_nope_and_grows_as_ssmax():
  same(build('bam'), build('nope'), is_causal=False)
  same(build('bam', learned_mean=True), build('nope'), is_causal=False)
  same(build('bam', ssmax=True), build('ssmax', start=1.0))


@pytest.mark.parametrize('hyper', [{}, {'base': 50.0, 'layout': 'interleaved'}])
def test_carope_starts_as_rope(hyper):
  same(build('carope', **hyper), build('rope', **hyper))


def test_carope_starts_where_an_exponential_would_overflow():
  narrow = SIZES | {'head_dim': 2}
  enc = make('carope', **narrow, rngs=nnx.Rngs(0))
  np.testing.assert_allclose(enc.b_f[...], 9999)
  steep = make('carope', **narrow, rngs=nnx.Rngs(0), base=3e38)
  assert np.isfinite(steep.coordinates(jnp.ones((1, 3, 12)), None, None, jnp.arange(3)[None])).all()
  message = (
    r'^carope: base=1e\+39 for head_dim=2; allowed: base \*\* \(2 / head_dim\) up to 3\.4e\+38$'
  )
  with pytest.raises(ValueError, match=message):
    make('carope', **narrow, rngs=nnx.Rngs(0), base=1e39)


@pytest.mark.parametrize('layout', ['half', 'interleaved'])
def test_coca_reads_no_direction_of_a_query(layout):
  """Pairs of channels turned by any angles are the same queries; pairs of keys are read as sums."""
  rng = np.random.default_rng(0)
  q, k, v = (jnp.asarray(rng.standard_normal((1, 9, 4, 8)), jnp.float32) for _ in range(3))
  angles = jnp.asarray(rng.standard_normal((1, 9, 4)), jnp.float32)
  enc = build('coca', kv_heads=4, layout=layout)
  run = functools.partial(attend, enc=enc, backend='dense')
  np.testing.assert_allclose(run(rotate(q, angles, layout), k, v), run(q, k, v), atol=1e-5)
  swapped = k[..., [4, 5, 6, 7, 0, 1, 2, 3] if layout == 'half' else [1, 0, 3, 2, 5, 4, 7, 6]]
  np.testing.assert_allclose(run(q, swapped, v), run(q, k, v), atol=1e-5)
  np.testing.assert_allclose(run(q, -jnp.abs(k), v)[:, -1], v.mean(axis=1), atol=1e-5)


@pytest.mark.parametrize('layout', ['half', 'interleaved'])
def test_p_rope_of_all_pairs_is_rope_and_of_none_nope(layout):
  same(build('p_rope', p=1.0, layout=layout), build('rope', layout=layout), is_causal=False)
  same(build('p_rope', p=0.0, layout=layout), build('nope'), is_causal=False)


def spectrum(name, **hyper):
  return make(name, **SIZES | {'head_dim': 16}, rngs=nnx.Rngs(0), **hyper).spectrum(90)[0]


@pytest.mark.parametrize(
  ('name', 'hyper', 'factors'),
  [
    ('clipped_rope', {}, [1, 1, 1, 1, 1, 1, 1, 0]),  # 20 of 64 frequencies: 2 of 8
    ('clipped_rope', {'clipped': 5}, [1, 1, 1, 1, 0.853553, 0.5, 0.146447, 0]),
    ('clipped_rope', {'clipped': 3, 'hard': True}, [1, 1, 1, 1, 1, 0, 0, 0]),
    ('clipped_rope', {'clipped': 1}, [1] * 8),  # as in the released code
    ('clipped_rope', {'clipped': 0}, [1] * 8),
    ('hope', {}, [1, 1, 0, 0, 0, 0, 0, 0]),  # wavelengths 6.3, 19.9, 62.8, .. of 40 tokens
    ('hope', {'length': 70}, [1, 1, 1, 0, 0, 0, 0, 0]),
  ],
)
def test_spectra_golden_values(name, hyper, factors):
  np.testing.assert_allclose(spectrum(name, **hyper) / spectrum('rope'), factors, atol=5e-7)


def test_mobius_rope_golden_values():
  # one of the two groups of heads that share keys; L = 40
  frequencies = build('mobius_rope').frequencies_by_head()
  np.testing.assert_allclose(frequencies[0], np.pi / 40 * np.array([1, 3, 5, 7]), rtol=1e-12)
  np.testing.assert_allclose(frequencies[1], [1, 0.1, 0.01, 0.001], rtol=1e-12)
  # 40 positions on all pairs have turned half way round: products have the opposite sign
  enc = build('mobius_rope', mobius_heads=4, kv_heads=4)
  x = jnp.ones((1, 3, 4, 8))
  q, k = enc.transform_qk(x, x, jnp.array([[40, 40, 40]]), jnp.array([[0, 40, 25]]))
  products = (q * k).sum(-1)[0, :, 0] / 8
  at_15 = np.sin(np.pi * 15 * 8 / 40) / (8 * np.sin(np.pi * 15 / 40))
  np.testing.assert_allclose(products, [-1, 1, at_15], atol=1e-5)


@pytest.mark.parametrize('layout', ['half', 'interleaved'])
def test_mobius_rope_of_no_heads_is_rope(layout):
  enc = build('mobius_rope', mobius_heads=0, layout=layout)
  same(enc, build('rope', layout=layout), is_causal=False)


def test_darope_whose_tokens_choose_nothing_is_rope_up_to_its_length():
  enc, rope = build('darope', length=16), build('rope', base=500_000.0)
  enc.w[...], enc.alpha[...] = jnp.zeros((12, 2)), jnp.ones(2)
  same(enc, rope)
  x = jnp.zeros((1, 2, 12))
  angles = enc.coordinates(x, jnp.array([[3, 9]]), None, None)
  np.testing.assert_allclose(angles[0, :, 0, 0], [3, 9])
  slow = np.array([500_000 ** (-m / 4) for m in (1, 2, 3)])
  np.testing.assert_allclose(angles[0, :, 1, 1:], np.outer([3.5, 9.5], slow), rtol=1e-5)


def test_darope_has_no_place_beyond_its_length():
  enc = build('darope')  # L = 40
  x = jax.random.normal(jax.random.key(0), (1, 3, 12))
  angles = enc.coordinates(x[:, :1].repeat(3, 1), jnp.array([[40, 4_000, 10**6]]), None, None)
  np.testing.assert_array_equal(angles[0, 1, :, 1:], angles[0, 0, :, 1:])
  np.testing.assert_array_equal(angles[0, 2, :, 1:], angles[0, 0, :, 1:])
  np.testing.assert_array_equal(angles[0, :, 0, 0], [40, 4_000, 10**6])
  places = np.asarray(angles)[..., 1:] / enc.frequencies()[1:]
  assert (places > 0).all()
  assert (places <= 40).all()
  logit = enc._logit(jnp.array([-1.0, 19.5, 1e9]))
  np.testing.assert_allclose(logit, np.array([-1, 0, 1]) * np.log(999_999), rtol=1e-6)


def test_spectra_are_changed_after_scaling():
  scaling = {'rope_type': 'linear', 'factor': 4.0}
  np.testing.assert_allclose(
    2 * np.pi / spectrum('resonance_rope', scaling=scaling)[:3], [25, 79, 251], rtol=1e-12
  )
  for name in ('clipped_rope', 'hope', 'p_rope'):
    np.testing.assert_allclose(spectrum(name, scaling=scaling), spectrum(name) / 4)
  still = {'rope_type': 'proportional', 'partial_rotary_factor': 0.25}
  np.testing.assert_array_equal(spectrum('resonance_rope', scaling=still)[2:], 0)


@pytest.mark.parametrize('hyper', [{'gamma': 1e9}, {'gamma': 1e17}, {'scale_base': 1e9}])
def test_xpos_without_decay_is_rope(hyper):
  same(build('xpos', **hyper), build('rope', layout='interleaved'))


def test_xpos_does_not_overflow_at_length():
  """Factors taken from the middle of 16,384 tokens would. Far positions get what near ones get."""
  # angles stay exact
  sizes = SIZES | {'heads': 1, 'kv_heads': 1}
  one = make('xpos', **sizes, rngs=nnx.Rngs(0), base=1 + 1e-9, scale_base=64)
  assert one.decays()[0] ** (-(2**13) / 64) > np.finfo(np.float32).max
  q = jnp.asarray(np.random.default_rng(0).standard_normal((1, 2**14, 1, 8)), jnp.float32)
  run = lambda q: attend(q, q, q, one, window=64, backend='blockwise')
  loss = lambda q: ((out := run(q)).sum(), out)
  g, out = jax.jit(jax.grad(loss, has_aux=True))(q)
  assert np.isfinite(g).all()
  last = jax.jit(lambda q: attend(q, q, q, one, window=64, backend='dense'))(q[:, -128:])
  np.testing.assert_allclose(out[:, -64:], last[:, -64:], atol=1e-4)


@pytest.mark.slow
def test_xpos_in_float16_does_not_overflow_within_its_span():
  """The last of 16,000 positions, as far from the first: their factors are exp(39) and exp(-39)."""
  enc, rng = build('xpos'), np.random.default_rng(0)
  near = np.arange(32)
  position_ids = jnp.asarray(np.concatenate([near, 8000 + near, 16_000 + near]))[None]
  q, k, v = (jnp.asarray(rng.standard_normal((1, 96, n, 8)), jnp.float16) for n in (4, 2, 2))

  def run(*arrays):
    o = attend(*arrays, enc, position_ids=position_ids, backend='dense').astype(jnp.float32)
    return o, (o**2).sum()

  for dtype in (jnp.float16, jnp.float32):
    arrays = [x.astype(dtype) for x in (q, k, v)]
    grads, o = jax.grad(lambda *arrays: run(*arrays)[::-1], argnums=(0, 1), has_aux=True)(*arrays)
    if dtype == jnp.float16:
      rounded = o, *grads
  for one, exact in zip(rounded, (o, *grads), strict=True):
    assert np.isfinite(one).all()
    np.testing.assert_allclose(one, exact, atol=2**-8 * np.abs(exact).max())


def test_xpos_says_where_one_block_spans_too_much():
  enc, (x, weights, _) = build('xpos'), inputs()
  run = jax.jit(lambda position_ids: layer(enc, weights, x, position_ids=position_ids))
  at = lambda jump: run(np.arange(11)[None] + np.where(np.arange(11) < 6, 0, jump))
  assert np.isfinite(at(30_000)).all()
  assert np.isfinite(at(40_000)[:, :6]).all()
  assert np.isnan(at(40_000)[:, 6:]).all()


def test_xpos_says_where_a_key_is_further_than_its_factor_reaches():
  """Else that factor would be cut off, and the score another number."""
  enc, (x, weights, _) = build('xpos'), inputs()
  run = jax.jit(lambda position_ids: layer(enc, weights, x, position_ids=position_ids))
  at = lambda jump: run(jnp.array([[5, 6, jump, 7, 8, 9, 10, 11, 12, 13, 14]]))
  found, desired = at(40_000), at(7)
  np.testing.assert_array_equal(found[:, :2], desired[:, :2])
  assert np.isnan(found[:, 2:]).all()
  assert np.isfinite(at(-30_000)).all()


def test_xpos_says_where_a_row_is_longer_than_one_tile_may_be():
  """On `dense` a row is one tile, so that a long one ends in NaN; `blockwise` has short tiles."""
  one = SIZES | {'heads': 1, 'kv_heads': 1}
  enc = make('xpos', **one, rngs=nnx.Rngs(0), scale_base=17.0)
  end = int(enc.span()) + 1
  q = jnp.asarray(np.random.default_rng(0).standard_normal((1, end + 20, 1, 8)), jnp.float32)
  run = jax.jit(lambda q, by: attend(q, q, q, enc, window=8, backend=by), static_argnums=1)
  dense, tiles = (run(q, backend) for backend in ('dense', 'blockwise'))
  assert np.isfinite(dense[:, :end]).all()
  assert np.isnan(dense[:, end:]).all()
  assert np.isfinite(tiles).all()


@pytest.mark.parametrize('c', [6, 127])
def test_t5_of_diet_rel_has_a_bucket_a_distance(c):
  """The settings that docs/encodings.md gives for DIET-REL, whose biases end at distance c."""
  enc = build('t5', buckets=2 * (c - 1), max_distance=c)
  buckets = buckets_of(jnp.arange(2 * c), enc.side, c, False)
  np.testing.assert_array_equal(buckets, [*range(c), *[2 * c - 3] * c])


def test_buckets_of_large_tables_are_counted_in_time():
  """A search that began anew for each distance took minutes, as new powers for each bucket do where
  thousands of distances have buckets of their own.
  """
  row = bucket_row(256, 4096)
  assert row[0] == 0
  assert row[-1] == 255
  assert (np.diff(row) >= 0).all()
  c = 2**15
  np.testing.assert_array_equal(bucket_row(2 * (c - 1), c), [*range(c), 2 * c - 3])


def test_gates_that_forget_at_once_are_finite():
  enc = build('fox', gate='learned', shortest=0.01)
  assert np.isfinite(enc.b_f[...]).all()
  expected = -np.log(np.expm1(1 / np.array(build('fox', gate='learned').times)))
  np.testing.assert_allclose(build('fox', gate='learned').b_f[...], expected, rtol=1e-5, atol=1e-6)


def test_a_gate_of_zeros_has_finite_gradients():
  enc = build('grape_a')
  enc = jax.tree.map(jnp.zeros_like, enc)
  q, k = jnp.ones((1, 4, 4, 8)), jnp.ones((1, 4, 2, 8))
  grads = jax.jit(jax.grad(lambda enc: attend(q, k, k, enc, backend='dense').sum()))(enc)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize('kind', ['integers', 'floats'])
def test_random_positions_are_drawn_for_contiguous_ones(kind):
  """Others would be places of no draw."""
  enc, key = build('random_positions', longest=64, kind=kind), jax.random.key(0)
  assert enc.sample_positions(jnp.array([[0, 1, 2, 0, 1]]), 1, key).shape == (1, 5)
  for low, high in ((0, 9), (-1, 3)):
    ids = jnp.array([[0, low, 2, high, 1]])
    message = f'position_ids go from {low} to {high} for 5 tokens; allowed: contiguous ones'
    with pytest.raises(ValueError, match=f'^{message}'):
      enc.sample_positions(ids, 1, key)


def test_random_positions_of_many_documents_and_of_too_long_ones():
  """Numbers of documents times positions, 2^32 here, need not fit an integer."""
  enc = build('random_positions', longest=2**19)
  ids = jnp.tile(jnp.arange(2), 2**13)[None]
  drawn = enc.sample_positions(ids, 1, jax.random.key(0))
  assert (drawn >= 0).all()
  assert (drawn < 2**19).all()
  assert (drawn[:, 1::2] > drawn[:, ::2]).all()
  few = build('random_positions', longest=40)
  message = r'^RandomPositions: 41 tokens, which may be one document, for 40 positions$'
  with pytest.raises(LengthError, match=message):
    few.sample_positions(jnp.arange(41)[None], 1, None)


def test_growing_logits_of_relative_projection_grow_past_the_length_alone():
  _, weights, _ = inputs()
  run = lambda **hyper: run_layer(build('relative_projection', **hyper), weights)
  change = np.abs(run(length=5, c=1.0) - run()).max(axis=(0, 2, 3))
  assert np.all(change[:5] == 0)
  assert np.all(change[5:] > 1e-3)


@pytest.mark.parametrize(
  'inner',
  [
    pytest.param(name, marks=daily_if(name in ('alibi', 'kerple_log', 'fire')))
    for name in ('alibi', 'kerple_log', 'kerple_power', 'sandwich', 'fire', 'bam')
  ],
)
def test_dape_without_its_mlp_is_the_encoding_inside(inner):
  for version, is_causal in (('dape', False), ('dape_v2', True)):
    enc = build(version, inner=inner)
    enc.w_out[...] = jnp.zeros_like(enc.w_out[...])
    same(enc, enc.inner, is_causal=is_causal)
    assert type(enc.inner) is ENCODINGS[inner]


def test_what_adapts_a_bias_declares_what_the_encoding_inside_does():
  inside = {'name': 'kerple_log', 'bias_in_scale': True}
  for name in ('dape', 'dape_v2'):
    sizes = f'deberta sets the scale, and {name} counts on 1/sqrt(K); allowed: one of them'
    with pytest.raises(ValueError, match=f'^chain: {re.escape(sizes)}$'):
      build('chain', members=('deberta', {'name': name, 'inner': inside}))
    assert not build(name, inner='alibi').applies_scale
    assert build(name, inner='sandwich').limit.endswith(build('sandwich').limit)

  class Ending(Encoding):
    """A bias for a while, looking back alone."""

    bias_in_scale = False
    causal_only = True
    max_length = 7

    def bias(self, r_R):
      return jnp.zeros((len(r_R), 1))

  ENCODINGS['ending'] = Ending
  try:
    enc = build('dape', inner='ending')
  finally:
    del ENCODINGS['ending']
  assert (enc.causal_only, enc.max_length) == (True, 7)
  assert not build('dape').causal_only


def test_a_chain_adapts_what_members_before_it_left():
  """Scores of `fox` in the place of q . k, and tables of a member that has no score."""
  enc = build('chain', members=('rope', 'fox', 'dape_v2'))
  enc.members[2].w_out[...] = jnp.zeros_like(enc.members[2].w_out[...])
  plain = build('chain', members=('rope', 'fox', 'alibi'))
  plain.members[1] = enc.members[1]
  same(enc, plain)
  both = build('heads', members=('dape_v2', {'name': 'dape_v2', 'inner': 'sandwich'}))
  for member in both.members:
    member.w_out[...] = jnp.zeros_like(member.w_out[...])
  same(both, build('heads', members=('alibi', 'sandwich')))


def test_dape_shares_what_the_encoding_inside_shares():
  def own(inner):
    make_one = lambda: build('dape', inner=inner)
    return StackedEncoding(make_one, 3, 'paper').stacked_parameters()

  assert [p.shape[0] for p in own('kerple_log')] == [3] * 3
  assert [p.shape[0] for p in own('fire')] == [3] * 8
  both = {'name': 'chain', 'members': ('kerple_log', 'tisa')}  # three of TISA's are a layer's own
  assert [p.shape[0] for p in own(both)] == [3] * 6


def test_grape_ap_with_zero_projections_is_a_gentle_alibi():
  """log sigmoid(0) = -log 2 a step."""
  grape, alibi = zeroed(build('grape_ap')), build('alibi', learned=True)
  alibi.log_slopes[...] = alibi.log_slopes[...] + np.log(np.log(2))
  same(grape, alibi)


def test_grape_m_starts_as_rope_and_its_context_form_as_a_slower_one():
  """A step of the phase begins at sigmoid(softplus^-1(0.001) / 16)."""
  for per_head in (False, True):
    same(build('grape_m', per_head=per_head), build('rope'))
    step = 1 / (1 + np.exp(-np.log(np.expm1(1e-3)) / 16))
    slower = build('rope', scaling={'rope_type': 'linear', 'factor': 1 / step})
    same(build('grape_m_context', per_head=per_head), slower)


def test_grape_m_in_bare_logarithms_that_all_layers_share_is_lerope():
  """A factor on each frequency, learned by its logarithm: one set for all layers and heads."""
  shared = StackedEncoding(lambda: build('grape_m', scale=1.0), 3, 'all').encoding
  factors = np.array([[1.5, 1.0, 0.25, 2.0]], np.float32)
  shared.log_f[...] += jnp.log(factors)
  np.testing.assert_allclose(shared.frequencies(), factors * build('rope').frequencies(), rtol=1e-5)


def test_grape_m_learns_the_logarithm_of_a_frequency():
  enc = build('grape_m', scale=4.0)
  enc.log_f[...] = enc.log_f[...] + 4 * np.log(2)
  np.testing.assert_allclose(enc.frequencies()[0], 2 * build('rope').frequencies(), rtol=1e-5)


@pytest.mark.ci
def test_hard_alibi_is_a_window_in_each_of_its_heads():
  """Whatever mask there is besides; also where all keys of a tile are hidden in some heads."""
  enc, own_masks = build('hard_alibi', windows=(1, 3, 20)), (1, 3, 20, None)
  rng = np.random.default_rng(0)
  draw = lambda heads: jnp.asarray(rng.standard_normal((1, 48, heads, 8)), jnp.float32)
  q, k, v, d = map(draw, (4, 2, 2, 4))

  @functools.partial(jax.jit, static_argnames=('backend', 'options'))
  def run(enc, backend, options):
    sizes = {'block_sizes': (8, 8)} if backend == 'blockwise' else {}
    attention = functools.partial(attend, enc=enc, backend=backend, **dict(options), **sizes)
    o, pull_back = jax.vjp(attention, q, k, v)
    return o, *pull_back(d)

  @functools.partial(jax.jit, static_argnums=0)
  def windows(is_causal):
    run = functools.partial(attend, q, k, v, build('nope'), is_causal=is_causal, backend='dense')
    return [run(window=window) for window in own_masks]

  for options in ({}, {'is_causal': False}, {'window': 12, 'sink_tokens': 9}, {'chunk': 16}):
    dense, tiles = (run(enc, b, tuple(options.items())) for b in ('dense', 'blockwise'))
    for x, y in zip(dense, tiles, strict=True):
      np.testing.assert_allclose(x, y, atol=2e-5)
    if options in ({}, {'is_causal': False}):
      for h, o in enumerate(windows(options.get('is_causal', True))):
        np.testing.assert_allclose(tiles[0][:, :, h], o[:, :, h], atol=2e-6)
  same(build('hard_alibi', windows=()), build('nope'))


def test_norms_bound_mlp_bias():
  """Far out all units of the first layer are in proportion to the distance, which norms undo."""
  r = jnp.array([10**6, 10**7, -(10**6), -(10**7)])
  for depth in (1, 2):
    far = away(build('mlp_bias', norm=True, depth=depth)).bias(r)
    np.testing.assert_allclose(far[::2], far[1::2], atol=1e-4)
    assert np.abs(far[0] - far[2]).max() > 1e-2


def test_sinusoids_with_a_learned_scale_begin_as_without():
  same(build('sinusoidal', learned_scale=True), build('sinusoidal'))


def test_stick_breaking_that_attends_to_the_token_itself():
  """With scores of 0 each key takes half of what is left, the nearest first."""
  weights = attended(build('stick_breaking', attend_current=True, kv_heads=4), np.zeros((4, 4)))
  np.testing.assert_allclose(weights[3, :, 0], [1 / 16, 1 / 8, 1 / 4, 1 / 2], rtol=1e-6)
  np.testing.assert_allclose(weights[0, :, 0], [1 / 2, 0, 0, 0], rtol=1e-6)
  weights = attended(build('stick_breaking', kv_heads=4), np.zeros((4, 4)))
  np.testing.assert_allclose(weights[3, :, 0], [1 / 8, 1 / 4, 1 / 2, 0], rtol=1e-6)


@pytest.mark.parametrize(
  ('name', 'hyper', 'slopes'),
  [('stick_breaking', {}, [1 / 8, -1 / 8, 1 / 4]), ('sigmoid', {'bias': 0.0}, [1 / 4, 0, 1 / 4])],
)
def test_slopes_of_sigmoids_at_scores_of_zero(name, hyper, slopes):
  """By hand, of the weights w of the first keys: dw_0/ds_0, dw_0/ds_1 and dw_1/ds_1."""
  enc = build(name, kv_heads=4, **hyper)
  of_last = lambda s_S: attended(enc, jnp.zeros((3, 3)).at[2].set(s_S))[2, :, 0]
  found_SS = jax.jacobian(of_last)(jnp.zeros(3))
  np.testing.assert_allclose([*found_SS[0, :2], found_SS[1, 1]], slopes, rtol=1e-6)


def test_mlp_bias_is_that_of_its_mlp_far_out():
  """Products are those of float32, whatever precision others have."""
  r_R = jnp.array([1, -100, 10_000, -100_000])
  for log in (False, True):
    enc = build('mlp_bias', hidden=64, log=log)
    p = {name: np.asarray(getattr(enc, name)[...], np.float64) for name in ('w_in', 'b_in')}
    p |= {
      n: np.asarray(getattr(enc, n)[...], np.float64) for n in ('w_hidden', 'b_hidden', 'w_out')
    }
    u = np.asarray(r_R, np.float64)
    u = np.sign(u) * np.log1p(np.abs(u)) if log else u
    silu = lambda x: x / (1 + np.exp(-np.maximum(x, -700)))
    x = silu(u[:, None] * p['w_in'] + p['b_in'])
    x = silu(x @ p['w_hidden'][0] + p['b_hidden'][0]) @ p['w_out']
    with jax.default_matmul_precision('bfloat16'):
      np.testing.assert_allclose(enc.bias(r_R), x, rtol=0, atol=1e-6 * np.abs(u).max() + 1e-6)


@pytest.mark.parametrize('alpha', [1.2, 1.5, 2.0])
@pytest.mark.parametrize('spread', [0.0, 0.3, 20.0])
def test_entmax_is_the_best_of_all_weights(alpha, spread):
  """Against the condition of an optimum in float64: of sum_j p_j s_j and Tsallis's entropy, weights
  have the same derivative where they are more than 0, and no larger one elsewhere. Rows of 513.
  """
  s = spread * np.random.default_rng(0).standard_normal((3, 513)).astype(np.float32)
  s[1, 100:] = -1e30  # hidden keys
  p = np.asarray(entmax(s, alpha), np.float64)
  np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)
  assert np.all(p[1, 100:] == 0)
  for row, weights in zip(s.astype(np.float64), p, strict=True):
    slopes = (alpha - 1) * row - weights ** (alpha - 1)
    there = weights > 0
    assert np.ptp(slopes[there]) < 1e-5 * max(1, spread)
    assert np.all(there) or slopes[~there].max() < slopes[there].min() + 1e-5 * max(1, spread)
  assert (p[0] > 0).mean() < 0.1 or spread < 20


@pytest.mark.parametrize(
  ('keys', 'below', 'spread'),
  [(4096, 0.98, 0.0), (4096, 0.98, 1e-3), (65_536, 0.99, 0.0), (65_536, 0.996, 1e-4)],
)
def test_entmax_of_one_score_far_above_many(keys, below, spread):
  """Against a threshold by bisection in float64: many small weights beside that of a sink."""
  z = spread * np.random.default_rng(0).standard_normal(keys) - below
  z[0] = 0
  z = z.astype(np.float32).astype(np.float64)
  low, high = -1.0, 0.0
  for _ in range(60):
    middle = (low + high) / 2
    is_low = (np.maximum(z - middle, 0) ** 2).sum() >= 1
    low, high = (middle, high) if is_low else (low, middle)
  weights = np.maximum(z - low, 0) ** 2
  assert 0.005 < weights[1:].sum() < 0.05
  found = np.asarray(entmax(jnp.asarray(2 * z, jnp.float32), 1.5), np.float64)
  assert np.abs(found - weights).sum() < 5e-6


@pytest.mark.parametrize('alpha', [1.3, 1.5, 2.0])
def test_entmax_has_the_gradient_of_differences(alpha):
  rng = np.random.default_rng(0)
  s, cotangent, direction = rng.standard_normal((3, 5, 9)).astype(np.float32)
  gradient = jax.jit(jax.grad(lambda s: (entmax(s, alpha) * cotangent).sum()))(s)
  weights = RECORDS['entmax'].oracle(Dims(1, 1, 1, 1, 1), {'alpha': alpha}, {}).weights
  moved = lambda step: np.stack([weights(row) for row in s.astype(np.float64) + step * direction])
  slope = ((moved(1e-6) - moved(-1e-6)) * cotangent).sum() / 2e-6
  assert (gradient * direction).sum() == pytest.approx(slope, abs=2e-5)


@jax.jit
def attended(enc, s_TS):
  """The weights [T, S, H] where the first head has these scores, at most 8 in a row, and the others
  have zeros.
  """
  T, H, K = len(s_TS), 4, 8
  q = jnp.zeros((1, T, H, K)).at[0, :, 0, :T].set(jnp.eye(T) * K**0.5)
  k = jnp.zeros((1, T, H, K)).at[0, :, 0, :T].set(jnp.asarray(s_TS, jnp.float32).T)
  values = jnp.broadcast_to(jnp.eye(T)[None, :, None], (1, T, H, T))
  return attend(q, k, values, enc, backend='dense')[0].swapaxes(1, 2)


def test_softpick_golden_values():
  """By hand, of scores log 3, log 2, 0 and -log 2: 2, 1, 0 and -1/2, of which 3.5 is the sum."""
  enc, s = build('softpick', kv_heads=4), np.zeros((4, 4))
  s[3] = np.log([3, 2, 1, 0.5])
  np.testing.assert_allclose(attended(enc, s)[3, :, 0], [4 / 7, 2 / 7, 0, 0], atol=1e-6)
  np.testing.assert_array_equal(attended(enc, s)[3, :, 1], 0)
  s[3] = np.array([1, 2, 3, 4]) * 1e-4  # (e^s - 1) of these
  np.testing.assert_allclose(attended(enc, s)[3, :, 0], np.arange(1, 5) / 10, atol=1e-4)


def test_xsa_takes_out_what_the_weights_bring_of_the_own_value():
  """With a = 1 all of it, with a learned one tanh(s_h) of it: by hand where values are axes."""
  q, k = np.random.default_rng(0).standard_normal((2, 1, 5, 4, 8)).astype(np.float32)
  v = np.zeros((1, 5, 2, 8), np.float32)
  for n in range(5):
    v[0, n, :, n] = (2, -3)
  plain = attend(q, k[:, :, :2], v, build('nope'), backend='dense')
  own = np.eye(5, 8)[None, :, None]
  all_of_it = attend(q, k[:, :, :2], v, build('xsa'), backend='dense')
  np.testing.assert_allclose(all_of_it, plain * (1 - own), atol=1e-6)
  np.testing.assert_allclose(all_of_it[:, 0], 0, atol=1e-6)
  enc = build('xsa', learned=True)
  np.testing.assert_array_equal(attend(q, k[:, :, :2], v, enc, backend='dense'), plain)
  enc.strengths[...] = jnp.array([0.5, -0.5, 1.0, 9.0])
  part = own * np.tanh([0.5, -0.5, 1.0, 9.0])[:, None]
  found = attend(q, k[:, :, :2], v, enc, backend='dense')
  np.testing.assert_allclose(found, plain * (1 - part), atol=1e-6)


def test_xsa_has_the_values_of_the_last_tokens_and_finite_gradients_where_one_is_0():
  q, k, v = (
    jnp.asarray(x, jnp.float32) for x in np.random.default_rng(0).normal(size=(3, 1, 6, 4, 8))
  )
  v, enc = v.at[:, 4].set(0.0), build('xsa', kv_heads=4)
  run = jax.jit(functools.partial(attend, enc=enc, backend='dense'))
  np.testing.assert_allclose(run(q[:, 3:], k, v), run(q, k, v)[:, 3:], atol=1e-6)
  of_all = run(q, k, v)
  np.testing.assert_allclose((of_all * v).sum(axis=-1), 0, atol=1e-5)
  np.testing.assert_allclose(
    of_all[:, 4], attend(q, k, v, build('nope', kv_heads=4))[:, 4], atol=1e-6
  )
  gradients = jax.jit(jax.grad(lambda *qkv: run(*qkv).sum(), argnums=(0, 1, 2)))(q, k, v)
  assert all(np.isfinite(g).all() for g in gradients)


def test_elastic_softmax_golden_values():
  """By hand, in a row of four keys with weights 0.5, 0.3, 0.15 and 0.05: less 1/4 at the start."""
  enc, s = build('elastic_softmax', kv_heads=4), np.zeros((4, 4))
  s[3] = np.log([0.5, 0.3, 0.15, 0.05])
  weights = attended(enc, s)
  np.testing.assert_allclose(weights[3, :, 0], [0.25, 0.05, 0, 0], atol=1e-6)
  np.testing.assert_allclose(weights[:, :, 1:], 0, atol=1e-6)  # of equal scores
  enc.tau[...] = jnp.array([0.4, 0.4, -0.2, 0.0])
  weights = attended(enc, s)
  np.testing.assert_allclose(weights[3, :, 0], [0.6, 0.4, 0.25, 0.15], atol=1e-6)
  for head, total in enumerate((1.4, 1.4, 0.8, 1.0)):  # whatever the number of keys
    np.testing.assert_allclose(weights[:3, :, head].sum(axis=1), total, atol=1e-6)
  np.testing.assert_array_equal(weights[0, 1:], 0)


def test_elastic_softmax_counts_the_keys_that_are_seen():
  """Under windows, and of keys that another member hides: none of these gets a weight of tau."""
  x, weights, _ = inputs()
  of_all = build('elastic_softmax')
  of_all.tau[...] = jnp.full(4, 0.5)
  chain = build('chain', members=('hard_alibi', 'elastic_softmax'))
  chain.members[1].tau[...] = of_all.tau[...]
  run = functools.partial(layer, weights=weights, x_BSD=x, backend='dense')
  near = run(chain)
  np.testing.assert_allclose(near[:, :, 1], run(of_all, window=2)[:, :, 1], atol=1e-5)
  np.testing.assert_allclose(near[:, :, 2:], run(of_all)[:, :, 2:], atol=1e-5)


def test_cog_golden_values():
  """By hand, of scores log 4, -log 3, log 2 and 0: 4, 3, 2 and 1 of 10, with their signs."""
  enc, s = build('cog', kv_heads=4), np.zeros((4, 4))
  s[3] = np.log([4, 1 / 3, 2, 1])
  weights = attended(enc, s)
  np.testing.assert_allclose(weights[3, :, 0], [0.4, -0.3, 0.2, 0.0], atol=1e-6)
  np.testing.assert_array_equal(weights[:, :, 1:], 0)


@pytest.mark.parametrize(
  'name',
  [*('softpick', 'sigmoid', 'selective', 'relu', 'lssa', 'lssar'), *('elastic_softmax', 'cog')],
)
@pytest.mark.parametrize('size', [-300.0, 300.0, 1e5])
def test_weights_and_gradients_are_finite_far_out(name, size):
  enc, s = build(name, kv_heads=4), size * (1 + np.arange(9.0).reshape(3, 3) / 9)

  @jax.jit
  @functools.partial(jax.grad, has_aux=True)
  def gradient_and_weights(s):
    weights = attended(enc, s)[..., 0]
    return (weights * jnp.cos(s)).sum(), weights

  gradient, weights = gradient_and_weights(s)
  assert np.isfinite(weights).all()
  assert np.isfinite(gradient).all()
  far_below = ('selective', 'lssa', 'lssar', 'elastic_softmax')
  assert np.any(weights > 0) == (size > 0 or name in far_below)


def test_softpick_of_hidden_keys_is_that_of_the_others():
  """They would count in the sum with e^s - 1 = -1."""
  enc, (x, weights, _) = build('chain', members=('hard_alibi', 'softpick')), inputs()
  run = functools.partial(layer, weights=weights, x_BSD=x, backend='dense')
  near, far = run(enc), run(build('softpick'))
  close = functools.partial(np.testing.assert_allclose, atol=1e-5)
  close(near[:, :, 1], run(build('softpick'), window=2)[:, :, 1])
  close(near[:, :, 2:], far[:, :, 2:])


def test_relu_golden_values():
  """By hand, in a row of four keys: a positive score by what it is divided by, and else nothing."""
  s = np.zeros((4, 4))
  s[3] = [3, -2, 0, 0.5]
  for hyper, divisor in (({}, 4), ({'alpha': 0.5}, 2), ({'length': 10}, 10), ({'alpha': 0}, 1)):
    weights = attended(build('relu', kv_heads=4, **hyper), s)
    np.testing.assert_allclose(weights[3, :, 0], np.array([3, 0, 0, 0.5]) / divisor, rtol=1e-5)
    np.testing.assert_array_equal(weights[:, :, 1:], 0)


@pytest.mark.parametrize('backend', ['dense', 'blockwise'])
def test_relu_has_finite_gradients_where_no_key_has_weight(backend):
  """All scores are 0, below it, or so near above it that their logarithms are steep."""
  enc, v = build('relu', kv_heads=4), jnp.ones((1, 5, 4, 8))

  @jax.jit
  @functools.partial(jax.grad, argnums=(0, 1, 2), has_aux=True)
  def gradients_and_output(q, k, v):
    out = attend(q, k, v, enc, backend=backend, block_sizes=(2, 2))
    return out.sum(), out

  for size in (0.0, -1.0, 1e-25, 1e-38):
    gradients, out = gradients_and_output(size * v, v, v)
    assert all(np.isfinite(g).all() for g in gradients)
    np.testing.assert_allclose(out, max(size, 0) * 8**0.5, rtol=1e-5, atol=1e-30)
    assert np.all(gradients[0] == 0) == (size != 1e-25)


def test_relu_divides_by_the_length_where_all_queries_see_all_keys():
  """Without a mask n is the length of the sequence, as in the paper."""
  x, weights, _ = inputs()
  run = functools.partial(layer, weights=weights, x_BSD=x, backend='dense', is_causal=False)
  np.testing.assert_allclose(run(build('relu')), run(build('relu', length=11)), rtol=1e-5)


COSINES = np.array([0.9, 0.3, -0.2, -0.8])  # of four keys with the last query


def attended_at_cosines(enc):
  """The weights [S] of the last of four queries, whatever lengths queries and keys have."""
  q, k = np.zeros((2, 1, 4, 4, 8), np.float32)
  q[..., 0] = 7
  lengths = np.array([0.5, 1, 2, 3])
  k[..., 0] = (lengths * COSINES)[None, :, None]
  k[..., 1] = (lengths * np.sqrt(1 - COSINES**2))[None, :, None]
  values = jnp.broadcast_to(jnp.eye(4)[None, :, None], (1, 4, 4, 4))
  return jax.jit(lambda *qkv: attend(*qkv, enc, backend='dense'))(q, k, values)[0, 3, 0]


def test_lssa_golden_values():
  """By hand: softplus of log 8 log 4 times cosines; relu(4 p - 1) to a power of these weights."""
  p = np.array([2.66647, 1.21627, 0.44587, 0.09498]) / 4.42359
  np.testing.assert_allclose(attended_at_cosines(build('lssa', kv_heads=4)), p, rtol=1e-4)
  above = np.maximum(4 * p - 1, 0)
  assert (above > 0).tolist() == [True, True, False, False]
  for power in (1, 3, 15):
    sharp = attended_at_cosines(build('lssar', kv_heads=4, power=power))
    np.testing.assert_allclose(sharp, above**power / (above**power).sum(), rtol=1e-2, atol=1e-9)


def test_cos_scale_golden_values():
  """Softmax of cosines times the scale, whatever the lengths."""
  for scale, hyper in ((128.0, {}), (6.0, {'scale': 6.0}), (0.5, {'scale': 0.5})):
    p = np.exp(scale * (COSINES - COSINES[0]))
    found = attended_at_cosines(build('cos_scale', kv_heads=4, **hyper))
    np.testing.assert_allclose(found, p / p.sum(), rtol=1e-4, atol=1e-7)


@pytest.mark.ci
def test_lssar_leaves_rows_of_three_keys_nothing_but_a_power():
  """And a row of equal scores as it is, of which the formula makes 0 / 0."""
  enc, (x, weights, _) = build('lssar', power=3.0), inputs()
  run = jax.jit(
    lambda enc, x, window: layer(enc, weights, x, backend='dense', window=window), static_argnums=2
  )

  class Cubed(ENCODINGS['lssa']):
    normalizer = 'rows'

    def normalize(self, s_BHTS, tile):
      return jax.nn.softmax(3 * s_BHTS, axis=-1)

  cubed = Cubed(enc.dims, nnx.Rngs(0))
  np.testing.assert_allclose(run(enc, x, 3), run(cubed, x, 3), atol=1e-5)
  assert np.abs(run(enc, x, 4) - run(cubed, x, 4)).max() > 1e-2

  @jax.jit
  @functools.partial(jax.grad, has_aux=True)
  def gradient_and_weights(s):
    w = attended(build('lssar', kv_heads=4), s)
    return (w * jnp.cos(s)[..., None]).sum(), w

  gradient, w = gradient_and_weights(jnp.zeros((5, 5)))
  np.testing.assert_allclose(w[4], 0.2, rtol=1e-6)
  assert np.isfinite(gradient).all()


# Of what makes heads wider behind which `lssa` acts: several turns of a head, side by side.
SEVERAL_TURNS = (
  *('rerope', 'leaky_rerope', 'self_extend', 'streaming_rope', 'string', 'jet_long', 'dca'),
  *('ms_poe', 'dpe', 'self_logistic'),
)


@pytest.mark.ci
@pytest.mark.parametrize(
  'name', [pytest.param(n, marks=daily_if(n in ('rerope', 'dca', 'ms_poe'))) for n in SEVERAL_TURNS]
)
def test_lssa_behind_several_turns_of_a_head_is_that_of_one(name):
  """No turn changes a length: the loops have unit queries and keys where that encoding has its."""
  hyper, (x, weights, _) = RECORDS[name].hyper, inputs()
  chain = build('chain', members=({'name': name, **hyper}, 'lssa'))
  dims = Dims(**SIZES)
  alone = RECORDS['lssa'].oracle(dims, {}, {})
  of_both = {part: getattr(alone, part) for part in ('bend', 'temper', 'weights')}
  oracle = dataclasses.replace(RECORDS[name].oracle(dims, hyper, {}), **of_both)
  w, x64 = jax.tree.map(lambda a: np.asarray(a, np.float64), (weights, x))
  B, S, _ = x.shape
  positions = np.broadcast_to(np.arange(S), (B, S))
  desired = attention_layer(oracle, w, x64, positions, np.tril(np.ones((B, S, S), bool)))
  np.testing.assert_allclose(run_layer(chain, weights), desired, atol=2e-5)
  gradient = jax.jit(jax.grad(lambda x: layer(chain, weights, x).var()))(x)
  assert np.isfinite(gradient).all()


@pytest.mark.parametrize('behind', ['talking_heads', {'name': 'bam', 'ssmax': True}])
def test_gradients_of_members_behind_dca_are_finite(behind):
  """Hidden keys in later chunks are none of theirs."""
  chain = build('chain', members=({'name': 'dca', **RECORDS['dca'].hyper}, behind))
  x, weights, _ = inputs()
  loss = lambda chain: layer(chain, weights, x, backend='dense').var()
  gradients = jax.jit(jax.grad(loss))(chain)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_lssa_of_scores_far_below_is_softmax():
  """There softplus is the exponential: behind a bias that grows to -5e5 nothing is lost."""
  steep = {'name': 'alibi', 'factor': 1e-5}
  enc, q = build('chain', kv_heads=4, members=(steep, 'lssa')), jnp.ones((1, 6, 4, 8))
  score = lambda s: enc.members[1].score(s, None, None, None)
  s = jnp.array([-1e5, -100.0, -16.0, -14.9, -1.0, 0.0, 3.0, 90.0, 1e5])
  exact = np.log(np.logaddexp(0, np.asarray(s[2:], np.float64)))
  np.testing.assert_allclose(score(s), [-1e5, -100, *exact], rtol=1e-6)
  slope = jax.jit(jax.vmap(jax.grad(score)))(s)
  np.testing.assert_allclose(slope[:2], 1)
  wanted = 1 / (1 + np.exp(-np.asarray(s[2:], np.float64))) / np.exp(exact)
  np.testing.assert_allclose(slope[2:], wanted, rtol=1e-6)
  for backend in ('dense', 'blockwise'):
    gradient = jax.jit(jax.grad(lambda q, b=backend: attend(q, q, q, enc, backend=b).var()))
    assert np.isfinite(gradient(q)).all()


def test_talking_heads_at_the_start_are_heads_apart():
  for hyper in ({}, {'weights': False}, {'scores': False}):
    member = {'name': 'talking_heads', **hyper}
    same(build('chain', members=('alibi', member)), build('alibi'))
  with_rope = build('chain', members=('rope', 'talking_heads'))
  assert (with_rope.relative, with_rope.normalizer) == (True, 'rows')


def test_talking_heads_golden_values():
  """By hand: the first head has scores 0 and log 3, and the others have zeros."""
  enc, s = build('talking_heads', kv_heads=4), np.array([[0, 0], [0, np.log(3)]])
  enc.of_scores[...] = jnp.zeros((4, 4)).at[0, 1].set(2.0).at[0, 2].set(-1.0)
  enc.of_weights[...] = jnp.eye(4).at[1, 3].set(-2.0)
  by_head = [[0.5, 0.5], [0.1, 0.9], [0.75, 0.25], [0.5 - 0.2, 0.5 - 1.8]]
  np.testing.assert_allclose(attended(enc, s)[1].T, by_head, atol=1e-6)


def test_what_stands_behind_talking_heads_is_not_mixed():
  """Where heads are permuted and scores are 0, a bias before the mix goes to another head."""
  plain = build('alibi', kv_heads=4)
  mixer = {'name': 'talking_heads', 'weights': False}
  for members, order in ((('alibi', mixer), [1, 2, 3, 0]), ((mixer, 'alibi'), [0, 1, 2, 3])):
    enc = build('chain', kv_heads=4, members=members)
    mix = enc.members[members.index(mixer)]
    mix.of_scores[...] = jnp.eye(4)[:, jnp.array([1, 2, 3, 0])]
    s = np.zeros((5, 5))
    np.testing.assert_allclose(attended(enc, s), attended(plain, s)[:, :, order], atol=1e-6)


def test_talking_heads_that_mix_scores_alone_act_in_tiles():
  enc, q = build('talking_heads', kv_heads=4, weights=False), jnp.ones((1, 7, 4, 8))
  assert (enc.normalizer, enc.limit, enc.has('normalize')) == ('softmax', None, False)
  jax.eval_shape(lambda q: attend(q, q, q, enc, backend='blockwise', block_sizes=(2, 4)), q)
  with pytest.raises(NotImplementedError, match=r'^backend blockwise: TalkingHeads makes weights'):
    attend(q, q, q, build('talking_heads', kv_heads=4), backend='blockwise')


def test_mta_at_the_start_is_plain():
  same(build('mta'), build('nope'), is_causal=True)
  same(build('chain', members=('alibi', 'mta')), build('alibi'), is_causal=True, window=4)


def test_mta_golden_values():
  """By hand: two thirds of a score go on to the next query, at the key after, and its own to half;
  hidden scores count as 0, and hidden keys have no weight.
  """
  enc = build('mta', kv_heads=4, query_width=2, key_width=3)
  kernel = jnp.zeros((2, 3)).at[0, 1].set(0.5).at[1, 0].set(2 / 3)
  enc.kernels[...] = jnp.broadcast_to(kernel, enc.kernels.shape)
  s = np.array([[3, 9, 9, 9], [6, 0, 9, 9], [0, 3, 1, 9], [2, 0, 0, 4]])
  new = np.array([[1.5, 0, 0, 0], [3, 2, 0, 0], [0, 5.5, 0.5, 0], [1, 0, 2, 2 + 2 / 3]])
  expected = np.exp(new) * np.tri(4)
  expected /= expected.sum(axis=1, keepdims=True)
  np.testing.assert_allclose(attended(enc, s)[:, :, 0], expected, atol=1e-6)


def test_mta_golden_values_of_mixed_weights():
  """By hand: half of each weight stays, and all of it goes to the next query and to the key after;
  hidden weights count as 0, and hidden keys get none.
  """
  enc = build('mta', kv_heads=4, query_width=2, key_width=3, weights=True)
  kernel = jnp.zeros((2, 3)).at[0, 1].set(0.5).at[1, 0].set(1.0)
  enc.kernels_of_weights[...] = jnp.broadcast_to(kernel, enc.kernels.shape)
  s = np.log([[1, 1, 1], [1, 3, 1], [2, 1, 1]])
  expected = [[0.5, 0, 0], [0.125, 0.375 + 1, 0], [0.25, 0.125 + 0.25, 0.125 + 0.75]]
  np.testing.assert_allclose(attended(enc, s)[:, :, 0], expected, atol=1e-6)


@pytest.mark.ci
def test_mta_gives_a_token_what_it_gets_before_others():
  """Whatever comes later, and whatever a window hid from the queries that a kernel sees."""
  x, weights, _ = inputs()
  enc = away(build('mta'))
  for options in ({}, {'window': 3}, {'window': 2, 'sink_tokens': 1}):
    run = jax.jit(lambda x, o=options: layer(enc, weights, x, backend='dense', **o))
    np.testing.assert_allclose(run(x[:, :7]), run(x)[:, :7], atol=1e-5)
  # Under a window a cache of its tokens and of those that a kernel sees is enough, and no fewer.
  narrow = away(build('mta', query_width=2, key_width=3))
  run = jax.jit(lambda x: layer(narrow, weights, x, backend='dense', window=3))
  last = lambda n: run(x[:, 11 - n :])[:, -1]
  np.testing.assert_allclose(last(4), last(11), atol=1e-5)
  assert np.abs(last(3) - last(11)).max() > 1e-3
  # Under a window of 3 the first query that a kernel sees is five tokens back, and sees two more.
  run = jax.jit(lambda x: layer(enc, weights, x, backend='dense', window=3))
  change = np.abs(run(jnp.asarray(x).at[:, 2].add(1.0)) - run(x)).max(axis=(0, 2, 3))
  assert (change > 0).tolist() == [False] * 2 + [True] * 8 + [False]


def test_asentmax_is_a_chain_of_heads_and_entmax():
  """Heads of linear biases as `nape` alone has them, and heads with a temperature, both sparse."""
  linear = {'name': 'nape', 'alibi_heads': 2, 'heads': 2}
  members = ({'name': 'heads', 'members': (linear, 'asentmax_temperature')}, 'entmax')
  enc, (_, weights, _) = zeroed(build('chain', members=members)), inputs()
  run = lambda enc, scale=1: run_layer(enc, weights | {'q': scale * weights['q']})
  both = build('chain', members=('nape', 'entmax'))
  np.testing.assert_allclose(run(enc)[:, :, :2], run(both)[:, :, :2], atol=1e-5)
  warm = run(build('entmax'), 1 + np.log(2))
  np.testing.assert_allclose(run(enc)[:, :, 2:], warm[:, :, 2:], atol=1e-5)


def test_entmax_needs_whole_rows():
  """`auto` takes `dense` at any length, and what works in tiles says why it does not."""
  enc, q = build('chain', kv_heads=4, members=('alibi', 'entmax')), jnp.ones((1, 520, 4, 8))
  program = lambda **named: jax.jit(lambda q: attend(q, q, q, enc, **named)).lower(q).as_text()
  assert program() == program(backend='dense')
  with pytest.raises(NotImplementedError, match=r'^backend blockwise: Chain makes weights of'):
    attend(q, q, q, enc, backend='blockwise')
  with pytest.raises(ValueError, match='allowed: no soft-cap, for Chain is not normalized by soft'):
    attend(q, q, q, enc, softcap=3.0)


def test_urpe_multiplies_weights_of_softmax_by_numbers_of_distances():
  """Numbers of 1, where they start, leave all as it is; past the table the last number goes on."""
  same(build('chain', members=('t5', 'urpe')), build('t5'))
  enc, q = build('urpe', kv_heads=4, max_distance=3), jnp.ones((1, 7, 4, 8))
  enc.factors[...] = jnp.arange(7.0)[:, None] * jnp.arange(1.0, 5.0)[None]
  out = jax.jit(lambda q: attend(q, q, q, enc))(q)[0, :, :, 0]
  mean = [3, 7 / 2, 4, 18 / 4, 24 / 5, 30 / 6, 36 / 7]  # of 3, 4, 5, 6, 6, 6, 6: distances 0, 1, ..
  np.testing.assert_allclose(out, np.outer(mean, [1, 2, 3, 4]), rtol=1e-6)


def test_scale_invariant_golden_values():
  enc = build('scale_invariant')
  factors, shifts = enc.tables(jnp.array([0, 10, -10, 90]))
  np.testing.assert_allclose(factors[:, 0], [1, 1.544764, 1.544764, 2.367524], atol=2e-6)
  np.testing.assert_allclose(shifts[:, 0], [0, -1.386294, -1.386294, -4.605170], atol=5e-6)
  same(build('scale_invariant', tau=1e9), build('nope'))


@pytest.mark.parametrize(('chunk', 'stride'), [(None, 40), (32, 24), (8, 1), (4, 1), (1, 1)])
def test_dca_takes_any_chunk_by_itself(chunk, stride):
  """Beside chunks as short as an eighth of L, 64, as many tokens are near as a chunk leaves."""
  enc = make('dca', **SIZES | {'train_length': 64}, rngs=nnx.Rngs(0), chunk=chunk)
  assert enc.stride == stride


def test_gradients_of_products_of_ranges_make_no_empty_arrays():
  """Mosaic compiles none."""

  def gradients(x_TK, y_SK):
    product = functools.partial(scaled_dot_if_any, x_TK > 0)
    s_TS, backward = jax.vjp(product, x_TK, y_SK)
    return backward(s_TS)

  x_TK = jnp.ones((4, 2))
  assert 'empty' not in str(jax.make_jaxpr(gradients)(x_TK, x_TK))


@pytest.mark.ci
@pytest.mark.parametrize('n', range(3))
def test_products_of_a_range_that_no_pair_of_a_tile_is_in_are_not_taken(n):
  """Forward or backward: there may stand NaN. Gradients are those of dense."""

  class Unread(ENCODINGS['dca']):
    def transform_qk(self, *given):
      q, k = super().transform_qk(*given)
      is_unread_K = jnp.arange(q.shape[-1]) // self.dims.head_dim == n
      added_111K = jnp.where(is_unread_K, jnp.nan, 0.0)[None, None, None]
      return q + added_111K, k + added_111K

  rng = np.random.default_rng(0)
  q, k, v = (jnp.asarray(rng.standard_normal((1, 16, H, 8)), jnp.float32) for H in (4, 2, 2))
  is_other = lambda i, j: jnp.minimum(i // 4 - j // 4, 2) != n

  def gradients(kind, backend):
    enc = kind(Dims(**SIZES), nnx.Rngs(0), chunk=4, local=0)
    options = {'mask': is_other, 'backend': backend, 'block_sizes': (8, 8)}
    loss = lambda q, k, v: (attend(q, k, v, enc, **options) ** 2).sum()
    return jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(q, k, v)

  expected = gradients(ENCODINGS['dca'], 'dense')
  close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
  jax.tree.map(close, gradients(Unread, 'blockwise'), expected)


@pytest.mark.parametrize('name', ['carope', 'grape_m', 'selective_rope', 'rope_mixed'])
def test_values_that_turn_are_as_wide_as_heads(name):
  enc, (x, _, _) = build(name, turn_values=True), inputs()
  q, k, v = (jnp.zeros((2, 11, *heads)) for heads in ((4, 8), (2, 8), (2, 6)))
  message = f'^{type(enc).__name__}: v has 6 channels; allowed: 8, for all of them rotate$'
  with pytest.raises(ValueError, match=message):
    attend(q, k, v, enc, x=x)
  assert jax.eval_shape(lambda: attend(q, k, v, build(name), x=x)).shape == (2, 11, 4, 6)


def test_selective_rope_is_precise_at_length():
  """Angles of 1e5 have a spacing of 0.008 in float32: theirs must not."""
  T = 16384
  enc = build('selective_rope', bias=True)
  enc.c[...] = jnp.full((2, 4), 2.0)
  x = np.random.default_rng(0).standard_normal((1, T, 12)).astype(np.float32)
  angles = jax.jit(enc.coordinates)(x, None, None, jnp.arange(T)[None])
  enc.base, enc.conv[...] = 500_000.0, jnp.zeros_like(enc.conv[...])
  constant = jax.jit(enc.coordinates)(x, None, None, jnp.arange(T)[None])
  exact = np.float32(np.exp(np.float32(2))) * np.arange(1, T + 1, dtype=np.float64)
  assert exact.max() > 1e5
  assert np.abs(angles).max() <= np.pi + 1e-6
  np.testing.assert_allclose(np.cos(constant[0, :, 0, 0]), np.cos(exact), atol=0.01)
  np.testing.assert_allclose(np.cos(np.diff(constant[0, :, 0, 0])), np.cos(exact[0]), atol=2e-6)


def test_selective_rope_as_released_starts_as_nope():
  """With all its weights from N(0, 0.02^2) tokens turn by next to nothing."""
  x = np.random.default_rng(0).standard_normal((1, 64, 12)).astype(np.float32)

  def step(enc):
    angles = jax.jit(enc.coordinates)(x, None, None, jnp.arange(64)[None])
    return np.diff(angles[0, :, :, 0], axis=0).std()

  released = build('selective_rope', rank=32, gate=True, std=0.02)
  for weight in (released.w_1, released.w_2, released.conv, released.w_g):
    np.testing.assert_allclose(np.std(weight), 0.02, rtol=0.25)
  assert step(released) < 1e-3 < 0.02 < step(build('selective_rope', rank=32, gate=True))


def test_lower_inverse_is_the_inverse_with_its_gradient():
  """It inverts I + what stands below the diagonal; the rest of the matrix is not read."""
  x, g = np.random.default_rng(0).standard_normal((2, 3, 16, 16), np.float32)
  formula = lambda x: jnp.linalg.inv(jnp.eye(16)[None] + jnp.tril(x, -1) / 4)

  @functools.partial(jax.jit, static_argnums=0)
  def with_gradient(f, x, g):
    out, pull = jax.vjp(f, x)
    return out, *pull(g)

  actual, desired = (with_gradient(f, x, g) for f in (lambda x: lower_inverse(x / 4), formula))
  for one, other in zip(actual, desired, strict=True):
    np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max())


@pytest.mark.ci
def test_path_that_is_not_walked_is_nope():
  """beta -> 0 whatever w is; the parameter that says so has no gradient there, and that is a
  number.
  """
  enc, (x, weights, _) = away(build('path')), inputs()
  enc.b[...] = jnp.full(2, -200.0)
  same(enc, build('nope'))
  slopes = jax.jit(jax.grad(lambda enc: layer(enc, weights, x).sum()))(enc)
  assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(slopes))


def decoded(q_THK, k_TGK, v_TGK, steps_TGK, window=None):
  """PaTH as it is decoded, in float64: a token transforms every key before its own, then plain
  attention.
  """
  (T, H, K), G = q_THK.shape, k_TGK.shape[1]
  cache, out = np.zeros((0, G, K)), []
  for t, step in enumerate(steps_TGK.astype(np.float64)):
    cache -= (cache * step).sum(axis=-1, keepdims=True) * step
    cache = np.concatenate([cache, k_TGK[t][None]])
    seen = slice(max(0, t + 1 - (window or T)), t + 1)
    s = np.einsum('gnk,sgk->gns', q_THK[t].reshape(G, -1, K), cache[seen]) / K**0.5
    p = np.exp(s - s.max(axis=-1, keepdims=True))
    out.append(
      np.einsum('gns,sgk->gnk', p / p.sum(axis=-1, keepdims=True), v_TGK[seen]).reshape(H, K)
    )
  return np.stack(out)


def test_path_is_what_a_cache_of_keys_becomes_token_by_token():
  enc, (x, weights, _) = away(build('path')), inputs()
  steps = np.asarray(enc.coordinates(x, None, None, jnp.arange(11)[None]))
  q, k, v = (np.einsum('bsd,dhk->bshk', x, weights[n]) for n in 'qkv')
  run = jax.jit(functools.partial(layer, backend='blockwise', block_sizes=(4, 4)))
  out = run(enc, weights, x)
  for row, arrays in zip(out, zip(q, k, v, steps, strict=True), strict=True):
    np.testing.assert_allclose(row, decoded(*arrays), atol=1e-5)


def test_path_of_reflections_at_one_mirror_does_not_fade():
  """beta = 2 and one w: after 600 tokens a key is seen as itself or mirrored, through all blocks.

  The worst of systems: all numbers of L and of its inverse are 2, and rounding them counts alike
    for every token.
  """

  class Given(type(build('path'))):
    # an ulp of |w| would count 600 times
    def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
      return x_BSD.reshape(*x_BSD.shape[:2], 2, 8)

  T, window = 700, 600
  normal = lambda n, *shape: np.random.default_rng(n).standard_normal(shape).astype(np.float32)
  q, k, v, w_GK = normal(0, T, 4, 8), normal(1, T, 2, 8), normal(2, T, 2, 8), normal(3, 2, 8)
  steps = np.tile(2**0.5 * w_GK / np.linalg.norm(w_GK, axis=-1, keepdims=True), (T, 1, 1))
  enc = Given(dataclasses.replace(build('path').dims, model_dim=16), nnx.Rngs(0))
  run = jax.jit(
    lambda *a: attend(
      *(x[None] for x in a[:3]), enc, x=a[3].reshape(1, T, 16), window=window, backend='blockwise'
    )[0]
  )
  out, eps = run(q, k, v, steps), np.finfo(np.float32).eps
  np.testing.assert_allclose(out, decoded(q, k, v, steps, window), atol=4 * T * eps)
  assert np.abs(decoded(q, k, v, 0.99 * steps, window) - out).max() > 0.1


def test_gates_of_wall_are_bounded_as_released():
  """0.86 expm1(g / 0.86) of the logarithm g of a gate, so that no channel loses more at a token."""
  x = jnp.zeros((1, 3, 12))
  for start, log_gate in ((-100.0, -0.86), (0.0, 0.86 * np.expm1(-np.log(2) / 0.86))):
    whole, rest = build('wall', start=start, bound=0.86).coordinates(x, None, None, None)
    sums = np.diff((whole + rest)[0, :, 0, 0])
    np.testing.assert_allclose(sums, log_gate, atol=1e-5)


def test_wall_that_forgets_nothing_is_nope():
  same(build('wall', start=200.0), build('nope'))


@pytest.mark.ci
@pytest.mark.parametrize('backend', [slow('dense'), 'blockwise'])
@pytest.mark.parametrize(
  ('queries', 'tokens', 'start'), [(300, 300, 0.0), (300, 300, -5.0), (40, 8192, 4.0)]
)
def test_wall_is_exact_at_length(backend, queries, tokens, start):
  """Also where a channel's factors would be exp(600) and exp(-600), or nothing is left at once."""
  T, S = queries, tokens
  normal = lambda n, *shape: np.random.default_rng(n).standard_normal(shape).astype(np.float32)
  x, q, k, v = normal(0, S, 12), 3 * normal(1, T, 4, 8), normal(2, S, 2, 8), normal(3, S, 2, 8)
  enc = build('wall', start=start)
  enc.w_g[...] *= 20
  logits = np.einsum('sd,dhk->shk', x, enc.w_g[...], dtype=np.float64) + np.float64(enc.b_g[...])
  sums = np.cumsum(-np.logaddexp(0, -logits), axis=0)
  assert sums.min() < -250
  desired = []
  for t in range(T):
    seen = slice(S - T + t + 1)
    decay = np.exp(sums[S - T + t] - sums[seen])
    s = np.einsum('hk,shk,shk->hs', q[t], np.repeat(k[seen], 2, axis=1), decay) / 8**0.5
    p = np.exp(s - s.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    desired.append(np.einsum('hs,shk->hk', p, np.repeat(v[seen], 2, axis=1)))
  sizes = (64, 128) if backend == 'blockwise' else None
  run = functools.partial(attend, enc=enc, backend=backend, block_sizes=sizes)
  out = jax.jit(lambda x, *qkv: run(*qkv, x=x))(*(a[None] for a in (x, q, k, v)))
  np.testing.assert_allclose(out[0], desired, atol=5e-6)


@pytest.mark.ci
@pytest.mark.parametrize(
  'sizes',
  [
    (4, 8),
    pytest.param(None, marks=pytest.mark.ci),
    *(pytest.param(s, marks=pytest.mark.slow) for s in ((8, 8), (8, 4))),
  ],
)
def test_chunks_of_wall_are_its_tiles(sizes, monkeypatch):
  """Values and gradients in chunks of a tile are those of a tile that is one chunk."""
  enc, (x, weights, _) = away(build('wall', start=-1.0)), inputs()
  backend = 'dense' if sizes is None else 'blockwise'

  def run(*args):
    loss = lambda *args: jnp.sin(3 * layer(*args, backend=backend, block_sizes=sizes)).sum()
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(*args)

  whole = run(enc, weights, x)
  monkeypatch.setattr(wall, 'CHUNK', 3)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
  jax.tree.map(close, run(enc, weights, x), whole)


def test_hyperbolic_rope_is_exact_at_length():
  """In documents longer than factors would stay finite for that were taken from any one token."""
  enc, S = build('hyperbolic_rope', base=2.0, damping=1.01), 300
  q, k, v = (np.random.default_rng(n).standard_normal((S, h, 8)) for n, h in enumerate((4, 2, 2)))
  segments = (np.arange(S) >= 130).astype(int)
  d = np.subtract.outer(np.arange(S), np.arange(S)).astype(float)
  seen = (d >= 0) & (segments[:, None] == segments)
  k_SHK, v_SHK = (np.repeat(x, 2, axis=1) for x in (k, v))
  first, second = (lambda x: x[..., ::2]), (lambda x: x[..., 1::2])
  s = 0.0
  for m, theta in enumerate(2.0 ** (-np.arange(4) / 4)):
    near, far = (np.exp(-np.where(seen, d, 0) * (1.01 + sign * theta)) for sign in (-1, 1))
    q_a, q_b, k_a, k_b = (part(x)[..., m].T for x in (q, k_SHK) for part in (first, second))
    u, w = ((q_a + sign * q_b)[..., None] * (k_a + sign * k_b)[:, None] for sign in (1, -1))
    s = s + (u * near + w * far) / 2
  p = np.where(seen, np.exp(s / 8**0.5), 0)
  p /= p.sum(axis=-1, keepdims=True)
  arrays = (jnp.asarray(x, jnp.float32)[None] for x in (q, k, v))
  options = {'segment_ids': segments[None], 'backend': 'blockwise', 'block_sizes': (64, 128)}
  out = jax.jit(functools.partial(attend, enc=enc, **options))(*arrays)
  np.testing.assert_allclose(out[0], np.einsum('hts,shk->thk', p, v_SHK), atol=5e-6)


@pytest.mark.parametrize('name', ['hyperbolic_rope', 'jordan_rope'])
def test_what_counts_tokens_says_where_positions_decrease(name):
  enc, (x, weights, _) = build(name), inputs()
  run = jax.jit(functools.partial(layer, position_ids=np.array([[*range(6), *range(4, 9)]])))
  out = run(enc, weights, x)
  assert np.isfinite(out[:, :6]).all()
  assert np.isnan(out[:, 6:]).all()


@pytest.mark.parametrize('bounded', [True, False])
def test_jordan_rope_is_the_published_form_of_queries_and_keys(bounded):
  """Queries A(-i)^(-T) q and keys A(-j) k, whose factors are finite at few tokens."""
  enc = build('jordan_rope', bounded=bounded, start=0.2)
  enc.b[...] = jnp.array([[0.5, -1.0], [2.0, 0.1]])
  rng = np.random.default_rng(0)
  q, k = rng.standard_normal((1, 9, 4, 8)), rng.standard_normal((1, 9, 2, 8))
  values = np.broadcast_to(np.eye(9, 8)[None, :, None], (1, 9, 2, 8))

  def matrix(t, g, m):
    turn = np.exp(1j * t * 10_000 ** (-m / 4))
    turn = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    shear = 0.1 * np.tanh(enc.b[g, m]) * (t / (1 + abs(t) / 40) if bounded else t)
    return np.exp(-0.2001 * t) * np.block([[turn, shear * turn], [0 * turn, turn]])

  s = np.zeros((4, 9, 9))
  for h, i, j, m in np.ndindex(4, 9, 9, 2):
    own = slice(4 * m, 4 * m + 4)
    of_query = np.linalg.inv(matrix(-i, h // 2, m)).T @ q[0, i, h, own]
    s[h, i, j] += of_query @ matrix(-j, h // 2, m) @ k[0, j, h // 2, own] / 8**0.5
  p = np.where(np.tri(9), np.exp(s), 0)
  p /= p.sum(axis=-1, keepdims=True)
  found = attend(*(jnp.asarray(x, jnp.float32) for x in (q, k, values)), enc)
  np.testing.assert_allclose(found[0], p[..., :8].swapaxes(0, 1), atol=1e-5)


def test_jordan_rope_starts_as_rope_of_the_faster_half_of_frequencies(monkeypatch):
  """But for a decay that is hardly seen: products lose 1e-4 of themselves a token."""
  enc = build('jordan_rope')
  rope = build('rope', layout='interleaved', base=7.0)  # of a base that no other test has compiled
  np.testing.assert_allclose(jax.nn.softplus(enc.a[...]), 1e-8, rtol=1e-5)
  assert not enc.b[...].any()
  assert build('jordan_rope', bounded=False).relative > enc.relative
  twice = -np.repeat(build('rope').frequencies()[:2], 2)  # it turns the other way
  monkeypatch.setattr(type(rope), 'spectrum', lambda self, length: (twice, 1.0))
  _, weights, _ = inputs()
  np.testing.assert_allclose(run_layer(enc, weights), run_layer(rope, weights), atol=2e-3)


def test_jordan_rope_is_exact_at_length():
  """In heads of which one forgets at once, where factors of single tokens would not be finite."""
  enc, S = build('jordan_rope', bounded=False, start=0.05), 300
  enc.a[...] += jnp.array([[0.0, 6.0], [3.0, -2.0]])
  enc.b[...] = jnp.array([[0.5, -1.0], [2.0, 0.1]])
  q, k, v = (np.random.default_rng(n).standard_normal((S, h, 8)) for n, h in enumerate((4, 2, 2)))
  d = np.subtract.outer(np.arange(S), np.arange(S)).astype(float)
  d_seen, (k_SHK, v_SHK) = np.maximum(d, 0), (np.repeat(x, 2, axis=1) for x in (k, v))
  gamma, eta = (np.repeat(np.float64(x), 2, axis=0) for x in (enc.a[...], enc.b[...]))
  gamma, eta = np.logaddexp(0, gamma) + 1e-4, 0.1 * np.tanh(eta)
  s = np.zeros((4, S, S))
  for h, m in np.ndindex(4, 2):
    parts = (x[:, h, 4 * m : 4 * m + 4] for x in (q, k_SHK))
    (q_1, q_2), (k_1, k_2) = ((x[:, ::2] + 1j * x[:, 1::2]).T for x in parts)
    product = lambda q, k: np.multiply.outer(q.conj(), k)
    turned = product(q_1, k_1) + product(q_2, k_2) + eta[h, m] * d_seen * product(q_1, k_2)
    s[h] += (turned * np.exp((1j * 10_000 ** (-m / 4) - gamma[h, m]) * d_seen)).real
  p = np.where(d >= 0, np.exp(s / 8**0.5), 0)
  p /= p.sum(axis=-1, keepdims=True)
  arrays = (jnp.asarray(x, jnp.float32)[None] for x in (q, k, v))
  options = {'backend': 'blockwise', 'block_sizes': (64, 128)}
  out = jax.jit(functools.partial(attend, enc=enc, **options))(*arrays)
  np.testing.assert_allclose(out[0], np.einsum('hts,shk->thk', p, v_SHK), atol=2e-5)


def test_fox_is_precise_at_length():
  """Sums of 1e5 have a spacing of 0.008 in float32: differences of near tokens and gradients must
  not.
  """
  T, near = 16384, 32
  x = np.random.default_rng(0).standard_normal((1, T, 12)).astype(np.float32)
  fox = build('fox', start=-5.0)
  log_f = -np.logaddexp(0, 5 - x[0].astype(np.float64) @ np.asarray(fox.w_f[...], np.float64))
  c = np.cumsum(log_f, axis=0)
  assert c.min() < -8e4
  assert (
    np.abs(np.diff(np.cumsum(log_f.astype(np.float32), axis=0), axis=0) - log_f[1:]).max() > 1e-3
  )
  difference = functools.partial(ScoreTile.difference, None)
  place = jax.jit(fox.coordinates)(x, None, None, jnp.arange(T)[None])
  assert np.abs(place[1]).max() <= 0.5
  cut = lambda part: jax.tree.map(lambda a: a[:, part], place)
  for start in (0, 9000, T - near):
    here = slice(start, start + near)
    tile = SimpleNamespace(i=cut(here), j=cut(here), difference=difference)
    bias = fox.score(jnp.zeros((1, 4, near, near)), None, None, tile)[0]
    np.testing.assert_allclose(bias, (c[here, None] - c[None, here]).transpose(2, 0, 1), atol=1e-4)
  g = np.random.default_rng(1).standard_normal((1, T, 4)).astype(np.float32)
  total = lambda log_f: sum((part * g).sum() for part in running_sum(log_f))
  slope = jax.jit(jax.grad(total))(jnp.asarray(log_f, jnp.float32)[None])
  np.testing.assert_allclose(
    slope[0], np.cumsum(g[0, ::-1].astype(np.float64), axis=0)[::-1], atol=1e-3
  )


@pytest.mark.parametrize('size', [1, 30])
def test_stick_breaking_weights_are_pieces_of_one_stick(size):
  """The pieces and what is left make 1, for saturated scores too; the first token gets nothing."""
  rng = np.random.default_rng(0)
  q, k = (size * rng.standard_normal((1, 9, 4, 8)).astype(np.float32) for _ in range(2))
  enc = make('stick_breaking', **SIZES | {'kv_heads': 4}, rngs=nnx.Rngs(0))
  run = lambda q, k: attend(q, k, jnp.ones_like(k), enc, backend='dense')
  pieces = np.asarray(jax.jit(run)(q, k))[0, :, :, 0]
  z = np.einsum('bthk,bshk->ths', q.astype(np.float64), k) / 8**0.5
  left = np.stack([np.exp(-np.logaddexp(0, z[t, :, :t]).sum(axis=-1)) for t in range(9)])
  np.testing.assert_allclose(pieces, 1 - left, atol=1e-6 * size)
  assert np.all(pieces <= 1 + 1e-6 * size)
  assert np.all(pieces[0] == 0)
  assert all(
    np.isfinite(g).all()
    for g in jax.jit(jax.grad(lambda *qk: run(*qk).sum(), argnums=(0, 1)))(q, k)
  )


def test_kerple_starts_within_its_bounds_in_both_parametrisations():
  wide = lambda **hyper: make(
    'kerple_log', **SIZES | {'heads': 4000, 'kv_heads': 1}, rngs=nnx.Rngs(0), **hyper
  )
  free, projected = wide(positivity='softplus'), wide()
  for raw, value, high in ((free.p, projected.p, 2), (free.a, projected.a, 1)):
    np.testing.assert_allclose(jax.nn.softplus(raw[...]), value[...], rtol=1e-4)
    assert value[...].min() == np.float32(0.01)
    assert value[...].max() <= high
    assert float(value[...].mean()) == pytest.approx(high / 2, rel=0.05)


BOUNDS = {  # of what `project` keeps in its domain
  'kerple_log': {'p': (0.01, np.inf), 'a': (0.01, np.inf)},
  'kerple_power': {'p': (0.01, 2), 'a': (0.01, np.inf)},
  'pope': {'phases': (-2 * np.pi, 0)},
  'nope_scale': {'scales': (1, np.inf)},
  'chain': {'phases': (-2 * np.pi, 0), 'w_f': (-np.inf, np.inf)},
}


@pytest.mark.parametrize(
  ('name', 'hyper'),
  [
    *((name, {}) for name in ENCODINGS),
    *((name, {'positivity': 'softplus'}) for name in ('kerple_log', 'kerple_power')),
    *(('dape', {'inner': inner}) for inner in ('kerple_power', 'fire')),
    ('nope_scale', {'learned': True}),
    ('chain', {'members': ('pope', 'fox')}),
  ],
)
def test_projection_of_what_has_bounds(name, hyper):
  rng = np.random.default_rng(0)
  far = jax.tree.map(
    lambda p: jnp.asarray(9 * rng.standard_normal(p.shape), jnp.float32), build(name, **hyper)
  )
  bounds = {} if 'positivity' in hyper else BOUNDS.get(hyper.get('inner', name), {})
  before, after = (
    jax.tree_util.tree_flatten_with_path(enc)[0] for enc in (far, far.constrain_parameters())
  )
  for (path, leaf), (_, projected) in zip(before, after, strict=True):
    low, high = bounds.get(path[-2].name, (-np.inf, np.inf))
    np.testing.assert_array_equal(projected, np.clip(leaf, np.float32(low), np.float32(high)))


@pytest.mark.parametrize(
  ('name', 'hyper'),
  [('pope', {}), ('nope_scale', {'learned': True}), ('kerple_log', {}), ('kerple_power', {})],
)
def test_bounds_are_those_of_named_parameters(name, hyper, monkeypatch):
  """What a subclass adds has none of its base class, and what it holds keeps its own."""

  class Own(ENCODINGS[name]):
    def __init__(self, dims, rngs, **hyper):
      super().__init__(dims, rngs, **hyper)
      self.gains = nnx.Param(jnp.array([-9.0, 0.5, 9.0]))
      self.held = make('kerple_log', **dataclasses.asdict(dims), rngs=rngs)
      self.held.p = nnx.Param(jnp.array([-1.0]))

  monkeypatch.setitem(ENCODINGS, 'own', Own)
  constrained = build('own', **hyper).constrain_parameters()
  np.testing.assert_array_equal(constrained.gains, [-9.0, 0.5, 9.0])
  np.testing.assert_array_equal(constrained.held.p, np.float32(0.01))


@pytest.mark.parametrize('share', ['all', 'none'])
def test_stacked_parameters_are_constrained_as_those_of_each_layer(share):
  stacked = StackedEncoding(lambda: build('kerple_log'), 3, share)
  moved = jax.tree.map(lambda leaf: jnp.linspace(-1, 1, leaf.size).reshape(leaf.shape), stacked)
  constrained = moved.constrain_parameters()
  for n in range(3):
    of_layer = constrained.layer(n), moved.layer(n).constrain_parameters()
    jax.tree.map(np.testing.assert_array_equal, *of_layer)
  assert min(leaf.min() for leaf in jax.tree.leaves(moved)) == -1, 'it is a copy'
  assert min(leaf.min() for leaf in jax.tree.leaves(constrained)) > 0


@pytest.mark.parametrize('n', [-1, 3, np.int64(3)])
def test_a_layer_that_is_not_there_is_refused(n):
  """jax would take the nearest one."""
  stacked = StackedEncoding(lambda: build('alibi'), 3, 'paper')
  with pytest.raises(ValueError, match=rf'^layer {n}; allowed: 0 to 2$'):
    stacked.layer(n)
  with pytest.raises(ValueError, match=r'^layers=0; allowed: 1 or more$'):
    StackedEncoding(lambda: build('alibi'), 0, 'paper')


def test_names_that_a_config_has_for_itself_are_known():
  """`make` refuses hyperparameters of these names, and builds every encoding."""
  assert {name for name in dir(ConfigDict) if not name.startswith('_')} <= OF_CONFIGS


FACTS = ('relative', 'causal_only', 'max_length', 'max_relative_distance', 'bias_in_scale')
FACTS += ('normalizer', 'query_scale')


@pytest.mark.parametrize(
  'name', [name for name in ENCODINGS if name not in ('chain', 'tape', *WRAPPERS)]
)
def test_chain_of_one_and_nothing_declares_what_the_one_does(name):
  enc = without_numbers(name)
  for members in ((name,), ('nope', name), (name, 'nope')):
    chain = without_numbers('chain', members=members)
    assert [getattr(chain, fact) for fact in FACTS] == [getattr(enc, fact) for fact in FACTS]
    assert chain.acts_on() == enc.acts_on()
    assert chain.scale(8) == enc.scale(8)
    hooks = HOOKS.keys() - {'tables'}  # a chain keeps those of its members apart
    assert {hook for hook in hooks if chain.has(hook)} == {hook for hook in hooks if enc.has(hook)}


@pytest.mark.parametrize(
  'name', ['rope', 'shaw', 'fox', 'learned', 'path', 'vo_rope', 'repo', 'dape_v2']
)
def test_chain_of_one_and_nothing_is_the_one(name):
  enc = away(build(name))
  for members in ((name,), ('nope', name), (name, 'nope')):
    chain = build('chain', members=members)
    same(jax.tree.unflatten(jax.tree.structure(chain), jax.tree.leaves(enc)), enc)


def test_chain_declares_what_its_members_do():
  chain = lambda *members: build('chain', members=members)
  chains = map(chain, ('t5', 'shaw', 't5'), ('rope', 't5', 'alibi'))
  assert [e.max_relative_distance for e in chains] == [128, 128, None]
  assert [chain('learned', 'fox').max_length, chain('rope', 'fox').max_length] == [40, None]
  assert [chain('t5', 'fox').bias_in_scale, chain('shaw', 'fox').bias_in_scale] == [False, False]
  assert [chain('t5', 'rope').scale(8), chain('rope', 't5').query_scale] == [1, 8**-0.5]
  assert [chain('rope', 'alibi').causal_only, chain('rope', 'fox').causal_only] == [False, True]


def test_scales_that_rounding_tells_apart_are_the_same(monkeypatch):
  class Mine(ENCODINGS['nope']):
    def scale(self, head_dim):
      return math.nextafter(head_dim**-0.5, 0)

  monkeypatch.setitem(ENCODINGS, 'mine', Mine)
  sizes = SIZES | {'head_dim': 32}
  for name, other in (('chain', 'rerope'), ('chain', 't5'), ('heads', 'rope')):
    both = make(name, **sizes, rngs=nnx.Rngs(0), members=('mine', other))
    assert math.isclose(both.scale(32), 1 if other == 't5' else 32**-0.5)


@pytest.mark.parametrize(
  ('name', 'field'), [('fope', 'seed'), ('pape_ri', 'seed'), ('random_positions', 'eval_seed')]
)
def test_seeds_of_encodings_may_be_those_of_runs(name, field):
  assert getattr(build(name, **{field: 2**32 - 1}), field) == 2**32 - 1
  message = f'^{name}: {field}=4294967296; allowed: at most 4294967295 in size$'
  with pytest.raises(ValueError, match=message):
    build(name, **{field: 2**32})


@pytest.mark.parametrize(
  ('name', 'hidden', 'numbers'),
  [('dape', 4, 8), ('dape', 9, 9), ('dape_v2', 2, 8), ('dape_v2', 3, 9)],
)
def test_what_adapts_a_bias_counts_its_inputs(name, hidden, numbers):
  """Scores and biases of 4 heads side by side, where they are more than hidden units."""
  assert build(name, hidden=hidden).elements_per_pair(3, None) == 3 * numbers


def test_heads_of_members_are_those_of_layers_of_their_own():
  """Whatever stands beside them: outputs of two layers side by side."""
  q, k, v = (
    jnp.asarray(normal, jnp.float32)
    for normal in np.random.default_rng(0).normal(size=(3, 1, 9, 6, 8))
  )
  sizes = {'model_dim': 48, 'head_dim': 8, 'train_length': 16, 'rngs': nnx.Rngs(0)}
  members = ({'name': 'rope', 'heads': 4}, {'name': 'alibi', 'heads': 2})
  both = make('heads', heads=6, members=members, **sizes)
  rope, alibi = make('rope', heads=4, **sizes), make('alibi', heads=2, **sizes)
  for backend in ('dense', 'blockwise'):
    run = jax.jit(functools.partial(attend, backend=backend, block_sizes=(4, 4)))
    parts = (
      run(q[:, :, :4], k[:, :, :4], v[:, :, :4], rope),
      run(q[:, :, 4:], k[:, :, 4:], v[:, :, 4:], alibi),
    )
    np.testing.assert_allclose(run(q, k, v, both), jnp.concatenate(parts, axis=2), atol=1e-5)


@pytest.mark.parametrize(
  ('members', 'message'),
  [
    (
      ('rope', 'nope', 'alibi'),
      '3 members have heads (None, None, None) (None: an equal share); allowed: 4 together, mult',
    ),
    (
      ({'name': 'rope', 'heads': 3}, 'nope'),
      '2 members have heads (3, None) (None: an equal share); allowed: 4 together, mult',
    ),
    (
      ({'name': 'rope', 'heads': 2},),
      '1 members have heads (2,) (None: an equal share); allowed: 4 together',
    ),
    (('rope', 'learned'), 'learned is added for all heads; allowed: a chain of it and `heads`'),
    (('rope', 'cope'), 'cope carries sums along keys; allowed: encodings that do not'),
    (('rope', 't5'), 'members have scale 0.3535'),
    (('rope', 'pope'), 'members have qk_width_factor 1, 2; allowed: the same for all'),
    (('rope_pp', 'alibi'), 'members have heads_out_per_head 2, 1; allowed: the same for all'),
    ((), 'members=(); allowed: names, or dicts with a name, of encodings'),
    (({'name': 'rope', 'heads': 10**5000}, 'nope'), '2 members have heads <tuple> (None: an equal'),
    (('entmax', 'tapa'), 'members have normalizer rows, softmax; allowed: the same for all'),
    (('entmax', 'alibi'), 'members have normalizer rows, softmax; allowed: the same for all'),
    (
      ({'name': 'rope', 'heads': '2'}, 'nope'),
      "members have heads ('2', None); allowed: whole numbers",
    ),
    (
      ({'name': 'rope', 'heads': 2.0}, 'nope'),
      'members have heads (2.0, None); allowed: whole numbers',
    ),
  ],
)
def test_members_that_cannot_stand_beside_one_another(members, message):
  with pytest.raises(ValueError, match=f'^heads: {re.escape(message)}') as error:
    build('heads', members=members)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('spectrum', ['each', 'split', 'interleaved', 'first_slowest', 'heads'])
def test_equal_coordinates_are_rope_of_the_frequencies_of_all_sections(spectrum):
  """One spectrum, whichever coordinates its pairs belong to, is that of rope itself."""
  x, weights, _ = inputs()
  axial = build('axial_rope', spectrum=spectrum)
  repeated = type('Repeated', (ENCODINGS['rope'],), {'frequencies': lambda _: [1, 0.01, 1, 0.01]})
  rope = repeated(axial.dims, nnx.Rngs(0)) if spectrum == 'each' else build('rope')
  run = jax.jit(layer)
  np.testing.assert_allclose(run(axial, weights, x), run(rope, weights, x), atol=2e-5)


@pytest.mark.parametrize('fraction', [1.0, 0.5])
@pytest.mark.parametrize('spectrum', ['split', 'interleaved', 'heads'])
def test_a_scaling_of_one_spectrum_is_that_of_rope(spectrum, fraction):
  """The attention factor with it, and the width that rotates."""
  x, weights, _ = inputs()
  axial = build('axial_rope', spectrum=spectrum, scaling=YARN_OF_AXES, fraction=fraction)
  rope = build('rope', scaling=YARN, fraction=fraction)
  run = jax.jit(layer)
  np.testing.assert_allclose(run(axial, weights, x), run(rope, weights, x), atol=2e-5)


def test_a_scaling_is_of_the_section_of_each_axis():
  fields = {'rope_type': 'yarn', 'factor': 4.0, 'original_max_position_embeddings': 16}
  sizes = dict(model_dim=64, heads=1, head_dim=64, train_length=500, rngs=nnx.Rngs(0))
  axial = make('axial_rope', **sizes, sections=(20, 12), base=100.0, scaling=fields)
  found, factor = axial.spectrum(1)
  for n, own in ((20, found[:20]), (12, found[20:])):
    rope = make('rope', **sizes | {'head_dim': 2 * n}, base=100.0, scaling=fields)
    np.testing.assert_array_equal(own, rope.spectrum(1)[0])
    assert factor == rope.spectrum(1)[1]


def test_a_base_of_each_coordinate_scales_some_alone_as_in_cosmos():
  """Such a base is that of the scaling `ntk`, whose factor is one for all that are scaled."""
  sizes = dict(model_dim=128, heads=1, head_dim=128, train_length=8, rngs=nnx.Rngs(0))
  sections, factors = (22, 21, 21), (1.0, 3.0, 4.0)
  base = tuple(1e4 * s ** (2 * n / (2 * n - 2)) for n, s in zip(sections, factors, strict=True))
  axial = make('axial_rope', **sizes, axes=3, sections=sections, base=base)
  for n, s in enumerate(factors):
    scaling = {'rope_type': 'ntk', 'factor': s}
    scaled = make('axial_rope', **sizes, axes=3, sections=sections, scaling=scaling)
    is_own = axial.axes_in_order() == n
    np.testing.assert_allclose(axial.spectrum(1)[0][is_own], scaled.spectrum(1)[0][is_own])


@pytest.mark.parametrize(
  ('hyper', 'message'),
  [
    *(
      (
        {'base': base, **own},
        f"base={said}; allowed: a number, or with spectrum='each' 2 numbers greater than 1",
      )
      for base, own, said in (
        ((50.0, 30.0), {'spectrum': 'split'}, '(50.0, 30.0)'),
        ((50.0,), {}, '(50.0,)'),
        ((), {}, '()'),
        ((50.0, 1.0), {}, '(50.0, 1.0)'),
        ((50.0, '9'), {}, "(50.0, '9')"),
        ((50.0, 10**5000), {}, '<tuple>'),
      )
    ),
    ({'base': 1.0}, 'base=1.0; allowed: greater than 1'),
    (
      {'scaling': {'rope_type': 'dynamic', 'factor': 2, 'original_max_position_embeddings': 8}},
      "scaling.rope_type='dynamic' reads how many keys there are; allowed: types that do not",
    ),
    (
      {'scaling': {'rope_type': 'yarn', 'factor': 2}},
      'scaling.original_max_position_embeddings=None; allowed: a whole number from 2 to 1000000000',
    ),
    (
      {'scaling': {'rope_type': 'riflex', 'k': 3, 'test_length': 9}},
      'scaling.k=3; allowed: whole numbers from 1 to 2',
    ),
    (
      {'scaled_axis': 1},
      "scaled_axis=1; allowed: None, unless there is a scaling with spectrum='each'",
    ),
    (
      {'scaled_axis': 1, 'spectrum': 'split', 'scaling': {'rope_type': 'linear', 'factor': 2}},
      "scaled_axis=1; allowed: None, unless there is a scaling with spectrum='each'",
    ),
    (
      {'scaled_axis': 2, 'scaling': {'rope_type': 'linear', 'factor': 2}},
      'scaled_axis=2; allowed: from 0 to 1',
    ),
    (
      {'scaled_axis': 1, 'sections': (4, 0), 'scaling': {'rope_type': 'linear', 'factor': 2}},
      'scaled_axis=1 of sections=(4, 0); allowed: one that has pairs of channels',
    ),
    (
      {'scaled_axis': 0, 'scaling': YARN_OF_AXES},
      'scaled_axis=0 with an attention factor of 1.139, which multiplies all channels; allowed: 1',
    ),
    ({'axes': 1}, 'axes=1; allowed: at least 2'),
    ({'axes': 3}, 'axes=3; allowed: a divisor of the 4 pairs of channels of a head'),
    (
      {'fraction': 0.5, 'sections': (3, 1)},
      'sections=(3, 1); allowed: 2 whole numbers of 0 or more, 2 together',
    ),
    (
      {'fraction': 0.4},
      'fraction=0.4 of head_dim=8; allowed: an even number of channels, from 2 to head_dim',
    ),
    (
      {'fraction': 0.5, 'scaling': {'type': 'linear', 'factor': 2, 'partial_rotary_factor': 1}},
      'scaling.partial_rotary_factor=1; allowed: fraction=0.5 of rope',
    ),
    ({'sections': (1, 2)}, 'sections=(1, 2); allowed: 2 whole numbers of 0 or more, 4 together'),
    ({'sections': (5, -1)}, 'sections=(5, -1); allowed: 2 whole numbers of 0 or more, 4 together'),
    (
      {'sections': (4, 10**5000)},
      'sections=<tuple>; allowed: 2 whole numbers of 0 or more, 4 together',
    ),
    (
      {'spectrum': 'all'},
      "spectrum='all'; allowed: each, split, interleaved, first_slowest, heads",
    ),
    (
      {'spectrum': 'heads', 'sections': (2, 0)},
      'sections=(2, 0); allowed: 2 whole numbers of 1 or more, at most 2 together',
    ),
    (
      {'spectrum': 'heads', 'sections': (1, 2)},
      'sections=(1, 2); allowed: 2 whole numbers of 1 or more, at most 2 together',
    ),
    ({'spectrum': 'heads', 'axes': 3}, 'axes=3; allowed: a divisor of the 2 key/value heads'),
    (
      {'spectrum': 'interleaved', 'sections': (1, 3)},
      "sections=(1, 3); allowed: such as (2, 2), which these make with spectrum='interleaved'",
    ),
    (
      {'axes': 3, 'spectrum': 'first_slowest', 'sections': (1, 1, 2)},
      'sections=(1, 1, 2); allowed: such as (1, 2, 1), which these make with'
      " spectrum='first_slowest'",
    ),
  ],
)
def test_axes_that_are_refused(hyper, message):
  with pytest.raises(ValueError, match=f'^axial_rope: {re.escape(message)}$'):
    build('axial_rope', **hyper)


def test_interleaved_coordinates_are_those_of_qwen3_vl():
  """Time has every third of its 64 pairs and the last four, as slices in its code say."""
  sizes = dict(model_dim=128, heads=1, head_dim=128, train_length=8, rngs=nnx.Rngs(0))
  hyper = dict(axes=3, sections=(24, 20, 20), spectrum='interleaved')
  axial = make('axial_rope', **sizes, **hyper)
  assert axial.axes_in_order().tolist() == 20 * [0, 1, 2] + 4 * [0]


def test_a_quarter_of_the_channels_rotates_as_in_qwen3_5():
  """The rule by a loop over pairs: 11 of time and row each and 10 of the column, in turns."""
  sizes = dict(model_dim=256, heads=1, head_dim=256, train_length=8, rngs=nnx.Rngs(0))
  hyper = dict(axes=3, sections=(11, 11, 10), spectrum='interleaved', fraction=0.25, base=1e7)
  axial = make('axial_rope', **sizes, **hyper)
  rng = np.random.default_rng(0)
  x, places = rng.standard_normal((1, 5, 1, 256)), rng.integers(30, size=(1, 5, 3))
  expected = x.copy()
  for t in range(5):
    for m in range(32):
      z = complex(x[0, t, 0, m], x[0, t, 0, m + 32]) * np.exp(
        1j * places[0, t, m % 3] * 1e7 ** (-2 * m / 64)
      )
      expected[0, t, 0, [m, m + 32]] = z.real, z.imag
  found = axial.transform_qk(jnp.float32(x), jnp.float32(x), places, places)
  for turned in found:
    np.testing.assert_allclose(turned, expected, atol=2e-5)
    np.testing.assert_array_equal(turned[..., 64:], np.float32(x[..., 64:]))


def test_heads_turn_by_a_coordinate_each_or_stand_still():
  sizes = dict(model_dim=24, heads=6, kv_heads=3, head_dim=4, train_length=8, rngs=nnx.Rngs(0))
  axial = make('axial_rope', **sizes, spectrum='heads', sections=(1, 1))
  q, k, places = jnp.ones((1, 1, 6, 4)), jnp.ones((1, 1, 3, 4)), jnp.array([[[5, 3]]])
  turned = axial.transform_qk(q, k, places, places)
  rope = make('rope', **sizes)
  for x, y, group in zip((q, k), turned, (2, 1), strict=True):
    for axis in (0, 1):
      at = slice(axis * group, (axis + 1) * group)
      np.testing.assert_allclose(
        y[:, :, at], rope.turn(x, places[..., axis], 1)[:, :, at], atol=1e-6
      )
    np.testing.assert_array_equal(y[:, :, 2 * group :], 1)


def test_slowest_pairs_of_the_first_coordinate_are_those_of_videorope():
  """Row and column take turns in 48 pairs, the row first, and time has the last 16."""
  sizes = dict(model_dim=128, heads=1, head_dim=128, train_length=8, rngs=nnx.Rngs(0))
  hyper = dict(axes=3, sections=(16, 24, 24), spectrum='first_slowest')
  axial = make('axial_rope', **sizes, **hyper)
  assert axial.axes_in_order().tolist() == 24 * [1, 2] + 16 * [0]
  np.testing.assert_allclose(axial.frequencies(), 1e4 ** (-np.arange(64) / 64))


def test_positions_of_several_axes_are_not_sampled():
  message = "^random_positions: inner='axial_rope' has 2 positions a token; allowed: an encoding w"
  with pytest.raises(ValueError, match=message):
    build('random_positions', inner='axial_rope')


in_heads = lambda *members: {'name': 'heads', 'members': members}
interleaved = lambda name, **hyper: {'name': name, 'layout': 'interleaved', **hyper}
# Vectors added to turned values are not relative: outputs are turned back with what was added. Nor
# are functions of turned queries that no rotation passes, and turns of other pairs. In heads of
# their own members do not meet, and angles that tokens choose know no position.
RELATIVE = (
  (('vo_rope', 'shaw'), False),
  (('vo_rope', 'alibi'), True),
  (({'name': 'vo_rope', 'back': False}, 'alibi'), False),
  (('kv_shift', in_heads('vo_rope', 'shaw')), True),
  (('kv_shift', in_heads('rope', 'shaw')), True),
  (('rope', in_heads('nope', 'shaw')), False),
  (('rope', 'pope'), False),
  (('rope', 'coca'), False),
  (('coca', 'rope'), True),
  (('rope', 'xpos'), False),
  (('rope', {'name': 'xpos', 'layout': 'half'}), True),
  (('rope', {'name': 'rope', 'fraction': 0.5}), False),
  ((interleaved('rope'), interleaved('rope', fraction=0.5)), True),
  ((interleaved('coca'), 'rope'), True),
  ((interleaved('coca'), interleaved('rope')), False),
  (('vo_rope', interleaved('vo_rope')), False),
  (('repo', 'shaw'), True),
  (('rope', 'repo'), True),
  (('repo', interleaved('rope')), True),
  ((interleaved('rope'), 'repo'), False),
  (({'name': 'carope', 'turn_values': True}, 'shaw'), True),
  ((in_heads('repo', 'alibi'), 'shaw'), True),
  (('rope', 'mla_rope'), True),
  (('key_offset', 'rope'), True),
)
DAILY_RELATIVE = (
  *(('vo_rope', 'shaw'), ('vo_rope', 'alibi'), ('rope', 'coca'), ('coca', 'rope')),
  *(('repo', 'shaw'), (interleaved('rope'), 'repo')),
)


def test_what_meets_turned_channels_is_declared_as_relative_or_not():
  for members, relative in RELATIVE:
    assert without_numbers('chain', members=members).relative == relative, members


@pytest.mark.parametrize(
  ('members', 'relative'),
  [pytest.param(*case, marks=daily_if(case[0] in DAILY_RELATIVE, 'ci')) for case in RELATIVE],
)
def test_what_meets_turned_channels_is_relative_as_declared(members, relative):
  x, weights, _ = inputs()
  chain = away(build('chain', members=members))
  run = lambda shift: layer(chain, weights, x, position_ids=shift + jnp.arange(11)[None])
  assert (np.abs(run(9) - run(0)).max() < 1e-4) == relative


def test_parts_are_what_composites_and_wrappers_are_made_of():
  chain = {'name': 'chain', 'members': ({'name': 'heads', 'members': 'rope,nope'}, 'fox')}
  parts = build('random_positions', inner=chain).parts()
  assert [type(part).__name__ for part in parts] == ['RoPE', 'NoPE', 'FoX']


def test_members_have_their_hyperparameters_and_share_what_they_share():
  by_name, by_dict = (
    build('chain', members='rope,t5,fox'),
    build('chain', members=({'name': 'rope', 'base': 50.0}, 'fox')),
  )
  assert [e.base for e in (by_name.members[0], by_dict.members[0])] == [10_000, 50]
  make_one = lambda: build('chain', members='rope,t5,fox')
  own = StackedEncoding(make_one, 3, 'paper').stacked_parameters()
  assert sorted(p.shape for p in own) == [(3, 4), (3, 12, 4)]  # the gates; T5's table is there once


def test_order_of_a_chain_counts_where_a_member_reads_scores():
  """CoPE's gates see what FoX has left, or all."""
  x, weights, _ = inputs()
  cope, fox = away(build('cope')), away(build('fox'))

  def run(*members):
    chain = build('chain', members=members)
    for n, name in enumerate(members):
      chain.members[n] = {'cope': cope, 'fox': fox}.get(name, chain.members[n])
    return layer(chain, weights, x)

  assert np.abs(run('fox', 'cope') - run('cope', 'fox')).max() > 1e-3
  np.testing.assert_allclose(run('fox', 'alibi'), run('alibi', 'fox'), atol=1e-5)


def test_a_chain_ends_walks_as_its_last_score_does():
  """By that one's own sum, also after one that takes a sum itself; not where another may give
  weight again.
  """
  x, weights, _ = inputs()
  chain, none, much = (
    build('chain', members=('cope', 'stick_breaking')),
    jnp.zeros((2, 4, 3)),
    jnp.full((2, 4, 3), -200),
  )
  assert chain.is_exhausted((none, much))
  assert not chain.is_exhausted((much, none))
  assert not build('chain', members=('stick_breaking', 'alibi')).has('is_exhausted')
  heavy = weights | {'q': 30 * weights['q']}
  run = lambda **options: jax.jit(functools.partial(layer, **options))(away(chain), heavy, x)
  np.testing.assert_allclose(
    run(backend='blockwise', block_sizes=(2, 2)), run(backend='dense'), atol=2e-5
  )


def test_temperatures_at_known_factors():
  factors = lambda enc: enc.transform_qk(
    jnp.ones((1, 41, 4, 8)), None, 1 + jnp.arange(41.0)[None], None
  )[0][0, :, 0, 0]
  logn, ratio = factors(build('logn')), factors(build('logn', floor=0.0))
  np.testing.assert_array_equal(logn[:39], 1)
  np.testing.assert_allclose(
    [logn[39], logn[40], ratio[0], ratio[39]], [1, np.log(41) / np.log(40), 0, 1], rtol=1e-6
  )
  floored = factors(build('infoscale'))
  np.testing.assert_allclose(floored[:40], 1, rtol=1e-6)
  info = factors(build('infoscale', floor=0.0))
  np.testing.assert_allclose(info[np.array([0, 39])], [0, 1], atol=1e-6)
  assert floored[40] == info[40] > 1
  # by hand, at K = 8: 1 - 16^(-1/4) over 1 - 40^(-1/4)
  np.testing.assert_allclose(info[15], (0.5 / (1 - 40**-0.25)) ** 0.5, rtol=1e-5)
  hype = factors(build('hype_temperature', a=6.0))
  np.testing.assert_allclose([hype[0], hype[30]], [1, 2], rtol=1e-6)
  assert float(factors(build('ssmax'))[:40].mean()) == pytest.approx(1)
  published = make('ssmax', **SIZES | {'train_length': 1024}, rngs=nnx.Rngs(0))
  np.testing.assert_allclose(published.s[...], 0.168, atol=5e-4)


def test_qassmax_starts_as_released():
  """Factors read the number of keys alone, and draws are those of torch.nn.Linear."""
  enc = build('qassmax')
  for name, most in (('f_in', 1), ('f_out', 1 / 8), ('g_in', 8**-0.5), ('g_out', 0)):
    for part in (name, f'{name}_bias'):
      size = np.abs(getattr(enc, part)[...])
      assert 0.8 * most <= size.max() <= most
  q = jax.random.normal(jax.random.key(0), (1, 3, 4, 8))
  found, _ = enc.transform_qk(q, None, jnp.array([[1.0, 7.0, 40.0]]), None)
  other, _ = enc.transform_qk(2 * q, None, jnp.array([[1.0, 7.0, 40.0]]), None)
  np.testing.assert_allclose(other, 2 * found, rtol=1e-6)
  # of a token that sees itself alone, whose logarithm is 0
  units = jax.nn.gelu(enc.f_in_bias[...], approximate=False)
  factor = (units @ enc.f_out[...] + enc.f_out_bias[...]).reshape(4, 8)
  np.testing.assert_allclose((found / q)[0, 0], factor, rtol=1e-4, atol=1e-6)


def test_qassmax_behind_several_turns_of_a_head_meets_each():
  """Where all keys are near, a second turn is not seen."""
  wide = {'name': 'rerope', 'window': 11}
  chains = [away(build('chain', members=(first, 'qassmax'))) for first in (wide, 'rope')]
  x, weights, _ = inputs()
  two, one = (layer(chain, weights, x) for chain in chains)
  np.testing.assert_allclose(two, one, atol=2e-5)


def test_qassmax_of_heads_multiplies_all_of_a_wider_query():
  """As `ssmax` does, where its network makes s_h log n: one unit, far up, where GELU is linear."""
  of_heads = {'name': 'qassmax', 'elementwise': False, 'gate': False, 'hidden': 1}
  chains = [build('chain', members=('mla_rope', last)) for last in (of_heads, 'ssmax')]
  qassmax, ssmax = (chain.members[1] for chain in chains)
  s_H = jnp.array([0.5, 1.0, -1.5, 2.0])
  qassmax.f_in[...], qassmax.f_in_bias[...] = jnp.array([[100.0]]), jnp.zeros(1)
  qassmax.f_out[...], qassmax.f_out_bias[...] = s_H[None] / 100, jnp.zeros(4)
  ssmax.s[...] = s_H
  x, weights, _ = inputs()
  found, expected = (layer(chain, weights, x) for chain in chains)
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_qassmax_reads_distances_alone_before_a_rotation():
  assert build('chain', members=('qassmax', 'rope')).relative
  assert not build('chain', members=('rope', 'qassmax')).relative
  of_heads = {'name': 'qassmax', 'elementwise': False, 'gate': False}
  assert build('chain', members=('rope', of_heads)).relative


def test_adaptive_temperature_golden_values():
  """The factor is the formula's in rows that are sure, hardly unsure, and spread over 11 and 5000
  keys.
  """
  enc, spread = build('adaptive_temperature'), np.zeros((1, 4, 1, 5000), np.float32)
  spread[0, 0, 0, 0], spread[0, 1, 0, 2:], spread[0, 2, 0, 11:] = 20, MASKED, MASKED
  spread[0, 1:, 0, 0] = 0.5
  tile = SimpleNamespace(mask=jnp.ones((1, 1, 5000), bool))
  p = enc.normalize(jnp.asarray(spread), tile)[0, :, 0]
  # The logarithm of the first weight over the second is the temperature's 0.5 b.
  b = np.log(p[1:, 0] / p[1:, 1]) / 0.5
  np.testing.assert_allclose(b, [1, 2.18131, 1], atol=1e-3)
  np.testing.assert_allclose(p[0, 0], 1, atol=1e-4)


def test_rope_mixed_starts_as_released():
  """Pairs of a head turn along a direction and along the one at a right angle to it."""
  f, g = (np.asarray(part) for part in build('rope_mixed').frequencies[...])
  np.testing.assert_allclose(np.hypot(f, g), np.tile([1, 10**-0.5], (2, 2)), rtol=1e-5)
  np.testing.assert_allclose(f[:, :2] * f[:, 2:] + g[:, :2] * g[:, 2:], 0, atol=1e-6)
  assert np.abs(f[0] - f[1]).max() > 1e-2


def test_rope_mixed_of_space_has_three_directions_at_right_angles():
  """11 pairs of two heads: 4, 4 and 3 along each, whose frequencies fall from 1 by a base of 10."""
  sizes = SIZES | {'kv_heads': 2, 'head_dim': 22}
  mixed = make('rope_mixed', **sizes, rngs=nnx.Rngs(0), axes=3)
  vectors_GMA = np.moveaxis(mixed.frequencies[...], 0, -1)
  falling = [10 ** (-m / n) for n in (4, 4, 3) for m in range(n)]
  np.testing.assert_allclose(np.linalg.norm(vectors_GMA, axis=-1), [falling] * 2, rtol=1e-5)
  first_GnA = vectors_GMA[:, [0, 4, 8]]
  np.testing.assert_allclose(first_GnA @ first_GnA.mT, [np.eye(3)] * 2, atol=1e-6)
  np.testing.assert_allclose(vectors_GMA[:, 6], 10**-0.5 * vectors_GMA[:, 4], rtol=1e-5)
  assert np.abs(first_GnA[0] - first_GnA[1]).max() > 1e-2


def test_a_head_of_mixed_rope_that_looks_along_one_axis_is_rope_by_it():
  """Whatever the other coordinates of a place are."""
  mixed, rng = build('rope_mixed', axes=3), np.random.default_rng(0)
  frequencies_AGM = np.zeros(mixed.frequencies.shape, 'f4')
  frequencies_AGM[1] = build('rope').frequencies()
  mixed.frequencies[...] = jnp.asarray(frequencies_AGM)
  q, k, v = (rng.standard_normal((1, 5, heads, 8)).astype('f4') for heads in (4, 2, 2))
  places = rng.integers(9, size=(1, 5, 3))
  along = attend(q, k, v, build('rope'), position_ids=jnp.asarray(places[..., 1]))
  found = attend(q, k, v, mixed, position_ids=jnp.asarray(places))
  np.testing.assert_allclose(found, along, atol=1e-5)


PAGE = Path(__file__).parents[1] / 'docs' / 'encodings.md'
RELATIVES = [
  (128, 'spectrum=split axes=3 sections=16,24,24'),
  (128, 'spectrum=split axes=4'),
  (128, 'spectrum=split axes=3 sections=8,12,12 layout=interleaved fraction=0.5'),
  (128, 'spectrum=interleaved axes=3 sections=24,20,20'),
  (256, 'spectrum=interleaved axes=3 sections=11,11,10 fraction=0.25'),
  (128, 'spectrum=interleaved axes=2'),
  (128, 'spectrum=first_slowest axes=3 sections=16,24,24'),
  (128, 'spectrum=first_slowest axes=3 sections=20,22,22'),
  (128, 'spectrum=first_slowest axes=3 sections=8,12,12 fraction=0.5'),
  (128, 'spectrum=heads axes=3 sections=2,3,3'),
  (128, 'axes=3 sections=22,21,21 base=10000.0,31697.86,31697.86'),
  (128, 'layout=interleaved axes=3 sections=8,28,28'),
  (128, 'layout=interleaved axes=4 base=2000.0'),
  (96, 'layout=interleaved axes=3'),
  (128, 'layout=interleaved axes=3 sections=22,21,21'),
  (
    128,
    'axes=3 sections=8,28,28 base=256 scaled_axis=0 scaling.rope_type=riflex scaling.k=4 '
    'scaling.test_length=66',
  ),
]


def number_or_text(text):
  try:
    return ast.literal_eval(text)
  except ValueError:
    return text


@pytest.mark.parametrize(('head_dim', 'flags'), RELATIVES)
def test_relatives_of_axial_rope_are_built_by_the_flags_of_the_page(head_dim, flags):
  hyper = {'scaling': {}}
  for name, value in (flag.split('=') for flag in flags.split()):
    section, _, field = name.rpartition('.')
    (hyper[section] if section else hyper)[field] = number_or_text(value)
  hyper['scaling'] = hyper['scaling'] or None
  sizes = dict(model_dim=8, heads=8, head_dim=head_dim, train_length=8)
  assert make('axial_rope', **sizes, rngs=nnx.Rngs(0), **hyper).positions_per_token in (2, 3, 4)


def test_no_flag_of_a_relative_of_axial_rope_is_left_out():
  rows = re.search(r'\| `axial_rope` of .*?\n\n', PAGE.read_text(), re.DOTALL)[0]
  assert set(re.findall(r'`([\w.]+=[^`]+)`', rows)) == {
    flag for _, flags in RELATIVES for flag in flags.split()
  }


def test_moirai_is_built_as_the_page_says():
  words = r"stands in a chain of\s+`(dict\(.*?\))`\s+and `'group_bias'`"
  axial = re.search(words, PAGE.read_text())[1]
  sizes = dict(model_dim=8, heads=2, head_dim=64, train_length=8)
  both = make('chain', **sizes, rngs=nnx.Rngs(0), members=(eval(axial), 'group_bias'))
  rotary = both.members[0]
  assert (rotary.layout, rotary.width, rotary.sections) == ('interleaved', 32, (16, 0))


def test_patches_of_gemma_4_have_rows_of_tables_and_rotate():
  tables, rng = {'name': 'learned', 'axes': 2}, np.random.default_rng(0)
  both = build('chain', members=(tables, {'name': 'axial_rope', 'base': 100.0}))
  x, places = jnp.zeros((1, 5, 12)), jnp.asarray(rng.integers(40, size=(1, 5, 2)))
  q, k, v = (rng.standard_normal((1, 5, heads, 8)).astype('f4') for heads in (4, 2, 2))
  rows = both.members[0].add_to_input(x, places)
  np.testing.assert_array_equal(both.add_to_input(x, places), rows)
  assert np.abs(rows).min() > 0
  options = dict(position_ids=places, is_causal=False, outer_hooks_applied=True)
  turned = attend(q, k, v, build('axial_rope', base=100.0), **options)
  np.testing.assert_allclose(attend(q, k, v, both, **options), turned, atol=1e-6)


GROUPS = np.array([[0, 0, 2, 1, 2, 0, 1, 2], [3, 3, 3, 0, 0, 0, 1, 1]])


@pytest.mark.ci
@pytest.mark.parametrize('backend', ['dense', 'blockwise', 'fused_interpret', 'triton_interpret'])
@pytest.mark.parametrize('spectrum', ['split', 'each'])
def test_series_with_times_as_in_moirai(spectrum, backend):
  """RoPE of the time in half of the channels, and a bias by whether the series is the same one."""
  rotary = {'fraction': 0.5, 'layout': 'interleaved'}
  axial = {'name': 'axial_rope', 'sections': (2, 0), 'spectrum': spectrum, **rotary}
  both, rng = build('chain', members=(axial, 'group_bias')), np.random.default_rng(0)
  times = rng.integers(50, size=GROUPS.shape)
  q, k, v, weight = (rng.standard_normal((2, 8, heads, 8)).astype('f4') for heads in (4, 2, 2, 4))
  member = both.members[1]
  is_same = GROUPS[:, None, :, None] == GROUPS[:, None, None]
  options = {'is_causal': False, 'outer_hooks_applied': True}

  def found(enc, q, k, v):
    places = jnp.asarray(np.stack([times, GROUPS], axis=-1))
    tiles = {} if backend == 'dense' else {'block_sizes': (4, 8)}
    return attend(q, k, v, enc, position_ids=places, backend=backend, **tiles, **options)

  def expected(enc, q, k, v):
    b, c = (x[...][None, :, None, None] for x in (enc.members[1].b, enc.members[1].c))
    bias = jnp.where(is_same, b, c)
    positions = {'position_ids': jnp.asarray(times), 'bias': bias}
    return attend(q, k, v, build('rope', **rotary), **positions, **options)

  loss = lambda run: jax.jit(jax.value_and_grad(lambda *a: (run(*a) * weight).sum(), (0, 1, 2, 3)))
  actual, desired = (loss(run)(both, q, k, v) for run in (found, expected))
  jax.tree.map(lambda a, d: np.testing.assert_allclose(a, d, atol=2e-5), actual, desired)
  assert np.abs(desired[1][0].members[1].b[...]).min() > 1e-3
  assert np.abs(member.b[...] - member.c[...]).min() > 1e-2


def test_features_of_enformer():
  """192 for L = 1,536: half-lives, masks and densities by hand, and all again with the sign."""
  distances = np.array([0, 1, 3, 8, 64, 1535, 200_000])
  found = np.asarray(enformer_features(jnp.asarray(distances), 192, 1536))
  assert found.shape == (7, 192)
  np.testing.assert_array_equal(found[1:, 96:], found[1:, :96])
  assert not found[0, 96:].any()
  backwards = np.asarray(enformer_features(jnp.asarray(-distances), 192, 1536))
  np.testing.assert_array_equal(backwards, np.concatenate([found[:, :96], -found[:, 96:]], axis=1))
  np.testing.assert_allclose(found[3, 0], 0.5)
  np.testing.assert_allclose(found[5, 31], 2 ** (-1535 / 1536), rtol=1e-6)
  assert found[:, 32:64].sum(axis=1).tolist() == [32, 31, 30, 29, 26, 22, 15]
  each = stats.gamma.pdf(np.arange(1536)[:, None], *gamma_of(48 * np.arange(1, 33), 24))
  largest = each.max() + 1e-8
  np.testing.assert_allclose(
    found[:6, 64:96], (each[distances[:6]] + 1e-8) / largest, rtol=0, atol=2e-6
  )
  np.testing.assert_allclose(found[6, 64:96], 1e-8 / largest, rtol=1e-5)


@pytest.mark.ci
@pytest.mark.parametrize(('n', 'length'), [(1, 2), (5, 3), (32, 40), (7, 1001), (140, 500)])
def test_the_largest_density_of_enformer_is_that_of_all_distances(n, length):
  """And no width of a window overflows, however many there are."""
  found = np.asarray(enformer_features(jnp.arange(length), 6 * n, length))
  np.testing.assert_allclose(found[:, 2 * n : 3 * n].max(), 1, rtol=2e-6)


def test_a_length_that_nobody_gave_is_the_training_length_in_errors():
  with pytest.raises(ValueError, match=r'^transformer_xl: train_length=1; allowed: at least 2$'):
    make('transformer_xl', **SIZES | {'train_length': 1}, rngs=nnx.Rngs(0), features=6)


def gamma_of(mean, deviation):
  """What SciPy takes for a gamma distribution: shape, place and scale."""
  return (mean / deviation) ** 2, 0, deviation**2 / mean


def test_cayley_string_starts_as_rope_in_its_own_basis():
  """And at any basis products of queries and keys at one place are what they were."""
  same(build('cayley_string'), build('rope'))
  same(build('cayley_string', axes=2, base=100.0), build('axial_rope', base=100.0))
  enc = away(build('cayley_string', axes=2))
  p_GKK = np.asarray(enc.basis(), np.float64)
  np.testing.assert_allclose(p_GKK @ p_GKK.swapaxes(1, 2), np.tile(np.eye(8), (2, 1, 1)), atol=1e-6)
  assert np.abs(p_GKK - np.eye(8)).max() > 0.3
  here = np.full((1, 11, 2), 7)
  (x, weights, _), nope = inputs(), build('nope')
  run = lambda enc: layer(enc, weights, x, position_ids=here)
  unplaced = layer(nope, weights, x)
  np.testing.assert_allclose(run(enc), unplaced, atol=1e-5)


def test_golden_gate_rope_has_the_released_frequencies():
  """In a plane: by the golden angle from pair to pair, and from head to head of keys."""
  f_aGM = build('golden_gate_rope', slowest=0.5, fastest=4.0).frequencies()
  lengths, angles = np.hypot(*f_aGM), np.arctan2(f_aGM[1], f_aGM[0])
  np.testing.assert_allclose(lengths, [[0.5, 1, 2, 4]] * 2)
  turns = np.diff(angles.ravel()) / np.pi % 2
  np.testing.assert_allclose(turns, 0.6180339887498949)


def test_golden_gate_rope_of_many_pairs_looks_in_all_directions():
  """No axis, and no quarter of the plane, has more of them."""
  for axes in (2, 3, 4):
    u = directions(4096, axes)
    np.testing.assert_allclose(u @ u.T / 4096, np.eye(axes) / axes, atol=0.005)


def test_spiral_rope_has_the_published_frequencies():
  """Pairs of f_n in turn to the two sets of four directions, each along one and across it."""
  enc = make('spiral_rope', **SIZES | {'head_dim': 32}, rngs=nnx.Rngs(0), directions=4, scale=1.5)
  f_aM = enc.frequencies()[:, 0]
  own = [0, 1, 4, 5], [2, 3, 6, 7]
  lengths = [1.5 * 10_000 ** (-n / 8) for direction in range(4) for n in own[direction % 2]]
  np.testing.assert_allclose(np.hypot(*f_aM), lengths)
  angles = np.repeat(np.arange(4) * np.pi / 4, 4)
  np.testing.assert_allclose(np.arctan2(f_aM[1], f_aM[0]), angles, atol=1e-12)


@pytest.mark.parametrize('directions', [None, 6])
def test_spiral_rope_of_several_directions_is_its_formula(directions):
  """In heads of 32 channels, which get 4, and of 48."""
  dims = Dims(**SIZES | {'head_dim': 32 if directions is None else 48})
  hyper, rng = {'directions': directions, 'base': 10.0}, np.random.default_rng(0)
  enc = make('spiral_rope', **dataclasses.asdict(dims), rngs=nnx.Rngs(0), **hyper)
  assert enc.directions == (directions or 4)
  x, heads = rng.standard_normal((2, 9, 12)), {'q': 4, 'k': 2, 'v': 2}
  weights = {n: rng.standard_normal((12, h, dims.head_dim)) / 4 for n, h in heads.items()}
  places = rng.integers(-9, 9, size=(2, 9, 2))
  oracle = RECORDS['spiral_rope'].oracle(dims, hyper, {})
  desired = attention_layer(oracle, weights, x, places, np.ones((2, 9, 9), bool))
  q, k, v = (np.einsum('bsd,dhk->bshk', x, weights[n]).astype('f4') for n in 'qkv')
  found = attend(q, k, v, enc, position_ids=jnp.asarray(places), is_causal=False)
  np.testing.assert_allclose(found, desired, atol=2e-5)


def test_spiral_rope_of_two_directions_is_axial():
  """Also where it scales both axes."""
  same(build('spiral_rope'), build('axial_rope', base=10_000.0))
  assert build('spiral_rope').directions == 2
  places = jax.random.randint(jax.random.key(0), (2, 11, 2), 0, 9)
  (x, weights, _) = inputs()
  run = lambda enc, places: layer(enc, weights, x, position_ids=places)
  scaled = run(build('spiral_rope', scale=1.5), places)
  np.testing.assert_allclose(
    scaled, run(build('axial_rope', base=10_000.0), 1.5 * places), atol=1e-5
  )


def test_harope_starts_as_rope_in_channels_of_its_own():
  """And at distance 0 a product is that of q and k, whatever the matrices are."""
  same(build('harope'), build('rope'))
  same(build('harope', axes=2, base=100.0), build('axial_rope', base=100.0))
  enc = away(build('harope'))
  q, k = jax.random.normal(jax.random.key(0), (2, 1, 9, 4, 8))
  k, here = k[:, :, ::2], jnp.arange(9.0)[None]
  product = lambda q, k: jnp.einsum('bthk,bthk->bth', q[:, :, ::2], k)
  turned = enc.transform_qk(q, k, here, here)
  np.testing.assert_allclose(product(*turned), product(q, k), atol=2e-5)
  assert np.abs(product(*enc.transform_qk(q, k, here + 1, here)) - product(q, k)).max() > 0.1
  u = np.asarray(enc.matrices()[0])
  stretches = jax.nn.softplus(enc.sigma[...]) + 1e-6
  singular = np.linalg.svd(u)[1]
  np.testing.assert_allclose(singular, np.sort(stretches)[:, ::-1], rtol=1e-5)


def test_cayley_string_behind_a_rotation_is_absolute():
  """It turns in another basis than the rotation before it."""
  assert not build('chain', members=('rope', 'cayley_string')).relative


def test_liere_of_pairs_is_a_rotation_by_pairs():
  """The angles of pairs are learned, those of `rope_mixed` beside one another, and of one block."""
  enc = build('liere', axes=2, block=2, length=1.0)
  mixed = build('rope_mixed', base=50.0)
  enc.angles[...] = -mixed.frequencies[...][..., None]
  mixed.layout = 'interleaved'
  same(enc, mixed)
  assert not build('liere', axes=2, block=4, length=1.0).relative
  assert enc.relative


def test_liere_starts_as_released():
  free = build('liere', axes=2, length=1.0).angles[...]
  assert free.shape == (2, 2, 1, 28)
  assert 0 <= free.min() < 1 < 5 < free.max() <= 2 * np.pi
  enc = build('liere', axes=2, block=4, generators='partition', length=1.0)
  assert np.std(enc.angles[...]) == pytest.approx(2**0.5, rel=0.3)
  zero = np.abs(enc.matrices()).max(axis=(1, 3, 4)) == 0
  np.testing.assert_array_equal(zero, [[False, True], [True, False]])


def test_goat_knows_positions_below_0():
  j_BS = jnp.arange(-40, 3)[None]
  u_BSH = build('goat').coordinates(None, j_BS, None, None)
  assert np.isfinite(u_BSH).all()


def test_goat_starts_as_released():
  enc, r = build('goat'), jnp.arange(5)
  np.testing.assert_allclose(enc.bias(r), -np.outer(r, np.repeat(slopes(2), 2)), atol=0.1)
  assert 0 < np.abs(enc.cosines[...]).max() < 0.05
  assert 0 < np.abs(enc.coordinates(None, r[None], None, None)).max() < 1e-4
  enc.first[...] = jnp.array([1.0, 2.0])
  np.testing.assert_allclose(
    enc.coordinates(None, r[None], None, None)[0], np.outer(r == 0, [1, 1, 2, 2]), atol=1e-4
  )
  assert build('goat', sink=False).relative


def test_rotations_of_blocks_keep_float32_over_many_turns():
  """They are orthogonal to rounding, and NaN beyond what float32 tells apart."""
  a = np.triu(np.random.default_rng(0).uniform(0, 2 * np.pi, (16, 16)), 1)
  a = (a - a.T) / np.linalg.norm(a - a.T, 2)
  w, u = np.linalg.eigh(-1j * a)
  for radians in (1e-3, 1.0, 1e2, 1e4):
    exact = (u * np.expm1(1j * radians * w) @ u.conj().T).real
    near = 1e-6 * max(1.0, radians / 8)
    np.testing.assert_allclose(expm1_skew(jnp.float32(radians * a)), exact, atol=near)
  np.testing.assert_array_equal(expm1_skew(jnp.zeros((2, 2))), 0)
  assert np.isnan(expm1_skew(jnp.float32(1e5 * a))).all()


def test_temperatures_that_are_others():
  same(build('ssmax', start=1 / np.log(5)), build('logn', length=5, floor=0.0))
  constant = build('ssmax', bias=True, start=0.0)
  constant.b[...] = jnp.full(4, 1.5)
  same(constant, build('nope_scale', scale=1.5))
  same(build('nope_scale', learned=True), build('nope_scale'), is_causal=False)
  same(build('nope_scale', scale=1.5), build('nope'), 1.5, is_causal=False)
  same(build('logn'), build('nope'))  # 11 tokens of 40
  same(build('chain', members=({'name': 'nope_scale', 'scale': 1.5}, 'rope')), build('rope'), 1.5)
  same(build('chain', members=('rope', 'logn')), build('rope'))


def test_mla_rope_with_the_temperature_of_deepseek(monkeypatch):
  """t^2 for all of a score: behind it; or by `scaling` in what turns, and before it in the rest."""
  x, weights, _ = inputs()
  yarn, t = {'rope_type': 'yarn', 'factor': 4.0}, 0.1 * np.log(4) + 1
  temperature, plain = {'name': 'nope_scale', 'scale': t**2}, yarn | {'attention_factor': 1.0}
  of_both = ({'name': 'mla_rope', 'scaling': plain}, temperature)
  of_each = (temperature, {'name': 'mla_rope', 'scaling': yarn})
  there = [layer(build('chain', members=members), weights, x) for members in (of_both, of_each)]
  enc = build('mla_rope', scaling=plain)
  monkeypatch.setattr(type(enc), 'scale', lambda self, head_dim: t**2 * 12**-0.5)
  expected = layer(enc, weights, x)
  for found in there:
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_keys_are_shifted_behind_what_reads_queries_of_its_own():
  """Which leaves queries alone."""
  shift, other = build('kv_shift'), build('transformer_xl')
  x, weights, _ = inputs()
  runs = []
  for members in (('kv_shift', 'transformer_xl'), ('transformer_xl', 'kv_shift')):
    chain = build('chain', members=members)
    for n, name in enumerate(members):
      chain.members[n] = shift if name == 'kv_shift' else other
    runs.append(layer(chain, weights, x))
  np.testing.assert_allclose(*runs, atol=1e-5)


def test_temperatures_count_what_a_window_leaves():
  """No more keys than it holds: past it, the factor is the same; so with chunks."""
  x, weights, _ = inputs()
  logn, by_four = build('logn', length=2, floor=0.0), build('nope_scale', scale=2.0)
  run = lambda enc, **options: layer(enc, weights, x, backend='dense', **options)
  close = functools.partial(np.testing.assert_allclose, atol=1e-5)
  close(run(logn, window=4)[:, 3:], run(by_four, window=4)[:, 3:])
  close(run(logn, chunk=4)[:, [3, 7]], run(by_four, chunk=4)[:, [3, 7]])
  assert np.abs(run(logn)[:, 4:] - run(by_four)[:, 4:]).max() > 1e-3


def test_shaw_without_values_acts_on_scores_alone():
  keys, both = build('shaw', value_rows=False), build('shaw')
  both.values[...] = jnp.zeros_like(both.values[...])
  same(keys, both, is_causal=False)
  assert keys.acts_on() == ('scores',)
  assert both.acts_on() == ('scores', 'values of pairs')


# Sharing over layers.


@pytest.mark.parametrize(
  ('name', 'share'),
  [
    pytest.param(name, share, marks=daily_if(share == 'paper' or name in representatives()))
    for name in ENCODINGS
    for share in ('paper', 'all', 'none')
  ],
)
def test_sharing(name, share):
  rngs = nnx.Rngs(0)
  one = make(name, **SIZES, rngs=rngs)
  sizes = {name: leaf.size for name, leaf in parameters(one).items()}
  rng = np.random.default_rng(0)
  # some parameters start alike in all layers
  draw = lambda p: jnp.asarray(rng.standard_normal(p.shape), p.dtype)
  build_layers = lambda: StackedEncoding(
    lambda: jax.tree.map(draw, make(name, **SIZES, rngs=rngs)), 3, share
  )
  at_input = ('learned', 'learned_fourier', 'abacus', 'position_coupling', 'bipe')
  if share == 'none' and name in at_input:
    with pytest.raises(ValueError, match=r"^share='none': .* acts once, at the input"):
      build_layers()
    return
  layered = build_layers()
  published = {
    name for name in sizes if any(f'{name}.'.startswith(f'{own}.') for own in one.per_layer)
  }
  own = {'paper': published, 'all': set(), 'none': set(sizes)}[share]
  assert sum(p.size for p in jax.tree.leaves(layered)) == sum(
    n * (3 if p in own else 1) for p, n in sizes.items()
  )
  in_numpy = jax.tree.map(np.asarray, layered)  # where a layer is cut out without compiling
  encodings = [in_numpy.layer(n) for n in range(3)]
  for parameter in sizes:
    first, second = (parameters(e)[parameter] for e in encodings[:2])
    assert np.array_equal(first, second) == (parameter not in own)


# Bad input.


# (a value, the bound that it is beyond, what has that bound)
OUT_OF_BOUNDS = (
  (
    0,
    'at least 1',
    'shaw.max_distance deberta.span learned.max_length position_coupling.levels '
    'position_coupling.max_length transformer_xl.max_distance fire.hidden hope.length '
    'mobius_rope.length darope.length fope.length dca.chunk repo.hidden '
    'music_transformer.max_distance relative_projection.max_distance relative_projection.length '
    'tupe.max_length dape.hidden dape_v2.hidden goat.sink_waves liere.axes cayley_string.axes '
    'mta.query_width mlp_bias.depth mlp_bias.hidden tisa.kernels urpe.max_distance diet_abs.rank '
    'diet_abs.max_length '
    'learned_fourier.waves learned_fourier.hidden learned_fourier.axes sinusoidal.axes '
    'learned.axes selective_rope.rank harope.axes '
    'row_gates.width pape.parabolas pape.axes pape_ri.axes '
    'group_bias.axes alibi.axes swin_v2.hidden compact_relative.query_width',
  ),
  (
    1.0,
    'greater than 1',
    'grape_m.base p_rope.base pope.base xpos.base carope.base rope_mixed.base goat.base '
    'hyperbolic_rope.damping hyperbolic_rope.base cayley_string.base selective_rope.base '
    'harope.base spiral_rope.base jordan_rope.base darope.base',
  ),
  (
    0.0,
    'greater than 0',
    'scale_invariant.tau grape_m.scale string.attention_factor tapa.alpha wall.bound '
    'asentmax_temperature.gamma learned_fourier.gamma alibi.factor row_gates.factor fire.threshold '
    'xpos.scale_base cayley_string.scale liere.length nope_scale.scale cos_scale.scale '
    'selective_rope.std spiral_rope.scale jordan_rope.start darope.std',
  ),
  (0, 'greater than 0', 'relu.length'),
  (-1.0, 'at least 0', 'cape.jitter fope.gain asentmax_temperature.delta relu.alpha'),
  (0.5, 'at least 1', 'cape.stretch cape.axis_stretch lssar.power compact_relative.length_factor'),
  (1, 'at least 2', 'cope.positions logn.length infoscale.length'),
  (-1, 'at least 0', 'goat.waves path.rank shaw.max_later'),
  (1, 'at least 2', 'golden_gate_rope.axes'),
  (4, 'from 2 to 3', 'rope_mixed.axes'),
  (0.0, 'greater than 0', 'golden_gate_rope.slowest'),
  (0.01, 'at least 0.03', 'golden_gate_rope.fastest'),
  (0, 'at least 1', 'qassmax.hidden infoscale.width'),
)


@pytest.mark.parametrize(
  ('name', 'hyper', 'message'),
  [
    *(
      (name, {key: value}, f'{name}: {key}={value}; allowed: {bound}')
      for value, bound, found in OUT_OF_BOUNDS
      for name, key in (place.split('.') for place in found.split())
    ),
    ('rop', {}, "name='rop': no such encoding; did you mean 'rope'?"),
    ('rope', {'bass': 1.0}, "encoding rope has no hyperparameter 'bass'; did you mean 'base'?"),
    ('nope', {'base': 1.0}, "encoding nope has no hyperparameter 'base'; allowed: none"),
    ('rope', {'rope_theta': 1.0}, "no hyperparameter 'rope_theta'; did you mean 'base'?"),
    ('mrope', {}, "did you mean 'axial_rope'?"),
    ('yarn', {}, "no such encoding; did you mean rope, with scaling.rope_type='yarn'?"),
    ('rope', {'base': 0.5}, 'rope: base=0.5; allowed: greater than 1'),
    ('rope', {'layout': 'split'}, "rope: layout='split'; allowed: half, interleaved"),
    *(
      (
        'rope',
        {'fraction': n},
        f'rope: fraction={n} of head_dim=8; allowed: an even number of channels, from 2 to',
      )
      for n in (0.4, 0.0, 0.05, 1.5, -0.5, 1e308)
    ),
    (
      'sinusoidal',
      {'layout': 'x'},
      "sinusoidal: layout='x'; allowed: interleaved, half, tensor2tensor",
    ),
    ('t5', {'buckets': 7}, 't5: buckets=7; allowed: even, at least 4'),
    ('t5', {'max_distance': 16}, 't5: max_distance=16; allowed: more than the 16 exact buckets'),
    ('deberta', {'c2p': False, 'p2c': False}, 'leave no position term'),
    ('deberta', {'buckets': 5}, 'deberta: buckets=5; allowed: 0, or even and at least 4'),
    ('deberta', {'buckets': 8, 'span': 8}, 'deberta: span=8 and buckets=8; allowed: one of them'),
    ('deberta', {'buckets': 8, 'max_distance': 5}, 'deberta: max_distance=5; allowed: at least 6'),
    ('cape', {'inner': 't5'}, "cape: inner='t5' takes integers; allowed: an encoding that"),
    (
      'cape',
      {'axis_stretch': 1.5},
      "axis_stretch=1.5 with inner='sinusoidal', which has one position a token; allowed: 1",
    ),
    ('cape', {'each': 'token'}, "cape: each='token'; allowed: batch, example"),
    ('abacus', {'max_k': -1}, 'abacus: max_k=-1; allowed: from 0 to 1023'),
    ('abacus', {'max_length': 9, 'max_k': 9}, 'abacus: max_k=9; allowed: from 0 to 8'),
    (
      'kerple_log',
      {'positivity': 'x'},
      "kerple_log: positivity='x'; allowed: projection, softplus",
    ),
    ('sandwich', {'width': 7}, 'sandwich: width=7; allowed: even, at least 2'),
    ('swin', {'sizes': ()}, 'swin: sizes=(); allowed: a whole number of 1 or more for each'),
    ('swin', {'sizes': (7, 0)}, 'swin: sizes=(7, 0); allowed: a whole number of 1 or more for'),
    ('swin', {'sizes': (7, True)}, 'swin: sizes=(7, True); allowed: a whole number of 1 or more'),
    ('swin_v2', {'sizes': (1, 8)}, 'swin_v2: sizes=(1, 8); allowed: a whole number of 2 or more'),
    ('fox', {'gate': 'x'}, "fox: gate='x'; allowed: data, learned, fixed"),
    ('fox', {'gate': 'fixed', 'shortest': 0}, 'fox: shortest=0.0; allowed: greater than 0'),
    ('p_rope', {'p': 1.5}, 'p_rope: p=1.5; allowed: from 0 to 1'),
    ('clipped_rope', {'clipped': 5}, 'clipped_rope: clipped=5; allowed: from 0 to 4'),
    ('mobius_rope', {'mobius_heads': 5}, 'mobius_rope: mobius_heads=5; allowed: from 0 to 4'),
    ('mobius_rope', {'mobius_heads': 1}, 'mobius_heads=1; allowed: multiples of 2, which share'),
    ('mobius_rope', {'mobius_heads': 0, 'length': 9}, 'length=9; allowed: None, unless there are'),
    ('darope', {'base': 2.0}, 'darope: base=2.0 with length=40; allowed: such that a pair turns'),
    ('qassmax', {'gate': False}, 'qassmax: gate=False with elementwise=True; allowed: elementwise'),
    ('nape', {'alibi_heads': 5}, 'nape: alibi_heads=5; allowed: from 0 to 4'),
    ('grape_a', {'gate': 'x'}, "grape_a: gate='x'; allowed: query_key, query, key"),
    ('string', {'window': 4, 'local': 5}, 'string: local=5; allowed: from 0 to window=4'),
    ('dca', {'chunk': 4, 'local': 4}, 'dca: local=4; allowed: from 0 to below chunk=4'),
    ('p_rope', {'layout': 'x'}, "p_rope: layout='x'; allowed: half, interleaved"),
    (
      'kerple_power',
      {'positivity': 'x'},
      "kerple_power: positivity='x'; allowed: projection, softplus",
    ),
    ('pope', {'phases': 'x'}, "pope: phases='x'; allowed: zero, uniform"),
    ('shaw', {'beyond': 'x'}, "shaw: beyond='x'; allowed: zero, clip"),
    ('kv_shift', {'gate': 'fixed'}, "kv_shift: gate='fixed'; allowed: data, learned"),
    ('music_transformer', {'beyond': 'x'}, "music_transformer: beyond='x'; allowed: zero, clip"),
    ('xpos', {'scale_base': 2}, 'xpos: gamma=0.4 with scale_base=2.0; allowed: factors that stay'),
    ('xpos', {'layout': 'x'}, "xpos: layout='x'; allowed: half, interleaved"),
    (
      'tupe',
      {'buckets': 6},
      'tupe: buckets=6; allowed: a multiple of 4 from 8 to below 4 max_distance, or 0',
    ),
    (
      'dape',
      {'inner': 'rope'},
      "dape: inner='rope' is no bias alone; allowed: alibi, kerple_log, fire and the like",
    ),
    ('dape', {'inner': 'nope'}, "dape: inner='nope' is no bias alone; allowed: alibi"),
    ('dape_v2', {'inner': 'fox'}, "dape_v2: inner='fox' is no bias alone; allowed: alibi"),
    ('dape_v2', {'inner': {'name': 'bam', 'ssmax': True}}, 'is no bias alone; allowed: alibi'),
    ('wavelet', {'scales': 3}, 'wavelet: scales=3; allowed: divisors of head_dim=8'),
    ('wavelet', {'scales': 0}, 'wavelet: scales=0; allowed: divisors of head_dim=8 up to 21'),
    ('deberta', {'max_distance': 9}, 'max_distance=9; allowed: None, unless there are buckets'),
    ('tupe', {'max_distance': 9}, 'max_distance=9; allowed: None, unless there are buckets'),
    ('fox', {'longest': 9}, "longest=9.0; allowed: None, unless gate is 'learned' or 'fixed'"),
    ('fox', {'gate': 'fixed', 'start': 0.0}, "start=0.0; allowed: None, unless gate is 'data'"),
    ('relative_projection', {'c': 0.2}, 'c=0.2; allowed: None, unless there is a length'),
    ('wavelet', {'first': -1}, 'wavelet: first=-1; allowed: from 0 to 13'),
    ('wavelet', {'scales': 2, 'first': 20}, 'wavelet: first=20; allowed: from 0 to 19'),
    (
      'tapa',
      {'fraction': 0.05},
      'tapa: fraction=0.05 of head_dim=8; allowed: what leaves channels to both parts',
    ),
    (
      'tapa',
      {'fraction': 1.0},
      'tapa: fraction=1.0 of head_dim=8; allowed: what leaves channels to both parts',
    ),
    ('carope', {'layout': 'x'}, "carope: layout='x'; allowed: half, interleaved"),
    ('hype_temperature', {'a': 1.0}, 'hype_temperature: a=1.0; allowed: greater than 1'),
    ('goat', {'waves': 0, 'sink': False}, 'goat: waves=0; allowed: at least 1'),
    *(
      (
        'goat',
        {'sink': False, unread: 4},
        f'goat: {unread}=4; allowed: None, unless there is a sink',
      )
      for unread in ('sink_waves', 'length')
    ),
    *(
      (
        name,
        {'inner': inner},
        f'{name}: inner={inner!r} reads no positions; allowed: one that does',
      )
      for name in ('cape', 'pose', 'random_positions', 'shape_offset')
      for inner in ('nope', 'fox', 'carope', {'name': 'chain', 'members': ('cable', 'sink')})
    ),
    ('cayley_string', {'axes': 3}, 'cayley_string: axes=3; allowed: a divisor of the 4 pairs'),
    ('harope', {'axes': 3}, 'harope: axes=3; allowed: a divisor of the 4 pairs'),
    ('liere', {'block': 3}, 'liere: block=3; allowed: divisors of head_dim=8'),
    (
      'liere',
      {'axes': 2},
      'liere: length=None with axes=2; allowed: a number greater than 0, such as the places of an '
      'axis less 1',
    ),
    (
      'liere',
      {'axes': 2, 'generators': 'partition'},
      'liere: axes=2; allowed: a divisor of the 1 blocks of a head',
    ),
    ('coca', {'fraction': 0.4}, 'coca: fraction=0.4 of head_dim=8; allowed: an even'),
    ('screening', {'threshold': 1.0}, 'screening: threshold=1.0; allowed: greater than 1'),
    ('ultravico', {'window': -1}, 'ultravico: window=-1; allowed: at least 0'),
    ('ultravico', {'alpha': 1.5}, 'ultravico: alpha=1.5; allowed: from 0 to 1'),
    ('compact_relative', {'width': 3}, 'compact_relative: width=3; allowed: even, at least 2'),
    ('grape_ap', {'width': 3}, 'grape_ap: width=3; allowed: even, at least 2'),
    ('spiral_rope', {'directions': 3}, 'spiral_rope: directions=3; allowed: even, at least 2'),
    ('spiral_rope', {'directions': 4}, 'spiral_rope: head_dim=8; allowed: multiples of 16, 4 a'),
    (
      'vo_rope',
      {'scaling': {'rope_type': 'dynamic', 'factor': 2}},
      "vo_rope: scaling.rope_type='dynamic' reads how many keys there are; allowed: types that do",
    ),
    ('mla_rope', {'fraction': 0.4}, 'mla_rope: fraction=0.4 of head_dim=8; allowed: an even'),
    ('key_offset', {'fraction': 0.05}, 'fraction=0.05 of head_dim=8; allowed: at least 1 channel'),
    *(
      (name, {'fraction': n}, f'{name}: fraction={n}; allowed: from 0 to 1')
      for name in ('key_offset', 'tapa')
      for n in (1.05, -0.5, 1e308)
    ),
    ('entmax', {'alpha': 1}, 'entmax: alpha=1.0; allowed: from 1.001 to 2'),
    ('entmax', {'alpha': 1.000001}, 'entmax: alpha=1.000001; allowed: from 1.001'),
    ('entmax', {'alpha': 2.5}, 'entmax: alpha=2.5; allowed: from 1.001 to 2'),
    ('sigmoid', {'bias': float('nan')}, 'sigmoid: bias=nan; allowed: a finite number or None'),
    ('sigmoid', {'bias': 'low'}, "sigmoid: bias='low'; allowed: a finite number or None"),
    ('sigmoid', {'learned': 1}, 'sigmoid: learned=1; allowed: True or False'),
    (
      'talking_heads',
      {'scores': False, 'weights': False},
      'talking_heads: scores=False and weights=False; allowed: at least one of them True',
    ),
    ('mta', {'key_width': 4}, 'mta: key_width=4; allowed: odd numbers, which have the key itself'),
    (
      'relu',
      {'alpha': 0.0, 'length': 9},
      'relu: length=9; allowed: None, unless alpha is greater than 0',
    ),
    ('softpick', {'epsilon': 0.1}, 'encoding softpick has no hyperparameter'),
    ('dape', {'inner': 'hard_alibi'}, "dape: inner='hard_alibi' is no bias alone"),
    ('hard_alibi', {'windows': (1, 0)}, 'hard_alibi: windows=(1, 0); allowed: up to 4 whole'),
    ('hard_alibi', {'windows': (1, 2.0)}, 'hard_alibi: windows=(1, 2.0); allowed: up to 4 whole'),
    ('hard_alibi', {'windows': (10**10,)}, 'hard_alibi: windows=(10000000000,); allowed: up to 4'),
    ('hard_alibi', {'windows': (1,) * 5}, 'hard_alibi: windows=(1, 1, 1, 1, 1); allowed: up to 4'),
    (
      'alibi',
      {'balanced': True, 'exponent': 16.0},
      'alibi: exponent=16.0; allowed: 8 with balanced=True, which has slopes of its own',
    ),
    (
      'heads',
      {'members': ({'name': 'alibi', 'balanced': True, 'heads': 3}, 'nope'), 'kv_heads': 4},
      'alibi: balanced=True for heads=3; allowed: an even number of heads',
    ),
    (
      'alibi',
      {'balanced': True, 'spread': True},
      'alibi: spread=True; allowed: False for one head, which is the steepest and the flattest',
    ),
    (
      'heads',
      {'members': ({'name': 'alibi', 'spread': True, 'heads': 1}, 'nope'), 'kv_heads': 4},
      'alibi: spread=True; allowed: False for one head',
    ),
    ('learned', {'extend': 'x'}, "learned: extend='x'; allowed: none, repeat, group, interp"),
    ('alibi', {'spread': True}, 'alibi: spread=True; allowed: False, unless factor is another'),
    ('transformer_xl', {'features': 64}, 'features=64; allowed: multiples of 6'),
    ('transformer_xl', {'features': 6, 'length': 1}, 'length=1; allowed: at least 2'),
    ('transformer_xl', {'features': 0}, 'features=0; allowed: multiples of 6'),
    ('transformer_xl', {'length': 64}, 'length=64; allowed: None, unless there are `features`'),
    ('learned', {'extend_to': 80}, "extend_to=80; allowed: None, unless extend is 'group' or"),
    *(
      ('learned', {'extend': 'group', 'extend_to': n}, f'extend_to={n}; allowed: at least the 40')
      for n in (None, 39)
    ),
    ('alibi', {'exponent': -8.0}, 'alibi: exponent=-8.0; allowed: greater than 0'),
    ('nope_scale', {'scale': 0.5, 'learned': True}, 'nope_scale: scale=0.5; allowed: at least 1'),
    (
      'relative_projection',
      {'length': 9, 'c': -1.0},
      'relative_projection: c=-1.0; allowed: at least 0',
    ),
  ],
)
def test_bad_hyperparameters(name, hyper, message):
  with pytest.raises(ValueError, match=re.escape(message)) as error:
    build(name, **hyper)
  assert '\n' not in str(error.value)


def beside(*members):
  """A member of a chain that has members of its own, beside one another."""
  return {'name': 'heads', 'members': members}


@pytest.mark.parametrize(
  ('members', 'message'),
  [
    *(
      (members, f'members={members}; allowed: names, or dicts with a name, of encodings but chain')
      for members in ((), (3,), ('rope', 'chain'), ({'base': 9.0},))
    ),
    ('rope,alibbi', "name='alibbi': no such encoding"),
    (({'name': 'rope', 'bass': 9.0},), "encoding rope has no hyperparameter 'bass'"),
    (({'name': 'rope', 'heads': 2},), "encoding rope has no hyperparameter 'heads'"),
    ((10**5000,), 'members=<tuple>; allowed: names, or dicts with a name, of encodings but chain'),
    (({'name': 't5', 'buckets': 8.0},), 't5: buckets=8.0; allowed: an integer'),
    (
      ('axial_rope', 'rope'),
      'positions a token: axial_rope 2 and rope 1; allowed: the same number for all',
    ),
    *(
      (
        ('abacus', other),
        f'abacus takes the positions of the data, and {other} would, too; allowed: beside',
      )
      for other in ('sinusoidal', 'tupe', 'position_coupling')
    ),
    (
      ('entmax', 'sink'),
      "has a sink, and normalizer='rows'; allowed: 'softmax', whose denominator",
    ),
    (('sigmoid', 'sink'), "has a sink, and normalizer='none'; allowed"),
    (('stick_breaking',) * 2, 'stick_breaking and stick_breaking each have a normalizer of'),
    *(
      (
        members,
        f'rope_pp makes several heads of one, which {name} is not made for; allowed: before it '
        'what acts on the input, on queries and keys or on values, behind it what acts on the '
        'input',
      )
      for members, name in (
        (('rope_pp', 'alibi'), 'alibi'),
        (('sink', 'rope_pp'), 'sink'),
        (('rope_pp', 'ssmax'), 'ssmax'),
        (('rope_pp', 'rope_pp'), 'rope_pp'),
      )
    ),
    (('sigmoid', 'softpick'), 'sigmoid and softpick each have a normalizer of'),
    (('mta', 'talking_heads'), 'mta and talking_heads each have a normalizer of'),
    (('lssar', 'sigmoid'), 'lssar and sigmoid each have a normalizer of'),
    (
      ('t5', 'fox', 'deberta'),
      't5 and deberta each have a scale of their own; allowed: one of them',
    ),
    *(
      (
        members,
        f'{name} takes q . k anew: it must act on scores first, and no member may set the scale',
      )
      for members, name in (
        (('alibi', 'tapa'), 'tapa'),
        (('fox', 'xpos'), 'xpos'),
        (('rerope', 't5'), 'rerope'),
        (('shaw', 'rerope'), 'rerope'),
        (('alibi', 'path'), 'path'),
        (('path', 't5'), 'path'),
        (('alibi', beside('xpos', 'nope')), 'heads'),
        (('t5', beside('xpos', 'nope')), 'heads'),
        ((beside('tapa', 'rope'), 'deberta'), 'heads'),
        (('fox', beside('rerope', 'self_extend')), 'heads'),
      )
    ),
    *(
      (
        (first, second),
        f'{second} takes queries as wide as heads are, but {first} makes them wider',
      )
      for first, second in (('pope', 'cope'), ('rerope', 'shaw'), ('pope', 'rope'))
    ),
    *(
      (
        (first, 'key_offset'),
        f'key_offset splits the channels of keys, which {name} rotates or makes wider; allowed',
      )
      for name, first in (
        ('rope', 'rope'),
        ('mla_rope', 'mla_rope'),
        ('heads', beside('nope', 'carope')),
      )
    ),
    *(
      (members, f'{setter} sets the scale, and {name} counts on 1/sqrt(K); allowed: one of them')
      for members, setter, name in (
        (('deberta', 'transformer_xl'), 'deberta', 'transformer_xl'),
        (('deberta', {'name': 'fox', 'bias_in_scale': True}), 'deberta', 'fox'),
        (('deberta', {'name': 'cope', 'bias_in_scale': True}), 'deberta', 'cope'),
        (('deberta', beside('alibi', 'shaw')), 'deberta', 'heads'),
        (('deberta', beside('transformer_xl', 'shaw')), 'deberta', 'heads'),
        (('lssa', 'deberta'), 'deberta', 'lssa'),
        (('cos_scale', 'deberta'), 'deberta', 'cos_scale'),
        (('deberta', 'lssar'), 'deberta', 'lssar'),
        (('lssa', 'tupe'), 'tupe', 'lssa'),
        (('lssa', 'mla_rope'), 'mla_rope', 'lssa'),
      )
    ),
    *(
      (members, f't5 makes queries smaller, and {name} reads their size; allowed: one of them')
      for members, name in (
        *(((name, 't5'), name) for name in ('pope', 'coca', 'cope', 'grape_a', 'transformer_xl')),
        ((beside('rope', 'coca'), 't5'), 'heads'),
        ((beside('alibi', 'shaw'), 't5'), 'heads'),
        (('t5', 'lssa'), 'lssa'),
        (('t5', 'cos_scale'), 'cos_scale'),
        (('qassmax', 't5'), 'qassmax'),
      )
    ),
    (
      ({'name': 'kerple_log', 'bias_in_scale': True}, 't5'),
      't5 moves the scale onto queries, and the bias of kerple_log is in it; allowed: one',
    ),
    *(
      (
        members,
        f'{later} changes queries behind {first}, which has put a part into them; '
        f'allowed: {later} before {first}',
      )
      for members, first, later in (
        (('transformer_xl', 'rope'), 'transformer_xl', 'rope'),
        ((beside('transformer_xl', 'shaw'), 'rope'), 'heads', 'rope'),
        (('transformer_xl', beside('nope', 'logn')), 'transformer_xl', 'heads'),
        (('diet_abs', 'logn'), 'diet_abs', 'logn'),
        (('mla_rope', 'qassmax'), 'mla_rope', 'qassmax'),
        (('mla_rope', beside('logn', 'qassmax')), 'mla_rope', 'heads'),
      )
    ),
    *(
      (
        members,
        f'{name} multiplies queries, and products of {reader} are not proportional to them; '
        f'allowed: {allowed}',
      )
      for members, name, reader, allowed in (
        (('logn', 'coca'), 'logn', 'coca', 'logn behind coca'),
        (('ssmax', 'lssa'), 'ssmax', 'lssa', 'ssmax behind lssa'),
        (('infoscale', 'cos_scale'), 'infoscale', 'cos_scale', 'infoscale behind cos_scale'),
        (('logn', 'qassmax'), 'logn', 'qassmax', 'logn behind qassmax'),
        ((beside('nope', 'logn'), 'pope'), 'heads', 'pope', 'heads behind pope'),
        (('tapa', 'ssmax'), 'ssmax', 'tapa', 'one of them'),
      )
    ),
    *(
      (
        (turns, reader),
        f'{turns["name"]} multiplies queries and keys by {factor}, and products of {reader} '
        'are not proportional to them; allowed: an attention factor of 1, or a scaling without one',
      )
      for turns, factor, reader in (
        ({'name': 'string', 'attention_factor': 1.07}, 1.07, 'lssa'),
        ({'name': 'rope', 'scaling': YARN}, 1.139, 'lssar'),
        ({'name': 'rope', 'scaling': YARN}, 1.139, 'pope'),
        ({'name': 'rerope', 'scaling': YARN}, 1.139, 'lssa'),
        ({'name': 'axial_rope', 'scaling': YARN_OF_AXES}, 1.139, 'lssa'),
        # It grows with the number of keys, from 4,096 on.
        ({'name': 'rope', 'scaling': DYNAMIC_YARN}, 2.248, 'cos_scale'),
      )
    ),
    *(
      (
        members,
        f'products of {members[0]} and of {members[1]} are not proportional to their queries; '
        'allowed: one of them',
      )
      for members in (
        *(('lssa', 'coca'), ('lssa', 'pope'), ('lssar', 'pope'), ('pope', 'lssa')),
        *(('coca', 'pope'), ('tapa', 'lssa'), ('lssa', 'lssa'), ('cos_scale', 'lssa')),
      )
    ),
    *(
      (
        (first, 'alibi'),
        f'{name} adapts the scores of all members, of alibi behind it, too; allowed: alibi before '
        f'{name}',
      )
      for name, first in (
        ('dape_v2', 'dape_v2'),
        ('selective', 'selective'),
        ('mta', 'mta'),
        ('heads', beside('dape_v2', 'dape_v2')),
      )
    ),
    *(
      (members, f'{reader} reads the scores of keys that {name} hides; allowed: {allowed}')
      for members, reader, name, allowed in (
        (('hard_alibi', 'fox'), 'fox', 'hard_alibi', 'fox before hard_alibi'),
        (('hard_alibi', 'sigmoid'), 'sigmoid', 'hard_alibi', 'sigmoid before hard_alibi'),
        (
          ('hard_alibi', {'name': 'talking_heads', 'weights': False}),
          *('talking_heads', 'hard_alibi', 'talking_heads before hard_alibi'),
        ),
        (
          ('hard_alibi', {'name': 'relu', 'length': 9}),
          *('relu', 'hard_alibi', 'relu before hard_alibi'),
        ),
        ((beside('nope', 'hard_alibi'), 'dape'), 'dape', 'heads', 'dape before heads'),
        (('hard_alibi', 'dape_v2'), 'dape_v2', 'hard_alibi', 'one of them'),
        (('dape_v2', 'hard_alibi'), 'dape_v2', 'hard_alibi', 'one of them'),
      )
    ),
    *(
      (
        members,
        'talking_heads mixes weights of heads, of which hard_alibi hides keys from some; allowed: '
        'one of them',
      )
      for mixer in ('talking_heads', {'name': 'talking_heads', 'scores': False})
      for members in (('hard_alibi', mixer), (mixer, 'hard_alibi'))
    ),
    *(
      (
        (first, mixer),
        f'{name} mixes scores of heads, of which {first} has made weights; allowed: {name} before '
        f'{first}',
      )
      for first in ('relu', 'screening', 'sigmoid')
      for name, mixer in (
        ('dape', 'dape'),
        ('talking_heads', {'name': 'talking_heads', 'weights': False}),
      )
    ),
    *(
      (members, f'{name} counts keys that a query sees, of which hard_alibi hides some; allowed:')
      for members, name in (
        *((('hard_alibi', name), name) for name in ('relu', 'ssmax', 'logn', 'drope')),
        *(((name, 'hard_alibi'), name) for name in ('lssar', 'relu', 'asentmax_temperature')),
      )
    ),
  ],
)
def test_chains_that_are_refused(members, message):
  with pytest.raises(ValueError, match=f'^chain: {re.escape(message)}') as error:
    build('chain', members=members)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('name', 'hyper', 'message'),
  [
    ('rope', {'base': 'abc'}, "rope: base='abc'; allowed: a finite number"),
    ('rope', {'base': True}, 'rope: base=True; allowed: a finite number'),
    ('rope', {'base': np.nan}, 'rope: base=nan; allowed: a finite number'),
    ('rope', {'layout': None}, 'rope: layout=None; allowed: text'),
    ('rope', {'scaling': 4}, 'rope: scaling=4; allowed: a dict or None'),
    ('t5', {'buckets': 1.5}, 't5: buckets=1.5; allowed: an integer'),
    ('t5', {'bidirectional': 0}, 't5: bidirectional=0; allowed: True or False'),
    ('alibi', {'learned': 3}, 'alibi: learned=3; allowed: True or False'),
    ('learned', {'max_length': '7'}, "learned: max_length='7'; allowed: an integer or None"),
    ('chain', {'members': 3}, 'chain: members=3; allowed: a tuple or text'),
  ],
)
def test_hyperparameters_of_a_wrong_type(name, hyper, message):
  with pytest.raises(ValueError, match=f'^{re.escape(message)}$'):
    build(name, **hyper)


@pytest.mark.parametrize('name', ENCODINGS)
def test_no_hyperparameter_takes_anything(name):
  """One line that names it, and no other error, wherever the value would have ended up."""
  expected = without_numbers(name).acts_on()
  for key, default in hyperparameters(name).items():
    with pytest.raises(ValueError, match=f'^{name}: {key}=1j; allowed: .*$'):
      build(name, **{key: 1j})
    assert without_numbers(name, **{key: default}).acts_on() == expected


def test_numbers_fit_where_they_are_exact():
  """Integers as floats, lists as tuples."""
  assert build('rope', base=500).base == 500
  assert build('chain', members=['rope', 'fox']).acts_on() == build('chain').acts_on()


def in_numpy(tree):
  """The tree with numpy's numbers in the place of Python's."""
  return jax.tree.map(lambda leaf: leaf if isinstance(leaf, str) else np.array(leaf)[()], tree)


@pytest.mark.parametrize(
  ('name', 'hook', 'hyper'),
  [
    ('t5', 'bias', {'max_distance': 128}),
    ('t5', 'bias', {'buckets': 32, 'bidirectional': False}),
    ('gated_t5', 'tables', {'buckets': 320, 'max_distance': 800}),
    ('tupe', 'bias', {'buckets': 64}),
    ('deberta', 'relative_keys', {'buckets': 64, 'max_distance': 128}),
  ],
)
def test_integers_of_numpy_make_the_buckets_of_pythons(name, hook, hyper):
  """Powers of integers of numpy would overflow without an error."""
  found, expected = (
    getattr(make(name, **sizes, rngs=nnx.Rngs(0), **own), hook)(jnp.arange(900))
    for sizes, own in ((in_numpy(SIZES), in_numpy(hyper)), (SIZES, hyper))
  )
  np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
  ('name', 'hyper'),
  [
    ('fox', {'gate': 'fixed', 'longest': 9.0}),
    ('rope', {'scaling': {'rope_type': 'linear', 'factor': 2}}),
    ('rope', {'scaling': YARN_OF_AXES | {'truncate': False}}),
    ('rope', {'scaling': {'rope_type': 'riflex', 'k': 3, 'test_length': 80}}),
    ('rope', {'scaling': {'rope_type': 'linear', 'factor': np.float32(2)}}),
    ('axial_rope', {'sections': (1, 3)}),
    ('ms_poe', {'order': (2, 0, 3, 1)}),
    ('heads', {'members': ({'name': 'rope', 'heads': 2, 'base': 500.0}, 'alibi')}),
  ],
)
def test_numbers_of_numpy_may_stand_wherever_pythons_may(name, hyper):
  """They are Python's in the encoding, as its sizes are."""
  enc = make(name, **in_numpy(SIZES), rngs=nnx.Rngs(0), **in_numpy(hyper))
  assert nnx.graphdef(enc) == nnx.graphdef(build(name, **hyper))
  assert 'np.' not in repr(nnx.graphdef(enc))


def test_an_integer_for_a_float_may_be_as_large_as_a_float():
  """So a Llama 3 of Gradient's says its base; jax's integers are smaller."""
  found, expected = (build('rope', base=base).frequencies() for base in (45_200_000_000, 45.2e9))
  np.testing.assert_array_equal(found, expected)
  each = (build('scale_invariant', tau=tau).tables(jnp.arange(9)) for tau in (2**40, 2.0**40))
  jax.tree.map(np.testing.assert_array_equal, *each)


@pytest.mark.ci
@pytest.mark.parametrize('wide', ['pope', 'tupe', 'rerope'])
def test_what_can_be_chained_with_wider_queries(wide):
  """What is built runs; rows never meet wider queries, and what turns queries comes before."""

  def runs(*members):
    try:
      chain = jax.eval_shape(lambda: build('chain', members=members))
    except ValueError as error:
      if not str(error).startswith('chain: '):
        raise
      return False
    x, weights, o = inputs()
    assert jax.eval_shape(layer, chain, weights, x).shape == o.shape
    return True

  each = {name: without_numbers(name) for name in ENCODINGS if name != 'chain'}
  reading = [name for name, e in each.items() if e.reads_qk or e.recomputes_scores]
  turning = [name for name, e in each.items() if e.rotates_qk or e.qk_width_factor > 1]
  turning = [name for name in turning if not each[name].has('sample_positions')]
  assert wide in turning
  assert len(reading) > 8
  assert not any(runs(*members) for other in reading for members in ((wide, other), (other, wide)))
  assert not any(runs(wide, other) for other in turning)
  assert all(runs(other, wide) for other in ('rope', 'p_rope', 'selective_rope', 'learned'))
  assert all(
    runs(wide, other) for other in ('alibi', 'fire', 'fox', 'relative_projection', 'sinusoidal')
  )
  assert runs('logn', wide) == (wide != 'pope')
  assert runs(wide, 'ssmax')


def test_odd_head_width_and_heads_that_do_not_divide():
  with pytest.raises(ValueError, match='head_dim=7; allowed: an even number'):
    make('rope', **SIZES | {'head_dim': 7}, rngs=nnx.Rngs(0))
  with pytest.raises(ValueError, match='heads=4; allowed: multiples of kv_heads=3'):
    make('rope', **SIZES | {'kv_heads': 3}, rngs=nnx.Rngs(0))


def test_heads_of_selective_rope_say_what_does_not_divide():
  message = '^heads: selective_rope: heads=3; allowed: divisors of model_dim=16$'
  members = ({'name': 'selective_rope', 'heads': 3}, 'rope')
  with pytest.raises(ValueError, match=message):
    make(
      'heads',
      **SIZES | {'model_dim': 16, 'heads': 6, 'kv_heads': 6},
      rngs=nnx.Rngs(0),
      members=members,
    )


@pytest.mark.parametrize(('name', 'words'), [('learned', 'Learned'), ('tupe', 'TUPE')])
def test_what_is_longer_than_a_table_is_refused(name, words):
  x, weights, _ = inputs()
  with pytest.raises(LengthError, match=f'11 positions, but those of {words} end at 10'):
    layer(build(name, max_length=10), weights, x)


def test_learned_has_no_position_outside_its_table():
  """NaN where the length is not known; never the last row again."""
  positions = jnp.array([[0, 9, 10, -1, -(10**6)]])
  read = build('learned', max_length=10).add_to_input(jnp.zeros((1, 5, 12)), positions)
  assert np.isfinite(read[0, :2]).all()
  assert np.isnan(read[0, 2:]).all()


@pytest.mark.parametrize(
  ('extend', 'end', 'keeps'),
  [('repeat', None, 10), ('hierarchical', 100, 10), ('group', 25, 1), ('interpolate', 25, 1)],
)
def test_learned_is_extended_past_its_table(extend, end, keeps):
  """Rows of the table that stay are those of before, bit for bit; past its end there is none."""
  hyper = {'extend': extend} | ({'extend_to': end} if end == 25 else {})
  plain, enc = (build('learned', max_length=10, **own) for own in ({}, hyper))
  assert enc.max_length == end
  assert enc.rows[...].shape == (10, 12)
  read = lambda e, t: np.asarray(e.add_to_input(jnp.zeros((1, len(t), 12)), jnp.array([t])))[0]
  first = list(range(keeps))
  np.testing.assert_array_equal(read(enc, first), read(plain, first))
  assert np.isfinite(read(enc, range(end or 1000))).all()
  assert np.isnan(read(enc, [-1, -11, *([end, 10**9] if end else [])])).all()
  if end == 25:
    np.testing.assert_allclose(
      read(enc, [24])[0], read(plain, [9 if extend == 'interpolate' else 8])[0]
    )
  x, weights, _ = inputs()  # 11 tokens
  assert np.isfinite(layer(enc, weights, x)).all()


def test_tupe_has_no_position_outside_its_table():
  """Before it, either: a negative index would be read from the end."""
  enc, q = build('tupe', max_length=10), jnp.ones((1, 5, 4, 8))
  positions = jnp.array([[0.0, 9.0, 10.0, -1.0, -3.0]])
  for turned in enc.transform_qk(q, q[:, :, :2], positions, positions):
    assert np.isfinite(turned[0, :2]).all()
    assert np.isnan(turned[0, 2:, :, 8:]).all()


@pytest.mark.parametrize('name', ENCODINGS)
def test_every_entry_declares_itself(name):
  enc = without_numbers(name)
  assert isinstance(enc, Encoding)
  assert enc.paper or name == 'nope'
  assert type(enc).__doc__
  variants = [without_numbers(kind, **hyper) for kind, hyper in VARIANTS.values() if kind == name]
  leaves = [leaf for each in (enc, *variants) for leaf in jax.tree_util.tree_leaves_with_path(each)]
  paths = {jax.tree_util.keystr(path[:-1], simple=True, separator='.') for path, _ in leaves}
  for own in enc.per_layer:
    assert any(f'{path}.'.startswith(f'{own}.') for path in paths), own
  assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(enc))


def test_make_says_which_lengths_do_not_follow_the_training_length():
  """Numbers of tokens that are such by default, whatever the training length is."""
  lengths = {
    *('max_distance', 'threshold', 'scale_base', 'positions', 'max_length', 'length', 'tau', 'a'),
    *('group', 'capacity', 'sink_tokens', 'shift', 'scales', 'max_k', 'key_width'),
  }
  said = re.findall(r"(\w+)'s\s+`(\w+)`\s+\(([\d,]+)", make.__doc__)
  defaults = {
    (name, key): default
    for name in ENCODINGS
    for key, default in hyperparameters(name).items()
    if key in lengths and default is not None
  }
  # Where the default is None or several, or others have a number of something else by that name.
  defaults |= {
    ('tupe', 'max_distance'): build('tupe', buckets=32).max_distance,
    ('deberta', 'max_distance'): build('deberta', buckets=32).max_distance,
    ('string', 'local'): build('string', window=1000).local,
    ('dpe', 'groups'): max(hyperparameters('dpe')['groups']),
    ('learned_fourier', 'gamma'): hyperparameters('learned_fourier')['gamma'],
    ('mta', 'query_width'): hyperparameters('mta')['query_width'],
    **{(name, 'sizes'): hyperparameters(name)['sizes'][0] for name in ('swin', 'swin_v2')},
  }
  assert {(name, key): float(number.replace(',', '')) for name, key, number in said} == defaults
