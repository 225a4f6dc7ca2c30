"""Zhipu's GLM 4: neighboring channels of the first half of each head rotate."""

from posenc_jax.pretrained.config_json import Fields
from posenc_jax.pretrained.families.common_fields import rope
from posenc_jax.pretrained.families.llama import joined_gate, llama_like, with_rules
from posenc_jax.pretrained.form import Form
from posenc_jax.pretrained.tensor_rules import LAYER, same


def glm(fields: Fields, **flags) -> Form:
  """GLM-4 of 2024 (arXiv:2406.12793), as transformers has it; `flags`: what a later one
  has besides in its model.
  """
  fields.need('head_dim', 'num_key_value_heads')
  bias = 'qkv' if fields.take('attention_bias', True, bool) else 'none'
  encoding = {'fraction': 0.5} | rope(fields, is_partial=True) | {'layout': 'interleaved'}
  form = llama_like(fields, eps=1.5625e-07, encoding=encoding, bias=bias, **flags)
  return with_rules(form, joined_gate(form, f'{LAYER}mlp.gate_up_proj.weight'))


def glm4(fields: Fields) -> Form:
  """GLM-4 of 2025 (0414, Z1): norms of what blocks read and of what they give."""
  form = glm(fields, norm_placement='sandwich')
  return with_rules(
    form,
    same('layers/attention_output_norm/scale', f'{LAYER}post_self_attn_layernorm.weight'),
    same('layers/mlp_output_norm/scale', f'{LAYER}post_mlp_layernorm.weight'),
  )
