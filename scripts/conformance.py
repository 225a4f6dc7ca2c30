"""Computes golden vectors with implementations of others: transformers, x-transformers, and the
repositories of papers.

  pip install -e '.[conformance]' && python scripts/conformance.py

A repository is read from a clone, `git clone https://github.com/OWNER/NAME references/OWNER/NAME`,
at the commit in COMMITS; of a file there only the definitions that are asked for are executed.

It writes tests/golden/rope_types.json (frequencies) and tests/golden/attention.json (the outputs of
one layer of odd sizes, whose weights `fill` makes). With names as arguments it computes only these
entries. tests/test_conformance.py compares our encodings with the files and needs no torch, so
torch is imported inside functions here. To add an encoding, add a case to CASES and a function of
its weights to REFERENCES.
"""

import __future__

import ast
import dataclasses
import importlib.metadata
import importlib.util
import json
import math
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax import config
from posenc_jax.encodings import make
from posenc_jax.errors import UserError, nearest

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / 'tests' / 'golden'
COMMITS = {
  'hrlics/CoPE': 'ed52ba5e2d80aaea7577144109c572e93e84e537',
  'sheryc/resonance_rope': '4a7f5a703b2e96756939db51916937ab7c5ab3a9',
  'TsinghuaC3I/Fourier-Position-Embedding': 'bd94b20d82bf11240ad3584c515c790d255da919',
  'deep-spin/asentmax': 'be54bd3f9cfb9f17c80a8d956ea827f5cf93d07d',
  'model-architectures/GRAPE': 'f5b539f35066f9067bf36e1f9d802212fce7884e',
  'HKUNLP/STRING': '216cc2f04cee147e8c3cfaa15723b182ecbe321e',
  'HKUNLP/ChunkLlama': '2add4d7c99d24dcc1ab03414cc602abb2e28cf2c',
  'SakanaAI/repo': '1508a73ac7303e0bce6404cbf0aa8ddba8f08578',
}
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
    name = lambda path: {'table': 'bias'}.get(path[0].name, path[0].name)
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
  'bloom': Case('alibi'),
  'mpt': Case('alibi', sizes={'heads': 6, 'kv_heads': 6, 'head_dim': 3}),
  'deberta_v2': Case('deberta', {'span': 4}, causal=False),
  'deberta_v2_c2p': Case('deberta', {'span': 4, 'p2c': False}, causal=False),
  'xlnet': Case('transformer_xl', causal=False),
  'xlnet_clamped': Case('transformer_xl', {'clamp_length': 4}),
  'x_cope': Case('cope', {'positions': 5}),
  'x_forgetting': Case('fox'),
  'x_pope': Case('pope'),
  'x_xpos': Case('xpos', {'scale_base': 20.0, 'base': 300.0}),
  'clipped_rope': Case('clipped_rope', {'clipped': 20}, ONE_WIDE_HEAD),
  'clipped_rope_hard': Case('clipped_rope', {'clipped': 20, 'hard': True}, ONE_WIDE_HEAD),
  'resonance_rope': Case('resonance_rope', {'base': 3.0}),
  'resonance_yarn': Case('resonance_rope', {'scaling': {'rope_type': 'yarn', 'factor': 4.0}}),
  'fope': Case('fope', {'base': 10.0}, {'head_dim': 10, 'train_length': 40}),
  'nape': Case('nape'),
  'asentmax_temperature': Case('asentmax_temperature', {'bias': True}),
  'grape_m': Case('grape_m'),
  'grape_m_context': Case('grape_m_context'),
  'grape_a': Case('grape_a'),
  'string': Case('string', {'window': 5, 'local': 2, 'attention_factor': 0.1 * math.log(2) + 1}),
  'dca': Case('dca', {'chunk': 5, 'local': 2}),
  'repo': Case('repo', {'base': 500.0}),
}


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


