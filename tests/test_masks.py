"""Masks of a user's own, functions and arrays: every backend equals float64 loops, values and
gradients; queries that see no key get 0, and no gradient of them is NaN.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from against_dense import gradients
from flax import nnx
from kinds import daily_if
from test_fused import REFUSED as NOT_IN_FUSED
from test_laws import (
  DIMS,
  SEGMENTS,
  B,
  S,
  build,
  check_with_oracle,
  close,
  declared,
  expected,
  inputs,
  parameters,
)
from test_triton import REFUSED as NOT_IN_TRITON

from posenc_jax.attention import attend, auto_backend
from posenc_jax.attention.mask import Mask
from posenc_jax.attention.request import build_request
from posenc_jax.encodings import ENCODINGS, Encoding, make
from posenc_jax.encodings.core.base import MASKED
from posenc_jax.inspection.laws import layer, positions_of
from posenc_jax.storage import REPOSITORY


def holes(i, j):
  """Hides keys here and there, the query itself among them, and all from the queries 0 and 6."""
  return ((3 * i + 5 * j) % 7 != 2) & (i != 0) & (i != 6)


ARRAY = np.random.default_rng(3).random((B, S, S)) < 0.6
ARRAY[0, 4] = ARRAY[1, 10] = ARRAY[1, 0] = False
TILES = {
  'blockwise': (3, 5),
  'diagonals': (4, 4),
  'fused_interpret': (4, 8),
  'triton_interpret': (4, 8),
}
BY_COST = [
  pytest.param(b, marks=daily_if(b in ('dense', 'blockwise'), 'ci')) for b in ('dense', *TILES)
]
# One for each way in which an encoding acts where weights are made of scores.
IN_TILES = (
  *('nope', 't5', 'fire', 'fox', 'cope', 'shaw', 'sink', 'sigmoid', 'path', 'rope_pp'),
  'hard_alibi',  # hides keys itself: in rows where the mask hides the others none is left
)
OF_ROWS = (
  *('entmax', 'softpick', 'selective', 'talking_heads', 'mta', 'dape_v2', 'urpe'),
  *('adaptive_temperature', 'elastic_softmax', 'cog'),
)
COUNTING = [name for name in ENCODINGS if declared(name).needs_num_visible]
MODES = {
  'causal': {},
  'packed': {'segment_ids': SEGMENTS},
  'bidirectional': {'is_causal': False},
  'last_queries': {'T': 5},
  'sink_tokens': {'window': 3, 'sink_tokens': 2},
  'softcap': {'softcap': 0.7},
}
DAILY = {
  'dense': (('nope', 'packed'), ('cope', 'causal'), ('sink', 'softcap'), ('sigmoid', 'causal')),
  'blockwise': (('nope', 'sink_tokens'), ('cope', 'packed'), ('sink', 'softcap')),
  'diagonals': (('shaw', 'packed'), ('sigmoid', 'bidirectional')),
  'fused_interpret': (('fox', 'packed'),),
  'triton_interpret': (('t5', 'last_queries'),),
}


def takes(backend: str, name: str, mode: str) -> bool:
  """Whether a backend takes an encoding in a mode."""
  refused = {'fused_interpret': NOT_IN_FUSED, 'triton_interpret': NOT_IN_TRITON}.get(backend, ())
  if name in refused or (name in OF_ROWS and backend != 'dense'):
    return False
  if backend == 'diagonals' and (name == 'path' or mode == 'sink_tokens'):
    return False
  if mode == 'softcap' and declared(name).normalizer != 'softmax':
    return False
  if mode == 'last_queries' and declared(name).needs_all_queries:
    return False
  return not (mode == 'bidirectional' and declared(name).causal_only)


def cases():
  """(backend, encoding, mode): each encoding causally, packed and in one mode in turn."""
  for backend in ('dense', *TILES):
    for n, name in enumerate((*IN_TILES, *OF_ROWS)):
      others = [mode for mode in MODES if takes(backend, name, mode)]
      if others:
        yield from (
          (backend, name, m) for m in dict.fromkeys(('causal', 'packed', others[n % len(others)]))
        )


CASES = dict.fromkeys((*((b, *case) for b in DAILY for case in DAILY[b]), *cases()))


@pytest.mark.parametrize(
  ('backend', 'name', 'mode'),
  [
    pytest.param(
      *case, marks=daily_if(case[1:] in DAILY[case[0]], 'fused' if 'interpret' in case[0] else 'ci')
    )
    for case in CASES
  ],
)
def test_a_mask_that_is_a_function_equals_the_oracle(backend, name, mode):
  """With two heads for each of keys, and 11 keys in ragged tiles."""
  check_with_oracle(name, MODES[mode] | {'mask': holes}, backend, TILES.get(backend))


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=daily_if(name in ('nope', 'ssmax'), 'ci'))
    for name in (*IN_TILES, *OF_ROWS, *COUNTING)
  ],
)
def test_a_mask_that_is_an_array_equals_the_oracle(name):
  check_with_oracle(name, {'segment_ids': SEGMENTS, 'mask': ARRAY}, 'dense')


@pytest.mark.parametrize(
  'backend', [pytest.param(b, marks=daily_if(b == 'dense', 'fused')) for b in ('dense', *TILES)]
)
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize(
  ('name', 'options'), [('nope', {}), ('sink', {'softcap': 0.5}), ('sigmoid', {}), ('relu', {})]
)
def test_queries_that_see_no_key_give_nothing_and_get_nothing(backend, dtype, name, options):
  """Exactly 0, in outputs and gradients, and no NaN anywhere: of the queries 0 and 6, and of the
  key 10, which is seen by none.
  """
  hyper = {'length': 16} if name == 'relu' else {}
  enc = make(name, **vars(DIMS), rngs=nnx.Rngs(0), **hyper)
  mask = lambda i, j: holes(i, j) & (j != 10)
  draw = np.random.default_rng(0).standard_normal
  q, k, v = (jnp.asarray(draw((B, S, heads, 8)), dtype) for heads in (4, 2, 2))
  weight, x = draw((B, S, 4, 8)), jnp.asarray(draw((B, S, DIMS.model_dim)), dtype)
  run = functools.partial(attend, x=x, mask=mask, backend=backend, block_sizes=TILES.get(backend))
  both = lambda enc, q, k, v: run(q, k, v, enc, **options).astype(jnp.float32)
  (d_enc, d_q, d_k, d_v), o = gradients(both, weight, enc, q, k, v)
  for array in jax.tree.leaves((d_enc, d_q, d_k, d_v, o)):
    assert np.isfinite(array.astype(jnp.float32)).all()
  for array, blind in ((o, [0, 6]), (d_q, [0, 6]), (d_k, [10]), (d_v, [10])):
    is_blind = np.isin(np.arange(S), blind)
    nonzero = np.abs(array.astype(jnp.float32)).max(axis=(0, 2, 3)) > 0
    assert not nonzero[is_blind].any()
    assert nonzero[~is_blind].all() or name == 'relu'


@pytest.mark.parametrize(
  'backend', ['dense', 'blockwise', pytest.param('diagonals', marks=pytest.mark.ci)]
)
def test_queries_that_see_no_key_under_sums_along_keys(backend):
  """Stick-breaking gives such queries 0, and no NaN, though its last key has no weight either."""
  draw = np.random.default_rng(0).standard_normal
  q, weight = jnp.asarray(draw((1, S, 4, 8)), jnp.float32), draw((1, S, 4, 8))
  k, v = jnp.asarray(draw((2, 1, S, 2, 8)), jnp.float32)
  enc = build('stick_breaking')

  def by(backend):
    run = functools.partial(attend, mask=holes, backend=backend, block_sizes=TILES.get(backend))
    return gradients(lambda q, k, v: run(q, k, v, enc), weight, q, k, v)

  found, expected = by(backend), by('dense')
  assert not np.asarray(found[1])[:, [0, 6]].any()
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-5), found, expected)


def of_prefixes(i, j, prefix, _):
  return (j < prefix) | (j <= i)


@pytest.mark.parametrize('backend', BY_COST)
@pytest.mark.parametrize('name', ['t5', pytest.param('fire', marks=pytest.mark.ci)])
def test_prefixes_that_differ_from_row_to_row(backend, name):
  """By `mask_ids` as by `prefix` of each row alone, values and gradients."""
  if name in NOT_IN_TRITON and backend == 'triton_interpret':
    pytest.skip('not lowered')
  draw, prefixes = np.random.default_rng(0).standard_normal, (3, 7)
  q, weight = jnp.asarray(draw((2, S, 4, 8)), jnp.float32), draw((2, S, 4, 8))
  k, v = jnp.asarray(draw((2, 2, S, 2, 8)), jnp.float32)
  enc = build(f'{name}_bidirectional' if name == 't5' else name)
  mask_ids = jnp.broadcast_to(jnp.array(prefixes)[:, None], (2, S))
  options = dict(is_causal=False, mask=of_prefixes, mask_ids=mask_ids)

  def by_ids(enc, q, k, v):
    sizes = TILES.get(backend)
    return attend(q, k, v, enc, backend=backend, block_sizes=sizes, **options)

  def by_row(enc, q, k, v):
    run = functools.partial(attend, enc=enc, backend='dense')
    one = lambda n: run(q[n : n + 1], k[n : n + 1], v[n : n + 1], prefix=prefixes[n])
    return jnp.concatenate([one(0), one(1)])

  found, expected = (gradients(f, weight, enc, q, k, v) for f in (by_ids, by_row))
  check = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5)
  jax.tree.map(check, found, expected)


@pytest.mark.parametrize('backend', BY_COST)
def test_the_last_queries_read_their_own_mask_ids(backend):
  q, k, v, _ = small()
  k = v = jnp.asarray(np.random.default_rng(0).standard_normal(k.shape), jnp.float32)
  kinds = np.array([[0, 1, 0, 1, 1, 0, 1, 0]])
  segments = np.array([[0] * 3 + [1] * 5])
  options = dict(segment_ids=segments, backend=backend, block_sizes=TILES.get(backend))
  found = attend(
    q[:, 2:], k, v, build('nope'), mask=lambda i, j, a, b: a == b, mask_ids=kinds, **options
  )
  same = kinds[:, 2:, None] == kinds[:, None]
  expected = attend(q[:, 2:], k, v, build('nope'), mask=same, segment_ids=segments, backend='dense')
  np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize('shape', [(B, 4, S, S), (1, 4, S, S), (B, 1, 1, S), (1, 1, S, 1)])
def test_a_bias_is_added_to_scores(shape):
  """As jax.nn has it, with its gradient; -inf hides a key."""
  draw = np.random.default_rng(0).standard_normal
  q, k, v = (jnp.asarray(draw((B, S, heads, 8)), jnp.float32) for heads in (4, 2, 2))
  bias, weight = jnp.asarray(draw(shape), jnp.float32), draw((B, S, 4, 8))
  bias = bias.at[0, 0, 0, 0].set(-jnp.inf if shape[3] == S else 0.0)
  enc = build('nope')
  ours = lambda q, k, v, bias: attend(q, k, v, enc, bias=bias, is_causal=False)
  theirs = jax.nn.dot_product_attention
  found = gradients(ours, weight, q, k, v, bias)
  expected = gradients(theirs, weight, q, k, v, bias)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-5), found, expected)


@pytest.mark.parametrize(
  'name', [pytest.param(n, marks=daily_if(n in ('mta', 'dape_v2', 'cog'), 'ci')) for n in OF_ROWS]
)
def test_a_bias_of_minus_infinity_is_a_mask(name):
  """Also where weights are made of the scores of neighbors, of other heads and of other queries."""
  q, k, v = (
    jnp.asarray(np.random.default_rng(0).standard_normal((B, S, heads, 8)), jnp.float32)
    for heads in (4, 2, 2)
  )
  weight = np.random.default_rng(1).standard_normal((B, S, 4, 8))
  enc = jax.tree.map(lambda p: p + 0.1 * jnp.sin(jnp.arange(p.size).reshape(p.shape)), build(name))
  bias = jnp.where(ARRAY, 0.0, -jnp.inf)[:, None]
  run = lambda enc, q, k, v, **given: attend(q, k, v, enc, backend='dense', **given)
  found = gradients(functools.partial(run, bias=bias), weight, enc, q, k, v)
  expected = gradients(functools.partial(run, mask=ARRAY), weight, enc, q, k, v)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-5), found, expected)


def test_a_bias_comes_behind_all_that_an_encoding_does():
  """The weights are those of the encoding times exp(bias), normalized anew, also with a soft-cap;
  of a query whose keys it hides all, nothing is left.
  """
  draw = np.random.default_rng(0).standard_normal
  q, k, v = (jnp.asarray(draw((B, S, heads, 8)), jnp.float32) for heads in (4, 2, 2))
  bias = jnp.asarray(draw((1, 4, S, S)), jnp.float32).at[:, :, 3].set(-jnp.inf)
  for name in ('fox', 't5'):
    enc, x = build(name), jnp.asarray(draw((B, S, DIMS.model_dim)), jnp.float32)
    run = functools.partial(attend, q, k, x=x, softcap=0.5)
    unit = jnp.broadcast_to(jnp.eye(S)[None, :, None], (B, S, 2, S))
    weights = run(unit, enc).swapaxes(1, 2) * jnp.exp(bias)
    weights = weights / jnp.maximum(weights.sum(axis=-1, keepdims=True), 1e-30)
    expected = jnp.einsum('bhts,bshk->bthk', weights, jnp.repeat(v, 2, axis=2))
    o, lse = run(v, enc, bias=bias, return_logsumexp=True)
    np.testing.assert_allclose(o, expected, atol=2e-6)
    assert not np.asarray(o[:, 3]).any()
    assert np.isneginf(lse[:, 3]).all()


class Banning(Encoding):
  """Hides all keys of every third query, and of others the far ones."""

  value = MASKED

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    is_near = (tile.distance < 4) & (tile.i % 3 > 0)[:, :, None]
    return jnp.where(is_near[:, None], s_BHTS, self.value)


@pytest.mark.parametrize('value', [MASKED, float('-inf')])
@pytest.mark.parametrize('backend', BY_COST)
def test_queries_whose_keys_a_score_hides_all(backend, value):
  """They give 0, and nothing through them; the others have what a mask gives them."""
  draw = np.random.default_rng(0).standard_normal
  q, k, v = (jnp.asarray(draw((B, S, heads, 8)), jnp.float32) for heads in (4, 2, 2))
  weight, enc = draw((B, S, 4, 8)), Banning(build('nope').dims, nnx.Rngs(0))
  enc.value = value

  def run(enc, backend, **options):
    sizes = TILES.get(backend)
    both = lambda q, k, v: attend(q, k, v, enc, backend=backend, block_sizes=sizes, **options)
    return gradients(both, weight, q, k, v)

  expected = run(build('nope'), 'dense', mask=lambda i, j: (i - j < 4) & (i % 3 > 0))
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, atol=2e-5), run(enc, backend), expected
  )
  both = run(enc, backend, mask=lambda i, j: i > j)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(both))
  is_blind = ~np.asarray(both[1]).any(axis=(0, 2, 3))
  np.testing.assert_array_equal(np.flatnonzero(is_blind), [0, 3, 6, 9])


def small(name='nope', S=8, **hyper):
  q = jnp.zeros((1, S, 4, 8))
  k = jnp.zeros((1, S, 2, 8))
  return q, k, k, make(name, **vars(DIMS), rngs=nnx.Rngs(0), **hyper)


@pytest.mark.parametrize(
  ('mask', 'message'),
  [
    (3, 'mask=3; allowed: a function, a bool array, or None'),
    (np.ones((1, 8, 8)), 'mask has dtype float64; allowed: bool, True where a query sees a key'),
    (np.ones((1, 4, 8, 8), bool), 'mask has shape (1, 4, 8, 8); allowed: (1, 8, 8): all'),
    (np.ones((8, 8), bool), 'mask has shape (8, 8); allowed: (1, 8, 8)'),
    (lambda i, j: i - j, 'mask gives int32 (1, 8, 8); allowed: bool of pairs, by a function of'),
    (lambda i, j: (i < j)[0], 'mask gives bool (8, 8); allowed: bool of pairs, by a function of'),
    (lambda i: i < 3, 'mask: <lambda>() takes 1 positional argument but 2 were given; allowed'),
    (lambda i, j: True, 'mask gives bool (); allowed'),
  ],
)
def test_masks_that_are_refused(mask, message):
  q, k, v, enc = small()
  with pytest.raises(ValueError, match=re.escape(message)):
    jax.eval_shape(lambda q: attend(q, k, v, enc, mask=mask), q)


def are_alike(i, j, a, b):
  return a == b


@pytest.mark.parametrize(
  ('mask', 'mask_ids', 'message'),
  [
    (
      lambda i, j: i > j,
      np.zeros((1, 8), int),
      'mask: <lambda>() takes 2 positional arguments but 4 were given; allowed: a function of two '
      'int32 arrays [1 or B, T, 1] and [1 or B, 1, S], elementwise, and of two more, the mask_ids',
    ),
    (None, np.zeros((1, 8), int), 'mask_ids; allowed: None, unless `mask` is a function'),
    (are_alike, np.zeros((1, 8)), 'mask_ids has dtype float64; allowed: integers'),
    (are_alike, np.zeros((1, 7), int), 'mask_ids has shape (1, 7); allowed: (1, 8)'),
    (are_alike, None, 'mask: are_alike() missing 2 required positional arguments'),
  ],
)
def test_ids_that_are_refused(mask, mask_ids, message):
  q, k, v, enc = small()
  with pytest.raises(ValueError, match=re.escape(message)):
    jax.eval_shape(lambda q: attend(q, k, v, enc, mask=mask, mask_ids=mask_ids), q)


@pytest.mark.parametrize(
  ('bias', 'message'),
  [
    (np.zeros((1, 4, 8, 8), int), 'bias has dtype int64; allowed: float32, bfloat16 or float16'),
    (np.zeros((4, 8, 8), np.float32), 'bias has shape (4, 8, 8); allowed: (1, 4, 8, 8), or 1 in'),
    (np.zeros((1, 2, 8, 8), np.float32), 'bias has shape (1, 2, 8, 8); allowed: (1, 4, 8, 8), or'),
  ],
)
def test_biases_that_are_refused(bias, message):
  q, k, v, enc = small()
  with pytest.raises(ValueError, match=re.escape(message)):
    jax.eval_shape(lambda q: attend(q, k, v, enc, bias=bias), q)


@pytest.mark.parametrize(
  'backend', ['blockwise', 'triton_interpret', 'fused_interpret', 'splash', 'cudnn']
)
def test_tiles_take_no_bias(backend):
  q, k, v, enc = small()
  bias = np.zeros((1, 4, 8, 8), np.float32)
  with pytest.raises(NotImplementedError, match=f'backend {backend}: bias is an array over pairs'):
    jax.eval_shape(lambda q: attend(q, k, v, enc, bias=bias, backend=backend), q)


def test_a_function_that_reads_a_traced_array_is_refused():
  q, k, v, enc = small()
  run = lambda q, kinds: attend(q, k, v, enc, mask=lambda i, j: kinds[i] == kinds[j])
  with pytest.raises(ValueError, match='mask reads a traced array; allowed: mask_ids, of which'):
    jax.eval_shape(run, q, jnp.arange(8))


def test_encodings_that_count_visible_keys_take_no_function():
  q, k, v, enc = small('lssa')
  allowed = 'a bool array, or of padding `segment_ids` in its place, for LSSA reads how many keys'
  with pytest.raises(ValueError, match=f'^mask; allowed: {allowed}'):
    jax.eval_shape(lambda q: attend(q, k, v, enc, mask=lambda i, j: j < 5), q)


def test_relu_that_divides_by_nothing_takes_a_function_and_keys_may_be_hidden():
  enc, (x, weights, _) = make('relu', **vars(DIMS), rngs=nnx.Rngs(0), alpha=0.0), inputs()
  run = functools.partial(layer, enc, weights, x, backend='dense')
  array = jnp.asarray(holes(np.arange(S)[:, None], np.arange(S)))[None]
  close(*jax.jit(lambda: (run(mask=holes), run(mask=array)))())
  members = ({'name': 'relu', 'alpha': 0.0}, 'hard_alibi')
  make('chain', **vars(DIMS), rngs=nnx.Rngs(0), members=members)


@pytest.mark.parametrize('T', [None, 5])
def test_keys_of_an_array_are_counted_as_those_of_a_window(T):
  enc, (x, weights, _) = build('ssmax'), inputs()
  run = functools.partial(layer, enc, weights, x, T=T, segment_ids=SEGMENTS, backend='dense')
  distance = np.arange(S)[S - (T or S) :, None] - np.arange(S)[None]
  by_array, by_window = jax.jit(lambda: (run(mask=distance[None] < 3), run(window=3)))()
  close(by_array, by_window)


def test_what_takes_a_mask():
  """An array `dense` alone, a function all that have tiles; `auto` finds out."""
  q, k, v, enc = small(S=1024)
  array = np.ones((1, 1024, 1024), bool)
  reason = 'the mask is an array over all pairs; tiles take a function, with mask_ids'

  def refusals(backend, mask):
    with pytest.raises(NotImplementedError) as error:
      jax.eval_shape(lambda q: attend(q, k, v, enc, mask=mask, backend=backend), q)
    return str(error.value).removeprefix(f'backend {backend}: ')

  for backend in (
    'blockwise',
    'diagonals',
    'fused_interpret',
    'triton_interpret',
    'cudnn',
    'splash',
  ):
    assert refusals(backend, array) == reason
  for backend in ('cudnn', 'splash'):
    assert refusals(backend, lambda i, j: i > j).startswith('a mask that is a function acts on')

  def ask(q, k, v):
    request = functools.partial(build_request, q, k, v, enc)
    assert auto_backend(request(array_mask_BTS=jnp.asarray(array))) == 'dense'
    assert auto_backend(request(mask=Mask(function=lambda i, j: i > j))) == 'blockwise'
    return q

  jax.eval_shape(ask, q, k, v)


def test_xpos_under_the_mask_of_its_paper():
  """Queries see their own block of c tokens and the one before, as the docstring of xPos has it."""
  c = 3
  blocks = lambda i, j: i // c - j // c <= 1
  check_with_oracle('xpos', {'mask': blocks}, 'blockwise', TILES['blockwise'])


@pytest.mark.ci
def test_a_function_may_hold_constants_and_other_masks():
  """A table that it reads by an index; and whatever else is said of keys is said beside it."""
  q, k, v = (
    jnp.asarray(x, jnp.float32) for x in np.random.default_rng(0).standard_normal((3, 1, 16, 4, 8))
  )
  enc = make('nope', **vars(DIMS) | {'kv_heads': 4}, rngs=nnx.Rngs(0))
  kinds = np.random.default_rng(1).integers(0, 2, 16)
  of_kinds = lambda i, j: jnp.asarray(kinds)[i] >= jnp.asarray(kinds)[j]
  array = (kinds[:, None] >= kinds[None])[None]
  for backend in ('dense', 'blockwise'):
    run = functools.partial(attend, q, k, v, enc, window=5, is_causal=False)
    found = run(mask=of_kinds, backend=backend, block_sizes=(4, 8))
    np.testing.assert_allclose(found, run(mask=array, backend='dense'), atol=1e-6)


@pytest.mark.parametrize('backend', ['dense', 'blockwise'])
def test_keys_may_be_of_another_sequence_where_no_position_counts(backend):
  """Keys are given as they are, without empty places for queries."""
  draw = np.random.default_rng(0).standard_normal
  q, k, v = (jnp.asarray(draw((2, T, 4, 8)), jnp.float32) for T in (5, 9, 9))
  enc = make('nope', **vars(DIMS) | {'kv_heads': 4}, rngs=nnx.Rngs(0))
  found = attend(q, k, v, enc, is_causal=False, backend=backend, block_sizes=(2, 4))
  np.testing.assert_allclose(found, jax.nn.dot_product_attention(q, k, v), atol=2e-6)


# Tokens of two pairs of sequences by the recipe of docs/attend.md for cross-attention: first keys,
# then queries; of each its pair and its position, which lets keys lie ahead of queries.
KEYS = 5
PAIRS = np.array([0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 1])
PLACES = np.array([0, 4, 8, 0, 4, 0, 3, 0, 3, 6, 9])


def across(enc, x_BSD, positions, keys: int, mask_ids=None, weights=None, **options):
  """Attention of the tokens behind `keys` others to these, as the page has it; with `mask_ids`, as
  it says of rows of several pairs.
  """
  weights = inputs()[1] if weights is None else weights
  page = (REPOSITORY / 'docs' / 'attend.md').read_text()
  (recipe,) = re.findall(r'(def across\(.*?)\n\n', page, re.DOTALL)
  if mask_ids is not None:
    (of_pairs,) = re.findall(r'`mask=(lambda i, j, a, b: .*? & \(j < S\))`', page)
    recipe = recipe.replace('lambda i, j: j < S', of_pairs)
  own_attend = functools.partial(attend, x=x_BSD, mask_ids=mask_ids, **options)
  names = {'jnp': jnp, 'enc': enc, 'attend': own_attend}
  exec(recipe, names)
  q, k, v = (jnp.einsum('bsd,dhk->bshk', x_BSD, weights[n]) for n in 'qkv')
  positions = positions_of(enc, positions[None])[0]
  ends = positions[:keys], positions[keys:]
  return names['across'](q[:, keys:], k[:, :keys], v[:, :keys], *ends)


@pytest.mark.parametrize('name', [name for name in ENCODINGS if declared(name).causal_only])
def test_what_is_for_causal_attention_alone_meets_no_keys_of_another_sequence(name):
  x, enc = inputs()[0], declared(name)
  kind = type(enc).__name__
  alone = f'{kind} reads the scores of all'
  if not enc.needs_all_queries:
    part = next(type(part).__name__ for part in enc.parts() if part.causal_only)
    alone = f'{kind if part == kind else f"{part} (in {kind})"} is defined for causal attention'
  with pytest.raises(ValueError, match=re.escape(alone)):
    jax.eval_shape(lambda enc: across(enc, x, 2 * np.arange(S), KEYS), enc)


def is_served(enc: Encoding) -> bool:
  """Whether an encoding reads no more than queries, keys, and positions and inputs of a layer."""
  reads_more = enc.causal_only or enc.needs_num_visible or enc.needs_all_queries
  return not (
    reads_more or any(map(enc.has, ('add_to_input', 'sample_positions', 'initial_state')))
  )


SERVED = [name for name in (*ENCODINGS, 't5_bidirectional') if is_served(declared(name))]
DAILY_SERVED = ('t5_bidirectional', 'axial_rope', 'kv_shift', 'xsa')


@pytest.mark.parametrize(
  'name', [pytest.param(name, marks=daily_if(name in DAILY_SERVED, 'ci')) for name in SERVED]
)
def test_keys_of_another_sequence_are_those_of_the_oracle(name):
  """But for `xsa`, which does nothing there."""
  enc, (x, weights, _) = build(name), inputs()
  positions = np.concatenate([4 * np.arange(KEYS), 3 * np.arange(S - KEYS)])
  found = jax.jit(across, static_argnames='keys')(enc, x, positions, keys=KEYS)
  known = 'nope' if name == 'xsa' else name
  w, x64 = jax.tree.map(lambda a: np.asarray(a, np.float64), (weights, x))
  options = {'T': S - KEYS, 'is_causal': False, 'mask': np.arange(S)[None, None] < KEYS}
  p, positions = parameters(build(known)), np.stack([positions] * B)
  close(found, expected(known, p, w, x64, position_ids=positions, **options))


@pytest.mark.parametrize('name', ['t5_bidirectional', 'axial_rope', 'kv_shift'])
def test_keys_of_another_sequence_in_tiles_are_those_of_the_oracle(name):
  """With all gradients."""
  positions = np.concatenate([4 * np.arange(KEYS), 3 * np.arange(S - KEYS)])
  options = {'T': S - KEYS, 'is_causal': False, 'mask': np.arange(S)[None, None] < KEYS}
  options['position_ids'] = np.stack([positions] * B)

  def recipe(enc, weights, x, *, backend, block_sizes, **_):
    tiles = dict(backend=backend, block_sizes=block_sizes)
    return across(enc, x, positions, KEYS, weights=weights, **tiles)

  check_with_oracle(name, options, 'blockwise', TILES['blockwise'], layer=recipe)


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=daily_if(name in ('rope', 'key_offset'), 'ci'))
    for name in SERVED
    if name != 'ultravico'  # it counts places
  ],
)
def test_pairs_of_sequences_in_a_row_are_as_alone(name):
  """But for what reads the key before each, as the page says."""
  enc, x = build(name), inputs()[0]

  @jax.jit
  def together_and_alone(enc, x):
    alone = []
    for n in (0, 1):
      is_own = np.equal(PAIRS, n)
      alone.append(across(enc, x[:, is_own], PLACES[is_own], int(is_own[:KEYS].sum())))
    return across(enc, x, PLACES, KEYS, PAIRS[None]), alone

  together, alone = together_and_alone(enc, x)
  of_second = np.abs(together[:, PAIRS[KEYS:] == 1] - alone[1]).max()
  close(together[:, PAIRS[KEYS:] == 0], alone[0])
  assert of_second > 1e-2 if name in ('key_offset', 'kv_shift') else of_second < 2e-5


@pytest.mark.ci
def test_what_does_not_tell_left_from_right_is_listed():
  """Of a text read backwards, and of one in any order, outputs of layers without a causal mask."""
  page = ' '.join((REPOSITORY / 'ENCODINGS.md').read_text().split())
  (listed,) = re.findall(r'these do not tell left from right.*?: (.*?) knows no order', page)
  even, no_order = (set(re.findall(r'`(\w+)`', part)) for part in listed.split('; and '))
  x, weights, _ = inputs()
  backwards, anew = np.arange(S)[::-1], np.random.default_rng(0).permutation(S)

  @jax.jit
  def changes(enc):
    """How far outputs are from those of the same tokens in each other order, put back."""
    of = functools.partial(layer, enc, weights, backend='dense', is_causal=False)
    return [jnp.abs(of(x[:, order]) - of(x)[:, order]).max() for order in (backwards, anew)]

  found = {}
  for name in ENCODINGS:
    if not declared(name).causal_only and name not in ('chain', 'heads'):
      found[name] = [float(change) < 1e-4 for change in changes(build(name))]
  assert even == {name for name, same in found.items() if same == [True, False]}
  assert {'nope', 'sink'} <= no_order
  assert all(found[name] == [True, True] for name in no_order)


# What `docs/attend.md` says of branches that hide each other: who reads what a mask hides.
BRANCHES_MEET = {
  *('kv_shift', 'key_offset', 'path', 'selective_rope', 'fox', 'cable', 'wall', 'carope'),
  *('grape_m_context', 'mta', 'selective', 'dape_v2', 'ultravico', 'hyperbolic_rope'),
  'jordan_rope',
}
OF_VISIBLE_KEYS = {'cope', 'stick_breaking', 'grape_ap', 'row_gates'}


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(n, marks=daily_if(n in ('kv_shift', 'fox', 'cope', 't5'), 'ci'))
    for n in ENCODINGS
    if n != 'chain'
  ],
)
def test_branches_that_hide_each_other_are_as_alone_but_for_those_that_are_named(name):
  enc, (x, weights, _) = build(name), inputs()
  root, of_each = 3, 4
  seen, own = np.ones((1, S, S), bool), np.r_[:root, root + of_each : S]
  seen[:, root + of_each :, root : root + of_each] = False
  ids = np.r_[: root + of_each, root : root + of_each][None]

  @jax.jit
  def run(enc, x, ids, mask):
    options = dict(mask=mask, max_position_distance=S, backend='dense')
    return layer(enc, weights, x, position_ids=ids, **options)

  there = run(enc, x, ids, seen)[:, root + of_each :]
  alone = run(enc, x[:, own], ids[:, own], np.ones((1, len(own), len(own)), bool))[:, root:]
  if name in BRANCHES_MEET:
    assert name in ('hyperbolic_rope', 'jordan_rope') or np.isfinite(there).all()
    assert not np.abs(there - alone).max() < 1e-2
  else:
    close(there, alone)


def test_the_page_names_who_reads_what_a_mask_hides():
  page = (REPOSITORY / 'docs' / 'attend.md').read_text()
  said = page.partition('*What a mask does not hide.*')[2].partition('*Cross-attention*')[0]
  found = {*re.findall('`([a-z_0-9]+)`', said)}
  assert found & {*ENCODINGS} == BRANCHES_MEET | OF_VISIBLE_KEYS


def test_a_function_tells_masks_apart():
  """The same function is the same static argument of a compiled program, a new one is another."""
  keep = lambda i, j: j < 5
  assert Mask(function=keep) == Mask(function=keep)
  assert hash(Mask(function=keep)) == hash(Mask(function=keep))
  assert Mask(function=keep) != Mask(function=lambda i, j: j < 5)
