"""Laws over every encoding x every way of attending x every backend: values and gradients.

The oracle is tests/oracles.py (float64 loops over pairs). Its gradients are central differences in
float64, along one random direction in the inputs and one in each parameter of the encoding.
"""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from kinds import daily_if, representatives
from oracles import RECORDS, attention_layer

from posenc_jax import target
from posenc_jax.attention import attend
from posenc_jax.attention.tiled.carry import RowCarry
from posenc_jax.attention.tiled.distance_readers import GatherDistance, ToeplitzDistance
from posenc_jax.attention.tiled.distance_tables import Scalars, is_table, read_terms, spread
from posenc_jax.attention.tiled.tile import ScoreTile
from posenc_jax.encodings import ENCODINGS, Dims, Encoding, make
from posenc_jax.encodings.core import chain_checks
from posenc_jax.encodings.core.base import DECLARED, DISTANCE_TERMS, HOOKS, MASKED, PLACES_OF_PAIRS
from posenc_jax.encodings.core.position_wrapper import OWN, PositionWrapper
from posenc_jax.encodings.core.temperature import Temperature
from posenc_jax.inspection.laws import LAWS, check_laws, layer, positions_of

DIMS = Dims(model_dim=12, heads=4, kv_heads=2, head_dim=8, train_length=40)
B, S = 2, 11
SHIFT = 29  # the last position stays inside a learned table of 40 rows

VARIANTS = {name: (name, record.hyper) for name, record in RECORDS.items()} | {
  f'{name}_{suffix}': (name, hyper)
  for name, record in RECORDS.items()
  for suffix, hyper in record.variants.items()
}
# Chains of different kinds of members: under every law, in several modes.
CHAINS = tuple(v for v, (name, _) in VARIANTS.items() if name in ('chain', 'heads'))
SECOND_CHAINS = [v for v in CHAINS if v not in ('chain', 'heads')][1::2]

SEGMENTS = np.array([[0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1], [3, 3, 3, 3, 3, 3, 3, 3, 5, 5, 6]])
SCATTERED = np.array(
  [[0, 2, 3, 7, 8, 9, 15, 16, 30, 31, 39], [5, 6, 7, 8, 10, 11, 12, 20, 21, 22, 23]]
)
MODES = {
  'causal': {},
  'bidirectional': {'is_causal': False},
  'window': {'window': 4},
  'both_sides_window': {'is_causal': False, 'window': 3},
  'packed': {'segment_ids': SEGMENTS},
  'both_sides_packed': {'is_causal': False, 'segment_ids': SEGMENTS},
  'positions': {'position_ids': SCATTERED},
  'both_sides_positions': {'is_causal': False, 'position_ids': SCATTERED},
  'last_queries': {'T': 3},
  'both_sides_last_queries': {'T': 3, 'is_causal': False},
  'float_positions': {'position_ids': SCATTERED[:, ::-1] / 4 - 2.3},
  'softcap': {'softcap': 0.7},
}
MASKS = {
  'chunk': {'chunk': 4},
  'both_sides_chunk': {'is_causal': False, 'chunk': 3, 'window': 3},
  'sink_tokens': {'window': 3, 'sink_tokens': 2},
  'prefix': {'prefix': 6, 'window': 4},
  'prefix_sinks': {'prefix': 3, 'chunk': 4, 'sink_tokens': 3},
  'packed_chunk': {'segment_ids': SEGMENTS, 'chunk': 3},
  'packed_sinks': {'segment_ids': SEGMENTS, 'window': 2, 'sink_tokens': 1},
  'packed_prefix': {'segment_ids': SEGMENTS, 'prefix': 3},
  'last_queries_sinks': {'T': 3, 'window': 3, 'sink_tokens': 2},
}
MODES |= MASKS
# every kind of hook: in modes that only mask anew
OF_MASKS = ('nope', 't5', 'shaw', 'cope', 'tupe', 'dape', 'chain', 'sink')
WITHIN_TILES = ('nope', 'shaw', 'cope')  # of them, what acts there each in its way
# Modes that say of them what they say of another one.
SAID_ELSEWHERE = {
  'shaw': ('both_sides_window', 'softcap'),
  'sink': ('both_sides_window', 'last_queries'),
}
# What some carry along the keys passes by tokens that a mask hides; others see what is left.
ACROSS_GAPS = ('path', 'fox', 'stick_breaking')
# (3, 5) elsewhere: nothing divides anything
TILES = {
  'causal': (2, 8),
  'packed': (4, 4),
  'last_queries': (2, 4),
  'both_sides_last_queries': (2, 4),
  'sink_tokens': (2, 4),
  'prefix_sinks': (2, 2),
  'last_queries_sinks': (2, 2),
}


def make_variant(variant: str, seed: int = 0):
  name, hyper = VARIANTS[variant]
  return make(name, **dataclasses.asdict(DIMS), rngs=nnx.Rngs(seed), **hyper)


@functools.cache
def declared(variant: str):
  """The encoding without the numbers in it, which take most of the time to make."""
  return nnx.eval_shape(lambda: make_variant(variant))


def build(variant: str, seed: int = 0):
  """The encoding with every parameter away from its initial value, so that no term is small."""
  return jax.tree.map(lambda leaf: leaf, _built(variant, seed))  # a copy, which a test may change


@functools.cache
def _built(variant: str, seed: int):
  return _away(make_variant(variant, seed), seed)


def _away(enc, seed: int):
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    # by NumPy, which compiles nothing
    lambda p: jnp.asarray(np.asarray(p) + 0.4 * rng.standard_normal(p.shape), jnp.float32),
    enc,
  ).constrain_parameters()


def declares_anew(variant: str) -> bool:
  """Whether a variant is no encoding that declares all that it does with other hyperparameters."""
  if variant in ENCODINGS or variant in CHAINS:
    return True
  of_both = []
  for enc in (declared(variant), declared(VARIANTS[variant][0])):
    of_both.append([getattr(enc, name) for name in DECLARED] + [enc.has(hook) for hook in HOOKS])
  return of_both[0] != of_both[1]


def marks_of(variant: str) -> tuple:
  """None of an encoding; `ci` of one with other hyperparameters, and of what is made of several."""
  return daily_if(variant in ENCODINGS, 'ci')


DECLARING = [
  pytest.param(v, marks=marks_of(v) if declares_anew(v) else daily_if(False)) for v in VARIANTS
]


def backends_of(variant: str) -> tuple[str, ...]:
  """The backends of one device that take an encoding: those of tiles do not see whole rows."""
  return ('dense',) if declared(variant).normalizer == 'rows' else ('dense', 'blockwise')


# The encoding inside a wrapper does the rest in any mode.
WRAPPERS = tuple(name for name in ENCODINGS if isinstance(declared(name), PositionWrapper))


def is_wanted(variant: str, mode: str) -> bool:
  """Every encoding in every mode; what a hyperparameter changes does not depend on masks, so in one
  of two.
  """
  if declared(variant).causal_only and ('prefix' in MODES[mode] or 'is_causal' in MODES[mode]):
    return False
  if declared(variant).needs_all_queries and 'T' in MODES[mode]:
    return False
  if variant in CHAINS and declared(variant).takes_carried_positions and mode == 'positions':
    return False  # at the input alone, which a test of test_carried_positions.py is about
  if mode == 'softcap':  # after all that an encoding does
    return variant in OF_MASKS
  if mode == 'float_positions':
    is_meant = variant in ENCODINGS or variant == 'alibi_plane'
    return is_meant and declared(variant).position_kind == 'floats'
  if variant in ENCODINGS and variant not in WRAPPERS:
    of_few = ('both_sides_window', 'last_queries', 'both_sides_last_queries')
    return mode not in of_few or variant in OF_MASKS
  if variant in CHAINS:
    return mode in ('causal', 'packed', 'positions')
  return mode == ('positions' if declared(variant).causal_only else 'bidirectional')


CASES = [(variant, mode) for variant in VARIANTS for mode in MODES if is_wanted(variant, mode)]
# The mode that says most of a variant, of those that it has.
ONE_MODE = {
  variant: next(m for m in ('positions', 'causal', 'bidirectional') if (variant, m) in CASES)
  for variant in VARIANTS
}


@functools.cache
def inputs():
  rng = np.random.default_rng(1)
  normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)
  D, H, G, K = DIMS.model_dim, DIMS.heads, DIMS.kv_heads, DIMS.head_dim
  weights = {'q': normal(D, H, K), 'k': normal(D, G, K), 'v': normal(D, G, K)}
  return (
    normal(B, S, D),
    {n: w / np.sqrt(D, dtype=np.float32) for n, w in weights.items()},
    normal(B, S, H, K),
  )


def cotangent_of(enc):
  """The cotangent of the output of an encoding, whatever the heads that it makes."""
  return np.repeat(inputs()[2], enc.heads_out_per_head, axis=2)


