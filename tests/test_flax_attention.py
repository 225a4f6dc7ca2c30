"""`attention_fn` in the layers of NNX and Linen: they equal forward passes written by hand."""

import inspect
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from posenc_jax import attend, attention_fn, make

SIZES = dict(model_dim=32, heads=4, head_dim=8, train_length=16)
X = jnp.asarray(np.random.default_rng(0).standard_normal((2, 11, 32)), jnp.float32)


def away(enc):
  """The encoding with parameters that are not those at its start."""
  draw = np.random.default_rng(1).standard_normal
  return jax.tree.map(lambda p: p + jnp.asarray(draw(p.shape), jnp.float32), enc)


def by_hand(enc, weights, x, **options):
  """`weights`: kernels and biases by the name of the projection."""
  kernel, bias = (lambda n: weights[n]['kernel']), (lambda n: weights[n]['bias'])
  q, k, v = (
    jnp.einsum('btd,dhk->bthk', x, kernel(n)) + bias(n)[None, None]
    for n in ('query', 'key', 'value')
  )
  o = attend(q * enc.query_scale, k, v, enc, x=x, backend='dense', **options)
  return jnp.einsum('bthk,hkd->btd', o, kernel('out')) + bias('out')[None, None]


def weights_of(layer):
  of = lambda n: {name: getattr(getattr(layer, n), name)[...] for name in ('kernel', 'bias')}
  return {n: of(n) for n in ('query', 'key', 'value', 'out')}


def nnx_layer(function, **options):
  return nnx.MultiHeadAttention(
    4, 32, attention_fn=function, decode=False, rngs=nnx.Rngs(0), **options
  )


@pytest.mark.parametrize('name', ['t5', 'rope'])
def test_nnx_equals_a_forward_pass_by_hand(name):
  """Causal, with a window; the gradients of the encoding are there, and of shared ones all."""
  enc = away(make(name, **SIZES, rngs=nnx.Rngs(0)))
  layers = nnx.List([nnx_layer(attention_fn(enc, is_causal=True, window=5)) for _ in range(2)])

  @nnx.jit
  def both(layers):
    def loss(layers):
      x = X
      for layer in layers:
        x = layer(x)
      return (x**2).sum(), x

    gradients, out = nnx.grad(loss, has_aux=True)(layers)
    return gradients, out

  def loss_by_hand(enc, weights):
    x = X
    for w in weights:
      x = by_hand(enc, w, x, window=5)
    return (x**2).sum(), x

  gradients, out = both(layers)
  weights = [weights_of(layer) for layer in layers]
  (d_enc, _), desired = jax.jit(jax.grad(loss_by_hand, argnums=(0, 1), has_aux=True))(enc, weights)
  np.testing.assert_allclose(out, desired, atol=2e-5 * np.abs(desired).max())
  found = jax.tree.leaves(gradients[0]['attention_fn']) if name == 't5' else []
  assert len(found) == (name == 't5')
  for g, wanted in zip(found, jax.tree.leaves(d_enc), strict=True):
    np.testing.assert_allclose(g, wanted, atol=2e-5 * np.abs(wanted).max())


def test_options_in_lists_can_be_static_under_jit():
  function = attention_fn(make('rope', **SIZES, rngs=nnx.Rngs(0)), block_sizes=[4, 4])
  hash(nnx.split(nnx_layer(function))[0])


@pytest.mark.ci
def test_nnx_is_causal_where_it_says_so():
  """And else not, as elsewhere in Flax; a mask and positions are those of the call."""
  enc = away(make('t5', **SIZES, rngs=nnx.Rngs(0), bidirectional=True))
  function = attention_fn(enc)
  layer = nnx_layer(function)
  weights, positions = weights_of(layer), np.arange(11)[None] * 2
  close = lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5)
  close(layer(X), by_hand(enc, weights, X, is_causal=False))
  close(layer(X, is_causal=True), by_hand(enc, weights, X))
  mask = nnx.make_causal_mask(X[..., 0])
  assert mask.dtype == jnp.float32, 'as Flax makes them'
  close(layer(X, mask=mask), by_hand(enc, weights, X))
  placed = by_hand(enc, weights, X, is_causal=False, position_ids=positions)
  close(nnx_layer(partial(function, input_positions=positions))(X), placed)
  if 'input_positions' in inspect.signature(layer).parameters:  # not in Flax 0.12.8
    close(layer(X, input_positions=positions), placed)


