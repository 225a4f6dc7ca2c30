"""The ring equals dense, values and gradients, whatever the encoding, the mask and the shares; and
what it takes.
"""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from against_dense import gradients, gradients_of_layer
from flax import nnx
from jax.sharding import AxisType
from kinds import daily_if
from test_attention import ContentSink
from test_laws import CASES, MODES, B, backends_of, build, close, inputs, layer
from test_padding import chain_of

from posenc_jax.attention import attend
from posenc_jax.attention.backends.ring_walk import num_steps
from posenc_jax.attention.mask import Mask
from posenc_jax.encodings import make

# One of each kind under the masks that it may meet differently; every other case of the laws is
# slow.
SUBSET = {
  ('shaw', 'packed'),  # vectors a distance: queries meet them, and values
  ('fox', 'packed'),  # coordinates from content
  ('cope', 'sink_tokens'),  # a sum over keys, which ends; shares between the sinks and the window
}


assert {*CASES} >= SUBSET


def mesh(**sizes):
  return jax.set_mesh(
    jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))
  )


@pytest.mark.parametrize(
  ('variant', 'mode'),
  [
    pytest.param(*case, marks=() if case in SUBSET else pytest.mark.slow)
    for case in CASES
    if 'T' not in MODES[case[1]] and 'blockwise' in backends_of(case[0])
  ],
)
def test_equal_to_dense(variant, mode):
  """Values and gradients, those of parameters and of inputs; shares of two blocks, and a mesh that
  cuts batches too, or one with shares of nothing but padding.
  """
  enc = build(variant)
  desired = gradients_of_layer(enc, mode, 'dense')
  # 11 tokens on 8 devices: the last two have none
  with mesh(context=8) if variant == 'fox' else mesh(data=2, context=4):
    actual = gradients_of_layer(enc, mode, 'ring', (1, 2) if mode == 'causal' else None)
  # The laws let each be 2e-5 away from float64. In `float_positions` the gradient of FIRE's c is
  # 6.60592, the sum of terms of 86 in all: 6.60602 here by `dense`, 6.60584 by `ring`.
  tolerance = 4e-5 if (variant, mode) == ('fire', 'float_positions') else 2e-5
  jax.tree.map(functools.partial(close, tolerance=tolerance), actual, desired)


def test_shares_of_padding_reach_no_gradient():
  """A query of zeros has scores above 0 there, which are divided by the keys that it sees."""
  enc = chain_of('t5', 'relu')
  desired = gradients_of_layer(enc, 'causal', 'dense')
  with mesh(context=8):
    jax.tree.map(close, gradients_of_layer(enc, 'causal', 'ring'), desired)


@pytest.mark.parametrize(
  'options',
  [
    {},
    *(pytest.param(some, marks=daily_if(False)) for some in ({'window': 3}, {'is_causal': False})),
  ],
)
def test_sinks_of_tokens_on_eight_shares(options):
  """The last two shares are nothing but padding; gradients reach inputs by way of the sinks."""
  enc, (x, weights, cotangent) = ContentSink(build('nope').dims, nnx.Rngs(0)), inputs()

  def by(backend):
    run = lambda *args: layer(*args, backend=backend, **options)
    return gradients(run, cotangent, enc, weights, x)

  desired = by('dense')
  with mesh(context=8):
    jax.tree.map(close, by('ring'), desired)


@pytest.mark.parametrize(
  'name',
  [pytest.param(n, marks=daily_if(n == 'alibi')) for n in ('alibi', 'transformer_xl', 'cope')],
)
def test_memory_of_a_device_falls_as_shares_are_more(name):
  """Temporary bytes of the gradient: tables lie on no device as a whole, nor do keys."""
  T, H, K = 8192, 4, 32
  enc = make(name, model_dim=H * K, heads=H, head_dim=K, train_length=512, rngs=nnx.Rngs(0))
  loss = lambda enc, q, k, v: (
    attend(q, k, v, enc, backend='ring', block_sizes=(64, 64)) ** 2
  ).sum()
  x = jax.ShapeDtypeStruct((1, T, H, K), jnp.float32)

  def temporary(shares):
    with mesh(context=shares):
      along = jax.NamedSharding(jax.sharding.get_mesh(), jax.P(None, 'context'))
      compiled = jax.jit(
        jax.grad(loss, argnums=(0, 1, 2, 3)), in_shardings=(None, along, along, along)
      )
      return compiled.lower(enc, x, x, x).compile().memory_analysis().temp_size_in_bytes

  two, eight = temporary(2), temporary(8)  # one would have nothing to send
  assert eight < two / 3.5, (two, eight)