def attend_with(enc, weights, x_BSD, position_ids):
  q, k, v = (jnp.einsum('bsd,dhk->bshk', x_BSD, weights[n]) for n in 'qkv')
  return attend(q, k, v, enc, x=x_BSD, outer_hooks_applied=True, position_ids=position_ids)


def expected(
  variant,
  enc_parameters,
  weights,
  x_BSD,
  *,
  T=S,
  position_ids=None,
  segment_ids=None,
  is_causal=True,
  window=None,
  chunk=None,
  sink_tokens=0,
  prefix=0,
  mask=None,
  softcap=None,
  with_lse=False,
):
  name, hyper = VARIANTS[variant]
  segments = np.zeros((B, S), int) if segment_ids is None else segment_ids
  index = np.stack([[s - list(row).index(row[s]) for s in range(S)] for row in segments])
  n = declared(variant).positions_per_token
  if position_ids is not None:
    position_ids = np.asarray(positions_of(declared(variant), position_ids))
  else:
    position_ids = index if n == 1 else np.stack([index] * n, axis=-1)
  seen = np.zeros((B, T, S), bool)
  for b, t, s in np.ndindex(B, T, S):
    i, j = index[b, S - T + t], index[b, s]
    same = segments[b, S - T + t] == segments[b, s]
    in_order = j <= i or j < prefix or not is_causal
    near = window is None or abs(i - j) < window
    in_chunk = chunk is None or i // chunk == j // chunk
    seen[b, t, s] = same and in_order and ((near and in_chunk) or j < sink_tokens)
    if callable(mask):
      seen[b, t, s] &= mask(i, j)
  if mask is not None and not callable(mask):
    seen &= mask
  oracle = RECORDS[name].oracle(DIMS, hyper, enc_parameters)
  return attention_layer(oracle, weights, x_BSD, position_ids, seen, softcap, with_lse)


def parameters(enc) -> dict[str, np.ndarray]:
  leaves = jax.tree_util.tree_flatten_with_path(enc)[0]
  name = lambda path: jax.tree_util.keystr(path[:-1], simple=True, separator='.')
  return {name(path): np.asarray(leaf, np.float64) for path, leaf in leaves}


def close(actual, desired, tolerance=2e-5):
  """Equal to float32 rounding, relative to the largest entry: a sum of products cannot do better
  entry by entry.
  """
  desired = np.asarray(desired)
  size = np.abs(desired[~np.isnan(desired)]).max(initial=1.0)
  np.testing.assert_allclose(actual, desired, rtol=0, atol=tolerance * size)


def acts_within_tiles(variant: str) -> bool:
  places = {'scores', 'values of pairs', 'softmax', 'weights'}
  return not places.isdisjoint(declared(variant).acts_on())


def is_daily(variant: str) -> bool:
  """Whether a variant is one that the suite of every day, or `.ci/run`, looks at closely."""
  return variant in representatives() or variant in ('chain', 'heads')


def test_representatives_have_what_changes_shapes_or_what_is_seen():
  chosen = [declared(name) for name in representatives()]
  for name in (
    *('positions_per_token', 'qk_width_factor', 'heads_out_per_head', 'added_value_channels'),
    *('scans_keys', 'normalizer', 'needs_inputs', 'needs_all_queries', 'causal_only'),
    *('hides_keys', 'max_length', 'relative'),
  ):
    assert any(getattr(enc, name) != getattr(Encoding, name) for enc in chosen), name
  assert {*HOOKS.values()} - {None} == {place for enc in chosen for place in enc.acts_on()}


def marks_of_law(variant: str, declaration: str) -> tuple:
  """The marks of a law that asks little of what does not declare this: every day it is asked of the
  encodings that do, and of those that are looked at closely.
  """
  asks_much = is_daily(variant) or getattr(declared(variant), declaration)
  if variant not in ENCODINGS:
    return daily_if(False, 'ci' if asks_much else 'slow')
  return daily_if(asks_much, 'ci')


def is_quick(variant: str, mode: str, backend: str) -> bool:
  """Whether a case is quick: `pytest -m slow` has the gradients of the others.

  Representatives that act within tiles, and what does so each in its way, meet the modes on
  `blockwise`, but for windows and what another one meets. Of the others, what acts within tiles
  meets `blockwise` once; what acts outside of them, other hyperparameters, and positions that are
  no integers meet `dense`, since tiles know nothing of them; `axial_rope` brings them several a
  token. Packed rows are met by every representative that is no wrapper; of these `bipe` meets every
  law. A plain score meets all masks, and one that is carried along the keys those that leave gaps.
  """
  if mode in MASKS:
    carried = ('cope',) if mode in ('sink_tokens', 'packed_chunk') else ()
    across = ACROSS_GAPS if mode == 'sink_tokens' else ()
    return variant in (('nope',) if backend == 'dense' else ('nope', *carried, *across))
  if mode == 'float_positions':
    return backend == ('blockwise' if variant == 'axial_rope' else 'dense')
  if mode == 'both_sides_positions':
    return (variant, backend) == ('shaw', 'blockwise')
  if mode == 'both_sides_last_queries':
    return variant in ('shaw', 't5') and backend == 'blockwise'
  if mode == 'both_sides_packed':
    return (variant, backend) in (('shaw', 'blockwise'), ('key_offset', 'dense'))
  if mode == 'packed':
    is_meant = is_daily(variant) or variant in (*ACROSS_GAPS, 'nope')
    return is_meant and backend == backends_of(variant)[-1]
  if mode in SAID_ELSEWHERE.get(variant, ()):
    return False
  if (variant in representatives() and acts_within_tiles(variant)) or variant in WITHIN_TILES:
    if backend == 'dense' and 'blockwise' in backends_of(variant):
      return mode == 'causal'
    return variant in WITHIN_TILES or mode != 'window'
  tiles = variant in CHAINS or (variant in ENCODINGS and acts_within_tiles(variant))
  wanted = 'causal' if variant in ENCODINGS else ONE_MODE[variant]
  return (mode, backend) == (wanted, backends_of(variant)[-1] if tiles else 'dense')


def has_quick_gradients(variant: str, mode: str, backend: str) -> bool:
  """Whether `.ci/run` has the gradients of a case: on `dense` causally alone, and of encodings with
  parameters, since there jax derives them from what computes the values. Of several encodings as
  one, every second combination has them.
  """
  if not is_quick(variant, mode, backend):
    return False
  if backend == 'dense':
    return mode == 'causal' and bool(jax.tree.leaves(declared(variant)))
  return variant not in SECOND_CHAINS


def marks_of_gradients(variant: str, mode: str, backend: str) -> tuple:
  """Every day has those that are quick causally, on one backend; in tiles also those of a plain
  score and of vectors by distance in all modes, and two of what is carried along the keys.
  """
  if not has_quick_gradients(variant, mode, backend):
    return daily_if(False)
  if marks_of(variant):
    return marks_of(variant)
  is_tiled = has_quick_gradients(variant, mode, 'blockwise')
  is_first = mode == 'causal' and (backend == 'blockwise' or not is_tiled)
  across_gaps = (variant, mode) in (('cope', 'packed'), ('stick_breaking', 'sink_tokens'))
  is_tiles_alone = (variant in ('nope', 'shaw') or across_gaps) and backend == 'blockwise'
  return daily_if(is_first or is_tiles_alone, 'ci')


@pytest.mark.parametrize(
  ('variant', 'mode', 'backend'),
  [
    pytest.param(*case, backend, marks=marks_of_gradients(*case, backend))
    for case in CASES
    for backend in backends_of(case[0])
  ],
)
def test_equal_to_the_oracle(variant, mode, backend):
  """Values and gradients of dense, and of blockwise in tiles with ragged ends, causally beside the
  values of dense; no parameter is without a gradient.
  """
  block_sizes = TILES.get(mode, (3, 5)) if backend == 'blockwise' else None
  compared = ('dense',) if backend != 'dense' and mode == 'causal' else ()
  gradients = check_with_oracle(variant, MODES[mode], backend, block_sizes, compared)
  assert all(np.abs(leaf).max() > 1e-4 for leaf in gradients.values())


