"""Context extension of RoPE: published numbers, formulas in scalars, what the length of a call
does, re-indexing.
"""

import functools
import math
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from kinds import daily_if
from ml_collections import ConfigDict
from oracles import Oracle, attention_layer
from test_laws import DIMS, S, close, inputs, layer

from posenc_jax.attention import attend
from posenc_jax.encodings import LengthError, make
from posenc_jax.encodings.core.scaling.rope_types import OF_CALLS, SCALINGS, read_scaling

SIZES = {'model_dim': 12, 'heads': 4, 'kv_heads': 2, 'head_dim': 8, 'train_length': 8}


def build(name='rope', **hyper):
  return make(name, **SIZES | {'rngs': nnx.Rngs(0)} | hyper)


def scaled(K, base, length=None, L=4096, fraction=1.0, **scaling):
  return read_scaling(scaling, K, base, fraction, L)(K, base, length or L)


# Golden values.


@pytest.mark.parametrize(
  ('given', 'golden'),
  [
    (
      dict(K=16, base=1e4, L=256, rope_type='yarn_paper', factor=4),
      [1, 0.16997965, 0.03243798, 0.00812636, 0.0025, 7.9057e-4, 2.5e-4, 7.9057e-5],
    ),
    (dict(K=8, base=1e4, rope_type='power', exponent=0.5), [1, 0.0866025, 0.00707107, 0.0005]),
    # a turn in 256 tokens is 0.0245437 radians a token
    (
      dict(K=16, base=1e4, L=256, rope_type='truncated'),
      [1, 0.316228, 0.1, 0.0316228, 0.00153398, 0.00153398, 0, 0],
    ),
    # the ramp is from 0 to 4: radices of 4^(1/4) each, and of 4^(1/10) to 4^(4/10)
    (
      dict(K=16, base=1e4, L=256, rope_type='mrrope_uni', factor=4),
      [1, 0.22360680, 0.05, 0.01118034, 0.0025, 7.9057e-4, 2.5e-4, 7.9057e-5],
    ),
    (
      dict(K=16, base=1e4, L=256, rope_type='mrrope_pro', factor=4),
      [1, 0.27529226, 0.06597540, 0.01376461, 0.0025, 7.9057e-4, 2.5e-4, 7.9057e-5],
    ),
    # the seventh channel is the first that does not turn once; powers of 1/3 and 2/3 by 0.831777
    (
      dict(K=16, base=1e4, L=256, rope_type='alpha_rope', factor=4),
      [1, 0.181372, 0.0371789, 0.00790569, 0.0025, 7.9057e-4, 2.5e-4, 7.9057e-5],
    ),
    (
      dict(K=16, base=1e4, rope_type='ntk_mixed', factor=4),
      [0.747192, 0.193704, 0.0514622, 0.0138680, 0.00377395, 0.00103463, 2.85308e-4, 7.9057e-5],
    ),
    # 3 times, and from 513 tokens on 7 times
    (
      dict(K=8, base=1e4, L=256, length=257, rope_type='dynamic_steps'),
      [1, 0.0693361, 0.00480750, 0.000333333],
    ),
    (
      dict(K=8, base=1e4, L=256, length=513, rope_type='dynamic_steps'),
      [1, 0.0522758, 0.00273276, 0.000142857],
    ),
    # 256 tokens are 40.7437 of a radian each, 1024 are 162.975: the exponent is 1.373936
    (
      dict(K=8, base=1e4, L=256, rope_type='theta_scale', factor=4),
      [1, 0.0422731, 0.00178701, 7.55424e-5],
    ),
    (
      dict(K=16, base=1e4, L=256, rope_type='yarn_log', factor=4),
      [1, 0.22360680, 0.05, 0.01118034, 0.0025, 7.9057e-4, 2.5e-4, 7.9057e-5],
    ),
    # of HunyuanVideo, whose fourth pair turns once in 50 frames
    (
      dict(K=16, base=256.0, rope_type='riflex', k=4, test_length=66),
      [1, 0.5, 0.25, 0.0856798, 0.0625, 0.03125, 0.015625, 0.0078125],
    ),
  ],
)
def test_frequencies(given, golden):
  np.testing.assert_allclose(scaled(**given)[0], golden, rtol=3e-5)


def test_attention_factors():
  yarn = functools.partial(scaled, 128, 1e4, rope_type='yarn')
  assert yarn(factor=16)[1] == pytest.approx(1.2772589, abs=5e-8)
  assert yarn(factor=4)[1] == pytest.approx(1.138629, abs=5e-7)
  assert yarn(factor=16, attention_factor=1.5)[1] == 1.5
  assert yarn(factor=40, mscale=0.707, mscale_all_dim=0.707)[1] == 1
  assert yarn(factor=40, mscale=1.0)[1] == yarn(factor=40)[1]  # the two count only together
  halved = (0.1 * math.log(40) + 1) / (0.05 * math.log(40) + 1)
  assert yarn(factor=40, mscale=1.0, mscale_all_dim=0.5)[1] == pytest.approx(halved)
  lists = dict(short_factor=[1.0] * 64, long_factor=[2.0] * 64)
  longrope = functools.partial(scaled, 128, 1e4, rope_type='longrope', **lists)
  assert longrope(factor=16)[1] == pytest.approx(1.1547005, abs=5e-8)
  assert longrope(attention_factor=1.25)[1] == 1.25
  for kind in ('yarn_paper', 'mrrope_pro', 'alpha_rope'):  # what FORMULAS gives others
    assert scaled(128, 1e4, rope_type=kind, factor=16)[1] == yarn(factor=16)[1]