def rope_type(scaling: dict, share: float, base: float, length: int, original: int) -> dict:
  """The frequencies and the attention factor that transformers gives a Llama with 20 channels a
  head.
  """
  from transformers import LlamaConfig
  from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
  from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

  parameters = {'partial_rotary_factor': share, 'rope_theta': base, **scaling}
  if scaling['rope_type'] in ('yarn', 'longrope', 'llama3'):
    parameters['original_max_position_embeddings'] = original
  # The function of the default takes no share, so the head is as narrow as the rotated part.
  head = round(20 * share) if scaling['rope_type'] == 'default' else 20
  config = LlamaConfig(
    hidden_size=head,
    num_attention_heads=1,
    head_dim=head,
    max_position_embeddings=original,
    rope_parameters=parameters,
  )
  function = ROPE_INIT_FUNCTIONS.get(
    scaling['rope_type'], LlamaRotaryEmbedding.compute_default_rope_parameters
  )
  frequencies, factor = function(config, seq_len=length)
  return {
    'frequencies': numbers(frequencies.double().numpy()),
    'attention_factor': round(float(factor), 9),
  }


# References: functions of a layer's weights w and the encoding's parameters p, as tensors, that
# return the layer's output [S, H * K].


def causal_mask(torch):
  return torch.full((S, S), -1e30).triu(1)[None, None]


def linear(module, *weights):
  """Sets the weights of a Linear to matrices [D, ...] side by side, and its bias to zero."""
  import torch

  module.weight.data = torch.cat([w.reshape(w.shape[0], -1) for w in weights], dim=1).T.contiguous()
  if module.bias is not None:
    module.bias.data.zero_()


def identity(module):
  import torch

  linear(module, torch.eye(module.weight.shape[0]))


def by_head(*weights):
  """Joins q, k, v [D, H, K] into the fused projection [D, H, 3, K] of GPT-NeoX and BLOOM."""
  import torch

  return torch.stack(weights, dim=2)


def llama(w, p, case):
  import torch
  from transformers import LlamaConfig
  from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRotaryEmbedding

  scaling = case.hyper.get('scaling') or {'rope_type': 'default'}
  sizes = SIZES | case.sizes
  config = LlamaConfig(
    hidden_size=sizes['model_dim'],
    num_attention_heads=sizes['heads'],
    num_key_value_heads=sizes['kv_heads'],
    max_position_embeddings=sizes['train_length'],
    rope_parameters={'rope_theta': case.hyper.get('base', 10_000.0), **scaling},
    attn_implementation='eager',
  )
  layer = LlamaAttention(config, 0)
  for name in 'qkv':
    linear(getattr(layer, f'{name}_proj'), w[name])
  identity(layer.o_proj)
  rotations = LlamaRotaryEmbedding(config)(w['x'][None], torch.arange(S)[None])
  return layer(w['x'][None], rotations, causal_mask(torch))[0][0]


def gpt_neox(w, p, case):
  import torch
  from transformers import GPTNeoXConfig
  from transformers.models.gpt_neox.modeling_gpt_neox import (
    GPTNeoXAttention,
    GPTNeoXRotaryEmbedding,
  )

  rope = {
    'rope_type': 'default',
    'rope_theta': 10_000.0,
    'partial_rotary_factor': case.hyper['fraction'],
  }
  config = GPTNeoXConfig(
    hidden_size=18, num_attention_heads=3, rope_parameters=rope, attn_implementation='eager'
  )
  layer = GPTNeoXAttention(config, 0)
  linear(layer.query_key_value, by_head(w['q'], w['k'], w['v']))
  identity(layer.dense)
  rotations = GPTNeoXRotaryEmbedding(config)(w['x'][None], torch.arange(S)[None])
  return layer(w['x'][None], causal_mask(torch), position_embeddings=rotations)[0][0]


