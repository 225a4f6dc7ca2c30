"""References of papers: definitions of files in clones of their repositories."""

import __future__

import ast
import math
import subprocess
from pathlib import Path
from types import SimpleNamespace

from posenc_jax.errors import UserError

from .cases import SIZES, S
from .tensors import (
  attend_with_lse,
  attention_turned,
  causal_mask,
  causal_scores,
  identity,
  joined_heads,
  linear,
  project,
  torch,
  weighted_values,
)

CLONES = Path(__file__).parents[3] / 'references'
COMMITS = {
  'hrlics/CoPE': 'ed52ba5e2d80aaea7577144109c572e93e84e537',
  'sheryc/resonance_rope': '4a7f5a703b2e96756939db51916937ab7c5ab3a9',
  'TsinghuaC3I/Fourier-Position-Embedding': 'bd94b20d82bf11240ad3584c515c790d255da919',
  'deep-spin/asentmax': 'be54bd3f9cfb9f17c80a8d956ea827f5cf93d07d',
  'model-architectures/GRAPE': 'f5b539f35066f9067bf36e1f9d802212fce7884e',
  'HKUNLP/STRING': '216cc2f04cee147e8c3cfaa15723b182ecbe321e',
  'HKUNLP/ChunkLlama': '2add4d7c99d24dcc1ab03414cc602abb2e28cf2c',
  'OpenMOSS/rope_pp': '91ba3357c49beb22e132ed096557baee503f3486',
  'sjelassi/transformers_ssm_copy': '1188c4799b4f7654ac79349f61e8868b167f103e',
  'SakanaAI/repo': '1508a73ac7303e0bce6404cbf0aa8ddba8f08578',
  'lsj2408/URPE': '47b711f85be5de010deeafa9d8788d399912c3a2',
  'zaydzuhri/softpick-attention': 'c97f4dc5f9fcec2e8afc2932db2cba6d7d7e5465',
  'ulmewennberg/tisa': 'a3027cafe5dc60220ed9e7712e8794a2f85a470b',
}


def definitions(repository: str, path: str, *names: str, **known) -> SimpleNamespace:
  """Functions, classes or methods ('Class.method') of a file of a repository.

  They are executed alone, in a namespace of torch and `known`. Raises UserError where there is no
  clone.
  """
  clone = CLONES / repository
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


def clipped_rope(w, p, case):

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


