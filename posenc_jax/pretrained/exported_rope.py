"""RoPE of an exported run in the words of transformers."""

from posenc_jax.encodings.core.registry import hyperparameters
from posenc_jax.encodings.core.scaling.rope_types import ORIGINAL
from posenc_jax.errors import UserError, shown
from posenc_jax.pretrained.families.common_fields import start_of_linear, takes_original

LONGEST = 'max_position_embeddings'
LONGEST_OF_LINEAR = 'max_sequence_length'  # where a linear scaling leads, as Vicuna's file says it
# What files say of RoPE, by older names and newer ones.
ROPE_FIELDS = ('rope_parameters', 'rope_scaling', 'rope_theta', 'partial_rotary_factor', ORIGINAL)
ROPE_FIELDS += ('rotary_emb_base', 'rotary_pct')
# Families that rotate a part of the channels, with a default each.
OF_A_PART = ('phi3', 'glm', 'glm4', 'stablelm', 'nemotron')
OF_TRANSFORMERS = ('linear', 'dynamic', 'yarn', 'longrope', 'llama3')  # its types of scaling


def rope_of(encoding: dict) -> dict | None:
  """RoPE in the encoding of a layer: itself, or with the temperature of Ministral 3 behind it."""
  if encoding['name'] != 'chain':
    return encoding if encoding['name'] == 'rope' else None
  names = [member['name'] for member in encoding['members']]
  return encoding['members'][0] if names == ['rope', 'llama4_temperature'] else None


def rope_fields(encoding: dict, length: int, kind: str) -> dict:
  """The fields of RoPE in a config.json.

  Args:
    encoding: of a layer, with all its hyperparameters; of one without RoPE, which
      `exported_fields` refuses when it reads the fields back, RoPE's defaults are taken.
    length: the training length, in tokens.
    kind: the family, as `model_type` names it.
  Raises:
    UserError: for what transformers would read otherwise, or not at all.
  """
  if encoding['name'] == 'chain' and kind == 'ministral3' and rope_of(encoding) is not None:
    own, temperature = encoding['members']
    fields = rope_fields(own, length, kind)
    of_temperature = {'llama_4_scaling_beta': temperature['c'], ORIGINAL: temperature['length']}
    longest = {name: value for name, value in fields.items() if name not in ROPE_FIELDS}
    return longest | {'rope_parameters': rope_parameters(fields) | of_temperature}
  rope = hyperparameters('rope') | (rope_of(encoding) or {})
  if kind == 'gpt_neox':
    fields = {'rotary_emb_base': float(rope['base']), 'rotary_pct': float(rope['fraction'])}
  else:
    fields = {'rope_theta': float(rope['base'])}
  if kind in OF_A_PART:
    fields['partial_rotary_factor'] = float(rope['fraction'])
  elif rope['fraction'] != 1 and kind != 'gpt_neox':
    allowed = f'a run that was trained with 1: {kind}, the family with this form, rotates no part'
    raise UserError(f'config.encoding.fraction={rope["fraction"]}; allowed: {allowed}')
  if (scaling := known_scaling(rope['scaling'], length)) is not None:
    kind = scaling['rope_type']
    if kind not in OF_TRANSFORMERS:
      field = f'config.encoding.scaling.rope_type={shown(kind)}'
      raise UserError(f'{field}: transformers has none; allowed: {", ".join(OF_TRANSFORMERS)}')
    fields['rope_scaling'] = scaling
    if kind == 'linear':  # transformers has no word for where it starts
      leads_to = round(scaling['factor'] * scaling.pop(ORIGINAL, length / scaling['factor']))
      if leads_to != length:
        fields[LONGEST_OF_LINEAR] = leads_to
    if kind == 'dynamic':  # of which transformers takes this for the length before
      fields[LONGEST] = scaling[ORIGINAL]
    if kind in ('yarn', 'longrope') and 'factor' in scaling:
      # transformers 4 takes the factor from these two, whatever `factor` says
      fields[LONGEST] = round(scaling['factor'] * scaling[ORIGINAL])
    if kind == 'longrope':
      fields[ORIGINAL] = scaling[ORIGINAL]
  return fields


def known_scaling(scaling: dict | None, length: int) -> dict | None:
  """The scaling of RoPE by its newer name, with the length that it starts from: unless one is said
  the one that an import takes; without one where that means nothing.
  """
  if scaling is None:
    return None
  fields = {name: x for name, x in scaling.items() if x is not None}
  kind = fields.pop('type', None)
  kind = fields.setdefault('rope_type', kind)
  if kind == 'default':
    return None
  if kind == 'linear':
    return start_of_linear(length, fields.get('factor')) | fields
  if not takes_original(kind):
    fields.pop(ORIGINAL, None)
    return fields
  return {ORIGINAL: length} | fields


def rope_parameters(fields: dict) -> dict:
  """The fields of RoPE as newer files have them, within `rope_parameters`."""
  return {'rope_theta': fields['rope_theta'], 'rope_type': 'default'} | fields.get(
    'rope_scaling', {}
  )