def gptj(w, p, case):
  import torch
  from transformers import GPTJConfig
  from transformers.models.gptj.modeling_gptj import GPTJAttention, GPTJRotaryEmbedding

  config = GPTJConfig(
    n_embd=18, n_head=3, rotary_dim=4, n_positions=32, attn_implementation='eager'
  )
  layer = GPTJAttention(config, 0).eval()
  for name in 'qkv':
    linear(getattr(layer, f'{name}_proj'), w[name])
  identity(layer.out_proj)
  rotations = GPTJRotaryEmbedding(config)(w['x'], torch.arange(S)[None])
  return layer(w['x'][None], rotations, causal_mask(torch))[0][0]


def t5(w, p, case):
  import torch
  from transformers import T5Config
  from transformers.models.t5.modeling_t5 import T5Attention

  config = T5Config(
    d_model=18,
    d_kv=6,
    num_heads=3,
    relative_attention_num_buckets=case.hyper['buckets'],
    relative_attention_max_distance=case.hyper['max_distance'],
    is_decoder=case.causal,
    attn_implementation='eager',
  )
  layer = T5Attention(config, has_relative_attention_bias=True, layer_idx=0).eval()
  for name in 'qkv':
    linear(getattr(layer, name), w[name])
  identity(layer.o)
  layer.relative_attention_bias.weight.data = 6**0.5 * p['table']
  return layer(w['x'][None], mask=causal_mask(torch) if case.causal else None)[0][0]


def bloom(w, p, case):
  import torch
  from transformers import BloomConfig
  from transformers.models.bloom.modeling_bloom import BloomAttention, build_alibi_tensor

  layer = BloomAttention(BloomConfig(hidden_size=18, n_head=3), 0).eval()
  linear(layer.query_key_value, by_head(w['q'], w['k'], w['v']))
  identity(layer.dense)
  alibi = build_alibi_tensor(torch.ones(1, S), 3, torch.float32)
  return layer(w['x'][None], torch.zeros(1, S, 18), alibi, causal_mask(torch))[0][0]


def mpt(w, p, case):
  import torch
  from transformers import MptConfig
  from transformers.models.mpt.modeling_mpt import MptAttention, build_mpt_alibi_tensor

  layer = MptAttention(MptConfig(d_model=18, n_heads=6), 0).eval()
  linear(layer.Wqkv, w['q'], w['k'], w['v'])
  identity(layer.out_proj)
  return layer(
    w['x'][None], build_mpt_alibi_tensor(6, S), attention_mask=causal_mask(torch)[0] < 0
  )[0][0]


def deberta_v2(w, p, case):
  import torch
  from transformers import DebertaV2Config
  from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention

  terms = [term for term in ('c2p', 'p2c') if case.hyper.get(term, True)]
  config = DebertaV2Config(
    hidden_size=18,
    num_attention_heads=3,
    relative_attention=True,
    max_relative_positions=case.hyper['span'],
    pos_att_type=terms,
  )
  layer = DisentangledSelfAttention(config).eval()
  for name, module in (('q', 'query_proj'), ('k', 'key_proj'), ('v', 'value_proj')):
    linear(getattr(layer, module), w[name])
  linear(layer.pos_key_proj, p['w_k'])
  if 'p2c' in terms:
    linear(layer.pos_query_proj, p['w_q'])
  return layer(w['x'][None], torch.ones(1, S, S), rel_embeddings=18**0.5 * p['rows'])[0][0]


def xlnet(w, p, case):
  import torch
  from transformers import XLNetConfig, XLNetModel

  clamp = case.hyper.get('clamp_length') or -1
  model = XLNetModel(
    XLNetConfig(vocab_size=3, d_model=18, n_layer=1, n_head=3, d_inner=4, clamp_len=clamp)
  ).eval()
  layer = model.layer[0].rel_attn
  layer.r_w_bias.data, layer.r_r_bias.data = p['u'], p['v']
  q, k, v = (torch.einsum('sd,dnk->snk', w['x'], w[name])[:, None] for name in 'qkv')
  r = torch.einsum('sd,dnk->snk', model.relative_positional_encoding(S, S)[:, 0], p['w_r'])[:, None]
  mask = torch.ones(S, S).triu(1)[:, :, None, None] if case.causal else None
  return layer.rel_attn_core(q, k, v, r, attn_mask=mask)[:, 0].reshape(S, -1)