@pytest.mark.ci
@pytest.mark.parametrize(
  ('variant', 'backend'),
  [(v, backend) for v in VARIANTS if declares_anew(v) for backend in backends_of(v)],
)
def test_a_program_that_has_float64_gets_float32(variant, backend):
  """Under `jax_enable_x64` no array of attention or of its gradient is float64; the outputs of what
  hyperparameters do not change are those without it.
  """
  enc, (x, weights, _) = build(variant), inputs()
  block_sizes = (3, 5) if backend == 'blockwise' else None
  options = {'backend': backend, 'block_sizes': block_sizes, **MODES[ONE_MODE[variant]]}
  if 'position_ids' in options:
    options['position_ids'] = jnp.asarray(options['position_ids'], jnp.int32)
  run = jax.jit(lambda *args: layer(*args, **options))
  loss = lambda *args: (run(*args) * cotangent_of(enc)).sum()
  with jax.enable_x64(True):
    program = jax.make_jaxpr(jax.value_and_grad(loss, argnums=(0, 1, 2)))(enc, weights, x)
    found = run(enc, weights, x) if is_daily(variant) else None
  assert not re.findall(r'f64\[\d.*?\]', str(program))
  assert {str(shape.dtype) for shape in program.out_avals} == {'float32'}
  if found is not None:
    assert found.dtype == np.float32
    close(found, run(enc, weights, x))


def test_declared_terms_are_float32_in_a_program_that_has_float64():
  distances = jax.ShapeDtypeStruct((7,), jnp.int32)
  found = {}
  with jax.enable_x64(True):
    for variant in VARIANTS:
      enc = declared(variant)
      for hook in filter(enc.has, DISTANCE_TERMS):
        call = lambda enc, r_R, hook=hook: getattr(enc, hook)(r_R)
        found[variant, hook] = str(jax.eval_shape(call, enc, distances).dtype)
  assert ('alibi_spread', 'bias') in found
  assert [key for key, dtype in found.items() if dtype != 'float32'] == []


@pytest.mark.parametrize(
  'variant',
  [
    pytest.param(v, marks=daily_if(v in ('kv_shift', 'cope', 'cape'), 'ci'))
    for v in VARIANTS
    if declares_anew(v)
  ],
)
def test_no_dtype_is_promoted_unless_it_is_said(variant):
  """Programs with `jax_numpy_dtype_promotion='strict'` may have every encoding."""
  enc, (x, weights, _) = declared(variant), inputs()
  backend = backends_of(variant)[-1]
  block_sizes = (3, 5) if backend == 'blockwise' else None

  def loss(enc, weights, x, key):
    drawn = []
    if enc.has('sample_positions'):
      drawn.append(enc.sample_positions(jnp.arange(S)[None], B, key))
    return layer(enc, weights, x, backend=backend, block_sizes=block_sizes).sum(), drawn

  with jax.numpy_dtype_promotion('strict'):
    gradients = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)
    jax.eval_shape(gradients, enc, weights, x, jax.random.key(0))


def test_structures_can_be_static_under_jit():
  for variant in VARIANTS:
    hash(nnx.split(declared(variant))[0])


PAIRS = [v for v in VARIANTS if declared(v).rotates_qk and hasattr(declared(v), 'layout')]


@pytest.mark.parametrize(
  'variant',
  [
    pytest.param(
      v,
      marks=daily_if(v == 'carope_interleaved', 'ci' if v in ('rope_partial', 'xpos') else 'slow'),
    )
    for v in PAIRS
  ],
)
def test_pairs_that_a_tpu_turns_are_equal_to_the_oracle(variant, monkeypatch):
  """Values and gradients of the form that is traced for a TPU, computed here."""
  monkeypatch.setattr(target, 'platform', lambda: 'tpu')
  check_with_oracle(variant, MODES['causal'], 'dense')


def check_with_oracle(
  variant, options, backend, block_sizes=None, compared=(), layer=layer
) -> dict:
  """Checks values and gradients of a backend, and the values of those that are `compared`.

  Args:
    layer: computes what `expected` says, with one channel more where `options` have `with_lse`.
  Returns:
    The gradients of the encoding's parameters.
  """
  enc, (x, weights, _) = build(variant), inputs()
  cotangent = cotangent_of(enc)[:, : options.get('T', S)]
  if options.get('with_lse'):
    cotangent = np.concatenate([cotangent, cotangent[..., ::-1][..., :1]], axis=3)

  def loss(*args):
    out = layer(*args, backend=backend, block_sizes=block_sizes, **options)
    return (out * cotangent).sum(), [
      out,
      *(layer(*args, backend=other, **options) for other in compared),
    ]

  (g_enc, g_w, g_x), outputs = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(
    enc, weights, x
  )
  double = lambda tree: jax.tree.map(lambda a: np.asarray(a, np.float64), tree)
  p, w, x64 = parameters(enc), double(weights), double(x)
  desired = expected(variant, p, w, x64, **options)

  rng = np.random.default_rng(2)
  way_w = jax.tree.map(lambda a: rng.standard_normal(a.shape), w)
  way_x = rng.standard_normal(x.shape)
  step = 1e-6
  moved = lambda sign: expected(
    variant,
    p,
    jax.tree.map(lambda a, d: a + sign * step * d, w, way_w),
    x64 + sign * step * way_x,
    **options,
  )
  slope = lambda plus, minus: ((plus - minus) * cotangent).sum() / (2 * step)
  desired_slopes = {'inputs': slope(moved(1), moved(-1))}
  way = {n: rng.standard_normal(p[n].shape) for n in p}
  for n in p:
    turned = lambda sign, n=n: expected(
      variant, p | {n: p[n] + sign * step * way[n]}, w, x64, **options
    )
    desired_slopes[n] = slope(turned(1), turned(-1))

  for out in outputs:
    close(out, desired)
  g = parameters(g_enc)
  slopes = {n: (g[n] * way[n]).sum() for n in g}
  slopes['inputs'] = (g_x * way_x).sum() + sum((g_w[n] * way_w[n]).sum() for n in 'qkv')
  for n, value in slopes.items():
    size = (
      np.linalg.norm(g[n])
      if n in g
      else np.sqrt((g_x**2).sum() + sum((g_w[n] ** 2).sum() for n in 'qkv'))
    )
    assert abs(value - desired_slopes[n]) < 2e-5 * max(1.0, size), (n, value, desired_slopes[n])
  return g


@pytest.mark.parametrize(
  ('variant', 'mode'),
  [
    pytest.param(*case, marks=marks_of(case[0]))
    for case in CASES
    if (is_quick(*case, 'dense') and not has_quick_gradients(*case, 'dense'))
    or (case[0] in SECOND_CHAINS and is_quick(*case, backends_of(case[0])[-1]))
  ],
)
def test_values_of_dense_are_those_of_the_oracle(variant, mode):
  """The test above has their gradients too, where its case is `slow`."""
  enc, (x, weights, _), options = build(variant), inputs(), MODES[mode]
  run = jax.jit(functools.partial(layer, backend='dense', **options))
  w, x64 = jax.tree.map(lambda a: np.asarray(a, np.float64), (weights, x))
  close(run(enc, weights, x), expected(variant, parameters(enc), w, x64, **options))


# Neither in order nor different nor, but where a table holds them, at least 0.
UNSORTED = np.array(
  [[4, 4, 9, -3, 17, 17, -21, 2, 30, -3, 5], [3, 8, 8, 12, -6, 25, 1, 0, -17, 33, 7]]
)
OF_TABLES = ('learned', 'tupe', 'bipe', 'abacus', 'position_coupling', 'diet_abs')
NAN_FROM_A_FALL_ON = ('hyperbolic_rope', 'jordan_rope')  # as their `limit` says


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(n, marks=daily_if(n in ('dca', 'goat', 'relative_projection', 't5'), 'ci'))
    for n in ENCODINGS
    if declared(n).position_kind is not None
  ],
)
def test_positions_in_any_order_are_those_of_the_oracle(name):
  """Under the causal mask, which goes by index. What the formula leaves open is NaN."""
  enc, (x, weights, _) = build(name), inputs()
  position_ids = np.abs(UNSORTED) if name in OF_TABLES else UNSORTED
  w, x64 = jax.tree.map(lambda a: np.asarray(a, np.float64), (weights, x))
  desired = expected(name, parameters(enc), w, x64, position_ids=position_ids)
  if name in NAN_FROM_A_FALL_ON:
    desired[0, 3:] = desired[1, 4:] = np.nan
  for backend in backends_of(name):
    options = dict(backend=backend, block_sizes=(3, 5) if backend == 'blockwise' else None)
    run = jax.jit(functools.partial(layer, position_ids=position_ids, **options))
    close(run(enc, weights, x), desired)


@pytest.mark.parametrize(
  'variant',
  [
    pytest.param(v, marks=daily_if(False, 'ci' if v in ('bipe', 'cope', 'learned') else 'slow'))
    for v in dict.fromkeys((*ENCODINGS, *CHAINS, 't5_bidirectional', 'deberta_p2c'))
  ],
)
def test_what_is_checked_of_own_encodings_holds_of_each(variant):
  """And no law is left out that applies."""
  enc = declared(variant)
  verdicts = check_laws(build(variant))
  assert [verdict.law for verdict in verdicts] == [*LAWS]
  assert [str(verdict) for verdict in verdicts if verdict.holds is False] == []
  left_out = {verdict.law for verdict in verdicts if verdict.holds is None} - {'kernel'}
  expected = {'tiles': 'blockwise' not in backends_of(variant), 'shift': not enc.relative}
  assert left_out == {law for law, is_expected in expected.items() if is_expected}


