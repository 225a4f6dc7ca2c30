"""The decoder: causality, packing, initial scales, its linear layer, flags, parameters of whole
models.
"""

import copy
import functools
import json
import math
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiled_models import logits, nll
from flax import nnx
from half_precision import sums_in_half_precision
from jax import export
from jax.extend.core import Jaxpr, Var
from kinds import daily_if, in_ci, representatives
from oracles import RECORDS
from small_runs import dotted

from configs import base
from posenc_jax import attend, data
from posenc_jax.attention import BACKENDS
from posenc_jax.attention.backends import splash
from posenc_jax.attention.choice import Backend
from posenc_jax.attention.kernels.program import open_jaxpr
from posenc_jax.config.overlays import overlay
from posenc_jax.config.serialization import from_json, to_json
from posenc_jax.encodings import ENCODINGS, Dims, LengthError
from posenc_jax.inspection import parameter_counts
from posenc_jax.model import decoder
from posenc_jax.model import layer as decoder_layer
from posenc_jax.model import token_nll as nll_module
from posenc_jax.model.decoder import LM, REMAT_POLICIES, build
from posenc_jax.model.layer import MLPS, Layer, rms_norm
from posenc_jax.model.token_nll import token_nll
from posenc_jax.training import multi_seed

VOCAB = 20


def config(**overrides):
  c = base.get_config()
  small = {
    'model.layers': 3,
    'model.model_dim': 16,
    'model.heads': 4,
    'model.head_dim': 6,
    'model.mlp_dim': 24,
    'model.unroll': 1,
    'train.length': 16,
  }
  c.update_from_flattened_dict(small | dotted(overrides))
  return c


def model(**overrides) -> LM:
  return build(config(**overrides), VOCAB, nnx.Rngs(0))


PATTERNS = {
  'irope': ({'name': 'rope', 'attention_window': 4}, {'name': 'llama4_temperature', 'length': 2}),
  'local_global': (
    {'name': 'rope', 'base': 100.0, 'attention_window': 3},
    {'name': 'rope', 'base': 1e5},
  ),
  'windowed_t5': ({'name': 't5', 'attention_window': 4}, 't5', 'shaw'),
}


def patterned(name: str, vocab: int = VOCAB) -> LM:
  """A model with an encoding of ENCODINGS, or with a pattern of PATTERNS."""
  c = config(model__head_dim=8)
  overlay(
    c,
    {
      'encoding': {'name': 'pattern', 'layers': PATTERNS[name]}
      if name in PATTERNS
      else {'name': name}
    },
  )
  return build(c, vocab, nnx.Rngs(0))


def tokens(B=2, T=12, seed=0):
  return jnp.asarray(np.random.default_rng(seed).integers(0, VOCAB - 1, (B, T)))


def test_rms_norm():
  x = np.random.default_rng(0).standard_normal((2, 3, 8)).astype(np.float32)
  scale = np.arange(1, 9, dtype=np.float32)
  np.testing.assert_allclose(
    rms_norm(jnp.asarray(x), scale), x / np.sqrt((x**2).mean(-1, keepdims=True)) * scale, rtol=1e-5
  )
  rounded = jnp.asarray(x + 10, jnp.bfloat16)
  exact = np.asarray(rounded, np.float64)
  exact *= scale / np.sqrt((exact**2).mean(-1, keepdims=True))
  found = rms_norm(rounded, scale)
  assert found.dtype == jnp.bfloat16
  # rounded once, at the end
  np.testing.assert_allclose(np.asarray(found, np.float64), exact, rtol=1.01 * 2**-8)