def project(w, name):
  """Queries, keys or values, [1, H, S, K]."""
  import torch

  return torch.einsum('sd,dnk->nsk', w['x'], w[name])[None]


def causal_scores(q, k):
  """Scaled products [1, H, S, S] of queries and keys, with the causal mask."""
  import torch

  return q @ k.swapaxes(2, 3) / q.shape[-1] ** 0.5 + causal_mask(torch)


def weighted_values(scores, v):
  return (scores.softmax(dim=-1) @ v)[0].swapaxes(0, 1).reshape(S, -1)


def x_rotary(w, p, case):
  from x_transformers.x_transformers import RotaryEmbedding, apply_rotary_pos_emb

  decay = case.hyper.get('scale_base')
  angles, scale = RotaryEmbedding(
    6, base=case.hyper['base'], use_xpos=decay is not None, scale_base=decay or 1.0
  ).forward_from_seq_len(S)
  q = apply_rotary_pos_emb(project(w, 'q'), angles, scale)
  k = apply_rotary_pos_emb(project(w, 'k'), angles, scale**-1)
  return weighted_values(causal_scores(q, k), project(w, 'v'))


def x_cope(w, p, case):
  from x_transformers.x_transformers import CoPE

  q = project(w, 'q')
  scores = causal_scores(q, project(w, 'k'))
  cope = CoPE(dim=6, heads=3, max_pos=case.hyper['positions'])
  cope.pos_emb.data = p['rows']
  return weighted_values(scores + cope(q, scores), project(w, 'v'))


def x_forgetting(w, p, case):
  from x_transformers.x_transformers import DataDependentAlibi

  scores = causal_scores(project(w, 'q'), project(w, 'k'))
  gates = DataDependentAlibi(dim=18, heads=3)
  linear(gates.to_forget_gates[0], p['w_f'])
  gates.to_forget_gates[0].bias.data = p['b_f']
  return weighted_values(scores + gates(w['x'][None]), project(w, 'v'))


def x_pope(w, p, case):
  import torch
  from x_transformers.x_transformers import PolarEmbedding, apply_polar_pos_emb

  polar = PolarEmbedding(6, 3)
  polar.learned_bias.data = p['phases'][:, None]
  angles, phases = polar(torch.arange(S))
  q = apply_polar_pos_emb(project(w, 'q'), angles)
  k = apply_polar_pos_emb(project(w, 'k'), angles + phases)
  return weighted_values(causal_scores(q, k), project(w, 'v'))


def definitions(repository: str, path: str, *names: str, **known) -> SimpleNamespace:
  """Functions, classes or methods ('Class.method') of a file of a repository.

  They are executed alone, in a namespace of torch and `known`. Raises UserError where there is no
  clone.
  """
  import torch

  clone = ROOT / 'references' / repository
  if not clone.exists():
    command = f'git clone https://github.com/{repository} references/{repository}'
    raise UserError(f'references/{repository} is missing; allowed: after {command}')
  show = ['git', '-C', clone, 'show', f'{COMMITS[repository]}:{path}']
  nodes = {}
  for node in ast.parse(
    subprocess.run(show, check=True, capture_output=True, text=True).stdout
  ).body:
    nodes[getattr(node, 'name', '')] = node
    for method in node.body if isinstance(node, ast.ClassDef) else ():
      nodes[f'{node.name}.{getattr(method, "name", "")}'] = method
  module = ast.Module([nodes[name] for name in names], [])
  space = {'torch': torch, 'nn': torch.nn, 'F': torch.nn.functional, 'math': math}
  space |= {'einsum': torch.einsum, **known}
  # Annotations name types of libraries that are not needed here.
  flags = __future__.annotations.compiler_flag
  exec(compile(module, path, 'exec', flags), space)
  return SimpleNamespace(**space)


