"""Laws over every encoding x every way of attending x every backend: values and gradients.

The oracle is tests/oracles.py (float64 loops over pairs). Its gradients are central differences in
float64, along one random direction in the inputs and one in each parameter of the encoding.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracles import ORACLES, attention_layer

from posenc_jax.attention import attend
from posenc_jax.attention.request import contiguous_positions
from posenc_jax.attention.tiled.carry import Sums
from posenc_jax.attention.tiled.relative import Diagonals, Lookup, heads_first, spread
from posenc_jax.attention.tiled.tile import MASKED, Block
from posenc_jax.encodings import ENCODINGS, Dims, make

DIMS = Dims(model_dim=12, heads=4, kv_heads=2, head_dim=8, train_length=40)
B, S = 2, 11
SHIFT = 29  # the last position stays inside a learned table of 40 rows

CHAINS = {  # of different kinds of members: under every law in every mode
  'chain': (),
  'chain_cope_rope': ('cope', {'name': 'rope', 'base': 50.0}),
  'chain_ssmax_alibi': ('ssmax', 'alibi'),
  'chain_shaw_alibi': ({'name': 'shaw', 'clip': 3}, 'alibi'),
}
VARIANTS = {
  **{name: (name, {}) for name in ENCODINGS},
  'learned_long': ('learned', {'max_length': 64}),
  'sinusoidal_concatenated': ('sinusoidal', {'layout': 'concatenated', 'base': 100.0}),
  'sinusoidal_tensor2tensor': ('sinusoidal', {'layout': 'tensor2tensor'}),
  'shaw_clipped': ('shaw', {'clip': 3}),
  'transformer_xl_clamped': ('transformer_xl', {'clamp_length': 4}),
  't5_small': ('t5', {'buckets': 8, 'max_distance': 9}),
  't5_bidirectional': ('t5', {'buckets': 8, 'max_distance': 9, 'bidirectional': True}),
  'deberta_clamped': ('deberta', {'span': 4}),
  'deberta_c2p': ('deberta', {'span': 4, 'p2c': False}),
  'deberta_p2c': ('deberta', {'span': 4, 'c2p': False}),
  'rope_interleaved': ('rope', {'layout': 'interleaved', 'base': 50.0}),
  'rope_partial': ('rope', {'fraction': 0.5}),
  'rerope': ('rerope', {'window': 4}),
  'leaky_rerope': ('leaky_rerope', {'window': 3, 'leak': 2.5}),
  'self_extend': ('self_extend', {'window': 4, 'group': 3}),
  'self_extend_partial': ('self_extend', {'window': 5, 'group': 2, 'fraction': 0.5, 'base': 50.0}),
  'alibi_learned': ('alibi', {'learned': True}),
  'shaw_keys': ('shaw', {'clip': 3, 'values': False}),
  'shaw_key_query': ('shaw', {'clip': 3, 'values': False, 'key_query': True}),
  'kerple_log_softplus': ('kerple_log', {'positivity': 'softplus'}),
  'sandwich_narrow': ('sandwich', {'width': 6}),
  'fire': ('fire', {'threshold': 4.0}),  # for 11 tokens: below the threshold only distances count
  'fire_small': ('fire', {'threshold': 8.0, 'hidden': 5}),
  'fox_remembering': ('fox', {'bias': 5.0}),
  'cope_few': ('cope', {'positions': 3}),
  'kerple_power_softplus': ('kerple_power', {'positivity': 'softplus'}),
  'kerple_log_in_scale': ('kerple_log', {'in_scale': True}),
  'fox_learned': ('fox', {'gate': 'learned'}),
  'fox_in_scale': ('fox', {'in_scale': True}),
  'fox_fixed': ('fox', {'gate': 'fixed', 'shortest': 1.0, 'longest': 9.0}),
  'p_rope_most': ('p_rope', {'p': 0.75, 'layout': 'interleaved', 'base': 50.0}),
  'music_transformer_short': ('music_transformer', {'distances': 4}),
  'music_transformer_clipped': ('music_transformer', {'distances': 4, 'beyond': 'clip'}),
  'relative_projection_short': ('relative_projection', {'rank': 3, 'extent': 5}),
  'relative_projection_growing': ('relative_projection', {'floor': 4, 'alpha': 0.5}),
  'pope_uniform': ('pope', {'uniform': True, 'base': 50.0}),
  'xpos_fast': ('xpos', {'scale_base': 8.0, 'layout': 'half', 'base': 50.0, 'gamma': 0.2}),
  'tupe_affine': ('tupe', {'affine': True}),
  'tupe_r': ('tupe', {'buckets': 8, 'max_distance': 9}),
  'dape_kerple': ('dape', {'over': 'kerple_power', 'hidden': 6, 'slope': 0.3}),
  'dape_fire': ('dape', {'over': 'fire', 'hidden': 8}),
  'grape_ap_wide': ('grape_ap', {'width': 12}),
  'selective_rope_bias': ('selective_rope', {'bias': True, 'base': 50.0, 'rank': 3}),
  'selective_rope_gate': ('selective_rope', {'gate': True}),
  'path_linear': ('path', {'rank': 0}),
  'path_fox': ('chain', {'members': ('path', {'name': 'fox', 'in_scale': True})}),
  'logn': ('logn', {'length': 4}),  # for 11 tokens: the factor is 1 up to it
  'llama4_temperature': ('llama4_temperature', {'length': 3, 'c': 2.0}),
  'random_positions_t5': (
    'random_positions',
    {'over': {'name': 't5', 'buckets': 8, 'max_distance': 9}},
  ),
  'logn_ratio': ('logn', {'floor': 0.0}),
  'ssmax_bias': ('ssmax', {'bias': True}),
  'nope_scale_learned': ('nope_scale', {'scale': 2.0, 'learned': True}),
  **{
    variant: ('chain', {'members': members} if members else {})
    for variant, members in CHAINS.items()
  },
}

SEGMENTS = np.array([[0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1], [3, 3, 3, 3, 3, 3, 3, 3, 5, 5, 6]])
SCATTERED = np.array(
  [[0, 2, 3, 7, 8, 9, 15, 16, 30, 31, 39], [5, 6, 7, 8, 10, 11, 12, 20, 21, 22, 23]]
)
MODES = {
  'causal': {},
  'bidirectional': {'causal': False},
  'window': {'window': 4},
  'both_sides_window': {'causal': False, 'window': 3},
  'packed': {'segments': SEGMENTS},
  'positions': {'positions': SCATTERED},
  'last_queries': {'T': 3},
}
# every kind of hook: in modes that only mask anew
OF_MASKS = ('nope', 't5', 'shaw', 'cope', 'tupe', 'dape', 'chain')
# (3, 5) elsewhere: nothing divides anything
TILES = {'causal': (2, 8), 'packed': (4, 4), 'last_queries': (2, 4)}


def build(variant: str, seed: int = 0):
  """The encoding with every parameter away from its initial value, so that no term is small."""
  name, hyper = VARIANTS[variant]
  enc = make(name, **dataclasses.asdict(DIMS), rngs=nnx.Rngs(seed), **hyper)
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda p: jnp.asarray(p + 0.4 * rng.standard_normal(p.shape), jnp.float32), enc
  ).project()


@functools.cache
def is_causal_only(variant: str) -> bool:
  """A class says so, but of a chain its members."""
  name, _ = VARIANTS[variant]
  return (build(variant) if name == 'chain' else ENCODINGS[name]).causal_only


# the encoding inside does the rest in any mode
AROUND = tuple(name for name, kind in ENCODINGS.items() if kind.draw)


def is_wanted(variant: str, mode: str) -> bool:
  """Every encoding in every mode; what a hyperparameter changes does not depend on masks, so in one
  of two.
  """
  if is_causal_only(variant) and MODES[mode].get('causal') is False:
    return False
  if variant in ENCODINGS and variant not in AROUND:
    return mode not in ('both_sides_window', 'last_queries') or variant in OF_MASKS
  if variant in CHAINS:
    return mode in ('causal', 'packed', 'positions')
  return mode == ('positions' if is_causal_only(variant) else 'bidirectional')


CASES = [(variant, mode) for variant in VARIANTS for mode in MODES if is_wanted(variant, mode)]


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


def layer(enc, weights, x_BSD, *, T=S, positions=None, segments=None, **options):
  """The layer that the oracle computes, through `attend`."""
  segments = None if segments is None else jnp.asarray(segments)
  embedded = contiguous_positions(S, segments) if positions is None else jnp.asarray(positions)
  y_BSD = enc.embed(x_BSD, embedded)
  q, k, v = (jnp.einsum('bsd,dhk->bshk', y_BSD, weights[n]) for n in 'qkv')
  return attend(
    q[:, S - T :], k, v, enc, x=y_BSD, positions=positions, segments=segments, **options
  )


def expected(
  variant,
  enc_parameters,
  weights,
  x_BSD,
  *,
  T=S,
  positions=None,
  segments=None,
  causal=True,
  window=None,
):
  name, hyper = VARIANTS[variant]
  segments = np.zeros((B, S), int) if segments is None else segments
  if positions is None:
    positions = np.stack([[s - list(row).index(row[s]) for s in range(S)] for row in segments])
  mask = np.zeros((B, T, S), bool)
  for b, t, s in np.ndindex(B, T, S):
    order = S - T + t - s
    near = window is None or abs(order) < window
    mask[b, t, s] = near and (order >= 0 or not causal) and segments[b, S - T + t] == segments[b, s]
  return attention_layer(
    ORACLES[name](DIMS, hyper, enc_parameters), weights, x_BSD, positions, mask
  )


def parameters(enc) -> dict[str, np.ndarray]:
  leaves = jax.tree_util.tree_flatten_with_path(enc)[0]
  name = lambda path: jax.tree_util.keystr(path[:-1], simple=True, separator='.')
  return {name(path): np.asarray(leaf, np.float64) for path, leaf in leaves}


def close(actual, desired, tolerance=2e-5):
  """Equal to float32 rounding, relative to the largest entry: a sum of products cannot do better
  entry by entry.
  """
  np.testing.assert_allclose(
    actual, desired, rtol=0, atol=tolerance * max(1.0, np.abs(desired).max())
  )


@pytest.mark.parametrize('backend', ['dense', 'blockwise'])
@pytest.mark.parametrize(('variant', 'mode'), CASES)
def test_equal_to_the_oracle(variant, mode, backend):
  """Values and gradients of dense, and of blockwise in tiles with ragged ends; no parameter is
  without a gradient.
  """
  enc, (x, weights, cotangent) = build(variant), inputs()
  options = MODES[mode]
  cotangent = cotangent[:, : options.get('T', S)]
  block = TILES.get(mode, (3, 5)) if backend == 'blockwise' else None

  def loss(*args):
    out = layer(*args, backend=backend, block=block, **options)
    return (out * cotangent).sum(), out

  (g_enc, g_w, g_x), out = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(enc, weights, x)
  double = lambda tree: jax.tree.map(lambda a: np.asarray(a, np.float64), tree)
  p, w, x64 = parameters(enc), double(weights), double(x)
  desired = expected(variant, p, w, x64, **options)

  rng = np.random.default_rng(2)
  direction = {
    'w': jax.tree.map(lambda a: rng.standard_normal(a.shape), w),
    'x': rng.standard_normal(x.shape),
  }
  step = 1e-6
  moved = lambda sign: expected(
    variant,
    p,
    jax.tree.map(lambda a, d: a + sign * step * d, w, direction['w']),
    x64 + sign * step * direction['x'],
    **options,
  )
  slope = lambda plus, minus: ((plus - minus) * cotangent).sum() / (2 * step)
  desired_slopes = {'inputs': slope(moved(1), moved(-1))}
  for n in p:
    direction[n] = rng.standard_normal(p[n].shape)
    turned = lambda sign, n=n: expected(
      variant, p | {n: p[n] + sign * step * direction[n]}, w, x64, **options
    )
    desired_slopes[n] = slope(turned(1), turned(-1))

  close(out, desired)
  g = parameters(g_enc)
  slopes = {n: (g[n] * direction[n]).sum() for n in g}
  slopes['inputs'] = (g_x * direction['x']).sum() + sum(
    (g_w[n] * direction['w'][n]).sum() for n in 'qkv'
  )
  for n, value in slopes.items():
    size = (
      np.linalg.norm(g[n])
      if n in g
      else np.sqrt((g_x**2).sum() + sum((g_w[n] ** 2).sum() for n in 'qkv'))
    )
    assert abs(value - desired_slopes[n]) < 2e-5 * max(1.0, size), (n, value, desired_slopes[n])
  assert all(np.abs(leaf).max() > 1e-4 for leaf in g.values())


@pytest.mark.parametrize('backend', ['dense', 'blockwise'])
@pytest.mark.parametrize(
  ('variant', 'causal'),
  [
    (v, causal)
    for v in [*{**ENCODINGS, **CHAINS}, 'shaw_clipped']
    for causal in ([True] if is_causal_only(v) else [True, False])
  ],
)
def test_causality_and_shifts(variant, backend, causal):
  """By gradient: a token reads itself and the past, nothing later. Shifted positions: no change
  where relative.
  """
  enc, (x, weights, cotangent) = build(variant), inputs()
  positions, t = np.broadcast_to(np.arange(S), (1, S)), 6
  options = {
    'backend': backend,
    'block': (4, 4) if backend == 'blockwise' else None,
    'causal': causal,
  }

  def place(x, shift):
    out = layer(enc, weights, x, positions=positions + shift, max_distance=S - 1, **options)
    return (out * cotangent)[:, t].sum(), out

  grads, (here, there) = jax.lax.map(
    functools.partial(jax.grad(place, has_aux=True), x), jnp.array([0, SHIFT])
  )
  assert np.isfinite(grads).all()  # tables reach as far as positions are apart, and no farther
  if causal:
    assert np.all(grads[:, :, t + 1 :] == 0)
    assert np.all(np.abs(grads[:, :, : t + 1]).max(axis=-1) > 0)
  if enc.relative:
    close(there, here)
  else:
    assert np.abs(there - here).max() > 1e-2


@pytest.mark.parametrize('variant', list(filter(is_causal_only, VARIANTS)))
def test_causal_encodings_refuse_to_look_ahead(variant):
  enc, (x, weights, _) = build(variant), inputs()
  with pytest.raises(
    ValueError, match=f'^{type(enc).__name__} is defined for causal attention only$'
  ):
    layer(enc, weights, x, causal=False)


@pytest.mark.parametrize('variant', [*{**ENCODINGS, **CHAINS}, 't5_bidirectional', 'deberta_p2c'])
def test_packed_documents_are_separate_runs(variant):
  """Each document of a packed row gets what it gets alone, whatever stands beside it."""
  enc, (x, weights, _) = build(variant), inputs()
  packed = jax.jit(functools.partial(layer, segments=SEGMENTS, backend='blockwise', block=(4, 4)))(
    enc, weights, x
  )
  oracle = ORACLES[VARIANTS[variant][0]](DIMS, VARIANTS[variant][1], parameters(enc))
  for b, row in enumerate(SEGMENTS):
    for document in np.unique(row):
      here = row == document
      n = here.sum()
      alone = attention_layer(
        oracle, weights, x[b : b + 1, here], np.arange(n)[None], np.tril(np.ones((1, n, n), bool))
      )
      close(packed[b, here], alone[0])


@pytest.mark.parametrize('mode', ['contiguous', 'positions'])
@pytest.mark.parametrize('variant', VARIANTS)
def test_score_of_a_sub_block_is_the_sub_block_of_the_score(variant, mode):
  """Given the sums carried from the right, where it asks for any. The values of two halves of a row
  add up to its.
  """
  enc = build(variant)
  if enc.score is None and enc.value is None:
    pytest.skip('acts before there are pairs')
  reach, order_SS = 40, np.arange(S)[:, None] - np.arange(S)[None]

  def block_of(enc, positions, coordinates, rows, columns, carried=()):
    order = order_SS[rows, columns]
    r = positions[:, rows, None] - positions[:, None, columns]
    if mode == 'positions':
      distances = Lookup.of(r, -reach, reach)
      tables = distances.read(enc.tables(jnp.arange(-reach, reach + 1)))
    else:
      distances, first, (T, n) = Diagonals(*order.shape), order[0, 0], order.shape
      tables = jax.tree.map(
        lambda t: spread(t.T, T, n)[None] if t.ndim == 2 else heads_first(t),
        enc.tables(jnp.arange(first - n, first + T)),
      )
    cut = lambda part: jax.tree.map(lambda c: c[:, part], coordinates)
    mask = jnp.broadcast_to((order >= 0) | (not enc.causal_only), r.shape)
    return Block(
      cut(rows), cut(columns), jnp.asarray(order), r, mask, tables, distances, Sums(carried)
    )

  @jax.jit
  def parts_and_wholes(enc, x, weights):
    positions = jnp.asarray(SCATTERED) if mode == 'positions' else jnp.arange(S)[None]
    coordinates = enc.locate(x, positions)
    q = jnp.einsum('bsd,dhk->bshk', x, weights['q'])
    k = jnp.repeat(jnp.einsum('bsd,dhk->bshk', x, weights['k']), 2, axis=2)
    q, k = enc.transform(q, k, coordinates, coordinates)
    s = enc.scale(DIMS.head_dim) * jnp.einsum('bthk,bshk->bhts', q, k)
    block = functools.partial(block_of, enc, positions, coordinates)
    everything, upper, left, right = slice(0, S), slice(2, 7), slice(0, 4), slice(4, S)
    whole, scores, values, carried = block(everything, everything), [], [], ()
    if enc.score is not None:
      full = enc.score(s, q, k, whole)
      for columns in (right, left):
        cut = block(upper, columns, carried)
        part = enc.score(s[:, :, upper, columns], q[:, upper], k[:, columns], cut)
        scores.append((part, full[:, :, upper, columns]))
        carried = cut.sums.totals
    if enc.value is not None:
      p = jax.nn.softmax(s)
      halves = [
        enc.value(p[:, :, upper, columns], block(upper, columns)) for columns in (left, right)
      ]
      values.append((sum(halves), enc.value(p, whole)[:, upper]))
    return scores, values

  scores, values = parts_and_wholes(enc, *inputs()[:2])
  for part, whole in scores:
    np.testing.assert_array_equal(part == MASKED, whole == MASKED)
    close(*(jnp.where(score == MASKED, 0, score) for score in (part, whole)))
  for sums, whole in values:
    close(sums, whole)


@pytest.mark.parametrize('variant', VARIANTS)
def test_bias_is_in_the_scale_or_not_as_declared(variant):
  """A class of twice the scale adds twice the bias where the bias is in the scale, and the same
  where it is not.

  Of a chain, classes of its members. Where they differ it says so, and neither is true; each is a
  case of its own.
  """
  enc, (x, weights, _) = build(variant), inputs()
  if enc.bias_in_scale is None:
    assert enc.score is None
    return
  q, k = (
    jnp.einsum('bsd,dhk->bshk', x, weights['q']),
    jnp.einsum('bsd,dhk->bshk', x, weights['k']).repeat(2, axis=2),
  )

  def bias(enc):
    r = (jnp.arange(S)[:, None] - jnp.arange(S)[None])[None]
    mask = (r >= 0) | (not enc.causal_only)
    place = enc.locate(x, jnp.arange(S)[None])
    lookup = Lookup.of(r, 1 - S, S - 1)
    tables = lookup.read(enc.tables(jnp.arange(1 - S, S)))
    return enc.score(
      jnp.zeros((B, 4, S, S)), q, k, Block(place, place, r[0], r, mask, tables, lookup, Sums())
    )

  def scaled_twice(enc):
    enc.__class__ = type(
      'Twice', (type(enc),), {'scale': lambda self, K: 2 * super(type(self), self).scale(K)}
    )

  once = bias(enc)
  for part in getattr(enc, 'members', [enc]):
    scaled_twice(part)
  twice = bias(enc)
  seen = once != MASKED
  assert np.abs(once[seen]).max() > 1e-2
  if enc.bias_in_scale == 'mixed':
    assert all(np.abs(twice - n * once)[seen].max() > 1e-2 for n in (1, 2))
  else:
    close(twice[seen], once[seen] * (2 if enc.bias_in_scale else 1))


COUNTS = {  # parameters of one layer
  'nope': 0,
  'learned': 40 * 12,
  'sinusoidal': 0,
  'shaw': 2 * 33 * 8,
  'transformer_xl': 12 * 4 * 8 + 2 * 4 * 8,
  't5': 32 * 4,
  'deberta': 2 * 40 * 12 + 2 * 12 * 4 * 8,
  'rope': 0,
  'rerope': 0,
  'leaky_rerope': 0,
  'self_extend': 0,
  'alibi': 0,
  'kerple_log': 2 * 4,
  'sandwich': 0,
  'fire': 2 + 2 * 32 + 32 * 4,
  'fox': 12 * 4 + 4,
  'cope': 64 * 8,
  'stick_breaking': 0,
  'learned_long': 64 * 12,
  'sinusoidal_concatenated': 0,
  'sinusoidal_tensor2tensor': 0,
  'shaw_clipped': 2 * 7 * 8,
  'transformer_xl_clamped': 12 * 4 * 8 + 2 * 4 * 8,
  't5_small': 8 * 4,
  't5_bidirectional': 8 * 4,
  'deberta_clamped': 2 * 4 * 12 + 2 * 12 * 4 * 8,
  'deberta_c2p': 2 * 4 * 12 + 12 * 4 * 8,
  'deberta_p2c': 2 * 4 * 12 + 12 * 4 * 8,
  'rope_interleaved': 0,
  'rope_partial': 0,
  'self_extend_partial': 0,
  'alibi_learned': 4,
  'shaw_keys': 7 * 8,
  'shaw_key_query': 7 * 8,
  'kerple_log_softplus': 2 * 4,
  'sandwich_narrow': 0,
  'fire_small': 2 + 2 * 5 + 5 * 4,
  'fox_remembering': 12 * 4 + 4,
  'cope_few': 3 * 8,
  'kerple_power': 2 * 4,
  'p_rope': 0,
  'music_transformer': 40 * 4 * 8,
  'relative_projection': 12 * 4 * 16 + 1024 * 16,
  'pope': 4 * 8,
  'xpos': 0,
  'tupe': 40 * 12 + 12 * (4 + 2) * 8,
  'dape': 8 * 32 + 32 + 32 * 4,
  'grape_ap': 12 * 4 * 8,
  'selective_rope': 12 * 16 + 16 * 2 * 4 + 4 * 2 * 4,
  'path': 12 * 32 + 32 * 2 * 8 + 3 * 2 * 8 + 12 * 2 + 2,
  'kerple_power_softplus': 2 * 4,
  'fox_learned': 4,
  'fox_in_scale': 12 * 4 + 4,
  'kerple_log_in_scale': 2 * 4,
  'fox_fixed': 0,
  'p_rope_most': 0,
  'music_transformer_short': 4 * 4 * 8,
  'music_transformer_clipped': 4 * 4 * 8,
  'relative_projection_short': 12 * 4 * 3 + 5 * 3,
  'relative_projection_growing': 12 * 4 * 16 + 1024 * 16,
  'pope_uniform': 4 * 8,
  'xpos_fast': 0,
  'tupe_affine': 40 * 12 + 12 * (4 + 2) * 8 + 2 * 12 + 4 * 8,
  'tupe_r': 40 * 12 + 12 * (4 + 2) * 8 + 8 * 4,
  'dape_kerple': 8 * 6 + 6 + 6 * 4 + 2 * 4,
  'dape_fire': 8 * 8 + 8 + 8 * 4 + 2 + 2 * 32 + 32 * 4,
  'grape_ap_wide': 12 * 4 * 12,
  'selective_rope_bias': 12 * 3 + 3 * 2 * 4 + 4 * 2 * 4 + 2 * 4,
  'selective_rope_gate': 12 * 16 + 16 * 2 * 4 + 4 * 2 * 4 + 12 * 2 + 2,
  'llama4_temperature': 0,
  'random_positions': 0,
  'random_positions_t5': 8 * 4,
  'shape_offset': 0,
  'pose': 0,
  'path_linear': 12 * 2 * 8 + 3 * 2 * 8 + 12 * 2 + 2,
  'path_fox': 12 * 32 + 32 * 2 * 8 + 3 * 2 * 8 + 12 * 2 + 2 + 12 * 4 + 4,
  'chain': 12 * 4 + 4,
  'chain_cope_rope': 64 * 8,
  'chain_ssmax_alibi': 4,
  'chain_shaw_alibi': 2 * 7 * 8,
  'logn': 0,
  'logn_ratio': 0,
  'ssmax': 4,
  'ssmax_bias': 2 * 4,
  'nope_scale': 0,
  'nope_scale_learned': 4,
}


# More rows; parameters that start where the fixed or projected ones are; a table of zeros.
SAME_AT_THE_START = (
  'learned_long',
  'alibi_learned',
  'kerple_log_softplus',
  'kerple_power_softplus',
  'cope_few',
  'tupe_affine',
  'ssmax_bias',
)


@pytest.mark.parametrize('variant', VARIANTS)
def test_parameters(variant):
  """As many as the formula says, and hyperparameters change the output."""
  name, hyper = VARIANTS[variant]
  enc, (x, weights, _) = build(variant), inputs()
  assert sum(p.size for p in jax.tree.leaves(enc)) == COUNTS[variant]
  if hyper and variant not in SAME_AT_THE_START:
    run = lambda enc: layer(enc, weights, x, backend='dense', causal=enc.causal_only)
    plain = make(name, **dataclasses.asdict(DIMS), rngs=nnx.Rngs(0))
    changed = make(name, **dataclasses.asdict(DIMS), rngs=nnx.Rngs(0), **hyper)
    assert np.abs(run(changed) - run(plain)).max() > 1e-4
