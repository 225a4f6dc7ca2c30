"""Llama and the families after it: RMSNorm, gated MLPs, rotary positions."""

import dataclasses
from collections.abc import Callable, Mapping

from posenc_jax.encodings.core.scaling.rope_types import ORIGINAL
from posenc_jax.errors import shown
from posenc_jax.pretrained.config_json import Fields
from posenc_jax.pretrained.families.common_fields import (
  GATED,
  RELU2,
  activation,
  interleaved_rope,
  rope,
  sizes,
  takes_original,
  trained_length,
)
from posenc_jax.pretrained.families.layer_kinds import by_kind, pattern, rope_of_kinds
from posenc_jax.pretrained.form import PLAIN_MODEL, Form
from posenc_jax.pretrained.tensor_rules import LAYER, Rule, joined, logits_rule, same, transposed


def norms_and_ties(fields: Fields, ties: bool, eps: float = 1e-6) -> dict:
  """Two fields of a model that all families here say alike; `ties`, `eps`: their defaults."""
  return {
    'norm_eps': fields.take('rms_norm_eps', eps, float),
    'tie_embeddings': fields.take('tie_word_embeddings', ties, bool),
  }


def decoder_rules(model: dict, norm: Callable = same) -> list[Rule]:
  """The tensors that Llama and all families after it have. `norm`: the rule of a norm."""
  model = PLAIN_MODEL | model
  rules = [
    same('embedding', 'model.embed_tokens.weight'),
    norm('norm/scale', 'model.norm.weight'),
    *(
      transposed(f'layers/w_{leaf}', f'{LAYER}self_attn.{leaf}_proj.weight')
      for leaf in ('q', 'k', 'v', 'o')
    ),
    transposed('layers/w_gate', f'{LAYER}mlp.gate_proj.weight'),
    transposed('layers/w_in', f'{LAYER}mlp.up_proj.weight'),
    transposed('layers/w_out', f'{LAYER}mlp.down_proj.weight'),
    *logits_rule(model),
  ]
  biased = {'none': (), 'qkv': ('q', 'k', 'v'), 'all': ('q', 'k', 'v', 'o')}
  for leaf in biased[model['bias']]:
    rules.append(same(f'layers/b_{leaf}', f'{LAYER}self_attn.{leaf}_proj.bias'))
  if model['bias'] == 'all':
    for leaf, name in (('gate', 'gate'), ('in', 'up'), ('out', 'down')):
      rules.append(same(f'layers/b_{leaf}', f'{LAYER}mlp.{name}_proj.bias'))
  if model['qk_norm'] != 'none':
    rules += [norm(f'layers/{x}_norm/scale', f'{LAYER}self_attn.{x}_norm.weight') for x in 'qk']
  return rules


def pre_norm_rules(norm: Callable = same) -> list[Rule]:
  """The norms before attention and before the MLP, by Llama's names."""
  return [
    norm('layers/attention_norm/scale', f'{LAYER}input_layernorm.weight'),
    norm('layers/mlp_norm/scale', f'{LAYER}post_attention_layernorm.weight'),
  ]


def llama_like(
  fields: Fields,
  ties: bool = False,
  eps: float = 1e-6,
  base: float = 10_000.0,
  is_partial: bool = False,
  original: int | None = None,
  encoding: dict | None = None,
  mlps: Mapping[str, str] = GATED,
  **model,
) -> Form:
  """A model with Llama's tensors and norms before its blocks; `model`: what else it has.

  `ties`, `eps`, `base`, `original`: what the family has where its file does not say it; `encoding`:
  of a family that reads it in a way of its own; `mlps`: by names of activations, the default first.
  """
  fields.need('max_position_embeddings')
  model = {**sizes(fields), **norms_and_ties(fields, ties, eps), **model}
  model['mlp'] = activation(fields, 'hidden_act', mlps, next(iter(mlps)))
  rules = decoder_rules(model) + pre_norm_rules()
  encoding = encoding or rope(fields, base, is_partial=is_partial, original=original)
  length = trained_length(fields, encoding.get('scaling', {}).get('rope_type', 'default'))
  return Form(model, {}, encoding, length, rules, ('rotary_emb.inv_freq',))


def with_rules(form: Form, *rules: Rule) -> Form:
  """The form with these rules, in place of those that fill the same parameters."""
  leaves = {leaf for rule in rules for leaf in rule.leaves}
  kept = [rule for rule in form.rules if not leaves & {*rule.leaves}]
  return dataclasses.replace(form, rules=[*kept, *rules])


