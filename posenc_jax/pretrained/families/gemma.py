"""Gemma 1 to 3: scaled embeddings, norms that add 1, gated MLPs by GELU."""

import math

from posenc_jax.pretrained.config_json import Fields
from posenc_jax.pretrained.families.common_fields import GATED, activation, rope, sizes
from posenc_jax.pretrained.families.layer_kinds import by_kind, period_of_windows, rope_of_kinds
from posenc_jax.pretrained.families.llama import decoder_rules, norms_and_ties, pre_norm_rules
from posenc_jax.pretrained.form import Form
from posenc_jax.pretrained.tensor_rules import LAYER, plus_one, scaled


def gemma(fields: Fields) -> Form:
  """Gemma 1 (arXiv:2403.08295): scaled embeddings, norms that add 1."""
  fields.need('head_dim', 'num_key_value_heads')
  _check_masks(fields)
  fields.allow_only('hidden_activation', None, 'gelu_pytorch_tanh')
  model = {**sizes(fields), **norms_and_ties(fields, True), 'embedding_scale': 0.0}
  # 'gelu' of its first files means the one by tanh, for transformers, too
  by_tanh = dict.fromkeys(('gelu', 'gelu_pytorch_tanh'), 'geglu')
  model['mlp'] = activation(fields, 'hidden_act', by_tanh, 'gelu_pytorch_tanh')
  rules = decoder_rules(model, plus_one) + pre_norm_rules(plus_one)
  length = fields.take('max_position_embeddings', 8192)
  return Form(model, {}, rope(fields), length, rules, ('rotary_emb.inv_freq',))


def _check_masks(fields: Fields) -> None:
  fields.allow_only('attention_bias', False)
  fields.allow_only('use_bidirectional_attention', None, False)


def gemma2(fields: Fields) -> Form:
  """Gemma 2 (arXiv:2408.00118): soft-caps, sandwich norms, every other layer with a window."""
  softcap = _softcap(fields, 'attn_logit_softcapping', 50.0)
  logits = _softcap(fields, 'final_logit_softcapping', 30.0)
  window = fields.take('sliding_window', 4096)
  fields.allow_only('sliding_window_size', window)  # the same under an older name
  return _sandwiched(fields, (rope(fields),) * 2, 2, softcap, logits)


def _softcap(fields: Fields, name: str, default: float) -> float:
  """A soft-cap, of which null is none for transformers; it would divide by one of 0."""
  if fields.is_null(name):
    return 0.0
  if not (softcap := fields.take(name, default, float)):
    raise fields.refused(name, 'more than 0, or null')
  return softcap


def gemma3(fields: Fields) -> Form:
  """Gemma 3's text model (arXiv:2503.19786): QK-norm, a base of its own in layers with a window."""
  fields.allow_only('attn_logit_softcapping', None)
  fields.allow_only('final_logit_softcapping', None)
  local_base = fields.take('rope_local_base_freq', 10_000.0, float)
  period = period_of_windows(fields, 6)
  encodings = rope_of_kinds(fields, local_base, 1e6)
  return _sandwiched(fields, encodings, period, 0.0, 0.0, qk_norm='head')


def _sandwiched(
  fields: Fields, encodings: tuple, period: int, softcap: float, logits: float, **flags
) -> Form:
  """`encodings`: of layers with a window and of those without one, of which each `period`-th is."""
  fields.need('head_dim', 'max_position_embeddings')
  _check_masks(fields)
  model = {**sizes(fields), **norms_and_ties(fields, True), **flags}
  model |= {'embedding_scale': 0.0, 'norm_placement': 'sandwich', 'logit_softcap': logits}
  model['mlp'] = activation(fields, 'hidden_activation', GATED, 'gelu_pytorch_tanh')
  fields.allow_only('hidden_act', 'gelu_pytorch_tanh', None)
  encoding = by_kind(fields, model['layers'], *encodings, period)
  names = {
    'attention_norm': 'input_layernorm',
    'attention_output_norm': 'post_attention_layernorm',
    'mlp_norm': 'pre_feedforward_layernorm',
    'mlp_output_norm': 'post_feedforward_layernorm',
  }
  rules = [plus_one(f'layers/{own}/scale', f'{LAYER}{name}.weight') for own, name in names.items()]
  # Scores are divided by the root of `query_pre_attn_scalar`, and not by that of head_dim.
  factor = math.sqrt(model['head_dim'] / fields.take('query_pre_attn_scalar', 256))
  scaled_leaf = 'layers/q_norm/scale' if flags else 'layers/w_q'
  for rule in decoder_rules(model, plus_one):
    rules.append(scaled(rule, factor) if rule.leaves == (scaled_leaf,) else rule)
  length = fields.take('max_position_embeddings')
  return Form(model, {'softcap': softcap}, encoding, length, rules)