@functools.cache
def text() -> np.ndarray:
  """Windows of the embedded corpus, of 16 bytes each."""
  documents = data.corpus('sotu', 'train', 'text', '').documents[:4]
  return np.frombuffer(b''.join(documents), np.uint8)[: 16 * 768].reshape(768, 16).astype(np.int32)


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(
      name, marks=daily_if(name == 'sink', 'ci' if name in representatives() else 'slow')
    )
    for name in ENCODINGS
  ]
  + [pytest.param(name, marks=pytest.mark.slow) for name in PATTERNS],
)
def test_model_with_every_encoding(name):
  """Starts near uniform, learns the corpus with every parameter; causal through all layers at 8
  times its length.
  """
  m = patterned(name, vocab=data.VOCAB)
  start, optimizer = jax.tree.leaves(m), optax.adam(1e-2)
  state = optimizer.init(m)

  @jax.jit
  def step(m, state, x, key):
    loss, g = jax.value_and_grad(lambda m: token_nll(m, x, key=key).mean())(m)
    updates, state = optimizer.update(g, state, m)
    return optax.apply_updates(m, updates).constrain_parameters(), state, loss

  losses = []
  for n in range(24):
    m, state, loss = step(m, state, text()[n * 32 : (n + 1) * 32], jax.random.key(n))
    losses.append(float(loss))
  assert abs(losses[0] - np.log(data.VOCAB)) < 1.2
  assert np.mean(losses[-4:]) < losses[0] - 1.5
  for (path, after), before in zip(jax.tree_util.tree_leaves_with_path(m), start, strict=True):
    assert np.abs(after - before).max() > 0, path

  long, t = jnp.asarray(text()[:16].reshape(2, -1)), 70  # windows of 128 bytes
  if m.max_length is not None and m.max_length < 128:
    with pytest.raises(LengthError, match=f'128 positions, but those of .* end at {m.max_length}'):
      nll(m, long)
    long, t = long[:, :16], 6
  nats, changed = nll(m, long), nll(m, long.at[:, t].set(long[:, t] ^ 1))
  assert nats.shape == long.shape
  assert nats.dtype == jnp.float32
  assert np.isfinite(nats).all()
  np.testing.assert_array_equal(changed[:, :t], nats[:, :t])
  assert np.abs(changed[:, t + 1 :] - nats[:, t + 1 :]).max() > 1e-4


@pytest.mark.parametrize('share', ['paper', 'all', 'none'])
def test_layers_are_a_loop_each_with_its_own_encoding(share):
  m, x = model(encoding__name='transformer_xl', model__share_encoding=share), tokens()
  variant = m.encodings.variants[0]
  y = 4 * m.embedding[...][x]
  for n in range(3):
    layer = jax.tree.map(lambda p, n=n: p[n], m.layers)
    y, _ = jax.jit(Layer.__call__)(layer, y, variant.layer(n))
  np.testing.assert_allclose(m.norm(y) @ m.embedding[...].T, logits(m, x), atol=2e-5)


def test_a_model_can_be_called_outside_of_jit():
  """Tests call it compiled, with the functions of compiled_models.py, but for this one."""
  m, x = model(), tokens()
  np.testing.assert_allclose(token_nll(m, x), nll(m, x), atol=2e-5)


@pytest.mark.parametrize('name', ['chain', 'irope', 'windowed_t5'])
def test_the_structure_of_a_model_can_be_static_under_jit(name):
  m, x = patterned(name), tokens()
  run = lambda structure, parameters, x: nnx.merge(structure, parameters)(x)
  found = jax.eval_shape(jax.jit(run, static_argnums=0), *nnx.split(m), x)
  assert found.shape == (*x.shape, VOCAB)


@pytest.mark.parametrize('mlp', MLPS)
def test_copies_of_a_model_have_its_structure(mlp):
  """So that a step that is compiled for one takes the others, and trees of both go together."""
  lm = model(model__mlp=mlp)
  for other in (copy.deepcopy(lm), pickle.loads(pickle.dumps(lm))):
    assert nnx.graphdef(other) == nnx.graphdef(lm)
    assert jax.tree.structure(other) == jax.tree.structure(lm)


def test_a_model_for_any_batch_can_be_exported():
  m = model(encoding__name='t5')
  of_any_batch = jax.ShapeDtypeStruct((*export.symbolic_shape('b'), 12), jnp.int32)
  exported = export.export(jax.jit(lambda x: m(x)))(of_any_batch)
  for B in (1, 3):
    np.testing.assert_allclose(exported.call(tokens(B)), logits(m, tokens(B)), atol=2e-5)


def test_scanned_layers_are_unrolled_layers():
  x = tokens()
  np.testing.assert_allclose(
    nll(model(model__unroll=0), x), nll(model(model__unroll=1), x), atol=2e-5
  )


def test_shared_keys_and_values_leave_the_other_parameters_as_they_are():
  plain, shared = (
    dict(jax.tree_util.tree_leaves_with_path(m)) for m in (model(), model(model__shared_kv=True))
  )
  assert shared.keys() < plain.keys()
  for path, leaf in shared.items():
    np.testing.assert_array_equal(leaf, plain[path])