def joined_gate(form: Form, tensor: str) -> Rule:
  """One tensor holds the gate of the MLP and, after it, what is gated."""
  F = form.model['mlp_dim']
  return joined(('layers/w_gate', 'layers/w_in'), tensor, (F, F), 0)


def bias_of_all(fields: Fields) -> str:
  """Biases of all projections or of none, by two fields that have to agree."""
  biases = fields.take('attention_bias', False, bool), fields.take('mlp_bias', False, bool)
  if biases[0] != biases[1]:
    raise fields.refused('attention_bias', 'the same as mlp_bias')
  return 'all' if biases[0] else 'none'


def llama(fields: Fields) -> Form:
  """Llama 1 to 3.x, SmolLM2 (Touvron et al. 2023, arXiv:2302.13971)."""
  return llama_like(fields, bias=bias_of_all(fields))


def mistral(fields: Fields) -> Form:
  """Mistral (Jiang et al. 2023, arXiv:2310.06825); as Ministral where the kind of each layer is
  said, as in transformers.
  """
  if fields.optional('layer_types', list) is not None:
    return ministral(fields)
  fields.need('sliding_window', 'num_key_value_heads')
  window = fields.optional('sliding_window', int, least=1)
  return dataclasses.replace(llama_like(fields), attention={'window': window or 0})


def ministral(fields: Fields) -> Form:
  """Ministral: Mistral with a window in all layers, or in those that the file names; in none where
  its width is null.
  """
  fields.need('sliding_window', 'num_key_value_heads', 'head_dim')
  form = llama_like(fields)
  if fields.optional('sliding_window', int) is None:
    _without_windows(fields)
    return form
  N = form.model['layers']
  encoding = by_kind(fields, N, form.encoding, form.encoding, N + 1)
  return dataclasses.replace(form, encoding=encoding)


def ministral3(fields: Fields) -> Form:
  """Ministral 3 (arXiv:2601.08584): a temperature of queries that rises at each multiple of the
  length that YaRN starts from.
  """
  fields.need('rope_parameters', 'num_key_value_heads', 'head_dim')
  fields.allow_only('sliding_window', None)  # the temperature here would count the window's keys
  said = fields.take('rope_parameters', kind=dict)
  c = said.get('llama_4_scaling_beta')
  if type(c) not in (int, float):
    raise fields.refused('rope_parameters', 'with llama_4_scaling_beta, a number')
  fields.allow_only(ORIGINAL, None, said.get(ORIGINAL))  # YaRN alone would start from another
  beside = ['llama_4_scaling_beta', 'max_position_embeddings']
  if not takes_original(said.get('rope_type', said.get('type'))):
    beside.append(ORIGINAL)  # which is of the temperature alone
  parameters = {name: value for name, value in said.items() if name not in beside}
  length = said.get(ORIGINAL)
  length = fields.take('max_position_embeddings') if length is None else length
  temperature = {'name': 'llama4_temperature', 'length': length, 'c': c, 'counts_itself': False}
  members = rope(fields, parameters=parameters), temperature
  return llama_like(fields, eps=1e-5, encoding={'name': 'chain', 'members': members})


def qwen2(fields: Fields) -> Form:
  """Qwen 2 and 2.5 (arXiv:2407.10671): biases of queries, keys and values."""
  return _qwen(fields, bias='qkv')


def qwen3(fields: Fields) -> Form:
  """Qwen 3 (arXiv:2505.09388): QK-norm of each head."""
  fields.allow_only('attention_bias', False)
  fields.need('head_dim')
  return _qwen(fields, qk_norm='head')


def _qwen(fields: Fields, **model) -> Form:
  fields.allow_only('use_mrope', False)
  if chunks := fields.optional('dual_chunk_attention_config', dict):  # of Qwen2.5-1M
    # the defaults are vLLM's, which reads it
    sizes_of = {'chunk': chunks.get('chunk_size', 8192), 'local': chunks.get('local_size', 1024)}
    flags = ''.join(f' --config.encoding.{name}={shown(x)}' for name, x in sizes_of.items())
    what = 'its publisher serves it with dual chunk attention, which transformers does not read'
    fields.note(f'{what}; --config.encoding.name=dca{flags} has its positions')
  _without_windows(fields)
  return llama_like(fields, **model)


