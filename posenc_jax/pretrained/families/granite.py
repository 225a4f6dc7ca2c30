"""IBM's Granite: Llama with four factors, three of which are in its parameters here."""

import dataclasses
import math

from posenc_jax.model.layer_pattern import read_pattern
from posenc_jax.pretrained.config_json import Fields
from posenc_jax.pretrained.families.common_fields import number_of_layers, rope
from posenc_jax.pretrained.families.layer_kinds import KINDS, kinds_of_layers, pattern
from posenc_jax.pretrained.families.llama import bias_of_all, joined_gate, llama_like, with_rules
from posenc_jax.pretrained.form import Form
from posenc_jax.pretrained.tensor_rules import LAYER, Rule, same, scaled, transposed

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
  fields.allow_only('num_local_experts', 0)
  fields.allow_only('normalization_function', 'rmsnorm')
  fields.allow_only('attention_bias', False)
  fields.ignore(*OF_OTHER_LAYERS)
  lists = {name: fields.optional(name, list) for name in ('layers_block_type', 'layer_types')}
  said = {name: kinds for name, kinds in lists.items() if kinds is not None}
  layers = number_of_layers(fields)
  # 'attention' is an older word for it, as the first list is of the second; a file may say both
  for name, kinds in (said or {'layer_types': []}).items():
    if len(kinds) != layers or {*kinds} - {'attention', 'full_attention'}:
      raise fields.refused(name, f'attention for each of {layers} layers')
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


def granite_swa(fields: Fields) -> Form:
  """Granite with windows (IBM 2026, in transformers): a window in three of four layers or in those
  that the file names, a base of RoPE for each layer, 0 for none, and a sink for each head.
  """
  fields.need('num_hidden_layers', 'num_key_value_heads', 'max_position_embeddings')
  layers = number_of_layers(fields)
  rotary, window = rope(fields), fields.take('sliding_window', 128, null=False, least=1)
  kinds = kinds_of_layers(fields, [KINDS[n % 4 == 0] for n in range(layers)])
  bases = fields.optional('layer_rope_theta', list)
  if bases is None:
    bases = [rotary['base']] * layers
  elif len(bases) != layers or not all(type(b) in (int, float) and b >= 0 for b in bases):
    raise fields.refused('layer_rope_theta', f'null, or {layers} numbers, 0 for no positions')
  specs = []
  for kind, base in zip(kinds, bases, strict=True):
    positions = rotary | {'base': float(base)} if base else {'name': 'nope'}
    local = {'attention_window': window}
    if kind == 'full_attention':
      local = {}
      if base:
        # The default, said so that these layers are no variant of those with windows: methods of
        # extension are laid over these alone, and parameters stay where they are.
        positions |= {'fraction': 1.0}
    specs.append({'name': 'chain', 'members': (positions, {'name': 'sink'}), **local})
  encoding = pattern(specs)
  form = llama_like(fields, encoding=encoding, ties=True, eps=1e-5, bias=bias_of_all(fields))
  return _with_factors(fields, with_rules(form, *_rules_of_sinks(encoding, layers)))


def _rules_of_sinks(encoding: dict, layers: int) -> list[Rule]:
  """The rules of the sinks of each variant, behind the positions in its chain."""
  variants, order, _ = read_pattern(encoding)
  rules = []
  for variant in range(len(variants)):
    numbers = tuple(n for n in range(layers) if order[n % len(order)] == variant)
    leaf = f'encodings/variants/{variant}/encoding/members/1/logits'
    rules.append(same(leaf, f'{LAYER}self_attn.sinks', numbers))
  return rules


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
