"""The cases: encodings with hyperparameters and sizes, and rope types."""

import dataclasses
import math
import zlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax.encodings import make

S = 11  # tokens
SIZES = {'model_dim': 18, 'heads': 3, 'kv_heads': 3, 'head_dim': 6, 'train_length': 7}


def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
  """Numbers of zero mean and unit variance that every machine makes alike: the fractional parts of
  n^2 times the golden ratio.
  """
  n = np.arange(1, math.prod(shape) + 1, dtype=np.float64) + zlib.crc32(name.encode()) % 997
  return (
    (math.sqrt(12) * ((n * n * 0.6180339887498949) % 1 - 0.5)).reshape(shape).astype(np.float32)
  )


@dataclasses.dataclass(frozen=True)
class Case:
  """One layer with an encoding, whose output must equal that of the reference of the same name."""

  encoding: str
  hyper: dict = dataclasses.field(default_factory=dict)
  sizes: dict = dataclasses.field(default_factory=dict)
  causal: bool = True

  def build(self):
    """Returns the encoding with filled parameters, and the layer's input x [S, D] and weights q [D,
    H, K], k and v [D, G, K].
    """
    sizes = SIZES | self.sizes
    enc = make(self.encoding, **sizes, rngs=nnx.Rngs(0), **self.hyper)
    size = lambda p: p.shape[0] ** -0.5 if p.ndim > 1 else 1.0
    # T5's table had this name when the golden values were made, and values follow from names.
    name = lambda path: {'table': 'bias'}.get(path[-2].name, path[-2].name)
    enc = jax.tree_util.tree_map_with_path(
      lambda path, p: jnp.asarray(size(p) * fill(name(path), p.shape), jnp.float32), enc
    )
    D, H, G, K = (sizes[n] for n in ('model_dim', 'heads', 'kv_heads', 'head_dim'))
    projection = lambda name, heads: fill(name, (D, heads, K)) * np.float32(D**-0.5)
    return enc.constrain_parameters(), {
      'x': fill('x', (S, D)),
      'q': projection('q', H),
      'k': projection('k', G),
      'v': projection('v', G),
    }


def chained(*members: str | dict) -> Case:
  """A case of encodings one after another."""
  return Case('chain', {'members': members})


MINISTRAL = {'length': 3, 'c': 0.7, 'counts_itself': False}
ONE_WIDE_HEAD = {'heads': 1, 'kv_heads': 1, 'head_dim': 48}
CASES = {
  'llama': Case('rope', {'base': 500.0}, {'kv_heads': 1}),
  'llama_yarn': Case('rope', {'scaling': {'rope_type': 'yarn', 'factor': 4.0}}),
  'llama_dynamic': Case('rope', {'scaling': {'rope_type': 'dynamic', 'factor': 3.0}}),
  'gpt_neox': Case('rope', {'fraction': 0.67}),
  'gptj': Case('rope', {'fraction': 0.67, 'layout': 'interleaved'}),
  'x_rotary': Case('rope', {'layout': 'interleaved', 'base': 300.0}),
  't5_decoder': Case('t5', {'buckets': 8, 'max_distance': 9}),
  't5_encoder': Case('t5', {'buckets': 8, 'max_distance': 9, 'bidirectional': True}, causal=False),
  'wavlm': Case('gated_t5', {'buckets': 8, 'max_distance': 9, 'bidirectional': True}, causal=False),
  'bloom': Case('alibi'),
  'mpt': Case('alibi', sizes={'heads': 6, 'kv_heads': 6, 'head_dim': 3}),
  'deberta_v2': Case('deberta', {'span': 4}, causal=False),
  'deberta_v2_c2p': Case('deberta', {'span': 4, 'p2c': False}, causal=False),
  'xlnet': Case('transformer_xl', causal=False),
  'xlnet_clamped': Case('transformer_xl', {'max_distance': 4}),
  'x_cope': Case('cope', {'positions': 5}),
  'x_forgetting': Case('fox'),
  'deepseek': Case('mla_rope', {'base': 500.0, 'fraction': 0.67}),
  'deepseek_yarn': chained(
    {'name': 'nope_scale', 'scale': (0.1 * math.log(4) + 1) ** 2},
    {'name': 'mla_rope', 'fraction': 0.67, 'scaling': {'rope_type': 'yarn', 'factor': 4.0}},
  ),
  'x_pope': Case('pope'),
  'x_dynamic': Case('mlp_bias'),
  'x_dynamic_log': Case('mlp_bias', {'log': True, 'depth': 3, 'hidden': 5}),
  'x_dynamic_norm': Case('mlp_bias', {'norm': True, 'depth': 3, 'hidden': 5}),
  'x_row_gates': Case('row_gates', {'factor': 0.7}),
  'x_xpos': Case('xpos', {'scale_base': 20.0, 'base': 300.0}),
  'clipped_rope': Case('clipped_rope', {'clipped': 20}, ONE_WIDE_HEAD),
  'clipped_rope_hard': Case('clipped_rope', {'clipped': 20, 'hard': True}, ONE_WIDE_HEAD),
  'resonance_rope': Case('resonance_rope', {'base': 3.0}),
  'resonance_yarn': Case('resonance_rope', {'scaling': {'rope_type': 'yarn', 'factor': 4.0}}),
  'fope': Case('fope', {'base': 10.0}, {'head_dim': 10, 'train_length': 40}),
  'nape': Case('nape'),
  'hard_alibi': Case('hard_alibi', sizes={'heads': 6, 'kv_heads': 6, 'head_dim': 3}),
  'asentmax_temperature': Case('asentmax_temperature', {'bias': True}),
  'grape_m': Case('grape_m'),
  'grape_m_context': Case('grape_m_context'),
  'grape_a': Case('grape_a'),
  'string': Case('string', {'window': 5, 'local': 2, 'attention_factor': 0.1 * math.log(2) + 1}),
  'dca': Case('dca', {'chunk': 5, 'local': 2}),
  'repo': Case('repo', {'base': 500.0}),
  'rope_pp_ec': Case('rope_pp', {'base': 500.0}, {'kv_heads': 1}),
  'rope_pp_eh': Case('rope_pp', {}, {'heads': 2, 'kv_heads': 1}),
  'kv_shift_rope': chained('kv_shift', 'rope'),
  'llama4_temperature': Case('llama4_temperature', {'length': 3, 'c': 0.7}),
  'ministral': chained('rope', {'name': 'llama4_temperature', **MINISTRAL}),
  'nape_entmax15': chained('nape', 'entmax'),
  'nape_entmax_bisected': chained('nape', {'name': 'entmax', 'alpha': 1.25}),
  'nape_sparsemax': chained('nape', {'name': 'entmax', 'alpha': 2.0}),
  'tisa': Case('tisa'),
  'urpe': Case('urpe'),
  'x_sigmoid': chained('alibi', 'sigmoid'),
  'x_selective': Case('selective'),
  'softpick': Case('softpick'),
}