def test_every_window_begins_with_bos():
  """The first token is predicted from BOS alone; the last token is only ever a target."""
  m, x = model(), tokens()
  nats = nll(m, x)
  shifted = jnp.concatenate([jnp.full((2, 1), VOCAB - 1), x[:, :-1]], axis=1)
  log_p = jax.nn.log_softmax(logits(m, shifted))
  np.testing.assert_allclose(
    nats, -np.take_along_axis(log_p, np.asarray(x)[..., None], -1)[..., 0], atol=1e-5
  )
  np.testing.assert_array_equal(nll(m, x.at[:, -1].set(0))[:, :-1], nats[:, :-1])


@pytest.mark.parametrize(
  'name',
  [
    *('fox', 'windowed_t5'),
    *(
      pytest.param(name, marks=pytest.mark.slow)
      for name in ('learned', 'rope', 't5', 'path', 'tupe', 'shape_offset', *PATTERNS)
      if name != 'windowed_t5'
    ),
  ],
)
def test_packed_rows_are_separate_rows(name):
  """Positions restart with each segment, for absolute encodings too. Attention alone: test_laws.py,
  all encodings.
  """
  m, x = patterned(name), tokens(1)
  segments = jnp.array([[0] * 5 + [1] * 7])
  packed = logits(m, x, segment_ids=segments, backend='blockwise', block_sizes=(4, 4))
  np.testing.assert_allclose(packed[:, :5], logits(m, x[:, :5]), atol=3e-5)
  np.testing.assert_allclose(packed[:, 5:], logits(m, x[:, 5:]), atol=3e-5)


@pytest.mark.ci
def test_a_segment_of_tokens_has_the_nats_that_it_has_by_itself():
  """BOS stands before each; positions that are given are those of tokens, and BOS has 0."""
  m, x, places = model(encoding__name='fox'), tokens(1), jnp.arange(12)[None] * 3
  segments, parts = jnp.array([[0] * 5 + [4] + [5] * 6]), (slice(5), slice(5, 6), slice(6, 12))
  alone = [nll(m, x[:, part]) for part in parts]
  np.testing.assert_allclose(
    nll(m, x, token_segments=segments), jnp.concatenate(alone, axis=1), atol=3e-5
  )
  m = model(encoding__name='t5')
  given = {'max_position_distance': 40, 'backend': 'blockwise', 'block_sizes': (4, 4)}
  alone = [nll(m, x[:, part], token_positions=places[:, part], **given) for part in parts]
  np.testing.assert_allclose(
    nll(m, x, token_segments=segments, token_positions=places, **given),
    jnp.concatenate(alone, axis=1),
    atol=3e-5,
  )


def test_positions_are_an_input():
  m, x = model(encoding__name='sinusoidal'), tokens()
  at = lambda shift: logits(m, x, position_ids=jnp.arange(12)[None] + shift)
  np.testing.assert_allclose(at(0), logits(m, x), atol=1e-5)
  assert np.abs(at(5) - at(0)).max() > 1e-3


def test_learned_positions_end_at_the_training_length():
  m = model(encoding__name='learned')
  assert m.max_length == 16
  assert logits(m, tokens(T=16)).shape == (2, 16, VOCAB)
  with pytest.raises(LengthError, match='17 positions, but those of Learned end at 16'):
    m(tokens(T=17))
  assert model(encoding__name='rope').max_length is None


@pytest.mark.parametrize(
  'flag',
  [
    {'model__qk_norm': 'head'},
    {'model__logit_softcap': 2.0},
    {'model__tie_embeddings': False},
    {'model__kv_heads': 2},
    {'model__bos': 3},
    *(
      pytest.param(flag, marks=pytest.mark.slow)
      for flag in (
        {'model__shared_kv': True},
        {'model__qk_norm': 'projection'},
        {'model__embedding_scale': 1.0},
        {'model__embedding_norm': True},
        {'model__vocab': 2 * VOCAB},
      )
    ),
  ],
)
def test_flags_are_off_and_change_the_model(flag):
  """Flags that its formula states are in the test of a layer, below."""
  x = tokens()

  def loss(m):
    nats_BT = token_nll(m, x)
    return nats_BT.mean(), nats_BT

  g, on = jax.jit(jax.grad(loss, has_aux=True))(model(**flag, model__layers=1))
  off = nll(model(model__layers=1), x)
  assert np.abs(on - off).max() > 1e-3
  assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(g))