def test_linen_equals_a_forward_pass_by_hand():
  """With gradients to the encoding, and a mask of each row of the batch, or packed."""
  enc = away(make('t5', **SIZES, rngs=nnx.Rngs(0)))
  mask = linen.combine_masks(
    linen.make_causal_mask(X[..., 0]),
    linen.make_attention_mask(jnp.ones((2, 11)), jnp.arange(11)[None] != jnp.array([[3], [7]])),
  )
  segments = jnp.asarray([[0] * 4 + [1] * 7] * 2)

  def run(variables, enc, mask, **options):
    function = attention_fn(enc, **options)
    layer = linen.MultiHeadDotProductAttention(4, qkv_features=32, attention_fn=function)
    return layer.apply(variables, X, mask=mask) if variables else layer.init(jax.random.key(0), X)

  variables = run(None, enc, None)
  weights = variables['params']
  loss = lambda enc, run: (run(enc) ** 2).sum()
  for given, by in (
    (dict(mask=mask), dict(mask=mask[:, 0] > 0, is_causal=False)),
    (dict(mask=None, is_causal=True, segment_ids=segments), dict(segment_ids=segments)),
  ):
    layer = lambda enc, given=given: run(variables, enc, **given)
    hand = lambda enc, by=by: by_hand(enc, weights, X, **by)
    np.testing.assert_allclose(jax.jit(layer)(enc), hand(enc), atol=1e-5)
    found, desired = (jax.grad(loss)(enc, f) for f in (layer, hand))
    for g, wanted in zip(*map(jax.tree.leaves, (found, desired)), strict=True):
      np.testing.assert_allclose(g, wanted, atol=2e-5 * np.abs(wanted).max())


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    ({'bias': X}, 'bias has shape (2, 11, 32); allowed: (2, 4, 11, 11), or 1 in the place of any'),
    (
      {'dropout_rate': 0.5, 'dropout_rng': 0},
      'dropout_rate=0.5; allowed: 0, or deterministic=True',
    ),
    ({'precision': 'high'}, "precision='high'; allowed: None: jax.default_matmul_precision"),
    ({'module': object()}, 'sow_weights=True; allowed: False, for attend keeps no weights'),
    ({'qk_attn_weights_einsum': jnp.einsum}, 'qk_attn_weights_einsum_cls; allowed: None, for'),
    ({'attn_weights_value_einsum': jnp.einsum}, 'attn_weights_value_einsum_cls; allowed: None'),
    (
      {'mask': np.ones((2, 4, 11, 11), bool)},
      'mask has shape (2, 4, 11, 11); allowed: (2, 1, 11, 11), or 1 in the place of any',
    ),
    ({'mask': np.ones((2, 11, 11), bool)}, 'mask has shape (2, 11, 11); allowed: (2, 1, 11, 11)'),
    ({'mask': np.ones((2, 1, 1, 5), bool)}, 'mask has shape (2, 1, 1, 5); allowed: (2, 1, 11, 11)'),
    (
      {'key': np.ones((2, 12, 4, 8), np.float32)},
      '11 queries for 12 keys; allowed: as many, of one sequence; for a cache',
    ),
  ],
)
def test_what_attend_does_not_do_is_refused(given, message):
  q = jnp.ones((2, 11, 4, 8))
  function = attention_fn(make('rope', **SIZES, rngs=nnx.Rngs(0)))
  with pytest.raises(ValueError, match=re.escape(message)):
    function(**{'query': q, 'key': q, 'value': q} | given)


def test_dropout_that_is_not_active_is_no_dropout():
  function = attention_fn(make('rope', **SIZES, rngs=nnx.Rngs(0)), is_causal=True)
  layer = nnx_layer(function, dropout_rate=0.5)
  assert np.isfinite(layer(X, deterministic=True)).all()
  with pytest.raises(ValueError, match='allowed: 0, or deterministic=True'):
    layer(X, deterministic=False, rngs=nnx.Rngs(0))


def test_one_mask_of_two_is_refused():
  enc, q = make('rope', **SIZES, rngs=nnx.Rngs(0)), jnp.ones((2, 11, 4, 8))
  function = attention_fn(enc, mask=lambda i, j: i > j)
  with pytest.raises(ValueError, match='mask; allowed: one, of the layer or `mask` of'):
    function(q, q, q, mask=np.ones((1, 1, 11, 11), bool))
  positions = np.arange(11)[None]
  function = attention_fn(enc, position_ids=positions)
  with pytest.raises(ValueError, match='input_positions; allowed: one, of the layer or `pos'):
    function(q, q, q, input_positions=positions)


def test_what_no_layer_could_use_is_refused_before_it_is_made():
  with pytest.raises(ValueError, match=r"^enc='rope'; allowed: an encoding, such as"):
    attention_fn('rope')
  enc = make('rope', **SIZES, rngs=nnx.Rngs(0))
  with pytest.raises(
    ValueError, match=r'^return_logsumexp=True; allowed: False, for layers of Flax'
  ):
    attention_fn(enc, return_logsumexp=True)


def test_a_bias_is_that_of_flax():
  """In the layer of Linen beside its own attention, which has it behind the scale, too."""
  q = jax.random.normal(jax.random.key(0), (2, 11, 4, 8))
  bias = jax.random.normal(jax.random.key(1), (1, 4, 11, 11))
  enc = make('nope', **SIZES, rngs=nnx.Rngs(0))
  found = attention_fn(enc)(q, q, q, bias=bias)
  np.testing.assert_allclose(found, linen.dot_product_attention(q, q, q, bias=bias), atol=2e-6)