def turned_halves(x, cos, sin):
  """x turned by cosines and sines of all K channels, in halves."""
  import torch

  first, second = x.chunk(2, dim=-1)
  return x * cos + torch.cat([-second, first], dim=-1) * sin


def attention_turned(w, cos, sin):
  """Attention of queries and keys turned by the same waves."""
  q, k = (turned_halves(project(w, n), cos, sin) for n in 'qk')
  return weighted_values(causal_scores(q, k), project(w, 'v'))


def clipped_rope(w, p, case):
  import torch

  K = case.sizes['head_dim']
  frequencies = torch.tensor(10_000.0) ** (-torch.arange(0, K, 2) / K)
  code = definitions(
    'hrlics/CoPE',
    'modeling_cope.py',
    'LlamaRotaryEmbedding',
    ROPE_INIT_FUNCTIONS={'default': lambda config, device: (frequencies, 1.0)},
    dynamic_rope_update=lambda f: f,
  )
  is_hard = case.hyper.get('hard', False)
  config = SimpleNamespace(
    rope_scaling=None, max_position_embeddings=S, use_cope=not is_hard, use_hardclip=is_hard
  )
  cos, sin = code.LlamaRotaryEmbedding(config)(w['x'], torch.arange(S)[None])
  return attention_turned(w, cos, sin)


def resonance_rope(w, p, case):
  import torch
  from einops import repeat

  code = definitions(
    'sheryc/resonance_rope',
    'llama_finetuning/scaled_rope/LlamaYaRNScaledResonanceRotaryEmbedding.py',
    *('find_correction_dim', 'find_correction_range', 'linear_ramp_mask', 'get_mscale'),
    'LlamaYaRNScaledResonanceRotaryEmbedding',
    repeat=repeat,
  )
  rotary = code.LlamaYaRNScaledResonanceRotaryEmbedding(
    6,
    max_position_embeddings=S,
    base=case.hyper.get('base', 10_000.0),
    scale=case.hyper.get('scaling', {}).get('factor', 1.0),
    original_max_position_embeddings=SIZES['train_length'],
  )
  return attention_turned(w, *(torch.cat([half, half], dim=-1) for half in rotary(w['x'], S)))


def fope(w, p, case):
  import torch

  code = definitions(
    'TsinghuaC3I/Fourier-Position-Embedding',
    'olmo/model.py',
    *('RotaryEmbedding', 'FourierEmbedding'),
    _non_meta_init_device=lambda config: torch.device('cpu'),
  )

  class Config(SimpleNamespace):
    """Settings of the published runs; the others are off."""

    def __getattr__(self, name):
      return None if name.startswith('__') else False

  sizes = SIZES | case.sizes
  config = Config(
    d_model=sizes['heads'] * sizes['head_dim'],
    n_heads=sizes['heads'],
    max_sequence_length=sizes['train_length'],
    rope_theta=case.hyper['base'],
    rope_init_distribution='exponential',
    rope_init_floor_freq=0.0,
    rope_init_upper_freq=1.0,
    rope_clamp_floor_freq=True,
    rope_floor_freq_ratio=1.0,
    rope_clamp_floor_to_zero=True,
    rope_zero_freq_ratio=-1.0,
    rope_full_precision=True,
    fourier=True,
    fourier_init='eye_xavier_norm',
    fourier_separate_basis=True,
    fourier_separate_head=True,
    fourier_ignore_zero=True,
  )
  turn = code.FourierEmbedding(config, {}, use_rope_cache=False)
  mixtures = torch.tensor(case.build()[0].mixtures(), dtype=torch.float32)
  turn.cos_coef.data, turn.sin_coef.data = mixtures
  q, k = (turn(project(w, n), S) for n in 'qk')
  return weighted_values(causal_scores(q, k), project(w, 'v'))