@pytest.mark.parametrize(
  ('mlp', 'norm', 'placement', 'bias', 'gate'),
  [
    ('gelu', 'rms', 'pre', 'none', 'none'),
    ('geglu', 'layer', 'pre', 'qkv', 'headwise'),
    ('swiglu', 'rms', 'sandwich', 'qkv', 'elementwise'),
    ('gelu', 'layer', 'post', 'none', 'elementwise'),
    ('swiglu', 'layer', 'output', 'all', 'headwise'),
    ('geglu', 'rms', 'post', 'qkv', 'none'),
    ('gelu_exact', 'layer', 'parallel', 'all', 'none'),
    ('relu2', 'layer', 'pre', 'all', 'none'),
  ],
)
def test_a_layer_is_its_formula(mlp, norm, placement, bias, gate):
  """Loops in float64, with two heads that attend to the token itself alone."""
  flags = {'mlp': mlp, 'norm': norm, 'norm_placement': placement, 'bias': bias, 'norm_eps': 0.1}
  flags |= {'heads': 2, 'head_dim': 3, 'output_gate': gate}
  if placement == 'parallel':
    flags |= {'norm_placement': 'pre', 'parallel_residual': True}
  m = model(encoding__name='nope', **{f'model__{name}': value for name, value in flags.items()})
  rng = np.random.default_rng(0)
  draw = lambda leaf: jnp.asarray(0.5 * rng.standard_normal(leaf.shape[1:]))
  layer = jax.tree.map(draw, m.layers)
  x_TD = rng.standard_normal((5, 16))
  p = {
    jax.tree_util.keystr(path, simple=True, separator='.').removesuffix('.value'): np.float64(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(layer)
  }

  def normalized(name, x):
    x = x - x.mean() if norm == 'layer' else x
    return x / np.sqrt((x**2).mean() + 0.1) * p[f'{name}.scale'] + p.get(f'{name}.bias', 0)

  def attention(y):
    o = y @ p['w_v'] + p.get('b_v', 0)
    if gate != 'none':
      numbers = 1 / (1 + np.exp(-y @ p['w_output_gate']))
      o = o * (np.repeat(numbers, 3) if gate == 'headwise' else numbers)
    return o @ p['w_o'] + p.get('b_o', 0)

  def feed_forward(y):
    b_out = p.get('b_out', 0)
    gelu = lambda z: z / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))
    silu = lambda z: z / (1 + np.exp(-z))
    exact_gelu = lambda z: z / 2 * (1 + np.vectorize(math.erf)(z / np.sqrt(2)))
    hidden = y @ p['w_in'] + p.get('b_in', 0)
    relu2 = lambda z: np.maximum(z, 0) ** 2
    ungated = {'gelu': gelu, 'gelu_exact': exact_gelu, 'relu2': relu2}
    if mlp in ungated:
      return ungated[mlp](hidden) @ p['w_out'] + b_out
    gate = (gelu if mlp == 'geglu' else silu)(y @ p['w_gate'] + p.get('b_gate', 0))
    return (hidden * gate) @ p['w_out'] + b_out

  expected = []
  for x in x_TD:
    if placement == 'parallel':
      parts = attention(normalized('attention_norm', x)), feed_forward(normalized('mlp_norm', x))
      expected.append(x + sum(parts))
      continue
    for name, function in (('attention', attention), ('mlp', feed_forward)):
      first, last = f'{name}_norm', f'{name}_output_norm'
      if placement == 'pre':
        x = x + function(normalized(first, x))
      elif placement == 'post':
        x = normalized(first, x + function(x))
      elif placement == 'output':
        x = x + normalized(first, function(x))
      else:
        x = x + normalized(last, function(normalized(first, x)))
    expected.append(x)
  enc = m.encodings.variants[0].layer(0)
  computed, _ = layer(jnp.asarray(x_TD, jnp.float32)[None], enc, window=1)
  np.testing.assert_allclose(computed[0], expected, atol=1e-4, rtol=1e-4)
  assert mlp in MLPS


@pytest.mark.parametrize('kind', ['head', 'projection'])
def test_norms_of_queries_and_keys(kind):
  """Each kind divides by the root mean square of its channels: a head's, or all heads' at once."""
  m = model(encoding__name='nope', model__qk_norm=kind, model__norm_eps=1e-9)
  layer = jax.tree.map(lambda leaf: leaf[0], m.layers)
  x = np.float32(np.random.default_rng(0).standard_normal((1, 5, 16)))
  q = x @ layer.w_q[...]
  heads = 4 if kind == 'head' else 1
  cut = q.reshape(1, 5, heads, -1)
  normed = cut / np.sqrt((cut**2).mean(-1, keepdims=True))
  computed = decoder_layer._heads(q, 4, layer.q_norm)
  np.testing.assert_allclose(computed, normed.reshape(1, 5, 4, 6), atol=1e-5)


