"""Families of pretrained models: what the fields of their config.json mean here, and which tensors
hold which parameters.

A family is one function, from the fields of config.json to a `Form`. A field that it neither reads
nor knows to be harmless is refused by name: nothing is dropped in silence.
"""

import dataclasses
import math
from collections.abc import Callable

from posenc_jax.errors import UserError, nearest, shown
from posenc_jax.pretrained.tensor_rules import (
  Rule,
  joined,
  joined_by_head,
  plus_one,
  same,
  scaled,
  transposed,
  zeros,
)

# Fields that no number of an evaluation depends on.
HARMLESS = {
  *('_name_or_path', 'architectures', 'auto_map', 'dtype', 'torch_dtype'),
  *('transformers_version', 'model_type', '_attn_implementation', 'use_cache'),
  *('initializer_range', 'init_device', 'gradient_checkpointing', 'is_decoder', 'bos_token_id'),
  *('eos_token_id', 'pad_token_id', 'unk_token_id', 'sep_token_id', 'cls_token_id'),
  *('tokenizer_class', 'attention_dropout', 'hidden_dropout', 'classifier_dropout'),
  *('resid_pdrop', 'embd_pdrop', 'attn_pdrop', 'emb_pdrop', 'summary_type', 'summary_use_proj'),
  *('summary_activation', 'summary_proj_to_labels', 'summary_first_dropout', 'return_dict'),
  *('output_hidden_states', 'output_attentions', 'torchscript', 'id2label', 'label2id'),
  *('problem_type', 'task_specific_params', 'transformers.js_config', 'is_llama_config'),
  *('n_ctx', 'cache_implementation', 'chunk_size_feed_forward', 'tie_encoder_decoder'),
  *('pretraining_tp', 'max_window_layers', 'slow_but_exact', 'reorder_and_upcast_attn'),
  *('attention_softmax_in_fp32', 'masked_softmax_fusion', 'offset_alibi', 'seq_length'),
  *('bias_dropout_fusion', 'attn_impl'),
}


# What a family has unless it says otherwise: fields of the config's sections `model`, `attention`.
PLAIN_MODEL = {
  'kv_heads': 0,
  'norm': 'rms',
  'norm_eps': 1e-6,
  'norm_placement': 'pre',
  'output_gate': 'none',
  'parallel_residual': False,
  'bias': 'none',
  'qk_norm': 'none',
  'shared_kv': False,
  'tie_embeddings': True,
  'embedding_scale': 1.0,
  'embedding_norm': False,
  'logit_softcap': 0.0,
}
PLAIN_ATTENTION = {'window': 0, 'chunk': 0, 'sink_tokens': 0, 'softcap': 0.0}


@dataclasses.dataclass(frozen=True)
class Form:
  """A model in the terms of this program.

  Attributes:
    model: fields of the config's section `model`.
    attention: fields of its section `attention`.
    encoding: the section `encoding`.
    train_length: tokens that the model was trained for.
    rules: which tensors hold which parameters.
    buffers: endings of the names of tensors that are no parameters.
  """

  model: dict
  attention: dict
  encoding: dict
  train_length: int
  rules: list[Rule]
  buffers: tuple[str, ...] = ()


class Fields:
  """The fields of a config.json; it knows which ones have been read."""

  def __init__(self, tree: dict, field: str):
    self._tree, self._field, self._read = tree, field, set(HARMLESS)
    self.require('quantization_config', None)
    self.require('is_encoder_decoder', False)

  def take(self, name: str, default=None, kind: type | tuple = int):
    """The value of a field, or the default of its family where it is left out or null."""
    self._read.add(name)
    value = self._tree.get(name)
    if value is None:
      if default is None:
        raise self.refused(name, f'{kind.__name__}, which this family needs')
      return default
    if kind is float and type(value) is int:
      value = float(value)
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if type(value) not in kinds or (type(value) in (int, float) and value < 0):
      raise self.refused(name, ' or '.join(k.__name__ for k in kinds))
    return value

  def optional(self, name: str, kind: type | tuple):
    """The value of a field, or None."""
    return self.take(name, kind=kind) if self._tree.get(name) is not None else self._skip(name)

  def _skip(self, name):
    self._read.add(name)

  def require(self, name: str, *allowed):
    """Reads a field that may only have a value that this program's form of the family covers."""
    self._read.add(name)
    if name in self._tree and self._tree[name] not in allowed:
      raise self.refused(name, ', '.join(map(repr, allowed)))

  def refused(self, name: str, allowed: str) -> UserError:
    value = shown(self._tree.get(name))
    return UserError(f'{self._field}: config.json: {name}={value}; allowed: {allowed}')

  def check_all_read(self, model_type: str) -> None:
    """Raises `UserError` for a field that nobody has read."""
    if left := sorted(self._tree.keys() - self._read):
      problem = f'{left[0]}={shown(self._tree[left[0]])} is not understood for {model_type}'
      raise UserError(f'{self._field}: config.json: {problem}')