def asentmax(w, p, case):
  """`nape`, or the temperature of all heads."""
  import torch

  code = definitions(
    'deep-spin/asentmax',
    'synthetic/src/models/architectures/sparse_gemma.py',
    *('get_nape_slopes', 'make_bias_tensor', 'SparseGemma2Attention._apply_length_scaling'),
  )
  q, k, v = (project(w, n) for n in 'qkv')
  if case.encoding == 'nape':
    bias = code.make_bias_tensor(code.get_nape_slopes(3, 1), S)
    return weighted_values(causal_scores(q, k) + bias, v)
  projections = {}
  for name, weight, offset in (('beta', 'w_b', 'b_b'), ('gamma', 'w_g', 'b_g')):
    module = projections[f'attn_scale_{name}_proj'] = torch.nn.Linear(18, 3)
    linear(module, p[weight])
    module.bias.data = p[offset]
  layer = SimpleNamespace(
    log_position=torch.log(torch.arange(2, S + 2)).reshape(1, 1, -1, 1),
    num_scaled_heads=3,
    attn_scale_type='adapt-softplus-tanh',
    attn_scale_gamma_range=2,
    attn_scale_delta=1,
    **projections,
  )
  q = code._apply_length_scaling(layer, q, w['x'][None], S, S)
  return weighted_values(causal_scores(q, k), v)


def grape(w, p, case):
  """GRAPE-M turns the other way round, which a swap of the halves of each head undoes."""

  file, own = {
    'grape_m': ('m-nonctx', ('apply_rotary_emb', 'MSGRAPECommuting')),
    'grape_m_context': ('m-ctx', ('apply_rotary_emb', '_softplus_inverse', 'MSGRAPEContextType1')),
    'grape_a': (
      'a-querykeygated',
      ('_softplus_inverse', '_get_alibi_slopes', 'QueryKeyGatedAdditiveBias'),
    ),
  }[case.encoding]
  path = f'model/llama-mha-grape-{file}.py'
  code = definitions('model-architectures/GRAPE', path, *own, 'CausalSelfAttention')
  config = SimpleNamespace(
    n_head=3, n_embd=18, head_dim=6, n_layer=1, use_qk_rmsnorm=False, using_groupnorm=False
  )
  layer = code.CausalSelfAttention(config)
  swap = 0 if case.encoding == 'grape_a' else 3
  for name in 'qkv':
    linear(getattr(layer, f'c_{name}'), w[name].roll(0 if name == 'v' else swap, -1))
  identity(layer.c_proj)
  if case.encoding == 'grape_a':
    bias = layer.querykeygated_bias
    bias.omega.data, bias.u.data, bias.v.data = p['omega'], p['u'], p['v']
  else:
    layer.grape.log_freq.data = p['log_f'][0]
  if case.encoding == 'grape_m_context':
    linear(layer.omega_proj, p['u'][:, None])
    layer.omega_proj.bias.data = p['b']
  return layer(w['x'][None])[0]


def attend_with_lse(q, k, v, mask=0.0):
  """Attention of queries over keys [1, H, ., K], and the log-sum-exp of the scores."""
  scores = q @ k.swapaxes(2, 3) / q.shape[-1] ** 0.5 + mask
  return scores.softmax(dim=-1) @ v, scores.logsumexp(dim=-1)


def projections(w):
  """The attributes that released attentions expect of their layer."""
  import torch

  sizes = {'hidden_size': 18, 'num_heads': 3, 'num_key_value_heads': 3, 'head_dim': 6}
  layer = SimpleNamespace(num_key_value_groups=1, layer_idx=0, o_proj=lambda x: x, **sizes)
  for name in 'qkv':
    module = torch.nn.Linear(18, 18, bias=False)
    linear(module, w[name])
    setattr(layer, f'{name}_proj', module)
  return layer