def _without_windows(fields: Fields) -> None:
  """Reads the fields of windows, which no layer may have; a size alone means none."""
  fields.optional('sliding_window', int)
  types = fields.optional('layer_types', list)
  if types is not None and set(types) != {'full_attention'}:
    raise fields.refused('layer_types', 'full_attention alone')


def smollm3(fields: Fields) -> Form:
  """SmolLM3: every fourth layer without positions."""
  fields.allow_only('attention_bias', False)
  fields.allow_only('mlp_bias', False)
  _without_windows(fields)
  form = llama_like(fields, ties=True, base=2_000_000.0)
  layers = form.model['layers']
  interval = fields.take('no_rope_layer_interval', 4)
  rotates = fields.optional('no_rope_layers', list)
  if rotates is None:
    rotates = [int((n + 1) % interval != 0) for n in range(layers)]
  if len(rotates) != layers or set(rotates) - {0, 1}:
    raise fields.refused('no_rope_layers', f'{layers} numbers, each 0 or 1')
  encodings = [form.encoding if turns else {'name': 'nope'} for turns in rotates]
  return dataclasses.replace(form, encoding=pattern(encodings))


def olmo2(fields: Fields) -> Form:
  """OLMo 2 (arXiv:2501.00656): norms of what blocks give, and of whole projections."""
  return _olmo(fields, rope(fields))


def olmo3(fields: Fields) -> Form:
  """OLMo 3 (arXiv:2512.13961): OLMo 2 with a window in three layers of four; RoPE is scaled in the
  others alone.
  """
  local, whole = rope_of_kinds(fields, 500_000.0, 500_000.0)
  of_local = (fields.optional('rope_parameters', dict) or {}).get('sliding_attention') or {}
  if 'rope_theta' not in of_local:  # with a window transformers 4 rotates by the file's, 5 does not
    fields.allow_only('rope_theta', None, 500_000)
  form = _olmo(fields, whole)
  encoding = by_kind(fields, form.model['layers'], local, whole, 4)
  return dataclasses.replace(form, encoding=encoding)


# Where norms stand in the families of OlmPool, and their QK-norm.
OLMPOOL = {
  'olmo3_preorder': ('pre', 'projection'),
  'olmo3_preorder_headwise_qknorm': ('pre', 'head'),
  'olmo3_preorder_no_qk': ('pre', 'none'),
  'olmo2_headwise_qknorm': ('output', 'head'),
  'llama3_qknorm': ('pre', 'projection'),
  'llama3_reordered': ('output', 'none'),
}


def olmpool(fields: Fields) -> Form:
  """OlmPool (Bertsch et al. 2026, arXiv:2608.10296), which varies what Llama 3, Qwen 3 and OLMo 3
  differ in; those of its models that are one of these have that one's `model_type`.
  """
  fields.allow_only('attention_bias', False)
  fields.allow_only('mlp_bias', False)  # of a file that was one of Llama
  placement, qk_norm = OLMPOOL[fields.take('model_type', kind=str)]
  rotary = rope(fields)
  if placement == 'output':
    form = _normed_outputs(fields, rotary, qk_norm=qk_norm)
  else:
    form = llama_like(fields, eps=1e-5, encoding=rotary, qk_norm=qk_norm)
  types = fields.optional('layer_types', list)
  if types is None:  # a width alone does not say of which layers
    fields.allow_only('sliding_window', None)
    what = 'its config.json names no layers with a window, so none has one'
    fields.note(f'{what}; some of such models were trained with one in three layers of four')
  if 'sliding_attention' not in (types or []):
    _without_windows(fields)
    return form
  fields.need('sliding_window')
  N = form.model['layers']
  return dataclasses.replace(form, encoding=by_kind(fields, N, rotary, rotary, N + 1))


def _olmo(fields: Fields, encoding: dict) -> Form:
  fields.allow_only('attention_bias', False)
  return _normed_outputs(fields, encoding, qk_norm='projection')


def _normed_outputs(fields: Fields, encoding: dict, **flags) -> Form:
  """Norms stand behind attention and behind the MLP alone."""
  form = llama_like(fields, eps=1e-5, encoding=encoding, norm_placement='output', **flags)
  return with_rules(
    form,
    same('layers/attention_norm/scale', f'{LAYER}post_attention_layernorm.weight'),
    same('layers/mlp_norm/scale', f'{LAYER}post_feedforward_layernorm.weight'),
  )


