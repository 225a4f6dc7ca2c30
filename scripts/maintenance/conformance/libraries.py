"""References that are installed: transformers and x-transformers.

A reference is a function of a layer's weights w and the encoding's parameters p, as tensors, that
returns the layer's output [S, H * K].
"""

import math

from .cases import SIZES, S
from .tensors import (
  by_head,
  causal_mask,
  causal_scores,
  identity,
  joined_heads,
  linear,
  numbers,
  project,
  torch,
  weighted_values,
)


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


def llama(w, p, case):
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
  return layer(w['x'][None], rotations, causal_mask())[0][0]


def gpt_neox(w, p, case):
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
  return layer(w['x'][None], causal_mask(), position_embeddings=rotations)[0][0]


def gptj(w, p, case):
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
  return layer(w['x'][None], rotations, causal_mask())[0][0]


def deepseek(w, p, case):
  """Queries are not compressed, keys and values to as many channels as there are, without a norm.
  With YaRN all of a score has its temperature, and what turns has none besides.
  """
  from transformers import DeepseekV3Config
  from transformers.models.deepseek_v3.modeling_deepseek_v3 import (
    DeepseekV3Attention,
    DeepseekV3RotaryEmbedding,
  )

  rope = {'rope_type': 'default', 'rope_theta': case.hyper.get('base', 10_000.0)}
  if 'members' in case.hyper:
    p = {name: p[f'members.1.{name}'] for name in ('w_q', 'w_k')}
    rope |= case.hyper['members'][1]['scaling'] | {'mscale': 1.0, 'mscale_all_dim': 1.0}
  config = DeepseekV3Config(
    hidden_size=18,
    num_attention_heads=3,
    num_key_value_heads=3,
    q_lora_rank=None,
    kv_lora_rank=18,
    qk_nope_head_dim=6,
    qk_rope_head_dim=4,
    v_head_dim=6,
    max_position_embeddings=SIZES['train_length'],
    rope_parameters=rope,
    attn_implementation='eager',
  )
  layer = DeepseekV3Attention(config, 0)
  linear(layer.q_proj, torch.cat([w['q'], p['w_q']], dim=2))
  linear(layer.kv_a_proj_with_mqa, torch.eye(18), p['w_k'])
  layer.kv_a_layernorm = torch.nn.Identity()
  linear(layer.kv_b_proj, torch.cat([w['k'], w['v']], dim=2))
  identity(layer.o_proj)
  rotations = DeepseekV3RotaryEmbedding(config)(w['x'][None], torch.arange(S)[None])
  return layer(w['x'][None], rotations, causal_mask())[0][0]


def t5(w, p, case):
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
  return layer(w['x'][None], mask=causal_mask() if case.causal else None)[0][0]


def bloom(w, p, case):
  from transformers import BloomConfig
  from transformers.models.bloom.modeling_bloom import BloomAttention, build_alibi_tensor

  layer = BloomAttention(BloomConfig(hidden_size=18, n_head=3), 0).eval()
  linear(layer.query_key_value, by_head(w['q'], w['k'], w['v']))
  identity(layer.dense)
  alibi = build_alibi_tensor(torch.ones(1, S), 3, torch.float32)
  return layer(w['x'][None], torch.zeros(1, S, 18), alibi, causal_mask())[0][0]


def mpt(w, p, case):
  from transformers import MptConfig
  from transformers.models.mpt.modeling_mpt import MptAttention, build_mpt_alibi_tensor

  layer = MptAttention(MptConfig(d_model=18, n_heads=6), 0).eval()
  linear(layer.Wqkv, w['q'], w['k'], w['v'])
  identity(layer.out_proj)
  hidden = causal_mask()[0] < 0
  return layer(w['x'][None], build_mpt_alibi_tensor(6, S), attention_mask=hidden)[0][0]


def deberta_v2(w, p, case):
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
  from transformers import XLNetConfig, XLNetModel

  clamp = case.hyper.get('max_distance') or -1
  model = XLNetModel(
    XLNetConfig(vocab_size=3, d_model=18, n_layer=1, n_head=3, d_inner=4, clamp_len=clamp)
  ).eval()
  layer = model.layer[0].rel_attn
  layer.r_w_bias.data, layer.r_r_bias.data = p['u'], p['v']
  q, k, v = (torch.einsum('sd,dnk->snk', w['x'], w[name])[:, None] for name in 'qkv')
  r = torch.einsum('sd,dnk->snk', model.relative_positional_encoding(S, S)[:, 0], p['w_r'])[:, None]
  mask = torch.ones(S, S).triu(1)[:, :, None, None] if case.causal else None
  return layer.rel_attn_core(q, k, v, r, attn_mask=mask)[:, 0].reshape(S, -1)


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
  from x_transformers.x_transformers import PolarEmbedding, apply_polar_pos_emb

  polar = PolarEmbedding(6, 3)
  polar.learned_bias.data = p['phases'][:, None]
  angles, phases = polar(torch.arange(S))
  q = apply_polar_pos_emb(project(w, 'q'), angles)
  k = apply_polar_pos_emb(project(w, 'k'), angles + phases)
  # the scale there is that of the width of heads, which the polar form doubles
  return weighted_values(causal_scores(2**0.5 * q, k), project(w, 'v'))