@pytest.mark.parametrize('window', range(1, 14))
def test_a_window_ends_the_way_round(window):
  """After the last share of which any query sees a key."""
  shares, share = 4, 3
  see = lambda t: any(0 <= t * share + i - j < window for i in range(share) for j in range(share))
  schedule = SimpleNamespace(grid=SimpleNamespace(mask=Mask(window=window), block_k=1))
  steps = num_steps(schedule, shares, share)
  assert steps == max(t for t in range(shares) if see(t)) + 1


def test_what_the_ring_cannot_serve():
  x = jnp.ones((B, 8, 4, 8))
  k = x[:, :, :2]
  run = lambda enc, q, **options: attend(q, k, k, enc, backend='ring', **options)
  with mesh(context=4):
    with pytest.raises(NotImplementedError, match='there are 3 queries for 8 keys'):
      run(build('nope'), x[:, :3])
    with pytest.raises(NotImplementedError, match='backend ring: it returns no log-sum-exp'):
      run(build('nope'), x, return_logsumexp=True)
    with pytest.raises(NotImplementedError, match='backend ring: the mask is an array'):
      run(build('nope'), x, mask=np.ones((1, 8, 8), bool))
  with mesh(data=8), pytest.raises(NotImplementedError, match='needs a mesh with an axis context'):
    run(build('nope'), x)
  explicit = jax.make_mesh((8,), ('context',), axis_types=(AxisType.Explicit,))
  with (
    jax.set_mesh(explicit),
    pytest.raises(NotImplementedError, match='axis context of the mesh is Explicit'),
  ):
    run(build('nope'), x)


def test_auto_takes_the_ring_where_a_sequence_is_cut_and_it_can():
  q, enc = jnp.ones((B, 8, 4, 8)), build('t5')
  k = q[:, :, :2]
  text = lambda q, **options: jax.jit(lambda q: attend(q, k, k, enc, **options)).lower(q).as_text()
  with mesh(context=4):
    assert 'collective_permute' in text(q)
    assert 'collective_permute' not in text(q, backend='dense')
    attend(q[:, -1:], k, k, enc)  # decoding
  with mesh(data=4, context=1):
    assert 'collective_permute' not in text(q)


@pytest.mark.slow
def test_bfloat16_is_rounding_away_from_float32():
  enc, rng = build('shaw'), np.random.default_rng(0)
  q, k, v = (jnp.asarray(rng.standard_normal((1, 60, n, 8)), jnp.float32) for n in (4, 2, 2))
  half = [x.astype(jnp.bfloat16) for x in (q, k, v)]
  exact = attend(q, k, v, enc, backend='dense')
  with mesh(context=8):
    rounded = jax.jit(lambda *args: attend(*args, enc, backend='ring'))(*half)
  assert rounded.dtype == jnp.bfloat16
  assert np.abs(rounded.astype(jnp.float32) - exact).max() < 0.02 * np.abs(exact).max()


@pytest.mark.slow
def test_it_runs_outside_of_jit_too():
  enc, q = (
    build('alibi'),
    jnp.asarray(np.random.default_rng(0).standard_normal((B, 8, 4, 8)), jnp.float32),
  )
  k = q[:, :, :2]
  desired = attend(q, k, k, enc, backend='dense')
  with mesh(data=2, context=4):
    close(attend(q, k, k, enc, backend='ring'), desired)


KERNELS = {
  'causal': {},
  'window': {'window': 5},  # the second shard to the left is seen by some, the third by none
  'bidirectional': {'is_causal': False},
  'both_sides_window': {'is_causal': False, 'window': 6},
  'packed': {'segment_ids': np.repeat([[0, 1, 2, 3]], (5, 2, 6, 3), axis=1)},
  'packed_rows': {'segment_ids': np.sort(np.random.default_rng(3).integers(0, 3, (B, 16)))},
}


