"""Cohere's Command and Aya: attention and a gated MLP side by side, behind one LayerNorm."""

import dataclasses

from posenc_jax.pretrained.config_json import Fields
from posenc_jax.pretrained.families.common_fields import GATED, activation, interleaved_rope, sizes
from posenc_jax.pretrained.families.layer_kinds import by_kind, period_of_windows
from posenc_jax.pretrained.families.llama import decoder_rules
from posenc_jax.pretrained.form import Form
from posenc_jax.pretrained.tensor_rules import LAYER, same, scaled, shared, zeros

# Fields of Command R7B and Command A that transformers does not read: it has this alone.
ONE_FORM = {
  'order_of_interleaved_layers': 'local_attn_first',
  'position_embedding_type': 'rope_gptj',
  'rotary_pct': 1.0,
  'use_gated_activation': True,
  'use_parallel_block': True,
}


def cohere(fields: Fields) -> Form:
  """Command R of 2024, Aya 23: RoPE of neighboring channels in all layers."""
  model = _model(fields)
  form = _form(fields, model, interleaved_rope(fields, 500_000.0))
  # Of the first Command R, whose max_position_embeddings is what its tables once held.
  trained = fields.optional('model_max_length', int) or 0
  return dataclasses.replace(form, train_length=max(form.train_length, trained))


def cohere2(fields: Fields) -> Form:
  """Command R7B, Command A (arXiv:2504.00698): RoPE and a window in three layers of four, neither
  in the others.
  """
  for name, value in ONE_FORM.items():
    fields.allow_only(name, value)
  fields.optional('use_parallel_embedding', bool)  # how several devices share it
  model = _model(fields)
  fields.allow_only('use_embedding_sharing', model['tie_embeddings'])
  fields.allow_only('head_dim', model['model_dim'] // model['heads'])  # transformers reads no other
  period = period_of_windows(fields, 4)
  fields.allow_only('layer_switch', period)
  whole = {'name': 'nope'}
  return _form(
    fields,
    model,
    by_kind(fields, model['layers'], interleaved_rope(fields, 10_000.0), whole, period),
  )


def _model(fields: Fields) -> dict:
  fields.allow_only('attention_bias', False)
  fields.allow_only('use_qk_norm', False)
  return {
    **sizes(fields),
    'norm': 'layer',
    'norm_eps': fields.take('layer_norm_eps', 1e-5, float),
    'mlp': activation(fields, 'hidden_act', GATED, 'silu'),
    'parallel_residual': True,
    'tie_embeddings': fields.take('tie_word_embeddings', True, bool),
  }


def _form(fields: Fields, model: dict, encoding: dict) -> Form:
  """The factor of logits is in the last norm, which nothing else reads; no norm has a bias."""
  factor = fields.take('logit_scale', 0.0625, float, null=False)
  N, D = model['layers'], model['model_dim']
  norms = ('layers/attention_norm', 'layers/mlp_norm')
  rules = [
    shared(tuple(f'{norm}/scale' for norm in norms), f'{LAYER}input_layernorm.weight'),
    *(zeros(f'{norm}/bias', N, D) for norm in norms),
    zeros('norm/bias', D),
  ]
  last = lambda leaf, tensor: scaled(same(leaf, tensor), factor)
  length = fields.take('max_position_embeddings', 8192)
  return Form(model, {}, encoding, length, decoder_rules(model, last) + rules)