# As much of each encoding as laws of what attention reads have.
READING = (*dict.fromkeys((*ENCODINGS, *CHAINS)), 'shaw_clipped')


@pytest.mark.parametrize('variant', READING)
def test_a_shift_of_all_positions_changes_nothing_where_relative(variant):
  """By the oracle: what attention computes is equal to it."""
  p, (x, weights, _) = parameters(build(variant)), inputs()
  positions = np.broadcast_to(np.arange(S), (B, S))
  here, there = (
    expected(variant, p, weights, x, T=4, position_ids=positions + shift) for shift in (0, SHIFT)
  )
  if declared(variant).relative:
    np.testing.assert_allclose(there, here, rtol=0, atol=1e-9)
  else:
    assert np.abs(there - here).max() > 1e-2


@pytest.mark.parametrize(
  'variant',
  [
    pytest.param(v, marks=daily_if(v in ('alibi', 'key_offset')))
    for v in READING
    # selective counts what all queries before took from a key
    if declared(v).relative and v != 'selective'
  ],
)
def test_the_oldest_token_of_a_full_cache_may_be_the_first_where_relative(variant):
  """As docs/attend.md has it for an own cache that rolls: it has a few tokens more than the window,
  for what keys have of tokens before them. Each row of a batch is the cache at another token,
  unfilled slots on the left.
  """
  window, size, tokens = 4, 10, 16
  enc, (_, weights, _) = build(variant), inputs()
  x_SD = np.random.default_rng(2).standard_normal((tokens, DIMS.model_dim)).astype(np.float32)
  padded = np.concatenate([np.zeros((size - 1, DIMS.model_dim), np.float32), x_SD])
  caches = np.stack([padded[t : t + size] for t in range(tokens)])
  is_filled = np.arange(tokens)[:, None] + np.arange(size)[None] >= size - 1
  T = size if enc.needs_all_queries else 1
  run = functools.partial(layer, window=window, backend='dense')
  whole, rolled = jax.jit(
    lambda enc: (
      run(enc, weights, x_SD[None]),
      run(enc, weights, caches, T=T, segment_ids=is_filled.astype(int)),
    )
  )(enc)
  close(rolled[:, -1], whole[0])


# What angles that tokens choose meet beside their differences.
ANGLES_THAT_ARE_READ = {
  'scores': ('carope', 'cope'),
  'distances': ('grape_m_context', {'name': 'shaw', 'max_distance': 3}),
  'products': ('selective_rope', 'coca'),
  'values': ({'name': 'carope', 'turn_values': True}, {'name': 'shaw', 'max_distance': 3}),
}


@pytest.mark.ci
@pytest.mark.parametrize('members', ANGLES_THAT_ARE_READ.values(), ids=ANGLES_THAT_ARE_READ)
def test_angles_that_tokens_choose_begin_anew_with_a_document(members):
  """A document of a packed row gets what it gets alone where others read turned channels, too."""
  enc = make('chain', **dataclasses.asdict(DIMS), rngs=nnx.Rngs(0), members=members)
  (verdict,) = check_laws(enc, tolerance=2e-5, laws=('packing',))
  assert verdict.holds, str(verdict)


@pytest.mark.parametrize(
  'variant',
  ['kv_shift', 'key_offset', 'path', 'selective_rope', 'fox', 'stick_breaking', 'selective', 'mta'],
)
def test_tokens_of_the_segment_before_are_not_read_at_positions_that_go_on(variant):
  """As where positions are sampled, and rise from one document to the next."""
  enc, (x, weights, _) = build(variant), inputs()
  run = functools.partial(layer, enc, weights, segment_ids=SEGMENTS, backend='dense')
  rising = {'position_ids': 3 * np.arange(S)[None], 'max_position_distance': 99}
  close(*jax.jit(lambda x: (run(x, **rising), run(x)))(x))


@pytest.mark.ci
@pytest.mark.parametrize('variant', ENCODINGS)
def test_no_document_of_a_packed_row_reads_another(variant):
  """Where positions begin anew with a document, and where they go on. That each gets what it gets
  alone, a law of `check_laws`, is `slow` for most encodings.
  """
  enc, (x, weights, _) = build(variant), inputs()
  first = SEGMENTS[:, :1] == SEGMENTS
  others = np.where(first[..., None], x + 1, x)

  def run(x, **positions):
    return layer(enc, weights, x, segment_ids=SEGMENTS, backend='dense', **positions)

  rising = {'position_ids': 3 * np.arange(S)[None], 'max_position_distance': 99}
  both = jax.jit(lambda x: (run(x), run(x, **rising)))
  for found, changed in zip(both(x), both(others), strict=True):
    close(found[~first], changed[~first])
    assert np.abs(found - changed)[first].max() > 1e-3