def test_yarn_ramps_between_published_indices():
  """Llama 2: from 20.94 to 45.03, widened to whole indices 20 and 46; the paper's ramp differs
  threefold.
  """
  turned = lambda **fields: (
    scaled(128, 1e4, factor=16, **fields)[0] / scaled(128, 1e4, rope_type='linear', factor=1)[0]
  )
  kept = lambda **fields: (turned(**fields) - 1 / 16) / (15 / 16)
  np.testing.assert_allclose(
    kept(rope_type='yarn')[[20, 21, 45, 46]], [1, 25 / 26, 1 / 26, 0], atol=1e-12
  )
  exact = kept(rope_type='yarn', truncate=False)
  assert exact[20] == 1
  assert exact[21] == pytest.approx(1 - (21 - 20.944) / (45.027 - 20.944), abs=1e-4)
  assert exact[45] == pytest.approx(0.027 / (45.027 - 20.944), abs=1e-4)
  ratio = turned(rope_type='yarn_paper') / turned(rope_type='yarn')
  assert (ratio.min(), ratio.max()) == (
    pytest.approx(0.329, abs=1e-3),
    pytest.approx(1.03, abs=5e-3),
  )


@pytest.mark.parametrize('name', ['mrrope_uni', 'mrrope_pro'])
def test_mrrope_keeps_and_divides_where_yarn_does(name):
  """Also where there is no index between the ends of the ramp. Between, Pro keeps more than Uni."""
  for K, base, L in ((128, 1e4, 4096), (16, 1e4, 6), (8, 1e9, 64)):
    plain, yarn, mrrope, uni = (
      scaled(K, base, L=L, rope_type=kind, factor=factor)[0]
      for kind, factor in (('linear', 1), ('yarn', 16), (name, 16), ('mrrope_uni', 16))
    )
    is_end = np.isclose(yarn, plain, rtol=1e-12) | np.isclose(yarn, plain / 16, rtol=1e-12)
    np.testing.assert_allclose(mrrope[is_end], yarn[is_end], rtol=1e-12)
    assert (mrrope >= uni * (1 - 1e-12)).all()
    assert (np.diff(mrrope / plain) <= 1e-12).all()


def test_ntk_mixed_of_an_exponent_of_one_is_another_base():
  """NTK-RoPE-fixed: frequencies of another base, all divided by one step of it."""
  mixed = functools.partial(scaled, 64, 1e4, rope_type='ntk_mixed', factor=12)
  fixed, half = mixed(exponent=1)[0], mixed(exponent=0.5)[0]
  step = 12 ** (1 / 32)
  np.testing.assert_allclose(fixed, (1e4 ** (1 / 32) * step) ** -np.arange(32.0) / step)
  for frequencies in (fixed, half):
    assert frequencies[-1] == pytest.approx(1e4 ** (-62 / 64) / 12)
  assert (half[:-1] < fixed[:-1]).all()


# Every type against its formula, one frequency at a time.

DIVISORS = [1.0 + 0.25 * m for m in range(16)]


def yarn_share(m, K, base, L, slow, fast):
  index = lambda turns: K / 2 * math.log(L / (2 * math.pi * turns), base)
  first, last = max(math.floor(index(fast)), 0), min(math.ceil(index(slow)), K - 1)
  return min(max((m - first) / (last - first), 0), 1)


def yarn_formula(m, K, base, n, s, L, slow=1.0, fast=32.0):
  divided = yarn_share(m, K, base, L, slow, fast)
  return (1 - divided) * base ** (-2 * m / K) + divided * base ** (-2 * m / K) / s


def by_radices(radix_exponent, slow=1.0, fast=32.0):
  """MrRoPE as its paper has it: the radix of each pair before m, from `low` on, divides m."""

  def formula(m, K, base, n, s, L):
    index = lambda turns: K / 2 * math.log(L / (2 * math.pi * turns), base)
    first, last = max(math.floor(index(fast)), 0), min(math.ceil(index(slow)), K - 1)
    radices = [s ** radix_exponent(d - first, last - first) for d in range(first, min(m, last))]
    return base ** (-2 * m / K) / math.prod(radices)

  return formula


def by_turns(low, high):
  def formula(m, K, base, n, s, L):
    wavelength = 2 * math.pi * base ** (2 * m / K)
    if L / wavelength >= high:
      return 2 * math.pi / wavelength
    if L / wavelength <= low:
      return 2 * math.pi / wavelength / s
    kept = (L / wavelength - low) / (high - low)
    return 2 * math.pi / wavelength * (kept + (1 - kept) / s)

  return formula


def other_base(growth):
  return lambda m, K, base, n, s, L: (base * growth(n, s, L) ** (K / (K - 2))) ** (-2 * m / K)


def by_cutoff(m, K, base, n, s, L):
  turns = L * base ** (-2 * m / K) / (2 * math.pi)
  if turns >= 1:
    return base ** (-2 * m / K)
  return 2 * math.pi / (16 * L) if turns >= 1 / 8 else 0