@pytest.mark.ci
def test_nats_do_not_depend_on_how_logits_are_cut(monkeypatch):
  m, x = model(model__layers=1, model__logit_softcap=3.0), tokens(T=13)
  value = lambda m: token_nll(m, x).mean()
  whole = jax.jit(jax.value_and_grad(value))(m)
  monkeypatch.setattr(nll_module, 'MAX_LOGITS', 5 * x.shape[0] * VOCAB)  # three pieces
  np.testing.assert_allclose(nll(m, x).mean(), whole[0], rtol=1e-6)
  cut = jax.jit(jax.value_and_grad(lambda m: value(m)))(m)
  jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), cut, whole)
  text = str(jax.make_jaxpr(value)(m))
  assert f'13,{VOCAB}]' not in text
  assert f'5,{VOCAB}]' in text
  of_seeds = multi_seed.stack([m, m], (0, 1))  # a device has room for fewer tokens of each
  text = str(jax.make_jaxpr(multi_seed.vmap_seeds(value))(of_seeds))
  assert f',5,{VOCAB}]' not in text
  assert f',2,{VOCAB}]' in text


@pytest.mark.ci
def test_a_step_of_many_symbols_takes_three_pieces_of_logits():
  """16,384 tokens of 49,152 symbols: their logits are 3.2 GB, one piece of them 0.27 GB."""
  m = decoder.shapes(config(model__layers=1), 49_152)
  x = jax.ShapeDtypeStruct((8, 2048), jnp.int32)
  step = jax.jit(jax.grad(lambda m, x: token_nll(m, x, backend='blockwise').mean()))
  temporary = step.lower(m, x).compile().memory_analysis().temp_size_in_bytes
  assert temporary < 3.5 * 4 * nll_module.MAX_LOGITS


@pytest.mark.ci
def test_what_is_computed_again_changes_no_gradient():
  """The more is computed again, the more products and loops over tiles there are."""
  x, counts, gradients = tokens(T=6), [], []
  for remat in ('none', *REMAT_POLICIES):
    m = model(encoding__name='t5', model__layers=1, model__remat=remat)
    gradient = jax.grad(lambda m: token_nll(m, x, backend='blockwise').mean())
    traced = jax.jit(gradient).trace(m)
    text = str(traced.jaxpr)
    counts.append(text.count('dot_general[') + text.count('while['))
    if remat in ('none', 'layer'):  # all is computed again, or nothing
      gradients.append(jax.tree.leaves(traced.lower().compile()(m)))
  none, products, attention, layer = counts
  assert none == products < attention < layer
  jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), *gradients)


def kernels_of(program) -> int:
  """How many kernels of a program return what is used. jax 0.10 leaves others in the backward pass
  of a layer that is computed again, which a compiler drops.
  """
  used = set(filter(lambda v: isinstance(v, Var), program.outvars))
  used.update(v for e in program.eqns for v in e.invars if isinstance(v, Var))
  kernels = 0
  for e in program.eqns:
    if e.primitive.name == 'pallas_call':
      kernels += not used.isdisjoint(e.outvars)
    else:
      inner = (getattr(value, 'jaxpr', value) for value in e.params.values())
      kernels += sum(kernels_of(p) for p in inner if isinstance(p, Jaxpr))
  return kernels


@pytest.mark.parametrize('backend', ['fused_interpret', 'triton_interpret', 'splash'])
def test_what_kernels_return_is_kept(backend, monkeypatch):
  """Kept, their forward kernels are in the backward pass no second time."""
  if backend == 'splash':
    interpreted = Backend(lambda request: None, functools.partial(splash.run, interpret=True))
    monkeypatch.setitem(BACKENDS, 'splash', interpreted)
  x, counts = tokens(T=128), {}
  for remat in ('none', *REMAT_POLICIES):
    m = model(encoding__name='nope', model__remat=remat)
    gradient = jax.grad(lambda m: token_nll(m, x, backend=backend).mean())
    counts[remat] = kernels_of(open_jaxpr(jax.make_jaxpr(gradient)(m)))
  assert counts['none'] == counts['products'] == counts['attention'] < counts['layer']