def test_a_bias_of_two_heads_for_each_query():
  q = jax.random.normal(jax.random.key(0), (2, 11, 4, 8))
  enc = make('rope_pp', **SIZES, rngs=nnx.Rngs(0))
  bias = jax.random.normal(jax.random.key(1), (2, 8, 11, 11))
  found = attention_fn(enc)(q, q, q, bias=bias)
  expected = attend(q, q, q, enc, bias=bias, is_causal=False)
  np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize('batch', [(), (2, 3)])
def test_options_of_tokens_have_batches_as_queries_do(batch):
  draw = jax.random.normal
  q, x = draw(jax.random.key(0), (*batch, 11, 4, 8)), draw(jax.random.key(1), (*batch, 11, 32))
  segment_ids = jnp.broadcast_to(jnp.arange(11) // 4, (*batch, 11))
  enc = make('fox', **SIZES, rngs=nnx.Rngs(0))
  given = dict(x=x, segment_ids=segment_ids, is_causal=True)
  found = attention_fn(enc, **given)(q, q, q)
  rows = lambda array, others: array.reshape(-1, *array.shape[-others:])
  given = dict(x=rows(x, 2), segment_ids=rows(segment_ids, 1))
  expected = attend(*[rows(q, 3)] * 3, enc, **given)
  np.testing.assert_allclose(found, expected.reshape(found.shape), atol=1e-6)
  one = jnp.arange(11) // 4  # of all sequences
  for segment_ids in (one, one[None]):
    again = attention_fn(enc, x=x, segment_ids=segment_ids, is_causal=True)(q, q, q)
    np.testing.assert_allclose(again, found, atol=1e-6)


@pytest.mark.parametrize('batch', [(), (2,), (2, 3)])
def test_positions_of_all_sequences(batch):
  q, enc = (
    jax.random.normal(jax.random.key(0), (*batch, 11, 4, 8)),
    make('rope', **SIZES, rngs=nnx.Rngs(0)),
  )
  at = 3 * jnp.arange(11)
  found = [attention_fn(enc)(q, q, q, input_positions=ids) for ids in (at, at[None])]
  whole = jnp.broadcast_to(at, (*batch, 11)) if batch else at
  found.append(attention_fn(enc, position_ids=whole)(q, q, q))
  rows = q.reshape(-1, 11, 4, 8)
  expected = attend(rows, rows, rows, enc, position_ids=at[None], is_causal=False)
  for o in found:
    np.testing.assert_allclose(o, expected.reshape(q.shape), atol=1e-6)


@pytest.mark.parametrize('batch', [(), (2, 3)])
def test_batches_may_have_any_number_of_axes(batch):
  enc = make('rope', **SIZES, rngs=nnx.Rngs(0))
  layer = nnx_layer(attention_fn(enc, is_causal=True))
  x = jax.random.normal(jax.random.key(0), (*batch, 11, 32))
  mask = np.random.default_rng(0).random((*batch[:1], *(1 for _ in batch[1:]), 1, 11, 11)) < 0.7
  found = layer(x, mask=mask)
  rows = jnp.broadcast_to(mask, (*batch, 1, 11, 11)).reshape(-1, 1, 11, 11)
  expected = layer(x.reshape(-1, 11, 32), mask=rows)
  np.testing.assert_allclose(found, expected.reshape(x.shape), atol=2e-6)


@pytest.mark.parametrize('shape', [(2, 1, 1, 11), (2, 1, 11, 1), (1, 1, 1, 11)])
def test_masks_are_broadcast_as_those_of_flax(shape):
  """The first is that of padding."""
  enc, q = (
    make('rope', **SIZES, rngs=nnx.Rngs(0)),
    jax.random.normal(jax.random.key(0), (2, 11, 4, 8)),
  )
  mask = np.random.default_rng(0).random(shape) < 0.7
  whole = np.broadcast_to(mask[:, 0], (2, 11, 11))
  found = attention_fn(enc)(q, q, q, mask=mask)
  np.testing.assert_allclose(found, attend(q, q, q, enc, mask=whole, is_causal=False), atol=1e-6)


@pytest.mark.ci
def test_linen_takes_what_nnx_cannot_give():
  """Inputs that the encoding reads, and more heads of outputs than of queries."""
  for name, kernel in (('fox', (4, 8, 32)), ('rope_pp', (8, 8, 32))):
    enc = make(name, **SIZES, rngs=nnx.Rngs(0))
    function = attention_fn(enc, is_causal=True, x=X)
    layer = linen.MultiHeadDotProductAttention(4, qkv_features=32, attention_fn=function)
    out, variables = layer.init_with_output(jax.random.key(0), X)
    assert variables['params']['out']['kernel'].shape == kernel
    np.testing.assert_allclose(out, by_hand(enc, variables['params'], X), atol=1e-5)
