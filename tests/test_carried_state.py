"""States that an encoding carries from layer to layer, against whole models as float64 loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from kinds import slow
from oracles import softmax, tape_steps, turned_score
from test_decoding import assert_decodes, model
from test_laws import DIMS
from test_model import VOCAB, config, tokens

from posenc_jax import attend, make
from posenc_jax.encodings import ENCODINGS
from posenc_jax.encodings.alibi import ALiBi
from posenc_jax.inspection.attention_weights import weights_of_heads
from posenc_jax.model.decoder import LM

T = 9
CASES = {
  'tape': {'name': 'tape'},
  'interleaved': {'name': 'tape', 'layout': 'interleaved', 'base': 50.0, 'hidden': 3},
  'pattern': {'name': 'pattern', 'layers': ('tape', 'nope')},
}
run = jax.jit(lambda m, x, **ids: m(x, backend='dense', **ids))


def rms(x, scale):
  return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-6) * scale


def gelu(x):
  return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def layer_of_formula(w, scales, enc, encoding, x_TD, states, is_parallel):
  """(x [T, D], states, attention weights [H, T, T]) behind a layer; `enc` None: one without states.

  w: its matrices; scales: those of the norms of attention and of the MLP.
  """
  T, K = len(x_TD), w['o'].shape[0] // 4
  y_TD = rms(x_TD, scales[0])
  q, k, v = (np.reshape(y_TD @ w[name], (T, -1, K)) for name in 'qkv')
  group = q.shape[1] // k.shape[1]
  z_TGM = np.ones((T, k.shape[1], K // 2))
  if enc is not None:
    p = {name: double(getattr(enc, name)) for name in enc.per_layer}
    start, attended, through_mlp = tape_steps(enc.dims, encoding, p)
    states = [start(t) for t in range(T)] if states is None else states
    z_TGM = np.array(states)
  o, p_HTT = np.zeros(q.shape), np.zeros((q.shape[1], T, T))
  for i, h in np.ndindex(q.shape[:2]):
    g, layout = h // group, encoding.get('layout', 'half')
    row = [turned_score(q[i, h], k[j, g], z_TGM[i, g], z_TGM[j, g], layout) for j in range(i + 1)]
    p_HTT[h, i, : i + 1] = softmax(np.array(row))
    o[i, h] = p_HTT[h, i] @ v[:, g]
  mixed_TD = o.reshape(T, -1) @ w['o']
  at_mlp_TD = x_TD if is_parallel else x_TD + mixed_TD
  out_TD = gelu(rms(at_mlp_TD, scales[1]) @ w['in']) @ w['out']
  if enc is not None:
    mean_THM = np.einsum('hts,shm->thm', p_HTT, np.repeat(z_TGM, group, axis=1))
    states = [
      through_mlp(attended(*of_token), y)
      for *of_token, y in zip(states, mean_THM, out_TD, strict=True)
    ]
  return x_TD + mixed_TD + out_TD, states, p_HTT


def double(leaf):
  return np.asarray(leaf[...], np.float64)


def expected(m, encoding: dict, tokens_T, is_parallel: bool):
  """Logits [T, V] of one text, and the attention weights [N, H, T, T]."""
  names, layers = encoding.get('layers', ('tape',)), m.layers
  x_TD, states, weights = double(m.embedding)[tokens_T] * m.embedding_scale, None, []
  matrices = {n: double(getattr(layers, f'w_{n}')) for n in ('q', 'k', 'v', 'o', 'in', 'out')}
  scales = [double(norm.scale) for norm in (layers.attention_norm, layers.mlp_norm)]
  for n in range(len(matrices['q'])):
    has_state = names[n % len(names)] == 'tape'
    enc = m.encodings.variants[0].layer(n // len(names)) if has_state else None
    own = {name: w[n] for name, w in matrices.items()}, [scale[n] for scale in scales]
    x_TD, states, p_HTT = layer_of_formula(*own, enc, encoding, x_TD, states, is_parallel)
    weights.append(p_HTT)
  return rms(x_TD, double(m.norm.scale)) @ double(m.embedding).T, np.array(weights)


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize(
  'flags', [slow({}), {'model__kv_heads': 2, 'model__parallel_residual': True}]
)
def test_a_model_is_that_of_the_formula(case, flags):
  """Logits and attention weights, of layers that are looped over and of some that are unrolled."""
  m, x = model(CASES[case], layers=5, **flags), tokens(B=2, T=T)
  logits, weights = jax.jit(
    lambda m: m(x, backend='blockwise', block_sizes=(4, 4), observe=weights_of_heads)
  )(m)
  for b in range(2):
    wanted, weights_NHTT = expected(m, CASES[case], np.asarray(x[b]), bool(flags))
    np.testing.assert_allclose(logits[b], wanted, atol=2e-4)
    np.testing.assert_allclose(weights[:, b], weights_NHTT, atol=2e-5)


def test_it_starts_as_rope_and_moves_away():
  x = tokens()
  of = lambda name: LM(config().model, {'name': name}, VOCAB, 16, nnx.Rngs(0))
  np.testing.assert_allclose(run(of('tape'), x), run(of('rope'), x), atol=2e-5)
  moved = model('tape', layers=3)
  still = jax.tree.map(lambda leaf: leaf, moved)
  enc = still.encodings.variants[0].encoding
  enc.c, enc.w_up = jax.tree.map(jnp.zeros_like, (enc.c, enc.w_up))
  assert np.abs(run(moved, x[:, :T]) - run(still, x[:, :T])).max() > 1e-2


@pytest.mark.parametrize('remat', [*map(slow, ('none', 'layer')), 'attention'])
def test_gradients_of_looped_layers_are_those_of_unrolled_ones_whatever_is_kept(remat):
  x = tokens(B=2, T=T)

  def gradient(**flags):
    m = model(CASES['pattern'], layers=5, **flags)
    return jax.jit(jax.grad(lambda m: (m(x, backend='dense') ** 2).mean()))(m)

  plain = gradient(model__unroll=0)
  assert all(np.abs(leaf).max() > 1e-5 for leaf in jax.tree.leaves(plain.encodings))
  found = gradient(model__remat=remat)
  for own, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(plain), strict=True):
    np.testing.assert_allclose(own, wanted, atol=2e-5 * max(1, np.abs(wanted).max()))


def test_a_shift_of_all_positions_changes_nothing_and_a_document_begins_anew():
  m, x = model('tape', layers=3), tokens(B=2, T=T)
  alone = run(m, x)
  np.testing.assert_allclose(run(m, x, position_ids=29 + jnp.arange(T)[None]), alone, atol=1e-4)
  row = x.reshape(1, -1)
  packed = run(m, row, segment_ids=jnp.repeat(jnp.arange(2), T)[None])
  np.testing.assert_allclose(packed.reshape(alone.shape), alone, atol=1e-4)


@pytest.mark.parametrize(
  ('encoding', 'more'),  # what spreads positions by the number of tokens is given no slots more
  [slow('tape', 3), (CASES['pattern'], 3), slow({'name': 'random_positions', 'inner': 'tape'}, 0)],
)
def test_states_are_decoded(encoding, more):
  made = model(encoding, layers=3, model__kv_heads=2)
  assert_decodes(made, sizes=(4, 1, 3, 1), size=T + more)


def test_where_a_state_would_be_lost():
  sizes = dict(model_dim=16, heads=4, kv_heads=2, head_dim=8, train_length=16, rngs=nnx.Rngs(0))
  for name, members in (('chain', ('tape', 'fox')), ('heads', ('rope', 'tape'))):
    with pytest.raises(ValueError, match=f'^{name}: tape acts around attention; allowed'):
      make(name, **sizes, members=members)
  q = jnp.ones((1, 3, DIMS.heads, 8))
  hooks = 'initial_state, enter_attention, leave_attention, leave_mlp'
  message = rf'^TAPE acts around attention: apply its {hooks}, then call attend\(.*True\)$'
  with pytest.raises(ValueError, match=message):
    attend(q, q[:, :, :2], q[:, :, :2], make('tape', **sizes))


@pytest.mark.parametrize(
  ('hook', 'function'),
  [
    ('initial_state', lambda self, position_ids, batch: None),
    ('enter_attention', lambda self, q, k, v, state: (2 * q, k, v)),
    ('leave_attention', lambda self, o, state: (2 * o, state)),
    ('leave_mlp', lambda self, y, state: y),
  ],
)
def test_a_hook_around_attention_is_not_lost_without_a_state(hook, function, monkeypatch):
  monkeypatch.setitem(ENCODINGS, 'own', type('Own', (ALiBi,), {hook: function}))
  sizes = dict(model_dim=16, heads=4, kv_heads=2, head_dim=8, train_length=16, rngs=nnx.Rngs(0))
  q, enc = jnp.ones((1, 3, 4, 8)), make('own', **sizes)
  with pytest.raises(ValueError, match=f'^Own acts around attention: apply its {hook}, then call'):
    attend(q, q[:, :, :2], q[:, :, :2], enc)
  attend(q, q[:, :, :2], q[:, :, :2], enc, outer_hooks_applied=True)
  for name in ('chain', 'heads'):
    with pytest.raises(ValueError, match=f'^{name}: own acts around attention; allowed: it alone'):
      make(name, **sizes, members=('rope', 'own'))
  for name in ('dape', 'dape_v2'):
    with pytest.raises(ValueError, match=f"^{name}: inner='own' is no bias alone; allowed: alibi"):
      make(name, **sizes, inner='own')