def by_powers(alpha):
  """AlphaRoPE: the channel that turns once in L positions, by search."""

  def formula(m, K, base, n, s, L):
    turns_of = lambda channel: L * base ** (-channel / K) / (2 * math.pi)
    last = max(channel for channel in range(2 * K) if turns_of(channel) >= 1)
    exponent = 1 if 2 * m > last else (2 * m / last) ** alpha if m else 0
    return base ** (-2 * m / K) / s**exponent

  return formula


def by_steps(n, s, L):
  multiple = 1
  while n > L * multiple:
    multiple *= 2
  return 2 * multiple - 1


def same_turn(m, K, base, n, s, L):
  """The frequency of pair m by the base with which the pair that turns once in L positions turns
  once in s L; the index of that pair need not be whole.
  """
  once = K / 2 * math.log(L / (2 * math.pi), base)
  return (s * L / (2 * math.pi)) ** (-m / once)


def yarn_by_logarithms(slow, fast, c):
  def formula(m, K, base, n, s, L):
    kept = c * (1 - yarn_share(m, K, base, L, slow, fast))
    return math.exp(-math.log(base) * 2 * m / K - (1 - kept) * math.log(s))

  return formula


# Not the usual ones, which stand in the tests above; far enough apart for a ramp at the small L of
# the attention below, too.
SLOW, FAST = 0.05, 20.0
TURNS = {'beta_slow': SLOW, 'beta_fast': FAST}

