"""IBM's Granite: Llama with four factors, which are in its parameters here."""

import dataclasses
import math

from posenc_jax.pretrained.common_fields import rope
from posenc_jax.pretrained.config_json import Fields
from posenc_jax.pretrained.form import Form
from posenc_jax.pretrained.llama_families import bias_of_all, joined_gate, llama_like, with_rules
from posenc_jax.pretrained.tensor_rules import LAYER, scaled, transposed

# Fields of Granite 4 about layers of a state space and about experts, of which there are none.
OF_OTHER_LAYERS = (
  'mamba_n_heads', 'mamba_n_groups', 'mamba_d_state', 'mamba_d_head', 'mamba_d_conv',
  'mamba_expand', 'mamba_chunk_size', 'mamba_conv_bias', 'mamba_proj_bias', 'time_step_limit',
  'num_experts_per_tok', 'output_router_logits', 'router_aux_loss_coef', 'intermediate_size',
  'init_method',
)  # fmt: skip


def granite(fields: Fields) -> Form:
  """Granite 3 (IBM 2024): dense models of 2B and 8B."""
  return _with_factors(fields, llama_like(fields, bias=bias_of_all(fields)))


def granitemoehybrid(fields: Fields) -> Form:
  """Granite 4 (IBM 2025) where all layers have attention and none has experts: 350M and 1B."""
  fields.need('num_local_experts', 'shared_intermediate_size')
  fields.require('num_local_experts', 0)
  fields.require('normalization_function', 'rmsnorm')
  fields.require('attention_bias', False)
  fields.ignore(*OF_OTHER_LAYERS)
  older, newer = (fields.optional(name, list) for name in ('layers_block_type', 'layer_types'))
  if {*(older or newer or ['mamba'])} - {'attention', 'full_attention'}:  # an older word for it
    raise fields.refused('layer_types', 'attention in all layers: there is no other kind here')
  rotates = fields.take('position_embedding_type', 'none', str) == 'rope'
  rotary = rope(fields)  # also read where it is not used
  width = fields.take('shared_intermediate_size')
  form = llama_like(fields, encoding=rotary if rotates else {'name': 'nope'}, mlp_dim=width)
  mlp = f'{LAYER}shared_mlp.'
  form = with_rules(
    form,
    joined_gate(form, f'{mlp}input_linear.weight'),
    transposed('layers/w_out', f'{mlp}output_linear.weight'),
  )
  return _with_factors(fields, form)


def _with_factors(fields: Fields, form: Form) -> Form:
  """Scores are multiplied by `attention_multiplier`, and not by the root of 1 / head_dim; what
  blocks add by `residual_multiplier`; logits are divided by `logits_scaling`, here in the last
  norm, which nothing else reads.
  """
  names = ('embedding', 'attention', 'residual')
  embedding, scores, residual = (_factor(fields, f'{name}_multiplier') for name in names)
  scores *= math.sqrt(form.model['head_dim'])
  of_leaf = {'norm/scale': 1 / _factor(fields, 'logits_scaling')}
  for kind in 'wb':
    of_leaf |= {f'layers/{kind}_q': scores}
    of_leaf |= {f'layers/{kind}_{leaf}': residual for leaf in ('o', 'out')}
  rules = [scaled(rule, of_leaf.get(rule.leaves[0], 1.0)) for rule in form.rules]
  model = form.model | {'embedding_scale': embedding}
  return dataclasses.replace(form, model=model, rules=rules)


def _factor(fields: Fields, name: str) -> float:
  factor = fields.take(name, 1.0, float, null=False)
  if factor == 0:
    raise fields.refused(name, 'more than 0')
  return factor
