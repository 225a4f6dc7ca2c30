"""RoPE of an exported run in the words of transformers."""

from collections.abc import Callable

from posenc_jax.config import scaling_type
from posenc_jax.encodings.core.registry import hyperparameters
from posenc_jax.encodings.core.scaling.rope_types import ORIGINAL, read_scaling
from posenc_jax.errors import UserError, shown, user_errors
from posenc_jax.pretrained.families.common_fields import start_of_linear, takes_original

LONGEST = 'max_position_embeddings'
LONGEST_OF_LINEAR = 'max_sequence_length'  # where a linear scaling leads, as Vicuna's file says it
# What files say of RoPE, by older names and newer ones.
ROPE_FIELDS = ('rope_parameters', 'rope_scaling', 'rope_theta', 'partial_rotary_factor', ORIGINAL)
ROPE_FIELDS += ('rotary_emb_base', 'rotary_pct')
# Families that rotate a part of the channels, with a default each.
OF_A_PART = ('phi3', 'glm', 'glm4', 'stablelm', 'nemotron')
OF_TRANSFORMERS = ('linear', 'dynamic', 'yarn', 'longrope', 'llama3')  # its types of scaling
OF_BASE = ('ntk', 'theta_scale')  # types that are RoPE with another base, which files can say


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
    family, kind = kind, scaling['rope_type']
    if kind not in OF_TRANSFORMERS:
      field = f'config.encoding.scaling.rope_type={shown(kind)}'
      raise UserError(f'{field}: transformers has none; allowed: {", ".join(OF_TRANSFORMERS)}')
    fields['rope_scaling'] = scaling
    if kind == 'linear':  # transformers has no word for where it starts
      start = scaling.pop(ORIGINAL, length / scaling['factor'])
      leads_to = round(scaling['factor'] * start)
      # vLLM serves the lesser of these two times the factor; of Gemma 3 it multiplies neither
      of_both = {LONGEST: int(start), LONGEST_OF_LINEAR: leads_to}
      fields |= {LONGEST: leads_to} if family == 'gemma3_text' else of_both
    if kind == 'dynamic':  # of which transformers takes this for the length before
      fields[LONGEST] = scaling[ORIGINAL]
    if kind in ('yarn', 'longrope') and 'factor' in scaling:
      # transformers 4 takes the factor from these two, whatever `factor` says
      fields[LONGEST] = round(scaling['factor'] * scaling[ORIGINAL])
    if kind == 'longrope':
      fields[ORIGINAL] = scaling[ORIGINAL]
  return fields


def with_scalings(part: object, change: Callable[[dict], dict]) -> object:
  """A section `encoding`, or a part of it, with what `change` makes of each encoding that has a
  scaling.
  """
  if isinstance(part, list):
    return [with_scalings(each, change) for each in part]
  if not isinstance(part, dict):
    return part
  if isinstance(part.get('scaling'), dict):
    return change(part)
  return {name: with_scalings(x, change) for name, x in part.items()}


def starting_at(encoding: dict, length: int) -> dict:
  """The encoding, whose scaling starts from this length where it does not say another."""
  scaling = encoding['scaling']
  said = scaling | {ORIGINAL: length} if scaling.get(ORIGINAL) is None else scaling
  return encoding | {'scaling': said}


def as_files_say(encoding: dict, head_dim: int, length: int) -> dict:
  """The encoding of a run of this training length, whose scaling says where it starts, as
  `known_scaling` has it; RoPE with a scaling that is another base has that base.
  """
  if encoding['name'] != 'rope' or scaling_type(encoding['scaling']) not in OF_BASE:
    return encoding | {'scaling': known_scaling(encoding['scaling'], length)}
  rope = hyperparameters('rope') | encoding
  K = round(rope['fraction'] * head_dim)
  with user_errors(ValueError):
    scaling = read_scaling(rope['scaling'], K, rope['base'], rope['fraction'], length)
    frequencies, _ = scaling(K, rope['base'], length)
  return encoding | {'base': float(frequencies[-1] ** (-K / (K - 2))), 'scaling': None}


def reach_of_base(scaling: dict, length: int) -> int:
  """The length that a scaling which is another base is made for, in a run of this training length;
  0: it is none, or does not say where it starts.
  """
  kind = scaling_type(scaling)
  start = scaling.get(ORIGINAL) or (length if takes_original(kind) else 0)
  return round(scaling['factor'] * start) if kind in OF_BASE else 0


def known_scaling(scaling: dict | None, length: int) -> dict | None:
  """The scaling of RoPE by its newer name, with the length that it starts from: unless one is said
  the one that an import takes; without one where that means nothing.
  """
  if scaling is None:
    return None
  fields = {name: x for name, x in scaling.items() if x is not None}
  kind = fields['rope_type'] = scaling_type(scaling)
  fields.pop('type', None)
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