def test_parameters_are_counted_by_part():
  plain = parameter_counts.by_part(model(encoding__name='t5'))
  D, H, F, N = 16, 24, 24, 3
  assert plain == {
    'embedding': VOCAB * D,
    'attention': N * 4 * D * H,
    'MLP': N * 2 * D * F,
    'norms': (2 * N + 1) * D,
    'encodings': 32 * 4,
  }
  flags = {'mlp': 'swiglu', 'norm': 'layer', 'norm_placement': 'sandwich', 'bias': 'qkv'}
  flags |= {'tie_embeddings': False, 'qk_norm': 'head'}
  m = model(**{f'model__{name}': value for name, value in flags.items()})
  rich = parameter_counts.by_part(m)
  assert rich['MLP'] == N * 3 * D * F
  assert rich['attention'] == plain['attention'] + N * 3 * H
  assert rich['norms'] == 2 * (4 * N + 1) * D + N * 2 * 6
  assert rich['output'] == VOCAB * D
  for gate, more in {'elementwise': N * D * H, 'headwise': N * D * 4}.items():
    gated = parameter_counts.by_part(model(model__output_gate=gate))
    assert gated == parameter_counts.by_part(model()) | {'attention': plain['attention'] + more}
  assert sum(rich.values()) == sum(leaf.size for leaf in jax.tree.leaves(m))


@pytest.mark.parametrize(
  ('scaling', 'frequencies', 'factor'),
  [
    (None, 10_000.0 ** -np.array([0, 0.5]), 1.0),
    # the slower frequency by 4; the attention factor is of queries and keys
    (
      {'rope_type': 'yarn', 'factor': 4.0, 'original_max_position_embeddings': 64},
      np.array([1.0, 0.01 / 4]),
      0.1 * np.log(4.0) + 1,
    ),
  ],
)
def test_shared_keys_and_values_are_turned_as_one(scaling, frequencies, factor):
  """DeepSeek-V4: one normalized vector is key and value; outputs are turned back. In float64."""
  turn = {'fraction': 2 / 3, 'scaling': scaling}
  members = tuple({'name': name} | turn for name in ('rope', 'vo_rope'))
  flags = {'model__kv_heads': 1, 'model__shared_kv': True, 'model__qk_norm': 'head'}
  m = model(encoding={'name': 'chain', 'members': members}, **flags)
  layer, enc = jax.tree.map(lambda leaf: leaf[0], m.layers), m.encodings.variants[0].layer(0)
  y_TD = np.random.default_rng(0).standard_normal((7, 16))
  w_q, w_k, w_o = (np.float64(w[...]) for w in (layer.w_q, layer.w_k, layer.w_o))

  def turned(x, t, factor=1.0):  # the last two channels do not turn
    pairs = (x[..., :2] + 1j * x[..., 2:4]) * np.exp(1j * t * frequencies) * factor
    return np.concatenate([pairs.real, pairs.imag, x[..., 4:]], axis=-1)

  normalized = lambda x: x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
  kv_TK = [normalized(y @ w_k) for y in y_TD]
  k_TK, v_TK = (np.stack([turned(y, t, by) for t, y in enumerate(kv_TK)]) for by in (factor, 1.0))
  out = []
  for t, y in enumerate(y_TD):
    q_HK = turned(normalized((y @ w_q).reshape(4, 6)), t, factor)
    p_HS = np.exp(q_HK @ k_TK[: t + 1].T / np.sqrt(6))
    o_HK = p_HS / p_HS.sum(axis=1, keepdims=True) @ v_TK[: t + 1]
    out.append(turned(o_HK, -t).reshape(-1) @ w_o)
  attend_by = lambda q, k, v, y: attend(q, k, v, enc)
  computed, _ = layer._attend(jnp.asarray(y_TD, jnp.float32)[None], enc, attend_by, None)
  np.testing.assert_allclose(computed[0], out, atol=1e-5)
  shared = sum(leaf.size for leaf in jax.tree.leaves(model(model__shared_kv=True)))
  assert sum(leaf.size for leaf in jax.tree.leaves(model())) - shared == 3 * 16 * 24


def test_more_heads_out_than_in():
  """RoPE++: the output projection and gates are as wide as what comes out of attention."""
  flags = {'encoding__name': 'rope_pp', 'model__kv_heads': 2, 'model__output_gate': 'headwise'}
  m, x = model(**flags), tokens()
  assert m.layers.w_o.shape == (3, 2 * 24, 16)
  assert m.layers.w_output_gate.shape == (3, 16, 2 * 4)
  np.testing.assert_allclose(
    nll(m, x), nll(m, x, backend='blockwise', block_sizes=(4, 4)), atol=2e-5
  )