def x_dynamic(w, p, case):
  from x_transformers.x_transformers import DynamicPositionBias

  options = {'depth': 2, 'log': False, 'norm': False} | case.hyper
  bias = DynamicPositionBias(
    len(p['w_in']),
    heads=3,
    depth=options['depth'],
    log_distance=options['log'],
    norm=options['norm'],
  )
  (first, *_), *hidden, last = bias.mlp
  linear(first, p['w_in'][None])
  linear(last, p['w_out'])
  layers = [(first, p['b_in'])]
  for (layer, *_), w_FF, b_F in zip(hidden, p['w_hidden'], p['b_hidden'], strict=True):
    linear(layer, w_FF)
    layers.append((layer, b_F))
  for layer, b_F in layers:
    del layer.bias
    layer.bias = b_F
  if options['norm']:
    bias.mlp[0][1].gamma.data = p['gains'][0]
    for (_, norm, _), gains_F, offsets_F in zip(hidden, p['gains'][1:], p['offsets'], strict=True):
      norm.weight.data, norm.bias.data = gains_F, offsets_F
  scores = causal_scores(project(w, 'q'), project(w, 'k'))
  return weighted_values(scores + bias(S, S), project(w, 'v'))


def x_row_gates(w, p, case):
  from x_transformers.x_transformers import PerRowDataDependentAlibi

  gates = PerRowDataDependentAlibi(dim=18, heads=3, post_log_scale=case.hyper['factor'])
  linear(gates.to_forget_gates[0], p['w_a'], p['w_n'])
  scores = causal_scores(project(w, 'q'), project(w, 'k'))
  return weighted_values(scores + gates(w['x'][None]), project(w, 'v'))


def x_sigmoid(w, p, case):
  """The library has no b: it goes with the bias."""
  from x_transformers.attend import Attend
  from x_transformers.x_transformers import AlibiPositionalBias

  bias = AlibiPositionalBias(3)(S, S) - math.log(SIZES['train_length'])
  attend = Attend(causal=True, heads=3, sigmoid=True)
  return joined_heads(attend(*(project(w, n) for n in 'qkv'), attn_bias=bias)[0])


def x_selective(w, p, case):
  from x_transformers.attend import selective_attn

  scores = selective_attn(causal_scores(project(w, 'q'), project(w, 'k')))
  return weighted_values(scores, project(w, 'v'))


def wavlm(w, p, case):
  from transformers.models.wavlm.modeling_wavlm import WavLMAttention

  buckets, most = case.hyper['buckets'], case.hyper['max_distance']
  layer = WavLMAttention(18, 3, num_buckets=buckets, max_distance=most)
  for name in 'qkv':
    linear(getattr(layer, f'{name}_proj'), w[name])
  identity(layer.out_proj)
  layer.rel_attn_embed.weight.data = p['table']
  linear(layer.gru_rel_pos_linear, p['w_g'])
  layer.gru_rel_pos_linear.bias.data = p['b_g']
  layer.gru_rel_pos_const.data = p['c'][None, :, None, None]
  return layer(w['x'][None])[0][0]


def llama4(w, p, case):
  """A layer without rotation."""
  from transformers import Llama4TextConfig
  from transformers.models.llama4.modeling_llama4 import Llama4TextAttention

  config = Llama4TextConfig(
    hidden_size=18,
    num_attention_heads=3,
    num_key_value_heads=3,
    head_dim=6,
    num_hidden_layers=1,
    no_rope_layers=[0],
    attn_temperature_tuning=True,
    floor_scale=case.hyper['length'],
    attn_scale=case.hyper['c'],
    attn_implementation='eager',
  )
  layer = Llama4TextAttention(config, 0)
  for name in 'qkv':
    linear(getattr(layer, f'{name}_proj'), w[name])
  identity(layer.o_proj)
  return layer(w['x'][None], None, causal_mask())[0][0]


def ministral(w, p, case):
  from transformers import Ministral3Config
  from transformers.models.ministral3.modeling_ministral3 import (
    Ministral3Attention,
    Ministral3RotaryEmbedding,
  )

  temperature = case.hyper['members'][1]
  config = Ministral3Config(
    hidden_size=18,
    num_attention_heads=3,
    num_key_value_heads=3,
    head_dim=6,
    rope_parameters={
      'rope_type': 'default',
      'rope_theta': 10_000.0,
      'llama_4_scaling_beta': temperature['c'],
      'original_max_position_embeddings': temperature['length'],
    },
    attn_implementation='eager',
  )
  layer = Ministral3Attention(config, 0)
  for name in 'qkv':
    linear(getattr(layer, f'{name}_proj'), w[name])
  identity(layer.o_proj)
  ids = torch.arange(S)[None]
  rotations = Ministral3RotaryEmbedding(config)(w['x'][None], ids)
  return layer(w['x'][None], rotations, causal_mask(), position_ids=ids)[0][0]


REFERENCES = {
  **dict.fromkeys(('llama', 'llama_yarn', 'llama_dynamic'), llama),
  'gpt_neox': gpt_neox,
  'gptj': gptj,
  **dict.fromkeys(('x_rotary', 'x_xpos'), x_rotary),
  **dict.fromkeys(('deepseek', 'deepseek_yarn'), deepseek),
  **dict.fromkeys(('t5_decoder', 't5_encoder'), t5),
  'wavlm': wavlm,
  'bloom': bloom,
  'mpt': mpt,
  **dict.fromkeys(('deberta_v2', 'deberta_v2_c2p'), deberta_v2),
  **dict.fromkeys(('xlnet', 'xlnet_clamped'), xlnet),
  'x_cope': x_cope,
  'x_forgetting': x_forgetting,
  'x_pope': x_pope,
  **dict.fromkeys(('x_dynamic', 'x_dynamic_log', 'x_dynamic_norm'), x_dynamic),
  'x_row_gates': x_row_gates,
  'x_sigmoid': x_sigmoid,
  'x_selective': x_selective,
  'llama4_temperature': llama4,
  'ministral': ministral,
}