IN_KERNELS = (
  *(('nope', mode) for mode in KERNELS),
  ('shaw', 'bidirectional'),  # tables that queries and values meet
  ('deberta', 'window'),  # and keys
  ('t5', 'packed'),
  ('fox', 'causal'),  # coordinates from content
  ('sink', 'both_sides_window'),
  ('rope_pp', 'packed_rows'),  # more heads out than in
)


@pytest.mark.parametrize(
  ('variant', 'mode'),
  [pytest.param(*case, marks=daily_if(case == ('deberta', 'window'))) for case in IN_KERNELS],
)
def test_kernels_equal_dense(variant, mode):
  """Values and gradients of the ring in kernels, a mesh that cuts batches too."""
  enc, options, rng = build(variant), KERNELS[mode], np.random.default_rng(0)
  q, k, v = (jnp.asarray(rng.standard_normal((B, 16, n, 8)), jnp.float32) for n in (4, 2, 2))
  x = jnp.asarray(rng.standard_normal((B, 16, 12)), jnp.float32)
  cotangent = jnp.asarray(rng.standard_normal((B, 16, 4 * enc.heads_out_per_head, 8)), jnp.float32)

  def by(backend, block):
    given = dict(options, backend=backend, block_sizes=block, outer_hooks_applied=True)
    run = lambda enc, q, k, v, x: attend(q, k, v, enc, x=x, **given)
    return gradients(run, cotangent, enc, q, k, v, x)

  desired = by('dense', None)
  with mesh(data=2, context=4):
    actual = by('ring_interpret', (2, 4))
  jax.tree.map(close, actual, desired)


@pytest.mark.slow
def test_kernels_take_a_causal_length_with_padding():
  enc, rng = build('alibi'), np.random.default_rng(0)
  q, k, v = (jnp.asarray(rng.standard_normal((1, 11, n, 8)), jnp.float32) for n in (4, 2, 2))
  run = lambda q, k, v, backend: attend(q, k, v, enc, backend=backend)
  both = jax.jit(
    lambda q, k, v, backend: jax.vjp(lambda *qkv: run(*qkv, backend), q, k, v)[1](q),
    static_argnums=3,
  )
  desired = both(q, k, v, 'dense')
  with mesh(context=8):
    jax.tree.map(close, both(q, k, v, 'ring_interpret'), desired)


@pytest.mark.parametrize(
  ('name', 'options', 'reason'),
  [
    ('cope', {}, 'looks numbers up'),
    ('stick_breaking', {}, 'carries sums along the keys'),
    ('sigmoid', {}, 'not normalized by softmax'),
    ('nope', {'chunk': 4}, 'counted from the start of the sequence'),
    ('nope', {'is_causal': False}, 'no whole tiles on each device'),
  ],
)
def test_what_kernels_cannot_serve_on_a_ring(name, options, reason):
  x = jnp.ones((B, 9, 4, 8))
  with mesh(context=4), pytest.raises(NotImplementedError, match=f'ring_interpret: .*{reason}'):
    attend(x, x[:, :, :2], x[:, :, :2], build(name), backend='ring_interpret', **options)


@pytest.mark.parametrize('name', ['nope', pytest.param('cope', marks=pytest.mark.slow)])
def test_masks_that_are_functions_equal_dense(name):
  """Counted from the start of the whole sequence, with integers of tokens, which go round with the
  keys; the query 6 sees no key on any device.
  """
  enc, (x, weights, _) = build(name), inputs()
  mask = lambda i, j, a, b: ((3 * i + 5 * j) % 7 != 2) & (i != 6) & (a != b)
  mask_ids = np.random.default_rng(0).integers(0, 4, (B, 11))

  def by(backend):
    run = lambda *args: layer(*args, backend=backend, mask=mask, mask_ids=mask_ids)
    return gradients(run, np.ones((B, 11, 4, 8), np.float32), enc, weights, x)

  desired = by('dense')
  with mesh(data=2, context=4):
    jax.tree.map(close, by('ring'), desired)