def cotangent(shape: tuple[int, ...]) -> np.ndarray:
  """The cotangent of a layer's output, float32 [S, H * K]."""
  return fill('cotangent', tuple(shape))


def parameters(enc) -> dict[str, jax.Array]:
  """The parameters of an encoding by their names, 'members.0.w_k'."""
  leaves = jax.tree_util.tree_leaves_with_path(enc)
  return {jax.tree_util.keystr(p[:-1], simple=True, separator='.'): leaf for p, leaf in leaves}


class RopeCase(NamedTuple):
  """A rope type: its settings, the rotated share of 20 channels, the base, the number of keys of
  the call and the original training length.
  """

  scaling: dict
  share: float = 1.0
  base: float = 1e4
  length: int = 11
  original: int = 64


LONGROPE = {
  'rope_type': 'longrope',
  'factor': 9.0,
  'short_factor': [1 + 0.05 * m for m in range(10)],
  'long_factor': [1 + 0.9 * m for m in range(10)],
}


def yarn(**settings) -> dict:
  return {'rope_type': 'yarn', 'factor': 4.0, **settings}


def llama3(**settings) -> dict:
  return {'rope_type': 'llama3', **settings}


ROPE_TYPES = {
  'default': RopeCase({'rope_type': 'default'}, 0.5, 3e4),
  'linear': RopeCase({'rope_type': 'linear', 'factor': 3.0}),
  'linear_partial': RopeCase({'rope_type': 'linear', 'factor': 3.0}, 0.7),
  'dynamic': RopeCase({'rope_type': 'dynamic', 'factor': 2.5}, length=333),
  'dynamic_short': RopeCase({'rope_type': 'dynamic', 'factor': 2.5}, 0.7, length=63),
  'yarn': RopeCase(yarn(), original=250),
  'yarn_partial': RopeCase(
    yarn(factor=7.0, beta_fast=20.0, beta_slow=2.0), 0.7, 5e5, original=2048
  ),
  'yarn_not_truncated': RopeCase(yarn(factor=32.0, truncate=False), base=150e3, original=4096),
  'yarn_mscale': RopeCase(yarn(factor=40.0, mscale=1.0, mscale_all_dim=0.7), original=4096),
  'yarn_given_factor': RopeCase(yarn(attention_factor=1.3), original=250),
  'longrope_short': RopeCase(LONGROPE, length=64),
  'longrope_long': RopeCase(LONGROPE, length=65),
  'llama3': RopeCase(
    llama3(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0), base=5e5, original=8192
  ),
  'llama3_partial': RopeCase(
    llama3(factor=32.0, low_freq_factor=0.7, high_freq_factor=5.0), 0.7, 5e4, original=300
  ),
  'proportional': RopeCase({'rope_type': 'proportional', 'partial_rotary_factor': 0.25}, base=1e6),
  'proportional_divided': RopeCase(
    {'rope_type': 'proportional', 'partial_rotary_factor': 0.77, 'factor': 2.0}
  ),
}