def string(w, p, case):
  """Token by token: in a pass over a row the code counts pairs at the distance `window` twice."""
  import torch

  def decode(q, key, value, k_cache, v_cache, cache_seqlens):
    out, lse = attend_with_lse(q, k_cache.swapaxes(1, 2), v_cache.swapaxes(1, 2))
    return out.swapaxes(1, 2), lse

  def whole(q, k, v, **options):
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
    out, lse = attend_with_lse(q, k, v, causal_mask(torch)[..., : q.shape[2], : q.shape[2]])
    return out.swapaxes(1, 2), lse, None

  code = definitions(
    'HKUNLP/STRING',
    'string_for_llama.py',
    *('RotaryEmbedding', '_compute_default_rope_parameters', 'apply_rotary_pos_emb'),
    *('string_flash_forward', 'forward'),
    attention_factor=case.hyper['attention_factor'],
    diag_size=case.hyper['window'],
    local_window=case.hyper['local'],
    rotate_half=lambda x: torch.cat([-x[..., 3:], x[..., :3]], dim=-1),
    repeat_kv=lambda x, n: x,
    flash_attn_func=whole,
    do_flash_decoding=decode,
  )
  layer = projections(w)
  layer.rotary_emb = code.RotaryEmbedding(6, max_position_embeddings=S)
  cache, ids = {0: torch.zeros(1, S, 2, 3, 6)}, torch.arange(S)[None]

  def run(tokens, held):
    cache['cache_seqlens'] = torch.tensor([held])
    x, own = w['x'][None, tokens], ids[:, tokens]
    return code.forward(layer, x, position_ids=own, past_key_value=cache)[0][0]

  first = run(slice(S), 0)[: case.hyper['window']]  # decoding needs a full window
  return torch.cat([first, *(run(slice(t, t + 1), t) for t in range(len(first), S))])


def dca(w, p, case):
  """Token by token: in a pass over a row the code merges chunks in bfloat16."""
  import torch

  class Cache:
    held = None

    def get_usable_length(self, length, layer):
      return 0 if self.held is None else self.held[0].shape[2]

    def update(self, k, v, layer, cache_kwargs):
      old = self.held or (k[:, :, :0], v[:, :, :0])
      self.held = tuple(torch.cat(pair, dim=2) for pair in zip(old, (k, v), strict=True))
      return self.held

  code = definitions(
    'HKUNLP/ChunkLlama',
    'chunkllama_attn_replace.py',
    *('get_mscale', 'ChunkLlamaRotaryEmbedding', 'apply_rotary_pos_emb'),
    *('merge_attn_outputs', 'forward'),
    chunk_size=case.hyper['chunk'],
    local_window=case.hyper['local'],
    MAX_NEW_TOKENS=0,
    rotate_half=lambda x: torch.cat([-x[..., 3:], x[..., :3]], dim=-1),
    repeat_kv=lambda x, n: x,
    do_flash_attn=attend_with_lse,
  )
  layer, cache = projections(w), Cache()
  layer.rotary_emb = code.ChunkLlamaRotaryEmbedding(6, max_position_embeddings=S)
  rows = [
    code.forward(layer, w['x'][None, t : t + 1], None, torch.tensor([[t]]), cache)[0][0, 0]
    for t in range(S)
  ]
  return torch.stack(rows)