# type: (further fields, radians a position of pair m for n keys, factor on queries and keys for n
# keys)
FORMULAS = {
  'linear': (
    lambda K, s: {},
    lambda m, K, base, n, s, L: base ** (-2 * m / K) / s,
    lambda n, s, L: 1,
  ),
  'ntk': (lambda K, s: {}, other_base(lambda n, s, L: s), lambda n, s, L: 1),
  'dynamic': (
    lambda K, s: {},
    other_base(lambda n, s, L: s * n / L - s + 1 if n > L else 1),
    lambda n, s, L: 1,
  ),
  'yarn': (lambda K, s: {}, yarn_formula, lambda n, s, L: 1 + math.log(s) / 10),
  'yarn_paper': (
    lambda K, s: TURNS | {'attention_factor': 1.3},
    by_turns(SLOW, FAST),
    lambda n, s, L: 1.3,
  ),
  'dynamic_yarn': (
    lambda K, s: TURNS,
    lambda m, K, base, n, s, L: yarn_formula(m, K, base, n, max(n / L, 1), L, SLOW, FAST),
    lambda n, s, L: 1 + math.log(max(n / L, 1)) / 10,
  ),
  'longrope': (
    lambda K, s: {
      'short_factor': DIVISORS[: K // 2],
      'long_factor': [s * d for d in DIVISORS[: K // 2]],
    },
    lambda m, K, base, n, s, L: base ** (-2 * m / K) / (DIVISORS[m] * (s if n > L else 1)),
    lambda n, s, L: math.sqrt(math.log(L * s, L)),
  ),
  'llama3': (
    lambda K, s: {'low_freq_factor': 0.5, 'high_freq_factor': 3.0},
    by_turns(0.5, 3.0),
    lambda n, s, L: 1,
  ),
  'proportional': (
    lambda K, s: {'partial_rotary_factor': 0.6},
    lambda m, K, base, n, s, L: base ** (-2 * m / K) / s if m < math.floor(0.6 * K / 2) else 0,
    lambda n, s, L: 1,
  ),
  'power': (
    lambda K, s: {'exponent': 1.5},
    lambda m, K, base, n, s, L: (1 - m / (K / 2)) ** 1.5 / base ** (2 * m / K),
    lambda n, s, L: 1,
  ),
  'truncated': (lambda K, s: {}, by_cutoff, lambda n, s, L: 1),
  'ntk_mixed': (
    lambda K, s: {'exponent': 0.625},
    lambda m, K, base, n, s, L: (
      base ** (-2 * m / K) * math.exp(-math.log(s) / (K / 2) ** 0.625 * (m + 1) ** 0.625)
    ),
    lambda n, s, L: 1,
  ),
  'mrrope_uni': (
    lambda K, s: TURNS,
    by_radices(lambda d, steps: 1 / steps, SLOW, FAST),
    lambda n, s, L: 1 + math.log(s) / 10,
  ),
  'mrrope_pro': (
    lambda K, s: TURNS | {'attention_factor': 0.9},
    by_radices(lambda d, steps: 2 * (1 + d) / ((1 + steps) * steps), SLOW, FAST),
    lambda n, s, L: 0.9,
  ),
  'alpha_rope': (
    lambda K, s: {'alpha': 0.75},
    by_powers(0.75),
    lambda n, s, L: 1 + math.log(s) / 10,
  ),
  'dynamic_steps': (lambda K, s: {}, other_base(by_steps), lambda n, s, L: 1),
  'theta_scale': (lambda K, s: {}, same_turn, lambda n, s, L: 1),
  'yarn_log': (
    lambda K, s: TURNS | {'extrapolation_factor': 0.75},
    yarn_by_logarithms(SLOW, FAST, 0.75),
    lambda n, s, L: 1,
  ),
  'riflex': (
    lambda K, s: {'k': 2, 'test_length': 7 * s},
    lambda m, K, base, n, s, L: 1.8 * math.pi / (7 * s) if m == 1 else base ** (-2 * m / K),
    lambda n, s, L: 1,
  ),
}
OF_TRAINING = ('power', 'truncated')
WITHOUT_FACTOR = (*OF_TRAINING, 'dynamic_yarn', 'dynamic_steps', 'riflex')


def fields_of(rope_type, s, more):
  return {'rope_type': rope_type} | ({} if rope_type in WITHOUT_FACTOR else {'factor': s}) | more


def test_every_type_has_a_formula():
  assert list(FORMULAS) == list(SCALINGS)


def test_no_formula_is_added_from_outside():
  """Rows would not say by which code they were made; a subclass of RoPE has its hash in them."""
  with pytest.raises(TypeError):
    SCALINGS['mine'] = SCALINGS['linear']


@pytest.mark.parametrize('rope_type', SCALINGS)
@pytest.mark.parametrize(('K', 'base', 'L'), [(6, 1e4, 64), (10, 500.0, 8192), (32, 5e5, 100)])
def test_type_is_its_formula(rope_type, K, base, L):
  fields, radians, factor = FORMULAS[rope_type]
  for s in (1, 1.5, 16.0):
    for n in (1, L, L + 1, 3 * L):
      f, multiplier = scaled(K, base, n, L, **fields_of(rope_type, s, fields(K, s)))
      assert f.dtype == np.float64
      np.testing.assert_allclose(
        f, [radians(m, K, base, n, s, L) for m in range(K // 2)], rtol=1e-12
      )
      assert multiplier == pytest.approx(factor(n, s, L), rel=1e-12)


def test_types_of_calls_are_those_whose_frequencies_follow_the_length():
  for name, (fields, *_) in FORMULAS.items():
    of = functools.partial(scaled, 8, 1e4, L=8, **fields_of(name, 2.0, fields(8, 2.0)))
    assert (of(8)[0] != of(90)[0]).any() == (name in OF_CALLS), name


@pytest.mark.parametrize(
  ('rope_type', 'layout'),
  [
    pytest.param(name, layout, marks=daily_if(name == 'yarn' or layout == 'half'))
    # a temperature, frequencies of the call's length, and two sets of them
    for name in ('yarn', 'dynamic', 'longrope')
    for layout in ('half', 'interleaved')
  ],
)
def test_attention_is_the_formulas(rope_type, layout):
  """In float64 loops over pairs, of a part of the channels, beyond the original length; last
  queries see the same.
  """
  fields, radians, factor = FORMULAS[rope_type]
  K, s, L = 6, 3.0, SIZES['train_length']
  enc = build(fraction=0.75, layout=layout, scaling=fields_of(rope_type, s, fields(K, s)))
  x, weights, _ = inputs()

  def turn(x_K, t):
    y_K = x_K.copy()
    for m in range(K // 2):
      a, b = (m, m + K // 2) if layout == 'half' else (2 * m, 2 * m + 1)
      z = complex(x_K[a], x_K[b]) * np.exp(1j * t * radians(m, K, 1e4, S, s, L)) * factor(S, s, L)
      y_K[a], y_K[b] = z.real, z.imag
    return y_K

  oracle = Oracle(lambda q, k, i, j, h: turn(q, i) @ turn(k, j) / math.sqrt(8))
  positions, mask = (
    np.broadcast_to(np.arange(S), (2, S)),
    np.broadcast_to(np.tril(np.ones((S, S), bool)), (2, S, S)),
  )
  double = {n: np.asarray(w, np.float64) for n, w in weights.items()}
  desired = attention_layer(oracle, double, np.asarray(x, np.float64), positions, mask)
  run = jax.jit(
    lambda enc, T, **options: layer(enc, weights, x, T=T, **options),
    static_argnums=1,
    static_argnames=('backend', 'block_sizes'),
  )
  close(run(enc, S, backend='dense'), desired)
  close(run(enc, S, backend='blockwise', block_sizes=(3, 5)), desired)
  close(run(enc, 2, backend='dense'), desired[:, -2:])


@pytest.mark.parametrize('name', ['dynamic', 'longrope', 'dynamic_yarn', 'dynamic_steps'])
def test_length_is_the_number_of_keys_of_the_call(name):
  """Beyond L the first tokens of a longer call are not those of a shorter one; up to L they are."""
  lists = {'short_factor': [1.0] * 4, 'long_factor': [4.0] * 4} if name == 'longrope' else {}
  enc = build(scaling=fields_of(name, 2.0, lists))
  q = jnp.asarray(np.random.default_rng(0).standard_normal((1, 9, 4, 8)), jnp.float32)
  k = q[:, :, :2]
  attend_ = jax.jit(functools.partial(attend, enc=enc, backend='dense'))
  run = lambda n: attend_(q[:, :n], k[:, :n], k[:, :n])
  close(run(8)[:, :3], run(3))
  assert np.abs(run(9)[:, :8] - run(8)).max() > 1e-3


# Dicts.


@pytest.mark.parametrize(
  ('given', 'rope_type'),
  [
    ({'type': 'linear', 'factor': 2.0}, 'linear'),
    ({'type': 'linear', 'factor': 2.0, 'original_max_position_embeddings': 8}, 'linear'),
    ({'rope_type': 'dynamic', 'type': 'dynamic', 'factor': 2}, 'dynamic'),
    ({'type': 'yarn', 'factor': 4.0, 'original_max_position_embeddings': 32768}, 'yarn'),
    (
      {
        'type': 'yarn',
        'factor': 40,
        'beta_fast': 32,
        'beta_slow': 1,
        'mscale': 0.707,
        'mscale_all_dim': 0.707,
        'original_max_position_embeddings': 4096,
      },
      'yarn',
    ),
    (
      {
        'rope_type': 'yarn',
        'factor': 32.0,
        'truncate': False,
        'attention_factor': None,
        'rope_theta': 10_000.0,
      },
      'yarn',
    ),
    (
      {
        'rope_type': 'llama3',
        'factor': 8.0,
        'low_freq_factor': 1.0,
        'high_freq_factor': 4.0,
        'original_max_position_embeddings': 8192,
      },
      'llama3',
    ),
    (
      {'type': 'longrope', 'short_factor': [1, 1.5], 'long_factor': (2, 4.0), 'factor': 32},
      'longrope',
    ),
    (
      {'rope_type': 'proportional', 'partial_rotary_factor': 0.5, 'rope_theta': 10_000.0},
      'proportional',
    ),
    (
      {'rope_type': 'linear', 'factor': 2.0, 'rope_theta': 10_000, 'partial_rotary_factor': 1.0},
      'linear',
    ),
  ],
)
def test_dicts_of_published_models_load(given, rope_type):
  for form in (given, ConfigDict(given)):
    enc = build(head_dim=4, scaling=form)
    assert enc.scaling.rope_type == rope_type
    assert hash(enc.scaling) == hash(build(head_dim=4, scaling=given).scaling)
    assert jax.tree.leaves(enc) == []
  fields = dict(enc.scaling.fields)
  if 'original_max_position_embeddings' in fields:
    original = given.get('original_max_position_embeddings', SIZES['train_length'])
    assert fields['original_max_position_embeddings'] == original


def test_default_is_no_scaling():
  assert build(scaling={'rope_type': 'default', 'rope_theta': 10_000.0}).scaling is None
  assert build(scaling=None).scaling is None


@pytest.mark.parametrize(
  ('scaling', 'message'),
  [
    ('yarn', "scaling='yarn'; allowed: a dict or None"),
    ({'factor': 2}, 'scaling.rope_type is missing; allowed: linear, ntk, dynamic'),
  ],
)
def test_scaling_without_a_type_is_refused(scaling, message):
  with pytest.raises(ValueError, match=f'^rope: {re.escape(message)}') as error:
    build(scaling=scaling)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('rope_type', 'fields', 'message'),
  [
    ('yran', dict(factor=2), "rope_type='yran'; did you mean 'yarn'?"),
    ('yarn', dict(type='linear', factor=2), "rope_type='yarn'/'linear'; did you mean 'yarn'"),
    ('linear', dict(facter=2), "facter is no field of linear; did you mean 'factor'?"),
    ('linear', dict(factor=2, beta_fast=3), 'beta_fast is no field of linear; allowed: factor'),
    ('default', dict(factor=2), 'factor is no field of default; allowed: none'),
    ('power', {}, 'exponent is missing: power needs it'),
    ('power', dict(exponent=0), 'exponent=0; allowed: 1e-09 or more'),
    ('ntk_mixed', dict(factor=2, exponent=1.25), 'exponent=1.25; allowed: at most 1'),
    (
      'yarn_log',
      dict(factor=2, extrapolation_factor=1.5),
      'extrapolation_factor=1.5; allowed: at most 1',
    ),
    (
      'mrrope_pro',
      dict(factor=2, beta_slow=32.0),
      'beta_slow=32.0; allowed: less than beta_fast=32.0',
    ),
    (
      'mrrope_uni',
      dict(factor=2, truncate=True),
      'truncate is no field of mrrope_uni; allowed: attention_factor, beta_fast',
    ),
    (
      'truncated',
      dict(factor=2),
      'factor is no field of truncated; allowed: original_max_position_embeddings',
    ),
    ('llama3', dict(factor=2, low_freq_factor=1), 'high_freq_factor is missing: llama3 needs it'),
    ('linear', dict(factor=None), 'factor is missing: linear needs it'),
    ('linear', dict(factor=0.5), 'factor=0.5; allowed: 1 or more'),
    ('linear', dict(factor=1e999), 'factor=inf; allowed: at most 1e+09'),
    (
      'proportional',
      dict(partial_rotary_factor=1.5),
      'partial_rotary_factor=1.5; allowed: more than 0 and at most 1',
    ),
    ('linear', dict(factor='4'), "factor='4'; allowed: 1 or more"),
    ('linear', dict(factor=10**5000), 'factor=<int>; allowed: at most 1e+09'),
    ('ntk', dict(factor=1e300), 'factor=1e+300; allowed: at most 1e+09'),
    ('yarn', dict(factor=2, beta_fast=10**400), 'beta_fast=100000'),
    ('yarn', dict(factor=2, beta_slow=1e-320), 'beta_slow=1e-320; allowed: 1e-09 or more'),
    ('yarn', dict(factor=2, attention_factor=2**31), 'attention_factor=2147483648; allowed: at'),
    ('yarn', dict(factor=2, truncate=0), 'truncate=0; allowed: True or False'),
    ('yarn', dict(factor=2, beta_slow=40), 'beta_slow=40; allowed: less than beta_fast=32.0'),
    ('yarn', dict(factor=2, attention_factor=0), 'attention_factor=0; allowed: 1e-09 or more'),
    (
      'dynamic',
      dict(factor=2, original_max_position_embeddings=1),
      'original_max_position_embeddings=1; allowed: a whole number from 2 to 1000000000',
    ),
    (
      'yarn',
      dict(factor=2, original_max_position_embeddings=10**5000),
      'original_max_position_embeddings=<int>; allowed: a whole number from 2 to 1000000000',
    ),
    (
      'linear',
      dict(factor=2, rope_theta=5e5),
      'rope_theta=500000.0; allowed: base=10000.0 of rope',
    ),
    (
      'linear',
      dict(factor=2, partial_rotary_factor=0.5),
      'partial_rotary_factor=0.5; allowed: fraction=1.0 of rope',
    ),
    (
      'longrope',
      dict(factor=2, short_factor=[1] * 4, long_factor=[1] * 3),
      'long_factor=[1, 1, 1]; allowed: 4 numbers from 1e-09 to 1e+09: one a frequency',
    ),
    (
      'longrope',
      dict(factor=2, short_factor=[1] * 4, long_factor=[1, 1, 1, 10**5000]),
      'long_factor=<list>; allowed: 4 numbers from 1e-09 to 1e+09: one a frequency',
    ),
    ('longrope', dict(short_factor=[1] * 4, long_factor=[1] * 4), 'factor of longrope is missing'),
    ('riflex', dict(k=5, test_length=9), 'k=5; allowed: whole numbers from 1 to 4'),
    ('riflex', dict(k=1.5, test_length=9), 'k=1.5; allowed: whole numbers from 1 to 4'),
    ('riflex', dict(k=0, test_length=9), 'k=0; allowed: 1 or more'),
  ],
)
def test_bad_scaling_is_one_line(rope_type, fields, message):
  with pytest.raises(ValueError, match=rf'^rope: scaling\.{re.escape(message)}') as error:
    build(scaling={'rope_type': rope_type, **fields})
  assert '\n' not in str(error.value)


def test_a_length_of_less_than_a_turn_has_no_scaled_base():
  scaling = {'rope_type': 'theta_scale', 'factor': 2, 'original_max_position_embeddings': 6}
  with pytest.raises(ValueError, match='theta_scale needs an original length of 7 or more'):
    build(scaling=scaling)


def test_two_rotated_channels_have_no_other_base():
  with pytest.raises(ValueError, match='4 rotated channels or more, not 2'):
    build(head_dim=2, scaling={'rope_type': 'ntk', 'factor': 2})


# Re-indexing.


def test_self_extend_sees_the_published_distances():
  enc = build('self_extend', window=8, group=4)
  i, j = enc.far_positions(jnp.array([[40.0]]), jnp.arange(41.0)[None])
  far = (i - j)[0, ::-1]
  seen = np.where(np.arange(41) < 8, np.arange(41), far)
  np.testing.assert_array_equal(seen, [*range(9), *np.repeat(range(9, 17), 4)])


def test_jet_long_sees_the_released_distances():
  """Four trained lengths of 8 tokens: groups of four past the distance 3, the released w_0."""
  enc = build('jet_long', window=4)
  t = jnp.arange(29.0)[None]
  i, j = enc.far_positions(t, t)
  far = (i[0, -1:] - j[0])[::-1]
  seen = np.where(np.arange(29) < 4, np.arange(29), far)
  np.testing.assert_array_equal(seen, [0, 1, 2, 3, 1, *np.repeat(range(2, 8), 4)])
  assert seen.max() < 8


def test_dpe_sees_the_released_distances():
  """Each share of the pairs by groups of its own; the positions of keys are whole."""
  enc = build('dpe', window=8, groups=(4, 2))
  i, j = enc.far_positions(jnp.array([[40.0]]), jnp.arange(41.0)[None])
  far, pairs = (i - j)[0, ::-1], enc.width // 2
  for m, group in ((0, 4), (pairs - 1, 2)):
    np.testing.assert_array_equal(
      far[:, m], 40 // group - np.arange(40, -1, -1) // group + 8 - 8 / group
    )


def test_groups_of_self_grow_as_released():
  """37 of one token at first, as floor(33 / (1 + 32 e^(-0.02 n))) has it, and at last of 32."""
  enc, t = build('self_logistic', window=8), np.arange(9000)
  number = np.asarray(jax.jit(enc.groups_before)(jnp.asarray(t)[None]))[0]
  sizes = np.bincount(number.astype(int))[:-1]
  n = np.arange(len(sizes))
  np.testing.assert_array_equal(sizes, np.floor(33 / (1 + 32 * np.exp(-0.02 * n))))
  assert (sizes == 1).sum() == 37
  assert sizes[-1] == 32
  i, j = enc.far_positions(jnp.array([[8.0, 58.0]]), jnp.array([[0.0, 50.0]]))
  np.testing.assert_array_equal(i - j, [[8, 8]])  # the distance `window` is seen as itself


@pytest.mark.ci
def test_jet_long_is_rope_up_to_the_length_and_no_further():
  """The group is that of the number of keys: last queries of a call see what all see."""
  x, weights, _ = inputs()
  run = jax.jit(lambda enc, T: layer(enc, weights, x, T=T, backend='dense'), static_argnames='T')
  within, beyond = (build('jet_long', window=2, length=length) for length in (S, S - 1))
  close(run(within, S), run(build(), S))
  assert np.abs(run(beyond, S) - run(build(), S)).max() > 1e-3
  close(run(beyond, 3), run(beyond, S)[:, -3:])
  close(run(build('jet_long', window=2, length=S, context=S + 1), S), run(beyond, S))
  short = build('jet_long', window=2, length=5, context=S - 1)
  with pytest.raises(LengthError, match=f'{S} positions, but those of JetLong end at {S - 1}'):
    run(short, 3)
  packed = jnp.asarray(np.arange(S) > 4, jnp.int32)[None].repeat(len(x), axis=0)
  layer(short, weights, x, segment_ids=packed)  # a context is that of a document


@pytest.mark.parametrize('group', [3, 5, 7, 10, 48])
def test_groups_are_whole_at_every_position(group):
  t = np.arange(200_000)
  _, number = jax.jit(build('self_extend', group=group).far_positions)(
    jnp.zeros((1, 1)), jnp.asarray(t, jnp.float32)[None]
  )
  np.testing.assert_array_equal(number[0], t // group)


@pytest.mark.parametrize(
  ('name', 'hyper'),
  [
    ('rerope', {'window': S}),
    ('leaky_rerope', {'window': S}),
    ('self_extend', {'window': S}),
    ('jet_long', {'window': S, 'length': S, 'context': 2 * S}),
    ('jet_long', {'window': 2, 'length': S}),
    ('leaky_rerope', {'window': 2, 'leak': 1.0}),
    ('self_extend', {'window': 2, 'group': 1}),
    ('dpe', {'window': 2, 'groups': (1,)}),
    ('dpe', {'window': S}),
    ('self_logistic', {'window': 2, 'capacity': 2}),
    ('self_logistic', {'window': S}),
    ('string', {'window': S}),
    ('string', {'window': 4, 'local': 4}),
    ('dca', {'chunk': S, 'local': 0}),
    ('streaming_rope', {'window': S}),
    ('ms_poe', {'least_ratio': 1.0, 'greatest_ratio': 1.0}),
    ('p_rope', {'p': 1.0}),
    ('clipped_rope', {'clipped': 0}),
    ('hope', {'length': 10**6}),
  ],
)
def test_a_window_of_all_steps_of_one_and_all_pairs_are_rope(name, hyper):
  """Scaled and laid out as RoPE is: what inherits from it takes both. Loops of each in halves and
  without a scaling are in test_laws.py.
  """
  rope = {'scaling': {'rope_type': 'yarn', 'factor': 2.0}, 'layout': 'interleaved'}
  x, weights, _ = inputs()
  run = jax.jit(lambda enc: layer(enc, weights, x, backend='dense'))
  close(run(build(name, **hyper, **rope)), run(build(**rope)))


@pytest.mark.parametrize('name', ['coca', 'rope_pp'])
def test_scaling_reaches_what_no_limit_makes_rope(name):
  x, weights, _ = inputs()
  run = jax.jit(lambda enc, ids: layer(enc, weights, x, position_ids=ids, backend='dense'))
  linear, plain = build(name, scaling={'rope_type': 'linear', 'factor': 4.0}), build(name)
  ids = np.arange(S, dtype=np.float32)[None]
  close(run(linear, ids), run(plain, ids / 4))
  assert np.abs(run(linear, ids) - run(plain, ids)).max() > 1e-2


def test_streaming_is_rope_over_a_cache_of_first_and_last_tokens():
  """The last query sees what it sees where nothing else was ever there."""
  window, sinks, T = 3, 2, 12
  rng = np.random.default_rng(0)
  q, k, v = (jnp.asarray(rng.standard_normal((1, T, h, 8)), jnp.float32) for h in (4, 2, 2))
  enc = build('streaming_rope', window=window, sink_tokens=sinks)
  found = attend(q, k, v, enc, window=window, sink_tokens=sinks)
  for end in range(sinks + window, T + 1):
    kept = jnp.array([*range(sinks), *range(end - window, end)])
    cached = attend(q[:, kept], k[:, kept], v[:, kept], build())
    close(found[:, end - 1], cached[:, -1])
  within = slice(sinks + window)
  close(found[:, within], attend(q[:, within], k[:, within], v[:, within], build()))


def test_streaming_says_that_its_first_tokens_are_those_at_the_position_0():
  """No place in the cache is before a first token, unless positions begin further out."""
  enc, i = build('streaming_rope', window=3, sink_tokens=2), np.arange(12)
  for shift in (0, 1000):
    of_queries, of_keys = map(np.asarray, enc.far_positions(i + shift, i + shift))
    # Of the first two tokens and the queries from which the window does not reach them.
    assert (of_queries[5:] < of_keys[:2, None]).any() == (shift > 0)
  assert 'positions have to begin at 0' in enc.limit


def test_ms_poe_is_interpolation_at_one_ratio_and_turns_shared_keys_for_each_head():
  x, weights, _ = inputs()
  linear = build(scaling={'rope_type': 'linear', 'factor': 4.0})
  close(
    layer(build('ms_poe', least_ratio=4.0, greatest_ratio=4.0), weights, x, backend='dense'),
    layer(linear, weights, x, backend='dense'),
  )
  hyper = {'greatest_ratio': 9.0, 'order': (3, 0, 2, 1)}
  own = weights | {n: np.repeat(weights[n], 2, axis=1) for n in 'kv'}
  shared, alone = build('ms_poe', **hyper), build('ms_poe', kv_heads=4, **hyper)
  assert (shared.qk_width_factor, alone.qk_width_factor) == (2, 1)
  for ids in (np.arange(S)[None], np.stack([np.arange(S), 3 * np.arange(S)], axis=-1)[None]):
    own_ids = np.repeat(ids, 2, axis=-1) if ids.ndim == 3 else ids
    close(
      layer(shared, weights, x, position_ids=ids, backend='dense'),
      layer(alone, own, x, position_ids=own_ids, backend='dense'),
    )


def test_windows_follow_the_training_length():
  at = lambda name, L: build(name, train_length=L).window
  assert [at(name, 128) for name in ('rerope', 'leaky_rerope', 'self_extend')] == [64, 64, 32]
  assert at('self_extend', 1) == 1
  assert [at('jet_long', L) for L in (32_768, 1)] == [2049, 1]
  assert build('jet_long', train_length=9).length == 9


@pytest.mark.parametrize(
  ('name', 'reach'), [('string', 8192 + 8192 // 3 - 128), ('leaky_rerope', int(8.5 * 8192))]
)
def test_how_far_trained_distances_reach(name, reach):
  """As docs/pretrained.md says: so many tokens are read at no distance of L or more."""
  enc = build(name, train_length=8192)
  first = jnp.zeros((1, 1))
  farthest = lambda tokens: np.subtract(*enc.far_positions(first + tokens - 1, first)).item()
  assert farthest(reach) < 8192 <= farthest(reach + 1)


@pytest.mark.parametrize(
  ('name', 'hyper', 'message'),
  [
    ('rerope', {'window': 0}, 'rerope: window=0; allowed: at least 1'),
    ('leaky_rerope', {'leak': 0.5}, 'leaky_rerope: leak=0.5; allowed: at least 1'),
    ('self_extend', {'group': 0}, 'self_extend: group=0; allowed: at least 1'),
    ('dpe', {'groups': ()}, 'dpe: groups=(); allowed: whole numbers from 1 to 16777216'),
    ('dpe', {'groups': (2, 0)}, 'dpe: groups=(2, 0); allowed: whole numbers from 1 to 16777216'),
    ('dpe', {'groups': (10**5000,)}, 'dpe: groups=<tuple>; allowed: whole numbers from 1 to 167'),
    ('self_logistic', {'capacity': 1}, 'self_logistic: capacity=1; allowed: at least 2'),
    ('self_logistic', {'rate': 0.0}, 'self_logistic: rate=0.0; allowed: greater than 0'),
    ('self_logistic', {'rate': 1e-9}, 'rate=1e-09 for capacity=33; allowed: at least 6.6103'),
    ('jet_long', {'length': 0}, 'jet_long: length=0; allowed: at least 1'),
    ('jet_long', {'context': 0}, 'jet_long: context=0; allowed: at least 1'),
    ('jet_long', {'window': 0}, 'jet_long: window=0; allowed: at least 1'),
    ('jet_long', {'window': 6, 'length': 5}, 'jet_long: window=6; allowed: at most length=5'),
    ('streaming_rope', {'sink_tokens': 0}, 'streaming_rope: sink_tokens=0; allowed: at least 1'),
    ('ms_poe', {'least_ratio': 0.0}, 'ms_poe: least_ratio=0.0; allowed: greater than 0'),
    ('ms_poe', {'least_ratio': 2.0}, 'ms_poe: greatest_ratio=1.8; allowed: at least 2.0'),
    ('ms_poe', {'order': (0, 1, 2)}, 'ms_poe: order=(0, 1, 2); allowed: each of 0 to 3 once'),
    ('ms_poe', {'order': (0, 1, 2, 2)}, 'ms_poe: order=(0, 1, 2, 2); allowed: each of 0 to 3 o'),
    ('rerope', {'base': 0.5}, 'rope: base=0.5; allowed: greater than 1'),
  ],
)
def test_bad_windows_and_ratios(name, hyper, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    build(name, **hyper)


def test_a_rate_that_is_said_to_be_allowed_is():
  with pytest.raises(ValueError, match='at least') as error:
    build('self_logistic', rate=1e-9)
  build('self_logistic', rate=float(str(error.value).split()[-1]))


def test_scores_choose_by_distance_of_positions():
  """Where they are masked, distances are 0: what is read there is not used and stays finite."""
  enc, K = build('rerope', window=2), DIMS.head_dim
  q = jnp.concatenate([jnp.ones((1, 1, 1, K)), jnp.full((1, 1, 1, K), 2.0)], axis=-1)
  distance_BTS = jnp.array([[[0, 1, 2, 3]]])
  tile = SimpleNamespace(distance=distance_BTS, mask=jnp.ones_like(distance_BTS, bool))
  score = enc.score(None, q, jnp.ones((1, 1, 4, 2 * K)), tile)
  np.testing.assert_allclose(score[0, 0, 0], np.array([1, 1, 2, 2]) * math.sqrt(K), rtol=1e-6)