def test_bfloat16_activations_are_near_float32():
  m, x = model(encoding__name='t5'), tokens()
  np.testing.assert_allclose(nll(m, x, dtype='bfloat16'), nll(m, x), atol=0.1)


@pytest.mark.parametrize(
  'name', [*('learned', 'transformer_xl'), *(map(in_ci, ('learned_fourier', 'tupe', 'bipe')))]
)
def test_gradients_of_bfloat16_training_are_added_up_in_float32(name):
  """Sums over tokens and batch, for biases and for what an encoding adds to each sequence."""
  m = model(encoding__name=name, model__bias='all', model__norm='layer')
  gradient = jax.grad(lambda m: token_nll(m, tokens(), dtype='bfloat16').mean())
  assert sums_in_half_precision(gradient, m) == []


ALIKE = ('nope', 't5', 'learned', 'fox', 'kv_shift', 'chain')


@pytest.mark.parametrize('name', ALIKE)
def test_layers_start_alike_whatever_the_encoding(name):
  """So that runs of one seed with two encodings are a pair."""
  parts = lambda m: (m.embedding, m.layers, m.norm)
  jax.tree.map(np.testing.assert_array_equal, parts(model(encoding__name=name)), parts(model()))


@pytest.mark.parametrize(
  ('flag', 'value'),
  [('mlp', 'swiglu'), ('output_gate', 'headwise'), ('shared_kv', True), ('tie_embeddings', False)],
)
def test_flags_change_the_draws_of_no_other_matrix(flag, value):
  plain, flagged = (
    dict(jax.tree_util.tree_leaves_with_path((m.embedding, m.layers)))
    for m in (model(encoding__name='nope'), model(encoding__name='t5', **{f'model__{flag}': value}))
  )
  common = plain.keys() & flagged.keys()
  assert len(common) >= len(plain) - 1
  for path in common:
    np.testing.assert_array_equal(plain[path], flagged[path], str(path))
  different = model(encoding__name='nope').layers.w_q[...]
  assert not np.array_equal(different[0], different[1])  # each layer has its own draws


def test_initial_scales():
  """Fan-in projections, unit embeddings, and T5's missing 1/sqrt(K) on its queries: logits of all
  start alike.
  """
  big = {'model__model_dim': 64, 'model__head_dim': 32, 'model__mlp_dim': 128}
  m, t5 = model(encoding__name='nope', **big), model(encoding__name='t5', **big)
  std = lambda p: float(jnp.std(p[...]))
  for weights, fan_in in (
    (m.layers.w_q, 64),
    (m.layers.w_o, 128),
    (m.layers.w_in, 64),
    (m.layers.w_out, 128),
  ):
    assert std(weights) == pytest.approx(fan_in**-0.5, rel=0.05)
  assert std(m.embedding) == pytest.approx(64**-0.5, rel=0.05)
  assert std(t5.layers.w_q) == pytest.approx(64**-0.5, rel=0.05)
  # With the same weights and no bias, T5 without 1/sqrt(K) starts as the model with 1/sqrt(K) and
  # no encoding.
  t5.encodings.variants[0].encoding.table[...] = jnp.zeros((32, 4))
  t5.embedding[...] = m.embedding[...]
  t5.layers = jax.tree.unflatten(jax.tree.structure(t5.layers), jax.tree.leaves(m.layers))
  np.testing.assert_allclose(nll(t5, tokens()), nll(m, tokens()), atol=2e-5)


@pytest.mark.parametrize('name', ENCODINGS)
def test_parameters_of_the_whole_model(name):
  """With sharing as published: the record of each encoding says what layers have of their own."""
  dims = Dims(model_dim=16, heads=4, kv_heads=4, head_dim=8, train_length=16)
  m = nnx.eval_shape(lambda: model(encoding__name=name, model__head_dim=8))
  bare = (
    3 * ((3 + m.encodings.heads_out_per_head) * 16 * 32 + 2 * 16 * 24 + 2 * 16) + VOCAB * 16 + 16
  )
  shared, own = RECORDS[name].parameters(dims, {})
  count = sum(p.size for p in jax.tree.leaves(m))
  assert count == bare + shared + 3 * own