def repo(w, p, case):
  import torch

  code = definitions(
    'SakanaAI/repo',
    'OLMo/olmo/model.py',
    *('RotaryEmbedding', 'OLMoSequentialBlock.dynamic_position_encoding_swigluex_multihead'),
    _non_meta_init_device=lambda config: torch.device('cpu'),
  )
  config = SimpleNamespace(
    d_model=18,
    n_heads=3,
    rope_theta=case.hyper['base'],
    max_sequence_length=S,
    rope_full_precision=True,
  )
  rotary = code.RotaryEmbedding(config, {})
  layer = SimpleNamespace(
    gate_map=lambda x: x @ p['w_g'],
    content_map=lambda x: x @ p['w_c'],
    final_map=lambda x: x @ p['w_z'],
    pe_gen_func=rotary.from_positions,
  )
  _, waves = code.dynamic_position_encoding_swigluex_multihead(layer, w['x'][None], None)
  q, k = rotary(project(w, 'q'), project(w, 'k'), *waves)
  return weighted_values(causal_scores(q, k), project(w, 'v'))


REFERENCES: dict[str, Callable] = {
  **dict.fromkeys(('llama', 'llama_yarn', 'llama_dynamic'), llama),
  'gpt_neox': gpt_neox,
  'gptj': gptj,
  **dict.fromkeys(('x_rotary', 'x_xpos'), x_rotary),
  **dict.fromkeys(('t5_decoder', 't5_encoder'), t5),
  'bloom': bloom,
  'mpt': mpt,
  **dict.fromkeys(('deberta_v2', 'deberta_v2_c2p'), deberta_v2),
  **dict.fromkeys(('xlnet', 'xlnet_clamped'), xlnet),
  'x_cope': x_cope,
  'x_forgetting': x_forgetting,
  'x_pope': x_pope,
  **dict.fromkeys(('clipped_rope', 'clipped_rope_hard'), clipped_rope),
  **dict.fromkeys(('resonance_rope', 'resonance_yarn'), resonance_rope),
  'fope': fope,
  **dict.fromkeys(('nape', 'asentmax_temperature'), asentmax),
  **dict.fromkeys(('grape_m', 'grape_m_context', 'grape_a'), grape),
  'string': string,
  'dca': dca,
  'repo': repo,
}


def attention(name: str) -> list:
  """The output of a case's reference, [S][H * K]."""
  import torch

  case = CASES[name]
  enc, weights = case.build()
  tensors = {n: torch.tensor(w) for n, w in weights.items()}
  p = {
    path[0].name: torch.tensor(np.asarray(leaf))
    for path, leaf in jax.tree_util.tree_flatten_with_path(enc)[0]
  }
  with torch.no_grad():
    return numbers(REFERENCES[name](tensors, p, case).numpy())


def numbers(x) -> list:
  """Nested lists of numbers with nine significant digits, as many as single precision needs."""
  return [numbers(y) for y in x] if x.ndim else float(f'{x:.9g}')


def write(file: str, entries: dict) -> None:
  """Adds entries to a golden file, one a line, with the versions that made them."""
  path = GOLDEN / file
  old = json.loads(path.read_text()) if path.exists() else {}
  made = ', '.join(
    f'{n} {importlib.metadata.version(n)}' for n in ('torch', 'transformers', 'x-transformers')
  )
  lines = [
    f'{json.dumps(name)}: {json.dumps(entry)}'
    for name, entry in ({**old, **entries, 'made by': made}).items()
  ]
  path.parent.mkdir(exist_ok=True)
  path.write_text('{\n' + ',\n'.join(lines) + '\n}\n')


def main(names: list[str]) -> None:
  """Computes the entries with these names, or all of them. Raises UserError."""
  known = {*ROPE_TYPES, *CASES}
  for name in names:
    if name not in known:
      raise UserError(f'{name}: no such entry; {nearest(name, known)}')
  if not all(map(importlib.util.find_spec, ('torch', 'transformers', 'x_transformers'))):
    raise UserError(
      "a library to compare with is missing; allowed: after pip install -e '.[conformance]'"
    )
  rope_types = {n: rope_type(*case) for n, case in ROPE_TYPES.items() if not names or n in names}
  write('rope_types.json', rope_types)
  write('attention.json', {n: attention(n) for n in CASES if not names or n in names})


if __name__ == '__main__':
  config.main(main)