def hard_alibi(w, p, case):
  path = 'synthetic_exps/models/hard_alibi_model.py'
  code = definitions('sjelassi/transformers_ssm_copy', path, 'GPTHardAlibiAttention._attn')
  layer = SimpleNamespace(
    bias=torch.tril(torch.ones(1, 1, S, S, dtype=torch.bool)),
    norm_factor=case.sizes['head_dim'] ** -0.5,
    config=SimpleNamespace(num_masked_heads=case.sizes['heads'] // 2),
    attention_dropout=torch.nn.Identity(),
  )
  return joined_heads(code._attn(layer, *(project(w, n) for n in 'qkv'))[0])


def asentmax(w, p, case):
  """`nape`, before softmax or as its authors have it before entmax; or the temperature of heads."""
  from entmax import entmax15, entmax_bisect, sparsemax

  code = definitions(
    'deep-spin/asentmax',
    'synthetic/src/models/architectures/sparse_gemma.py',
    *('get_nape_slopes', 'make_bias_tensor', 'SparseGemma2Attention._apply_length_scaling'),
  )
  q, k, v = (project(w, n) for n in 'qkv')
  if case.encoding != 'asentmax_temperature':
    scores = causal_scores(q, k) + code.make_bias_tensor(code.get_nape_slopes(3, 1), S)
    if case.encoding == 'nape':
      return weighted_values(scores, v)
    entmax = case.hyper['members'][1]
    alpha = 1.5 if entmax == 'entmax' else entmax['alpha']
    exact = {1.5: entmax15, 2.0: sparsemax}
    weights = exact[alpha](scores, dim=-1) if alpha in exact else entmax_bisect(scores, alpha)
    return joined_heads(weights @ v)
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


def projections(w):
  """The attributes that released attentions expect of their layer."""
  sizes = {'hidden_size': 18, 'num_heads': 3, 'num_key_value_heads': 3, 'head_dim': 6}
  layer = SimpleNamespace(num_key_value_groups=1, layer_idx=0, o_proj=lambda x: x, **sizes)
  for name in 'qkv':
    module = torch.nn.Linear(18, 18, bias=False)
    linear(module, w[name])
    setattr(layer, f'{name}_proj', module)
  return layer


def string(w, p, case):
  """Token by token: in a pass over a row the code counts pairs at the distance `window` twice."""

  def decode(q, key, value, k_cache, v_cache, cache_seqlens):
    out, lse = attend_with_lse(q, k_cache.swapaxes(1, 2), v_cache.swapaxes(1, 2))
    return out.swapaxes(1, 2), lse

  def whole(q, k, v, **options):
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
    out, lse = attend_with_lse(q, k, v, causal_mask()[..., : q.shape[2], : q.shape[2]])
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


def rope_pp(w, p, case):
  """EC makes two heads of each projected one; EH projects half as many heads as it has."""
  sizes, is_eh = SIZES | case.sizes, 'heads' in case.sizes
  code = definitions(
    'OpenMOSS/rope_pp',
    'rope_pp/modeling_llama_rope_pp.py',
    *('LlamaRotaryEmbedding', 'rotate_half', 'repeat_kv', 'eager_attention_forward'),
    'LlamaAttention',
  )
  config = SimpleNamespace(
    hidden_size=sizes['model_dim'],
    num_attention_heads=(1 + is_eh) * sizes['heads'],
    num_key_value_heads=(1 + is_eh) * sizes['kv_heads'],
    head_dim=sizes['head_dim'],
    attention_dropout=0.0,
    attention_bias=False,
    rope_theta=case.hyper.get('base', 10_000.0),
    max_position_embeddings=S,
    rope_config={'imag': True, 'imag_mode': 'imag1' if is_eh else 'imag2'},
    _attn_implementation='eager',
  )
  layer = code.LlamaAttention(config, 0)
  for name in 'qkv':
    linear(getattr(layer, f'{name}_proj'), w[name])
  identity(layer.o_proj, layer.o_proj.in_features)
  rotations = code.LlamaRotaryEmbedding(config)(w['x'], torch.arange(S)[None])
  return layer(w['x'][None], rotations, causal_mask())[0][0]


def kv_shift(w, p, case):
  """GRAPE's rotation goes the other way round; see `grape`."""
  repository = 'model-architectures/GRAPE'
  shift = definitions(
    repository, 'model/kv_shift_torch.py', 'token_shift_torch', 'ShiftLinearTorch'
  )
  code = definitions(
    repository,
    'model/llama-mha-rope.py',
    *('Rotary', 'apply_rotary_emb', 'CausalSelfAttention'),
    ShiftLinear=shift.ShiftLinearTorch,
  )
  config = SimpleNamespace(
    n_head=3, n_embd=18, head_dim=6, n_layer=1, use_qk_rmsnorm=False, using_groupnorm=False
  )
  config.use_k_shift = config.use_v_shift = True
  layer = code.CausalSelfAttention(config)
  linear(layer.c_q, w['q'].roll(3, -1))
  for name, shifted, turned in (('k', layer.c_k, w['k'].roll(3, -1)), ('v', layer.c_v, w['v'])):
    linear(shifted.linear, turned)
    linear(shifted.shift_proj, p[f'members.0.w_{name}'])
  identity(layer.c_proj)
  return layer(w['x'][None])[0]


def tisa(w, p, case):
  """Its distances are i - j - 1."""
  layer = definitions('ulmewennberg/tisa', 'model/tisa.py', 'Tisa').Tisa(3, 5)
  names = {'amplitudes': p['amplitudes'], 'sharpness': p['sharpness'], 'offsets': -1 - p['offsets']}
  for name, x in names.items():
    delattr(layer, f'kernel_{name}')
    setattr(layer, f'kernel_{name}', x)
  scores = causal_scores(project(w, 'q'), project(w, 'k'))
  return weighted_values(scores + layer(S), project(w, 'v'))


def urpe(w, p, case):
  """Its numbers lie by j - i in a table as long as a text, and are handed over as a matrix."""
  code = definitions(
    'lsj2408/URPE',
    'fairseq/modules/multihead_attention.py',
    'MultiheadAttention',
    Parameter=torch.nn.Parameter,
    FairseqDropout=lambda p, **_: torch.nn.Dropout(p),
    quant_noise=lambda module, *_: module,
    with_incremental_state=lambda kind: kind,
    utils=SimpleNamespace(softmax=lambda x, dim, onnx_trace: x.softmax(dim)),
  )
  layer = code.MultiheadAttention(18, 3, bias=False, self_attention=True)
  for name in 'qkv':
    linear(getattr(layer, f'{name}_proj'), w[name])
  identity(layer.out_proj)
  index, clip = torch.arange(S), len(p['factors']) // 2
  distance = (index[:, None] - index).clip(-clip, clip)
  x, masks = w['x'][:, None], {'attn_mask': causal_mask()[0, 0], 'need_weights': False}
  factors = p['factors'][distance + clip].permute(2, 0, 1)
  return layer(x, x, x, **masks, ur_rel_pos_bias=factors)[0][:, 0]


def softpick(w, p, case):
  code = definitions('zaydzuhri/softpick-attention', 'naive_softpick_attn.py', 'softpick')
  scores = causal_scores(project(w, 'q'), project(w, 'k'))
  scores = scores.masked_fill(causal_mask() < 0, -math.inf)
  return joined_heads(code.softpick(scores) @ project(w, 'v'))


REFERENCES = {
  **dict.fromkeys(('clipped_rope', 'clipped_rope_hard'), clipped_rope),
  **dict.fromkeys(('resonance_rope', 'resonance_yarn'), resonance_rope),
  'fope': fope,
  **dict.fromkeys(('nape', 'asentmax_temperature'), asentmax),
  **dict.fromkeys(('nape_entmax15', 'nape_entmax_bisected', 'nape_sparsemax'), asentmax),
  **dict.fromkeys(('grape_m', 'grape_m_context', 'grape_a'), grape),
  'hard_alibi': hard_alibi,
  'string': string,
  'dca': dca,
  'repo': repo,
  **dict.fromkeys(('rope_pp_ec', 'rope_pp_eh'), rope_pp),
  'kv_shift_rope': kv_shift,
  'tisa': tisa,
  'urpe': urpe,
  'softpick': softpick,
}
