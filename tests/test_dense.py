"""Blocks of queries in `dense`: they equal all queries at once, and their memory is linear."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from against_dense import gradients, gradients_of_layer
from flax import nnx
from kinds import daily_if
from test_laws import DIMS, ONE_MODE, VARIANTS, B, S, build, close, declared, is_daily, marks_of

from posenc_jax.attention import attend
from posenc_jax.attention.backends import dense
from posenc_jax.encodings import ENCODINGS, make
from posenc_jax.inspection.recorder import recorded_scores


@pytest.fixture
def by_blocks(monkeypatch):
  """Compares what a function of no arguments returns with what it does where 11 queries come in
  three blocks, of which the last has one too many.
  """

  def check(run):
    expected = run()
    monkeypatch.setattr(dense, 'MOST_AT_ONCE', 0)
    monkeypatch.setattr(dense, 'BLOCK', 4 * B * DIMS.heads * S)
    jax.tree.map(close, run(), expected)

  return check


def marks(variant: str) -> tuple:
  """What is in no tile has no other way to have little memory."""
  is_of_rows = declared(variant).normalizer == 'rows' and variant in ENCODINGS
  return daily_if(is_of_rows or is_daily(variant), 'ci' if not marks_of(variant) else 'slow')


@pytest.mark.parametrize('variant', [pytest.param(v, marks=marks(v)) for v in VARIANTS])
def test_blocks_of_queries_are_all_queries(variant, by_blocks):
  """Values and all gradients, also of what reads the scores of other queries."""
  by_blocks(lambda: gradients_of_layer(build(variant), ONE_MODE[variant], 'dense'))


@pytest.mark.parametrize(
  ('name', 'mode'),
  [
    *(('entmax', 'last_queries'), ('urpe', 'both_sides_packed'), ('lssar', 'packed_sinks')),
    *(('shaw', 'packed'), ('cope', 'last_queries_sinks'), ('path', 'packed'), ('sink', 'softcap')),
    *(('dape_v2', 'packed_chunk'), ('nope', 'packed_prefix')),
  ],
)
def test_blocks_under_masks(name, mode, by_blocks):
  by_blocks(lambda: gradients_of_layer(build(name), mode, 'dense'))


def qkv_and_weight():
  rng, d = np.random.default_rng(0), DIMS
  heads = d.heads, d.kv_heads, d.kv_heads, d.heads
  return [jnp.asarray(rng.standard_normal((B, S, H, d.head_dim)), jnp.float32) for H in heads]


@pytest.mark.parametrize('shape', [(B, DIMS.heads, S, S), (1, 1, S, 1), (B, DIMS.heads, 1, S)])
def test_blocks_with_arrays_of_pairs(shape, by_blocks):
  """A mask, in which some queries see no key, and a bias, with its gradient; log-sum-exp, too."""
  rng = np.random.default_rng(1)
  bias, mask = rng.standard_normal(shape).astype('f4'), rng.random((B, S, S)) < 0.6
  mask[0, 4] = mask[1, 10] = False
  (*qkv, weight), enc = qkv_and_weight(), build('sink')

  def run(bias, *qkv):
    options = {'mask': mask, 'return_logsumexp': True, 'backend': 'dense'}
    o, lse = attend(*qkv, enc, bias=bias, **options)
    return jnp.concatenate([o, jnp.maximum(lse, -9.0)[..., None]], axis=-1)

  weight = jnp.concatenate([weight, weight[..., :1]], axis=-1)
  by_blocks(lambda: gradients(run, weight, bias, *qkv))


def test_gradients_of_blocks_are_added_up_in_float32(monkeypatch):
  """512 equal ones, whose sum would stand still at 1 in bfloat16."""
  monkeypatch.setattr(dense, 'MOST_AT_ONCE', 0)
  monkeypatch.setattr(dense, 'BLOCK', 1)
  q, k = (jnp.zeros((1, 512, heads, 8), jnp.bfloat16) for heads in (4, 2))
  run = lambda v: attend(q, k, v, build('nope'), is_causal=False, backend='dense')
  gradient = jax.jit(jax.grad(lambda v: run(v).astype(jnp.float32).sum()))(k)
  np.testing.assert_array_equal(gradient, 2.0)  # of two heads


def test_scores_are_recorded_whatever_their_number(by_blocks):
  q, k, *_ = qkv_and_weight()
  run = lambda q: jax.jit(functools.partial(recorded_scores, build('alibi')))(q, k)
  by_blocks(lambda: run(q))
  close(run(q[:, -1:]), run(q)[:, :, -1:])
  with pytest.raises(ValueError, match=rf'^5 queries for {S} keys have .* one query or {S}\b'):
    run(q[:, -5:])


def test_gradients_take_linear_memory(monkeypatch):
  """From 4096 to 65,536 tokens, of which all scores are 64 GiB."""
  sizes = {'model_dim': 16, 'heads': 4, 'kv_heads': 2, 'head_dim': 4, 'train_length': 512}
  enc = make('chain', members=('alibi', 'entmax'), rngs=nnx.Rngs(0), **sizes)
  monkeypatch.setattr(dense, 'MOST_AT_ONCE', 2**24)
  monkeypatch.setattr(dense, 'BLOCK', 2**20)

  def memory(T):
    def loss(enc, q, k, v):
      return (attend(q, k, v, enc) ** 2).sum()

    q, k = (jax.ShapeDtypeStruct((1, T, heads, 4), jnp.float32) for heads in (4, 2))
    compiled = jax.jit(jax.grad(loss, argnums=range(4))).lower(enc, q, k, k).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  short, long = memory(4096), memory(65_536)
  assert np.log(long / short) / np.log(16) < 1.1