def form_of(tree: dict, field: str) -> Form:
  """The form of a model by the fields of its config.json. Raises `UserError` for what is not
  covered.
  """
  kind = tree.get('model_type')
  if kind in OUT_OF_SCOPE:
    raise UserError(f'{field}: model_type {kind!r}: {OUT_OF_SCOPE[kind]}')
  if kind not in FAMILIES:
    raise UserError(f'{field}: config.json: model_type={shown(kind)}; {nearest(kind, FAMILIES)}')
  fields = Fields(tree, field)
  form = FAMILIES[kind](fields)
  fields.check_all_read(kind)
  model, attention = PLAIN_MODEL | form.model, PLAIN_ATTENTION | form.attention
  return dataclasses.replace(form, model=model, attention=attention)


def _sizes(fields: Fields) -> dict:
  """The sizes under the names that most families use."""
  D, H = fields.take('hidden_size'), fields.take('num_attention_heads')
  G = fields.take('num_key_value_heads', H)
  return {
    'model_dim': D,
    'mlp_dim': fields.take('intermediate_size'),
    'layers': fields.take('num_hidden_layers'),
    'heads': H,
    'kv_heads': 0 if G == H else G,
    'head_dim': fields.take('head_dim', D // H),
    'vocab': fields.take('vocab_size'),
  }


def _rope(fields: Fields, base: float = 10_000.0, of: str | None = None) -> dict:
  """The encoding of `rope_theta` and `rope_scaling`, or of `rope_parameters`, which newer files
  have in their place; `of`: the kind of layers, where each kind has parameters of its own.
  """
  parameters = fields.optional('rope_parameters', dict)
  scaling = fields.optional('rope_scaling', dict)
  theta = fields.optional('rope_theta', (int, float))
  fraction = fields.optional('partial_rotary_factor', (int, float))
  original = fields.optional('original_max_position_embeddings', int)
  fields.require('rope_interleaved', False)
  if parameters is not None and of is not None:
    parameters = parameters.get(of, parameters)
  said = dict(parameters or scaling or {})
  base = float(said.pop('rope_theta', theta or base))
  fraction = float(said.pop('partial_rotary_factor', fraction or 1.0))
  old_name = said.pop('type', 'default')
  kind = said.pop('rope_type', old_name)
  encoding = {'name': 'rope', 'base': base}
  if fraction != 1:
    encoding['fraction'] = fraction
  if kind != 'default':
    length = fields.take('max_position_embeddings')
    if kind == 'longrope':
      said.setdefault('original_max_position_embeddings', original or length)
      said.setdefault('factor', length / said['original_max_position_embeddings'])
    encoding['scaling'] = {'rope_type': kind, **said}
  return encoding


def _activation(fields: Fields, name: str, of: dict[str, str], default: str) -> str:
  """The name of an activation in this program."""
  value = fields.take(name, default, str)
  if value not in of:
    raise fields.refused(name, ', '.join(of))
  return of[value]


GATED = {'silu': 'swiglu', 'swish': 'swiglu', 'gelu_pytorch_tanh': 'geglu'}
UNGATED = {
  'gelu': 'gelu_exact',
  'gelu_new': 'gelu',
  'gelu_pytorch_tanh': 'gelu',
  'gelu_fast': 'gelu',
}


def _common(fields: Fields, ties: bool) -> dict:
  return {
    'norm_eps': fields.take('rms_norm_eps', 1e-6, float),
    'tie_embeddings': fields.take('tie_word_embeddings', ties, bool),
  }


def _decoder_rules(model: dict, norm: Callable = same) -> list[Rule]:
  """The tensors that Llama and all families after it have. `norm`: the rule of a norm."""
  layer = 'model.layers.{n}.'
  rules = [
    same('embedding', 'model.embed_tokens.weight'),
    norm('norm/scale', 'model.norm.weight'),
    *(
      transposed(f'layers/w_{leaf}', f'{layer}self_attn.{leaf}_proj.weight')
      for leaf in ('q', 'k', 'v', 'o')
    ),
    transposed('layers/w_gate', f'{layer}mlp.gate_proj.weight'),
    transposed('layers/w_in', f'{layer}mlp.up_proj.weight'),
    transposed('layers/w_out', f'{layer}mlp.down_proj.weight'),
  ]
  if not model['tie_embeddings']:
    rules.append(transposed('w_logits', 'lm_head.weight'))
  biased = {'none': (), 'qkv': ('q', 'k', 'v'), 'all': ('q', 'k', 'v', 'o')}
  for leaf in biased[model.get('bias', 'none')]:
    rules.append(same(f'layers/b_{leaf}', f'{layer}self_attn.{leaf}_proj.bias'))
  if model.get('bias') == 'all':
    for leaf, name in (('gate', 'gate'), ('in', 'up'), ('out', 'down')):
      rules.append(same(f'layers/b_{leaf}', f'{layer}mlp.{name}_proj.bias'))
  if model.get('qk_norm', 'none') != 'none':
    rules += [norm(f'layers/{x}_norm/scale', f'{layer}self_attn.{x}_norm.weight') for x in 'qk']
  return rules


def _pre_norm_rules(norm: Callable = same) -> list[Rule]:
  layer = 'model.layers.{n}.'
  return [
    norm('layers/attention_norm/scale', f'{layer}input_layernorm.weight'),
    norm('layers/mlp_norm/scale', f'{layer}post_attention_layernorm.weight'),
  ]


def _llama_like(fields: Fields, ties: bool = False, **model) -> Form:
  attention = {}
  model = {**_sizes(fields), **_common(fields, ties), **model}
  model['mlp'] = _activation(fields, 'hidden_act', GATED, 'silu')
  rules = _decoder_rules(model) + _pre_norm_rules()
  length = fields.take('max_position_embeddings', 2048)
  return Form(model, attention, _rope(fields), length, rules, ('rotary_emb.inv_freq',))


def llama(fields: Fields) -> Form:
  """Llama 1 to 3.x, SmolLM2 (Touvron et al. 2023, arXiv:2302.13971)."""
  biases = fields.take('attention_bias', False, bool), fields.take('mlp_bias', False, bool)
  if biases[0] != biases[1]:
    raise fields.refused('attention_bias', 'the same as mlp_bias')
  return _llama_like(fields, bias='all' if biases[0] else 'none')


def mistral(fields: Fields) -> Form:
  """Mistral (Jiang et al. 2023, arXiv:2310.06825)."""
  window = fields.optional('sliding_window', int)
  form = _llama_like(fields)
  form.attention['window'] = window or 0
  return form


def qwen2(fields: Fields) -> Form:
  """Qwen 2 and 2.5 (arXiv:2407.10671): biases of queries, keys and values."""
  return _qwen(fields, bias='qkv')


def qwen3(fields: Fields) -> Form:
  """Qwen 3 (arXiv:2505.09388): QK-norm of each head."""
  fields.require('attention_bias', False)
  return _qwen(fields, qk_norm='head')


def _qwen(fields: Fields, **model) -> Form:
  fields.require('use_sliding_window', False)
  fields.optional('sliding_window', int)
  fields.require('use_mrope', False)
  types = fields.optional('layer_types', list)
  if types is not None and set(types) != {'full_attention'}:
    raise fields.refused('layer_types', 'full_attention alone')
  return _llama_like(fields, **model)


def smollm3(fields: Fields) -> Form:
  """SmolLM3: every fourth layer without positions."""
  fields.require('attention_bias', False)
  fields.require('mlp_bias', False)
  fields.require('use_sliding_window', False)
  fields.optional('sliding_window', int)
  fields.optional('layer_types', list)
  form = _llama_like(fields, ties=True)
  layers = form.model['layers']
  interval = fields.take('no_rope_layer_interval', 4)
  rotates = fields.optional('no_rope_layers', list)
  if rotates is None:
    rotates = [int((n + 1) % interval != 0) for n in range(layers)]
  if len(rotates) != layers or set(rotates) - {0, 1}:
    raise fields.refused('no_rope_layers', f'{layers} numbers, each 0 or 1')
  pattern = [form.encoding if turns else {'name': 'nope'} for turns in rotates]
  return dataclasses.replace(form, encoding=_pattern(pattern))


def olmo2(fields: Fields) -> Form:
  """OLMo 2 (arXiv:2501.00656): norms of what blocks give, and of whole projections."""
  fields.require('attention_bias', False)
  form = _llama_like(fields, qk_norm='projection', norm_placement='output')
  layer = 'model.layers.{n}.'
  norms = [
    same('layers/attention_norm/scale', f'{layer}post_attention_layernorm.weight'),
    same('layers/mlp_norm/scale', f'{layer}post_feedforward_layernorm.weight'),
  ]
  return dataclasses.replace(form, rules=_decoder_rules(form.model) + norms)


def gemma2(fields: Fields) -> Form:
  """Gemma 2 (arXiv:2408.00118): soft-caps, sandwich norms, every other layer with a window."""
  softcap = fields.take('attn_logit_softcapping', 50.0, float)
  logits = fields.take('final_logit_softcapping', 30.0, float)
  return _gemma(fields, [_rope(fields)] * 2, softcap, logits)


def gemma3(fields: Fields) -> Form:
  """Gemma 3's text model (arXiv:2503.19786): QK-norm, a base of its own in layers with a window."""
  fields.require('attn_logit_softcapping', None)
  fields.require('final_logit_softcapping', None)
  local_base = fields.take('rope_local_base_freq', 10_000.0, float)
  fields.optional('sliding_window_pattern', int)
  fields.optional('_sliding_window_pattern', int)
  local = {'name': 'rope', 'base': local_base}
  if fields.optional('rope_parameters', dict) is not None:
    local = _rope(fields, of='sliding_attention')
  whole = _rope(fields, 1_000_000.0, of='full_attention')
  return _gemma(fields, [local, whole], 0.0, 0.0, qk_norm='head')


def _gemma(fields: Fields, encodings: list[dict], softcap: float, logits: float, **flags) -> Form:
  """`encodings`: of layers with a window and of those without one."""
  fields.require('attention_bias', False)
  fields.require('use_bidirectional_attention', None, False)
  model = {**_sizes(fields), **_common(fields, True), **flags}
  model |= {'embedding_scale': 0.0, 'norm_placement': 'sandwich', 'logit_softcap': logits}
  model['mlp'] = _activation(fields, 'hidden_activation', GATED, 'gelu_pytorch_tanh')
  fields.require('hidden_act', 'gelu_pytorch_tanh', None)
  window = fields.take('sliding_window', 4096)
  period = 2 if softcap else 6
  layers = model['layers']
  types = fields.optional('layer_types', list) or [
    'full_attention' if (n + 1) % period == 0 else 'sliding_attention' for n in range(layers)
  ]
  if len(types) != layers or set(types) - {'full_attention', 'sliding_attention'}:
    raise fields.refused('layer_types', f'{layers} of full_attention and sliding_attention')
  local, whole = encodings
  pattern = [
    whole if kind == 'full_attention' else {**local, 'attention_window': window} for kind in types
  ]
  layer = 'model.layers.{n}.'
  names = {
    'attention_norm': 'input_layernorm',
    'attention_output_norm': 'post_attention_layernorm',
    'mlp_norm': 'pre_feedforward_layernorm',
    'mlp_output_norm': 'post_feedforward_layernorm',
  }
  rules = [plus_one(f'layers/{own}/scale', f'{layer}{name}.weight') for own, name in names.items()]
  # Scores are divided by the root of `query_pre_attn_scalar`, and not by that of head_dim.
  factor = math.sqrt(model['head_dim'] / fields.take('query_pre_attn_scalar', 256))
  scaled_leaf = 'layers/q_norm/scale' if flags else 'layers/w_q'
  for rule in _decoder_rules(model, plus_one):
    rules.append(scaled(rule, factor) if rule.leaves == (scaled_leaf,) else rule)
  length = fields.take('max_position_embeddings', 8192)
  return Form(model, {'softcap': softcap}, _pattern(pattern), length, rules)


def phi3(fields: Fields) -> Form:
  """Phi-3 (arXiv:2404.14219): joined projections, longrope."""
  window = fields.optional('sliding_window', int)
  form = _llama_like(fields)
  model, layer = form.model, 'model.layers.{n}.'
  K, F = model['head_dim'], model['mlp_dim']
  kv = (model['kv_heads'] or model['heads']) * K
  attention = tuple(f'layers/w_{leaf}' for leaf in 'qkv')
  parts = {*attention, 'layers/w_gate', 'layers/w_in'}
  rules = [rule for rule in form.rules if not parts & set(rule.leaves)]
  widths = model['heads'] * K, kv, kv
  rules += [
    joined(attention, f'{layer}self_attn.qkv_proj.weight', widths, 0),
    joined(('layers/w_gate', 'layers/w_in'), f'{layer}mlp.gate_up_proj.weight', (F, F), 0),
  ]
  return dataclasses.replace(form, rules=rules, attention={'window': window or 0})


def gpt_neox(fields: Fields) -> Form:
  """GPT-NeoX and Pythia (arXiv:2204.06745, arXiv:2304.01373): parallel residual, partial rotary."""
  fields.require('attention_bias', True)
  model = _sizes(fields)
  model |= {
    'norm': 'layer',
    'norm_eps': fields.take('layer_norm_eps', 1e-5, float),
    'mlp': _activation(fields, 'hidden_act', UNGATED, 'gelu'),
    'bias': 'all',
    'parallel_residual': fields.take('use_parallel_residual', True, bool),
    'tie_embeddings': fields.take('tie_word_embeddings', False, bool),
  }
  fraction = fields.optional('rotary_pct', float)
  base = float(fields.optional('rotary_emb_base', (int, float)) or 10_000)
  encoding = _rope(fields, base)
  if fraction is not None:
    encoding['fraction'] = fraction
  elif 'fraction' not in encoding:
    encoding['fraction'] = 0.25
  layer = 'gpt_neox.layers.{n}.'
  qkv = tuple(f'layers/{{}}_{leaf}' for leaf in 'qkv')
  rules = [
    same('embedding', 'gpt_neox.embed_in.weight'),
    *_layer_norm('norm', 'gpt_neox.final_layer_norm'),
    *_layer_norm('layers/attention_norm', f'{layer}input_layernorm'),
    *_layer_norm('layers/mlp_norm', f'{layer}post_attention_layernorm'),
    *(
      joined_by_head(
        tuple(leaf.format(kind) for leaf in qkv),
        f'{layer}attention.query_key_value.{name}',
        model['heads'],
      )
      for kind, name in (('w', 'weight'), ('b', 'bias'))
    ),
    *_linear('o', f'{layer}attention.dense'),
    *_linear('in', f'{layer}mlp.dense_h_to_4h'),
    *_linear('out', f'{layer}mlp.dense_4h_to_h'),
  ]
  if not model['tie_embeddings']:
    rules.append(transposed('w_logits', 'embed_out.weight'))
  length = fields.take('max_position_embeddings', 2048)
  buffers = ('rotary_emb.inv_freq', 'attention.bias', 'attention.masked_bias')
  return Form(model, {}, encoding, length, rules, buffers)


def gpt2(fields: Fields) -> Form:
  """GPT-2 (Radford et al. 2019): learned positions, inputs first in matrices."""
  fields.require('scale_attn_weights', True)
  fields.require('scale_attn_by_inverse_layer_idx', False)
  fields.require('add_cross_attention', False)
  D, H = fields.take('n_embd', 768), fields.take('n_head', 12)
  length = fields.take('n_positions', 1024)
  model = {
    'model_dim': D,
    'mlp_dim': fields.optional('n_inner', int) or 4 * D,
    'layers': fields.take('n_layer', 12),
    'heads': H,
    'head_dim': D // H,
    'vocab': fields.take('vocab_size'),
    'norm': 'layer',
    'norm_eps': fields.take('layer_norm_epsilon', 1e-5, float),
    'mlp': _activation(fields, 'activation_function', UNGATED, 'gelu_new'),
    'bias': 'all',
    'tie_embeddings': fields.take('tie_word_embeddings', True, bool),
  }
  layer = 'transformer.h.{n}.'
  positions = scaled(same(POSITIONS, 'transformer.wpe.weight'), D**-0.5)  # read times sqrt(D)
  rules = [
    same('embedding', 'transformer.wte.weight'),
    positions,
    *_layer_norm('norm', 'transformer.ln_f'),
    *_layer_norm('layers/attention_norm', f'{layer}ln_1'),
    *_layer_norm('layers/mlp_norm', f'{layer}ln_2'),
    *(
      joined(tuple(f'layers/{kind}_{x}' for x in 'qkv'), f'{layer}attn.c_attn.{name}', (D,) * 3, -1)
      for kind, name in (('w', 'weight'), ('b', 'bias'))
    ),
    *(
      same(f'layers/{kind}_{leaf}', f'{layer}{module}.{name}')
      for leaf, module in (('o', 'attn.c_proj'), ('in', 'mlp.c_fc'), ('out', 'mlp.c_proj'))
      for kind, name in (('w', 'weight'), ('b', 'bias'))
    ),
  ]
  if not model['tie_embeddings']:
    rules.append(transposed('w_logits', 'lm_head.weight'))
  return Form(model, {}, {'name': 'learned'}, length, rules, ('attn.bias', 'attn.masked_bias'))


POSITIONS = 'encodings/variants/0/encoding/rows'


def bloom(fields: Fields) -> Form:
  """BLOOM (arXiv:2211.05100): ALiBi, a norm behind the token embedding."""
  fields.require('apply_residual_connection_post_layernorm', False)
  D = fields.take('n_embed', 0) or fields.take('hidden_size', 64)
  H = fields.take('num_attention_heads', 0) or fields.take('n_head', 8)
  fields.optional('hidden_size', int)
  fields.optional('n_head', int)
  model = {
    'model_dim': D,
    'mlp_dim': 4 * D,
    'layers': fields.take('num_hidden_layers', 0) or fields.take('n_layer', 2),
    'heads': H,
    'head_dim': D // H,
    'vocab': fields.take('vocab_size'),
    'norm': 'layer',
    'norm_eps': fields.take('layer_norm_epsilon', 1e-5, float),
    'mlp': 'gelu',
    'bias': 'all',
    'tie_embeddings': fields.take('tie_word_embeddings', True, bool),
    'embedding_norm': True,
  }
  layer = 'transformer.h.{n}.'
  rules = [
    same('embedding', 'transformer.word_embeddings.weight'),
    *_layer_norm('embedding_norm', 'transformer.word_embeddings_layernorm'),
    *_layer_norm('norm', 'transformer.ln_f'),
    *_layer_norm('layers/attention_norm', f'{layer}input_layernorm'),
    *_layer_norm('layers/mlp_norm', f'{layer}post_attention_layernorm'),
    *(
      joined_by_head(
        tuple(f'layers/{kind}_{x}' for x in 'qkv'),
        f'{layer}self_attention.query_key_value.{name}',
        H,
      )
      for kind, name in (('w', 'weight'), ('b', 'bias'))
    ),
    *_linear('o', f'{layer}self_attention.dense'),
    *_linear('in', f'{layer}mlp.dense_h_to_4h'),
    *_linear('out', f'{layer}mlp.dense_4h_to_h'),
  ]
  return Form(model, {}, {'name': 'alibi'}, 2048, rules)


def mpt(fields: Fields) -> Form:
  """MPT (MosaicML 2023): ALiBi, no biases."""
  for name, allowed in (
    ('no_bias', (True,)),
    ('learned_pos_emb', (True, False)),  # with alibi there is none
    ('logit_scale', (None,)),
    ('embedding_fraction', (1.0, 1)),
    ('norm_type', ('low_precision_layernorm',)),
    ('verbose', (0,)),
  ):
    fields.require(name, *allowed)
  attention = Fields(fields.take('attn_config', {}, dict), 'attn_config')
  for name, allowed in (
    ('alibi', (True,)),
    ('alibi_bias_max', (8,)),
    ('attn_type', ('multihead_attention',)),
    ('clip_qkv', (None,)),
    ('softmax_scale', (None,)),
    ('prefix_lm', (False,)),
    ('qk_ln', (False,)),
    ('attn_uses_sequence_id', (False,)),
  ):
    attention.require(name, *allowed)
  attention.check_all_read('mpt')
  D, H = fields.take('d_model', 2048), fields.take('n_heads', 16)
  N = fields.take('n_layers', 24)
  model = {
    'model_dim': D,
    'mlp_dim': fields.take('expansion_ratio', 4) * D,
    'layers': N,
    'heads': H,
    'head_dim': D // H,
    'vocab': fields.take('vocab_size', 50368),
    'norm': 'layer',
    'norm_eps': fields.take('layer_norm_epsilon', 1e-5, float),
    'mlp': 'gelu_exact',
    'tie_embeddings': fields.take('tie_word_embeddings', True, bool),
  }
  layer = 'transformer.blocks.{n}.'
  qkv = tuple(f'layers/w_{x}' for x in 'qkv')
  rules = [
    same('embedding', 'transformer.wte.weight'),
    same('norm/scale', 'transformer.norm_f.weight'),
    zeros('norm/bias', D),
    same('layers/attention_norm/scale', f'{layer}norm_1.weight'),
    zeros('layers/attention_norm/bias', N, D),
    same('layers/mlp_norm/scale', f'{layer}norm_2.weight'),
    zeros('layers/mlp_norm/bias', N, D),
    joined(qkv, f'{layer}attn.Wqkv.weight', (D,) * 3, 0),
    transposed('layers/w_o', f'{layer}attn.out_proj.weight'),
    transposed('layers/w_in', f'{layer}ffn.up_proj.weight'),
    transposed('layers/w_out', f'{layer}ffn.down_proj.weight'),
  ]
  return Form(model, {}, {'name': 'alibi'}, fields.take('max_seq_len', 2048), rules)


def _layer_norm(leaf: str, module: str) -> list[Rule]:
  return [same(f'{leaf}/scale', f'{module}.weight'), same(f'{leaf}/bias', f'{module}.bias')]


def _linear(leaf: str, module: str) -> list[Rule]:
  """A matrix with outputs first, and its bias."""
  return [
    transposed(f'layers/w_{leaf}', f'{module}.weight'),
    same(f'layers/b_{leaf}', f'{module}.bias'),
  ]


def _pattern(layers: list[dict]) -> dict:
  """The encoding of all layers: one, or the shortest pattern that repeats."""
  for period in range(1, len(layers) + 1):
    if all(layer == layers[n % period] for n, layer in enumerate(layers)):
      break
  if period == 1 and 'attention_window' not in layers[0]:
    return layers[0]
  return {'name': 'pattern', 'layers': tuple(layers[:period])}


FAMILIES: dict[str, Callable[[Fields], Form]] = {
  'llama': llama,
  'mistral': mistral,
  'qwen2': qwen2,
  'qwen3': qwen3,
  'smollm3': smollm3,
  'olmo2': olmo2,
  'gemma2': gemma2,
  'gemma3_text': gemma3,
  'phi3': phi3,
  'gpt_neox': gpt_neox,
  'gpt2': gpt2,
  'bloom': bloom,
  'mpt': mpt,
}
# Families that are known and cannot be expressed here, with the reason.
OUT_OF_SCOPE = {
  't5': 'an encoder and a decoder with cross-attention; this program has decoders alone',
  'gemma3': "a model of images and text; allowed: its text model ('gemma3_text')",
  'gpt_oss': "experts in place of MLPs, which this program's model does not have",
  'mixtral': "experts in place of MLPs, which this program's model does not have",
}