def test_a_run_of_equal_ids_is_a_segment():
  """The same number again, after another, is another segment, on every backend."""
  enc, (x, weights, _) = build('alibi'), inputs()
  ids = (np.arange(S) * 4 // S)[None] % 2
  runs = np.cumsum(np.pad(ids[:, 1:] != ids[:, :-1], ((0, 0), (1, 0))), axis=1)
  for backend in backends_of('alibi'):
    options = {'backend': backend, 'block_sizes': (4, 4)}
    run = jax.jit(lambda ids, options=options: layer(enc, weights, x, segment_ids=ids, **options))
    close(run(ids), run(runs))


def make_tile(enc, coordinates, positions, rows=slice(0, S), columns=slice(0, S), carried=None):
  """The tile of some rows and columns: with `positions`, distances are looked up."""
  index_distance = (np.arange(S)[:, None] - np.arange(S)[None])[rows, columns]
  T, n = index_distance.shape
  if positions is None:
    distance = jnp.asarray(index_distance)[None]
    first = index_distance[0, 0]
    reader = ToeplitzDistance(T, n)
    terms = jax.tree.map(
      lambda t: spread(t.values.T[:, ::-1], T, n)[None] if isinstance(t, Scalars) else t.values,
      read_terms(enc, jnp.arange(first - n, first + T)),
      is_leaf=is_table,
    )
  else:
    distance = positions[:, rows, None] - positions[:, None, columns]
    reader = GatherDistance.of_range(distance, -40, 40)
    terms = reader.terms_of_tile(read_terms(enc, jnp.arange(-40, 41)))
  mask = jnp.broadcast_to((index_distance >= 0) | (not enc.causal_only), distance.shape)
  zeros = [jnp.zeros((B, DIMS.heads, T, *shape)) for shape in enc.scans_keys]
  carry = RowCarry(tuple(zeros if carried is None else carried), is_rightmost=carried is None)
  i = jax.tree.map(lambda c: c[:, rows], coordinates)
  j = jax.tree.map(lambda c: c[:, columns], coordinates)
  return ScoreTile(i, j, jnp.asarray(index_distance), distance, mask, terms, reader, carry)


def tile_scores(enc, s_BHTS, q_BHTK, k_BGSK, tile):
  """The scores of a tile, as attention makes them before it masks."""
  s_BHTS = None if enc.recomputes_scores else s_BHTS
  s_BHTS = tile.add_score_terms(s_BHTS, q_BHTK, k_BGSK)
  return enc.score(s_BHTS, q_BHTK, k_BGSK, tile) if enc.has('score') else s_BHTS


def heads_first(enc, x, weights, positions):
  """(scaled products, transformed queries, transformed keys, coordinates) of the inputs."""
  q_BSHK, k_BSGK, _ = projections(x, weights)
  q_BHTK, k_BGSK, coordinates = _transformed(enc, q_BSHK, k_BSGK, x, positions)
  return _products(q_BHTK, k_BGSK, enc.scale(DIMS.head_dim)), q_BHTK, k_BGSK, coordinates


# Programs of their own, so that those which an encoding has are small.


@jax.jit
def projections(x, weights):
  """Queries, keys and values [B, S, heads, K] of the inputs."""
  return [jnp.einsum('bsd,dhk->bshk', x, weights[n]) for n in 'qkv']


@jax.jit
def _transformed(enc, q, k, x, positions):
  coordinates = enc.coordinates(
    x, positions_of(enc, positions), 1 + jnp.arange(S)[None], jnp.arange(S)[None]
  )
  q, k = enc.transform_qk(q, k, coordinates, coordinates)
  return q.swapaxes(1, 2), k.swapaxes(1, 2), coordinates


@jax.jit
def _products(q_BHTK, k_BGSK, scale):
  k_BHSK = jnp.repeat(k_BGSK, q_BHTK.shape[1] // k_BGSK.shape[1], axis=1)
  return scale * jnp.einsum('bhtk,bhsk->bhts', q_BHTK, k_BHSK)


@jax.jit
def scores_of_a_tile(enc, s, q, k, coordinates):
  """(scores of pairs, whether they are seen, gradients of their sum by queries and keys)."""
  mask = make_tile(enc, coordinates, None).mask[:, None]

  def sum_of_scores(q, k):
    scores = tile_scores(enc, s, q, k, make_tile(enc, coordinates, None))
    return jnp.where(scores == MASKED, 0, scores).sum(), scores

  gradients, scores = jax.grad(sum_of_scores, argnums=(0, 1), has_aux=True)(q, k)
  return scores, jnp.broadcast_to(mask, scores.shape), gradients


def adds_up_tiles(variant: str) -> bool:
  """Whether tiles of a row are one sum, or one carries to the next."""
  enc = declared(variant)
  return variant in ENCODINGS and bool(enc.scans_keys or enc.has('relative_values'))


@pytest.mark.parametrize(
  ('variant', 'mode'),
  [
    pytest.param(v, m, marks=daily_if(is_daily(v) or (m == 'contiguous' and adds_up_tiles(v))))
    for v in VARIANTS
    for m in ('contiguous', 'positions')
    if v in ENCODINGS or m != 'positions'
  ],
)
def test_scores_of_a_part_of_a_tile_are_that_part_of_its_scores(variant, mode):
  """Given what is carried from the right. The values of two halves of a row add up to its own.

  What the score carries has the shapes that the encoding declares.
  """
  enc = build(variant)
  if not {*PLACES_OF_PAIRS} & {*enc.acts_on()}:
    pytest.skip('acts before there are pairs')

  @jax.jit
  def parts_and_wholes(enc, x, weights):
    positions = jnp.asarray(SCATTERED) if mode == 'positions' else None
    ids = jnp.arange(S)[None] if positions is None else positions
    s, q, k, coordinates = heads_first(enc, x, weights, ids)
    tile = functools.partial(make_tile, enc, coordinates, positions)
    upper, left, right = slice(2, 7), slice(0, 4), slice(4, S)
    whole, scores, values, carried = tile(), [], [], None
    if 'scores' in enc.acts_on():
      full = tile_scores(enc, s, q, k, whole)
      for columns in (right, left):
        part = tile(upper, columns, carried)
        part_scores = tile_scores(
          enc, s[:, :, upper, columns], q[:, :, upper], k[:, :, columns], part
        )
        scores.append((part_scores, full[:, :, upper, columns]))
        carried = part.carry.totals
      shapes = tuple(total.shape[3:] for total in whole.carry.totals)
      assert shapes == tuple(map(tuple, enc.scans_keys))
    if enc.has('relative_values'):
      p = jax.nn.softmax(s)
      sums = [
        part.reader.sum_by_distance(p_part, part.terms['relative_values'])
        for p_part, part in (
          (p[:, :, upper, left], tile(upper, left)),
          (p[:, :, upper, right], tile(upper, right)),
          (p, whole),
        )
      ]
      values.append((sums[0] + sums[1], sums[2][:, :, upper]))
    return scores, values

  scores, values = parts_and_wholes(enc, *inputs()[:2])
  for part, whole in scores:
    np.testing.assert_array_equal(part == MASKED, whole == MASKED)
    close(*(jnp.where(score == MASKED, 0, score) for score in (part, whole)))
  for sums, whole in values:
    close(sums, whole)


def double_scale(enc):
  """Gives an encoding twice the scale that its class says."""
  twice = {'scale': lambda self, K: 2 * super(type(self), self).scale(K)}
  enc.__class__ = type('Twice', (type(enc),), twice)


@pytest.mark.parametrize(
  'variant',
  [
    pytest.param(v, marks=daily_if(is_daily(v) or (v in ENCODINGS and declared(v).has('score'))))
    for v in VARIANTS
  ],
)
def test_bias_is_in_the_scale_or_not_as_declared(variant):
  """With twice the scale twice as much is added where it is in the scale, else the same.

  In a chain, all members get twice the scale. Where some are in the scale and others not, neither
  is true of the sum; each member is a case of its own.
  """
  enc, (x, weights, _) = build(variant), inputs()
  if enc.bias_in_scale is None:
    assert not enc.has('bias')
    assert not enc.has('relative_keys')
    return

  def added(enc):
    s, q, k, coordinates = heads_first(enc, x, weights, np.arange(S)[None])
    return tile_scores(enc, jnp.zeros_like(s), q, k, make_tile(enc, coordinates, None))

  @jax.jit
  def once_and_twice(enc):
    once = added(enc)
    for member in getattr(enc, 'members', [enc]):
      double_scale(member)
    return once, added(enc)

  once, twice = once_and_twice(enc)
  members = getattr(enc, 'members', [enc])
  seen = once != MASKED
  assert np.abs(once[seen]).max() > 1e-2 or enc.hides_keys
  if len({member.bias_in_scale for member in members} - {None}) > 1:
    assert all(np.abs(twice - n * once)[seen].max() > 1e-2 for n in (1, 2))
  else:
    close(twice[seen], once[seen] * (2 if enc.bias_in_scale else 1))


@pytest.mark.parametrize(
  'variant',
  [
    pytest.param(v, marks=daily_if(is_daily(v) or (v in ENCODINGS and declared(v).needs_inputs)))
    for v in VARIANTS
  ],
)
def test_inputs_are_needed_as_declared(variant):
  """Without the layer's input attention says so, or does not need it."""
  enc, (x, weights, _) = build(variant), inputs()
  q, k, v = projections(x, weights)
  run = lambda x: attend(q, k, v, enc, x=x, backend='dense', outer_hooks_applied=True)
  if enc.needs_inputs:
    words = 'reads content: attention needs x, the normalized input of the layer'
    with pytest.raises(ValueError, match=f'^{type(enc).__name__} {words}$'):
      run(None)
    here, there = map(jax.jit(run), (x, 2 * x + 1))
    assert np.abs(here - there).max() > 1e-3
  else:  # it is one program, without the input among its arguments
    assert jax.jit(run).lower(None).as_text() == jax.jit(run).lower(x).as_text()


@pytest.mark.parametrize(
  'variant', [pytest.param(v, marks=daily_if(v in ENCODINGS)) for v in VARIANTS]
)
def test_positions_are_taken_as_declared(variant):
  """Floats, integers alone, or whatever they are if they are not read; values are laws above."""
  enc, (x, weights, _) = build(variant), inputs()
  run = lambda x, ids: layer(enc, weights, x, position_ids=ids, backend='dense')
  floats = positions_of(enc, MODES['float_positions']['position_ids'])
  at = lambda *places: jax.jit(lambda x: [run(x, ids) for ids in places])
  if enc.position_kind is None:  # the program is the same with any, and reads none
    places = (None, floats, np.stack([floats] * 3, axis=2))
    assert len({at(ids).lower(x).as_text() for ids in places}) == 1
    return
  if enc.takes_carried_positions:
    with pytest.raises(ValueError, match=r'^position_ids .*; allowed: None, for those of'):
      attend_with(enc, weights, x, SCATTERED)
    return
  allowed = (B, S, DIMS.kv_heads) if enc.takes_positions_per_head else floats.shape
  one_a_token = [(B, S)] if enc.positions_per_token > 1 else []
  for given in [(B, S, enc.positions_per_token + 2), *one_a_token]:
    shape = re.escape(f'{given}; allowed: {allowed}')
    with pytest.raises(ValueError, match=f'^position_ids has shape {shape}'):
      attend_with(enc, weights, x, np.zeros(given))
  if enc.position_kind == 'integers':
    part = next((part for part in enc.parts() if part.position_kind == 'integers'), enc)
    allowed = f'allowed: integers, for {type(part).__name__} takes no other$'
    with pytest.raises(ValueError, match=f'^position_ids has dtype float.*; {allowed}'):
      attend_with(enc, weights, x, floats)
  else:
    close(*at(1.0 * SCATTERED, SCATTERED)(x))


@pytest.mark.parametrize(
  'variant', [pytest.param(v, marks=marks_of_law(v, 'takes_positions_per_head')) for v in VARIANTS]
)
def test_positions_of_each_head_are_taken_as_declared(variant):
  """Heads that share keys are at the positions given for these; others refuse them."""
  enc, (x, weights, _) = build(variant), inputs()
  each_BSG = np.stack([SCATTERED, SCATTERED[:, ::-1] + 3], axis=2)
  if enc.takes_positions_per_head:

    @functools.partial(jax.jit, static_argnums=1)
    def run(position_ids, backend):
      options = {'position_ids': position_ids, 'max_position_distance': 40, 'backend': backend}
      return layer(enc, weights, x, **options)

    alone = [run(each_BSG[:, :, g], 'dense') for g in (0, 1)]
    half = alone[0].shape[2] // 2
    expected = jnp.concatenate([alone[0][:, :, :half], alone[1][:, :, half:]], axis=2)
    for backend in backends_of(variant):
      close(run(each_BSG, backend), expected)
    assert np.abs(alone[1] - alone[0]).max() > 1e-2
  elif enc.takes_carried_positions:
    with pytest.raises(ValueError, match=r'^position_ids .*; allowed: None, for those of'):
      attend_with(enc, weights, x, each_BSG)
  elif enc.position_kind is not None and enc.positions_per_token == 1:
    shape = re.escape(f'{each_BSG.shape}; allowed: {each_BSG.shape[:2]} or (1, {S})')
    with pytest.raises(ValueError, match=f'^position_ids has shape {shape}$'):
      attend_with(enc, weights, x, each_BSG)


@pytest.mark.parametrize(
  'variant', [pytest.param(v, marks=marks_of_law(v, 'needs_num_visible')) for v in VARIANTS]
)
def test_visible_keys_are_counted_as_declared(variant):
  """Coordinates are others where tokens see other numbers of keys, or do not need to be told."""
  enc, (x, _, _) = build(variant), inputs()
  one, other = 1 + np.arange(S)[None], 2 + np.arange(S)[None]
  if enc.needs_num_visible:
    coordinates = jax.jit(lambda visible: enc.coordinates(x, one, visible, one - 1))
    same = jax.tree.map(np.array_equal, coordinates(one), coordinates(other))
    assert not all(jax.tree.leaves(same))
  else:
    jax.eval_shape(lambda enc: enc.coordinates(x, one, None, one - 1), enc)


@pytest.mark.parametrize(
  'variant',
  [pytest.param(v, marks=daily_if(is_daily(v) or declared(v).needs_all_queries)) for v in READING],
)
def test_all_queries_are_needed_as_declared(variant):
  """Else the last queries get alone what they get among all."""
  enc, (x, weights, _) = build(variant), inputs()
  run = functools.partial(layer, enc, weights, backend='dense')
  if enc.needs_all_queries:
    allowed = f'as many queries as keys, for {type(enc).__name__} reads the scores of all'
    with pytest.raises(ValueError, match=f'^3 queries for {S} keys; allowed: {allowed}$'):
      run(x, T=3)
  else:
    of_all, of_last = jax.jit(lambda x: (run(x), run(x, T=3)))(x)
    close(of_last, of_all[:, S - 3 :])


@pytest.mark.parametrize(
  'variant', [pytest.param(v, marks=daily_if(v in ENCODINGS or v in CHAINS)) for v in VARIANTS]
)
def test_queries_and_keys_are_transformed_as_declared(variant):
  """Their width and heads; and, where attention is relative, whether a shift of all positions turns
  them.
  """
  enc, (x, weights, _) = build(variant), inputs()
  _, q, k, _ = heads_first(enc, x, weights, np.arange(S)[None])
  assert q.shape == (B, enc.heads_out_per_head * DIMS.heads, S, enc.qk_width_factor * DIMS.head_dim)
  assert k.shape == (B, DIMS.kv_heads, S, enc.qk_width_factor * DIMS.head_dim)
  before = jnp.einsum('bsd,dhk->bhsk', x, weights['q'])
  assert enc.changes_queries == (q.shape != before.shape or np.abs(q - before).max() > 1e-2)
  if 'queries and keys' not in enc.acts_on():
    assert enc.qk_width_factor == enc.heads_out_per_head == 1
    assert not enc.rotates_qk
  elif enc.relative and not enc.needs_inputs:
    _, shifted, _, _ = heads_first(enc, x, weights, SHIFT + np.arange(S)[None])
    assert (np.abs(shifted - q).max() > 1e-2) == enc.rotates_qk


@pytest.mark.parametrize('variant', DECLARING)
def test_queries_are_changed_in_proportion_as_declared(variant):
  """Products are proportional to queries, or have a part besides, or are not linear; a temperature
  is a factor on queries and leaves keys alone.
  """
  enc, (x, weights, _) = build(variant), inputs()
  made = lambda n: heads_first(enc, x, weights | {'q': n * weights['q']}, np.arange(S)[None])
  (_, none, _, _), (products, once, k, coordinates), (_, twice, _, _) = map(made, (0, 1, 2))
  is_linear = np.abs(twice - 2 * once + none).max() < 1e-4
  assert enc.reads_own_queries == (is_linear and np.abs(none).max() > 1e-3)
  if enc.recomputes_scores:
    made = [scores_of_a_tile(enc, products, q, k, coordinates) for q in (none, once, twice)]
    scores, (mask, *_), _ = jax.device_get(tuple(zip(*made, strict=True)))
    is_linear = np.abs(scores[2] - 2 * scores[1] + scores[0])[mask].max() < 1e-4
  assert enc.nonlinear_in_queries == (not is_linear)
  if enc.multiplies_queries and VARIANTS[variant][0] not in ('chain', 'heads'):
    q = jnp.einsum('bsd,dhk->bhsk', x, weights['q'])
    factor = (once * q).sum(axis=-1, keepdims=True) / (q**2).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(once, factor * q, atol=1e-5)
    _, _, k_alone, _ = heads_first(build('nope'), x, weights, np.arange(S)[None])
    np.testing.assert_array_equal(k, k_alone)


@pytest.mark.parametrize(
  'variant',
  [
    pytest.param(v, marks=daily_if(v in ENCODINGS))
    for v in VARIANTS
    if not declared(v).rotates_qk and declared(v).qk_width_factor == 1
  ],
)
def test_channels_of_keys_are_split_as_declared(variant):
  """Else keys whose channels are in another order become what they were, in that order."""
  enc, (x, weights, _) = build(variant), inputs()
  order = weights | {'k': weights['k'][..., ::-1]}
  k, other = (heads_first(enc, x, w, np.arange(S)[None])[2] for w in (weights, order))
  assert enc.splits_channels == (np.abs(other[..., ::-1] - k).max() > 1e-2)


@pytest.mark.parametrize('variant', DECLARING)
def test_values_and_outputs_are_transformed_as_declared(variant):
  """They keep their shape; a shift of all positions turns both, or neither, or values alone where
  nothing turns outputs back. Where inputs decide how far they turn, they are others than without
  the encoding.
  """
  enc, (x, weights, _) = build(variant), inputs()
  o = cotangent_of(enc)
  *_, v = projections(x, weights)

  def transformed(shift):
    *_, j = heads_first(enc, x, weights, shift + np.arange(S)[None])
    return enc.transform_values(v, j), enc.transform_output(o, j, x)

  here, there = transformed(0), transformed(SHIFT)
  assert [part.shape for part in here] == [v.shape, o.shape]
  before = (v, o) if enc.rotates_values and enc.position_kind is None else here
  turned = [np.abs(b - a).max() > 1e-2 for a, b in zip(before, there, strict=True)]
  assert turned == [enc.rotates_values, enc.rotates_values and enc.has('transform_output')]


@pytest.mark.parametrize(
  'variant', [pytest.param(v, marks=daily_if(v in ENCODINGS)) for v in VARIANTS]
)
def test_a_state_is_carried_as_declared(variant):
  """From layer to layer: it keeps its shape, and values are wider by what is declared, in attention
  alone. Of others nothing is changed.
  """
  enc, (x, weights, _) = declared(variant), inputs()

  def carried(enc):
    heads = [jnp.einsum('bsd,dhk->bshk', x, weights[n]) for n in 'qkv']
    state = enc.initial_state(positions_of(enc, jnp.arange(S)[None]), B)
    *_, v = enc.enter_attention(*heads, state)
    o, after = enc.leave_attention(jnp.repeat(v, DIMS.heads // DIMS.kv_heads, axis=2), state)
    return heads[2], v, o, state, after, enc.leave_mlp(x, state)

  own, wide, o, *states = jax.eval_shape(carried, enc)
  assert wide.shape == (*own.shape[:3], own.shape[3] + enc.added_value_channels)
  assert (o.shape[3], wide.dtype) == (own.shape[3], own.dtype)
  assert states[0] == states[1] == states[2]
  assert (states[0] is not None) == enc.has('initial_state')


@pytest.mark.parametrize(
  'variant', [pytest.param(v, marks=daily_if(v in ENCODINGS)) for v in VARIANTS]
)
def test_scores_read_queries_and_keys_as_declared(variant):
  """Beside their product: its derivative by them, at a given product, is not zero.

  An encoding that makes the products itself is never given them.
  """
  enc, (x, weights, _) = build(variant), inputs()
  *_, gradients = scores_of_a_tile(enc, *heads_first(enc, x, weights, np.arange(S)[None]))
  reads = any(np.abs(g).max() > 1e-5 for g in gradients)
  assert reads == (enc.reads_qk or enc.recomputes_scores)
  if enc.recomputes_scores:
    assert enc.bias_in_scale is not None
    assert not any(map(enc.has, ('bias', 'relative_keys', 'relative_queries')))


@pytest.mark.parametrize('variant', [v for v in VARIANTS if declared(v).normalizer == 'rows'])
def test_scores_are_adapted_as_declared(variant):
  """Before weights are made of them: equal scores of a row get others. What adapts none gives them
  equal weights, or those of softmax times factors that are the same for all scores that heads
  share.
  """
  enc, (x, _, _) = build(variant), inputs()
  coordinates = enc.coordinates(
    x, jnp.arange(S)[None], 1 + jnp.arange(S)[None], jnp.arange(S)[None]
  )
  tile = make_tile(enc, coordinates, None)
  normal = np.random.default_rng(0).standard_normal((B, 1, S, S)).repeat(DIMS.heads, axis=1)
  factors = []
  for s_BHTS in (jnp.ones_like(normal), normal):
    s_BHTS = jnp.where(tile.mask[:, None], s_BHTS, MASKED)
    softmax_BHTS = jax.nn.softmax(s_BHTS, axis=-1)
    factors.append(enc.normalize(s_BHTS, tile) / jnp.where(tile.mask[:, None], softmax_BHTS, 1.0))
  is_even = np.abs(factors[0] - tile.mask[:, None] * factors[0][..., :1]).max() < 1e-3
  is_multiplied = np.abs(factors[1] - factors[0]).max() < 1e-3
  assert enc.adapts_scores != (is_even or is_multiplied)


@pytest.mark.parametrize(
  'variant',
  [
    pytest.param(v, marks=daily_if(v in ENCODINGS))
    for v in VARIANTS
    if declared(v).has('score') or declared(v).has('normalize')
  ],
)
def test_heads_are_mixed_as_declared(variant):
  """Others have other scores or weights where the first one has other scores."""
  enc, (x, weights, _) = build(variant), inputs()
  s_BHTS, q_BHTK, *rest = heads_first(enc, x, weights, np.arange(S)[None])

  @jax.jit
  def others(first):
    s, q = s_BHTS.at[:, 0].multiply(first), q_BHTK.at[:, 0].multiply(first)
    k_BGSK, coordinates = rest
    tile = make_tile(enc, coordinates, None)
    made = tile_scores(enc, s, q, k_BGSK, tile)
    if enc.has('normalize'):
      made = enc.normalize(jnp.where(tile.mask[:, None], made, MASKED), tile)
    return made[:, 1:]

  assert enc.mixes_heads == bool(np.abs(others(2.0) - others(1.0)).max() > 1e-3)


@pytest.mark.parametrize(
  'variant', [pytest.param(v, marks=daily_if(v in ENCODINGS)) for v in VARIANTS]
)
def test_keys_are_hidden_as_declared(variant):
  """Their scores, in a softmax, are those of masked keys; a soft-cap would show them again."""
  enc, (x, weights, _) = build(variant), inputs()
  made = scores_of_a_tile(enc, *heads_first(enc, x, weights, np.arange(S)[None]))
  scores, mask, _ = jax.device_get(made)
  assert enc.hides_keys == bool((scores[mask] == MASKED).any() and enc.normalizer != 'none')
  if enc.hides_keys:
    with pytest.raises(ValueError, match=r'^softcap=3\.0; allowed: no soft-cap, which would show'):
      layer(enc, weights, x, softcap=3.0)


ONLY_BIAS = (
  'alibi',
  'kerple_log',
  'kerple_power',
  'sandwich',
  'fire',
  'nape',
  'bam',
  'mlp_bias',
  'tisa',
)  # t5 has its own scale, and so has bam where it grows with the keys


@pytest.mark.parametrize('variant', DECLARING)
def test_only_a_bias_is_added_as_declared(variant):
  """Declared: what is added to scores is the same for other scores, queries and keys. So `dape`."""
  enc, (x, weights, _) = build(variant), inputs()
  name = VARIANTS[variant][0]
  does_more = variant in ('bam_ssmax', 'bam_both', 'alibi_plane')
  assert enc.adds_only_bias == (
    (name in ONLY_BIAS and not does_more) or variant in ('heads', 'goat_relative')
  )
  if enc.adds_only_bias:
    s, q, k, coordinates = heads_first(enc, x, weights, np.arange(S)[None])
    assert enc.acts_on() == ('scores',)
    scores, _, _ = scores_of_a_tile(enc, s, q, k, coordinates)
    close(scores - s, scores_of_a_tile(enc, 0 * s, 2 * q, -k, coordinates)[0])


@pytest.mark.parametrize('variant', DECLARING)
def test_terms_by_distance_have_the_shapes_of_their_hooks(variant):
  """[R, H|1] of a bias, [R, H|1, K] of vectors; and `has_vector_tables` knows vectors."""
  enc = build(variant)
  R, H, K = 2 * S - 1, DIMS.heads, DIMS.head_dim
  terms = jax.eval_shape(enc.distance_terms, jax.ShapeDtypeStruct((R,), jnp.int32))
  for hook in terms.keys() - {'tables'}:
    shape = terms[hook].shape
    assert shape[0] == R
    assert shape[1] in (1, H)
    assert shape[2:] == (() if hook == 'bias' else (K,))
  assert enc.has_vector_tables == any(term.ndim == 3 for term in jax.tree.leaves(terms))


@pytest.mark.parametrize('variant', DECLARING)
def test_a_wrapper_is_the_encoding_inside_but_for_its_positions(variant, monkeypatch):
  """It has every hook and every declaration of that encoding, whatever hooks there come to be; also
  of one that reads no positions, which wrappers refuse that do no more than to move them.
  """
  monkeypatch.setattr(PositionWrapper, 'moves_alone', False)
  name, hyper = VARIANTS[variant]
  inner = build(variant)
  takes_several = inner.positions_per_token > 1
  has_own = inner.has('sample_positions') or inner.has('positions_of_tokens')
  if has_own or takes_several or (inner.max_length or 99) < 99:
    pytest.skip('has positions of its own, several a token or too few')
  spec = {'name': name, **hyper}
  sizes = dataclasses.asdict(DIMS)
  enc = make('random_positions', **sizes, rngs=nnx.Rngs(0), inner=spec, longest=99)
  for hook in HOOKS.keys() - {*OWN}:
    assert enc.has(hook) == inner.has(hook), hook
  for declared in set(DECLARED) - {*OWN}:
    assert getattr(enc, declared) == getattr(inner, declared), declared
  assert enc.acts_on() == inner.acts_on()


@pytest.mark.parametrize('variant', [v for v in VARIANTS if declared(v).moves_given_positions])
def test_given_positions_are_moved_as_declared(variant):
  """In training alone: positions that are further on are so when moved, but for factors near 1."""
  enc, n = build(variant), declared(variant).positions_per_token
  shape = (B, S) if n == 1 else (B, S, n)
  given = jnp.asarray(np.random.default_rng(0).integers(0, 30, shape))
  draw = lambda ids: np.asarray(enc.sample_positions(ids, B, jax.random.key(0)))
  assert enc.sample_positions(given, B, None) is None
  moved, further = draw(given), draw(given + 100)
  assert moved.shape == shape
  assert np.abs((further - moved) / 100 - 1).max() < 0.1


def test_what_a_class_may_declare_otherwise_has_its_type_written_down():
  """From None or () type checkers would infer a type that a subclass of a user has not."""
  inferred = {name for name, value in vars(Encoding).items() if value is None or value == ()}
  assert {'bias_in_scale', 'per_layer'} <= inferred <= {*Encoding.__annotations__}


def test_every_class_attribute_is_a_declaration_but_for_what_wrappers_say_of_themselves():
  public = {name for name in vars(Encoding) if not name.startswith('_')}
  attributes = {name for name in public if not callable(getattr(Encoding, name))}
  of_wrappers = {'paper', 'limit', 'per_layer', 'parameters_depend_on', 'switched_off', 'at_input'}
  assert attributes - {*DECLARED} == of_wrappers


OF_MOVED_SCALE = ('cope', 'pope', 'coca', 'grape_a', 'transformer_xl', 'shaw', 'ssmax', 'alibi')


# What stands beside neither T5 nor DeBERTa in a chain, whatever the scale: it goes around a chain,
# carries a state, makes more heads, adapts what is left of all scores, or has a scale of its own.
REFUSED_BESIDE_BOTH = {
  *(*WRAPPERS, 'tape', 'rope_pp', 'heads_rope_pps', 'selective', 'dape_v2', 'mta'),
  *('t5', 'tupe', 'mla_rope'),
}
REFUSED_BESIDE = {
  't5': REFUSED_BESIDE_BOTH
  | {
    'deberta',
    # they make products of queries and keys again
    *('rerope', 'leaky_rerope', 'streaming_rope', 'self_extend', 'string', 'dca', 'jet_long'),
    *('dpe', 'self_logistic'),
    *('xpos', 'hyperbolic_rope', 'jordan_rope', 'path', 'wall', 'tapa', 'heads_shaw_xpos'),
  },
  'deberta': REFUSED_BESIDE_BOTH | {'ms_poe', 'diet_abs'},  # it takes no wider queries
}


def beside_zeros(variant: str, other: str, monkeypatch):
  """(a chain of an encoding and another one whose parameters are 0, the encoding, whether such a
  chain is refused for its scale); skips what is refused otherwise, and has to be.
  """
  name, hyper = VARIANTS[variant]
  make_both = functools.partial(make, 'chain', **dataclasses.asdict(DIMS), rngs=nnx.Rngs(0))
  members = ({'name': name, **hyper}, other)
  check, refusals = chain_checks._check_scale, []

  def note(*arguments):
    try:
      check(*arguments)
    except ValueError as refusal:
      refusals.append(refusal)

  monkeypatch.setattr(chain_checks, '_check_scale', note)
  if {name, variant} & REFUSED_BESIDE[other] or declared(variant).positions_per_token > 1:
    with pytest.raises(ValueError, match=r'^chain: '):
      make_both(members=members)
    pytest.skip('refused for another reason')
  both, alone = make_both(members=members), build(variant)
  both.members[0], both.members[1] = alone, jax.tree.map(jnp.zeros_like, both.members[1])
  return both, alone, bool(refusals)


@pytest.mark.parametrize(
  'variant',
  [
    pytest.param(v, marks=daily_if(v in OF_MOVED_SCALE))
    for v in VARIANTS
    # terms of keys are not scaled beside t5
    if v != 'shaw_key_query' and VARIANTS[v][0] != 'chain'
  ],
)
def test_the_scale_may_be_moved_onto_queries_unless_a_class_says_otherwise(variant, monkeypatch):
  """Beside a T5 without a bias, on queries of its size, an encoding is as alone, or refused. What
  is refused would be another encoding there.
  """
  x, weights, _ = inputs()
  both, alone, refused = beside_zeros(variant, 't5', monkeypatch)
  run = jax.jit(functools.partial(layer, backend='dense'))
  there = run(both, weights | {'q': weights['q'] * both.query_scale}, x)
  differs = np.abs(there - run(alone, weights, x)).max()
  assert differs > 1e-3 if refused else differs < 2e-5


# What these make of queries and of keys grows with neither in proportion, by their formulas.
NOT_IN_PROPORTION = ('pope', 'grape_a')
OF_OTHER_SCALE = ('rope', 'alibi', 'coca', 'fox', 'transformer_xl', 'lssa', 'cos_scale')


@pytest.mark.parametrize(
  'variant',
  [
    pytest.param(v, marks=daily_if(v in OF_OTHER_SCALE))
    for v in VARIANTS
    # a bias in the scale would be in the other one
    if VARIANTS[v][0] not in ('chain', *NOT_IN_PROPORTION)
    if not (declared(v).bias_in_scale or v == 'dape_in_scale')
  ],
)
def test_another_scale_is_that_of_products_unless_a_class_says_otherwise(variant, monkeypatch):
  """Beside a DeBERTa without rows, which divides by sqrt(3), an encoding is as alone where queries
  or keys are larger by that, or refused. What is refused would be another encoding there.
  """
  x, weights, _ = inputs()
  both, alone, refused = beside_zeros(variant, 'deberta', monkeypatch)
  run = jax.jit(functools.partial(layer, backend='dense'))
  differences = [
    np.abs(run(both, weights | {n: 3**0.5 * weights[n]}, x) - run(alone, weights, x)).max()
    for n in 'qk'
  ]
  assert max(differences) > 1e-3 if refused else min(differences) < 2e-5


# A constant, one that counts keys, and one that reads content: they stand for all.
TEMPERATURES = ('nope_scale', 'logn', 'asentmax_temperature')
# Where a temperature may not stand beside an encoding: its scores would be those of no formula.
REFUSED_TEMPERATURES = {
  'transformer_xl': ('behind',),
  'diet_abs': ('behind',),
  'coca': ('before',),
  'pope': ('before',),
  'tapa': ('before', 'behind'),
  **dict.fromkeys(('lssa', 'lssar', 'cos_scale', 'qassmax', 'screening'), ('before',)),
  'rope_pp': ('behind',),  # it has more heads by then
  'tape': ('before', 'behind'),  # it carries a state from layer to layer
  **dict.fromkeys(WRAPPERS, ('before', 'behind')),  # they go around a chain
}
WITH_TEMPERATURE = (
  *('coca', 'pope', 'tapa', 'transformer_xl', 'tupe', 'mla_rope', 'cope', 'dape', 'fox', 'lssa'),
)


def test_temperatures_differ_in_their_factor_alone():
  kinds = [kind for kind in ENCODINGS.values() if issubclass(kind, Temperature)]
  assert {ENCODINGS[name] for name in TEMPERATURES} < {*kinds}
  for kind in kinds:
    own = {hook for hook in HOOKS if getattr(kind, hook) is not getattr(Temperature, hook)}
    assert own <= {'coordinates'}, kind


@pytest.mark.parametrize(
  ('temperature', 'name'),
  [
    pytest.param(t, n, marks=daily_if(n in WITH_TEMPERATURE and t == 'asentmax_temperature'))
    for t in TEMPERATURES
    for n in ENCODINGS
    if n != 'chain'
  ],
)
def test_a_temperature_beside_an_encoding_is_as_the_formulas_in_that_order(temperature, name):
  """Or it is refused. What acts on scores reads the queries as all members left them."""
  specs = [{'name': n} | RECORDS[n].hyper for n in (temperature, name)]
  (x, weights, _), positions = inputs(), np.broadcast_to(np.arange(S), (B, S))
  run = jax.jit(functools.partial(layer, backend='dense'))
  counts_hidden = declared(temperature).needs_num_visible and declared(name).hides_keys
  for place, members in (('before', specs), ('behind', specs[::-1])):
    make_chain = functools.partial(make, 'chain', **dataclasses.asdict(DIMS), members=members)
    if counts_hidden or place in REFUSED_TEMPERATURES.get(name, ()):
      with pytest.raises(ValueError, match=f'^chain: .*{name}'):
        make_chain(rngs=nnx.Rngs(0))
      continue
    chain = _away(make_chain(rngs=nnx.Rngs(0)), 0)
    oracle = RECORDS['chain'].oracle(DIMS, {'members': members}, parameters(chain))
    n = chain.positions_per_token
    ids = positions if n == 1 else np.stack([positions] * n, axis=-1)
    w, x64 = jax.tree.map(lambda a: np.asarray(a, np.float64), (weights, x))
    desired = attention_layer(oracle, w, x64, ids, np.tril(np.ones((B, S, S), bool)))
    close(run(chain, weights, x), desired)


# More rows; parameters that start where the fixed or projected ones are; zeros, ones; what the
# default is at this width; one position in the place of two that are equal.
SAME_AT_THE_START = (
  'learned_long',
  'alibi_learned',
  'urpe_clipped',
  'kerple_log_softplus',
  'kerple_power_softplus',
  'cope_few',
  'cope_in_scale',
  'talking_heads_scores',
  'talking_heads_weights',
  'mta_narrow',
  'mta_of_weights',
  'tupe_affine',
  'ssmax_bias',
  'bam_mean',
  'tape_narrow',
  'group_bias_alone',
)


def of_start(enc):
  """What a layer gives with the parameters that an encoding starts with."""
  x, weights, _ = inputs()
  return layer(enc, weights, x, backend='dense', is_causal=enc.causal_only)


@functools.cache
def at_the_start(name):
  """The output of an encoding with all hyperparameters at their defaults."""
  return of_start(make(name, **dataclasses.asdict(DIMS), rngs=nnx.Rngs(0)))


@pytest.mark.parametrize('variant', VARIANTS)
def test_parameters(variant):
  """There are as many as the formula says."""
  name, hyper = VARIANTS[variant]
  enc = declared(variant)
  assert sum(p.size for p in jax.tree.leaves(enc)) == sum(RECORDS[name].parameters(DIMS, hyper))


@pytest.mark.slow
@pytest.mark.parametrize(
  'variant', [v for v in VARIANTS if VARIANTS[v][1] and v not in SAME_AT_THE_START]
)
def test_hyperparameters_change_the_output(variant):
  """So their equality with the oracle, which `.ci/run` has of each variant, says something."""
  before, after = at_the_start(VARIANTS[variant][0]), of_start(make_variant(variant))
  assert before.shape != after.shape or np.abs(after - before).max() > 1e-4


def test_every_encoding_has_a_record():
  assert {*RECORDS} == {*ENCODINGS}