def exaone4(fields: Fields) -> Form:
  """EXAONE 4.0 (arXiv:2507.11407): norms of what blocks give, QK-norm of each head; RoPE and a
  window in three layers of four, neither in the others. Without a window, RoPE in all layers.
  """
  fields.need('sliding_window', 'num_key_value_heads')
  window = fields.optional('sliding_window', int)
  least = 0 if window is None else 1  # of a file without windows it says nothing
  said = fields.take('sliding_window_pattern', 4, (int, str), least=least)
  period = len(said) if isinstance(said, str) else said
  if isinstance(said, str) and said != 'L' * (period - 1) + 'G':
    raise fields.refused('sliding_window_pattern', "a number, or letters such as 'LLLG'")
  rotary = rope(fields)
  form = _normed_outputs(fields, rotary, qk_norm='head')
  if window is None:
    _without_windows(fields)
    return form
  encoding = by_kind(fields, form.model['layers'], rotary, {'name': 'nope'}, period)
  return dataclasses.replace(form, encoding=encoding)


def ernie4_5(fields: Fields) -> Form:
  """ERNIE 4.5 without experts (Baidu 2025): RoPE of neighboring channels."""
  fields.need('head_dim', 'num_key_value_heads')
  fields.allow_only('use_bias', False, None)
  return llama_like(fields, ties=True, eps=1e-5, encoding=interleaved_rope(fields, 500_000.0))


def helium(fields: Fields) -> Form:
  """Helium (Kyutai 2025): RoPE of neighboring channels."""
  fields.need('head_dim', 'num_key_value_heads')
  fields.allow_only('mlp_bias', False)
  bias = 'qkv' if fields.take('attention_bias', False, bool) else 'none'
  encoding = interleaved_rope(fields, 100_000.0)
  return llama_like(fields, eps=1e-8, encoding=encoding, bias=bias)


def seed_oss(fields: Fields) -> Form:
  """Seed-OSS (ByteDance 2025): biases of queries, keys and values, long from the start."""
  fields.need('head_dim', 'num_key_value_heads')
  names = {'attention_bias': True, 'attention_out_bias': False, 'mlp_bias': False}
  said = tuple(fields.take(name, default, bool) for name, default in names.items())
  biases = {(False,) * 3: 'none', (True, False, False): 'qkv', (True,) * 3: 'all'}
  if said not in biases:
    allowed = f'with {" and ".join(names)} biases of q, k and v, of all projections or of none'
    raise fields.refused('attention_out_bias', allowed)
  return llama_like(fields, bias=biases[said])


def arcee(fields: Fields) -> Form:
  """Arcee (AFM-4.5B, 2025): Llama with MLPs of two projections and a squared ReLU."""
  form = llama_like(fields, eps=1e-5, mlps=RELU2, bias=bias_of_all(fields))
  gate = {'layers/w_gate', 'layers/b_gate'}
  rules = [rule for rule in form.rules if not gate & {*rule.leaves}]
  return dataclasses.replace(form, rules=rules)


def phi3(fields: Fields) -> Form:
  """Phi-3 (arXiv:2404.14219): joined projections, longrope."""
  window = fields.optional('sliding_window', int, least=1)
  for name in ('attention_bias', 'mlp_bias', 'lm_head_bias'):
    fields.allow_only(name, False)
  for name in ('full_attn_mod', 'interpolate_factor'):
    fields.allow_only(name, 1)
  form = llama_like(fields, eps=1e-5, is_partial=True, original=4096)
  scaling = form.encoding.get('scaling')
  if scaling and scaling['rope_type'] != 'longrope':  # which transformers takes yarn for here
    name = 'rope_parameters' if fields.optional('rope_parameters', dict) else 'rope_scaling'
    raise fields.refused(name, 'longrope')
  model = form.model
  K = model['head_dim']
  kv = (model['kv_heads'] or model['heads']) * K
  attention = tuple(f'layers/w_{leaf}' for leaf in 'qkv')
  widths = model['heads'] * K, kv, kv
  form = with_rules(
    form,
    joined(attention, f'{LAYER}self_attn.qkv_proj.weight', widths, 0),
    joined_gate(form, f'{LAYER}mlp.gate_up_proj.weight'),
  )
  return dataclasses.replace(form, attention={'window': window or 0})