def test_members_of_a_chain_come_from_the_config():
  """As dicts in a tuple, also once they have been written to disk."""
  members = ({'name': 'alibi', 'learned': True}, 'fox')
  c = config()
  overlay(c, {'encoding': {'name': 'chain', 'members': members}})
  again = from_json(json.loads(json.dumps(to_json(c))))
  for each in (c, again):
    kind = build(each, VOCAB, nnx.Rngs(0)).encodings.variants[0]
    shapes = [
      (p.shape, kind.is_stacked(path))
      for path, p in jax.tree_util.tree_leaves_with_path(kind.encoding)
    ]
    # gates of every layer, one of slopes
    assert sorted(shapes) == [((3, 4), True), ((3, 16, 4), True), ((4,), False)]
  by_flag = config()
  overlay(by_flag, {'encoding.name': 'chain', 'encoding.members': members})
  assert to_json(by_flag) == to_json(c)


def test_a_chain_is_unshared_unless_what_acts_at_the_input_has_parameters():
  """Waves at the input have none; the gates, or slopes, that each layer has then are not theirs."""
  members = ('sinusoidal', {'name': 'alibi', 'learned': True})
  m = model(encoding={'name': 'chain', 'members': members}, model__share_encoding='none')
  assert [p.shape for p in jax.tree.leaves(m.encodings)] == [(3, 4)]
  assert np.isfinite(nll(m, tokens())).all()
  moved = {'name': 'shape_offset', 'inner': {'name': 'chain', 'members': ('sinusoidal', 'sink')}}
  m = model(encoding=moved, model__share_encoding='none')
  assert [p.shape for p in jax.tree.leaves(m.encodings)] == [(3, 4)]
  assert np.isfinite(nll(m, tokens())).all()


@pytest.mark.parametrize('share', ['paper', 'none'])
def test_projection_reaches_the_encoding_alone(share):
  m = jax.tree.map(lambda p: p - 5, model(encoding__name='kerple_log', model__share_encoding=share))
  for (path, before), after in zip(
    jax.tree_util.tree_leaves_with_path(m), jax.tree.leaves(m.constrain_parameters()), strict=True
  ):
    np.testing.assert_array_equal(
      after, np.full_like(before, 0.01) if path[0].name == 'encodings' else before
    )


def test_seeds_at_once_are_seeds_apart():
  """The model is a plain pytree: vmap over stacked models gives what each gives alone."""
  one, two = (build(config(encoding__name='shaw'), VOCAB, nnx.Rngs(seed)) for seed in (0, 1))
  x = tokens()
  both = jax.jit(jax.vmap(lambda m: token_nll(m, x)))(
    jax.tree.map(lambda *p: jnp.stack(p), one, two)
  )
  np.testing.assert_allclose(both[1], nll(two, x), atol=2e-5)
  assert np.abs(both[0] - both[1]).max() > 0.1


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    (
      {'attention__softcap': 2.0, 'encoding__name': 'stick_breaking'},
      'attention.softcap=2.0; allowed: no soft-cap, for StickBreaking is not normalized',
    ),
    (
      {'encoding': {'name': 'pattern', 'layers': ('rope', 'rope_pp')}},
      'encoding.layers: 1 and 2 heads out for each head of queries; allowed: the same number',
    ),
    ({'attention__backend': 'desne'}, "attention.backend='desne'; did you mean 'dense'"),
    ({'model__share_encoding': 'some'}, "model.share_encoding='some'; allowed: paper, all, none"),
    (
      {'encoding__name': 'alibbi'},
      "encoding.name='alibbi': no such encoding; did you mean 'alibi'",
    ),
    ({'encoding__heads': 3}, "encoding rope has no hyperparameter 'heads'"),  # not the model's
    (
      {
        'encoding': {'name': 'chain', 'members': ('learned', 'fox')},
        'model__share_encoding': 'none',
      },
      "model.share_encoding='none': Learned acts once, at the input, for all layers",
    ),
    (
      {
        'encoding': {'name': 'shape_offset', 'inner': {'name': 'learned', 'max_length': 99}},
        'model__share_encoding': 'none',
      },
      "model.share_encoding='none': Learned acts once, at the input, for all layers",
    ),
    (
      {'encoding__name': 'bipe', 'model__share_encoding': 'none'},
      "model.share_encoding='none': BiPE acts once, at the input, for all layers",
    ),
  ],
)
def test_what_cannot_be_built(overrides, message):
  with pytest.raises(ValueError, match=message):
    model(**overrides)
