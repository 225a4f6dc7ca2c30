"""What the fields that many families share mean: sizes, rotary positions, activations."""

import inspect
from collections.abc import Mapping

from posenc_jax.config.checks import MAX_LAYERS
from posenc_jax.encodings.core.scaling.rope_types import ORIGINAL, SCALINGS
from posenc_jax.encodings.core.scaling.yarn import default_attention_factor
from posenc_jax.pretrained.config_json import Fields


def sizes(fields: Fields) -> dict:
  """The sizes under the names that most families use."""
  D, H = fields.take('hidden_size'), fields.take('num_attention_heads')
  G = fields.take('num_key_value_heads', H)
  return {
    'model_dim': D,
    'mlp_dim': fields.take('intermediate_size'),
    'layers': number_of_layers(fields),
    'heads': H,
    'kv_heads': 0 if G == H else G,
    'head_dim': fields.take('head_dim', D // H),
    'vocab': fields.take('vocab_size'),
  }


def number_of_layers(
  fields: Fields, name: str = 'num_hidden_layers', default: int | None = None
) -> int:
  """How many layers there are by the field `name`, read before anything is listed by layer."""
  layers = fields.take(name, default)
  if not 1 <= layers <= MAX_LAYERS:
    raise fields.refused(name, f'1 to {MAX_LAYERS}')
  return layers


def rope(
  fields: Fields,
  base: float = 10_000.0,
  of: str | None = None,
  is_partial: bool = False,
  original: int | None = None,
  parameters: dict | None = None,
) -> dict:
  """The encoding of `rope_theta` and `rope_scaling`, or of `rope_parameters`, which newer files
  have in their place.

  Args:
    base: the default of the family.
    of: the kind of layers, where each kind has parameters of its own; those that stand beside
      `rope_parameters`, or in their place, are of 'full_attention'.
    is_partial: whether the family can rotate a part of the channels; others ignore
      `partial_rotary_factor` in transformers, so it is refused there.
    original: `original_max_position_embeddings` of the family, which then reads that of the file
      beside `rope_parameters` alone; None: the family has none.
    parameters: what counts as `rope_parameters`; None: what the file says.
  """
  if parameters is None:
    parameters = fields.optional('rope_parameters', dict) or None
  scaling = fields.optional('rope_scaling', dict)
  theta = fields.optional('rope_theta', (int, float))
  fraction = fields.optional('partial_rotary_factor', (int, float))
  beside = fields.optional(ORIGINAL, int, least=1)
  original = original if beside is None else beside
  fields.allow_only('rope_interleaved', False)
  fields.ignore('max_sequence_length')  # see `trained_length`
  if parameters and of is not None:
    parameters = parameters[of]
  if of == 'sliding_attention':
    scaling = theta = None
  # transformers drops one of two
  if parameters is not None and scaling and parameters | scaling != parameters:
    raise fields.refused('rope_scaling', 'what rope_parameters says, or one of the two')
  name = 'rope_scaling' if parameters is None else 'rope_parameters'
  said = dict(parameters or scaling or {})
  base = float(said.pop('rope_theta', base if theta is None else theta))
  said_fraction = said.pop('partial_rotary_factor', None)
  where = 'partial_rotary_factor' if said_fraction is None else name
  fraction = fraction if said_fraction is None else said_fraction
  is_said = fraction is not None
  fraction = float(fraction) if is_said else 1.0
  if fraction != 1 and not is_partial:
    raise fields.refused(where, 'partial_rotary_factor=1 in this family')
  kinds = [said.pop(key) for key in ('rope_type', 'type') if key in said]
  kinds = ['longrope' if kind == 'su' else kind for kind in kinds]  # Phi-3's first name for it
  if kinds and kinds[0] != kinds[-1]:
    raise fields.refused(name, 'one rope_type, which type may repeat')
  kind = kinds[0] if kinds else 'default'
  said.pop('finetuned', None)  # of the first files with YaRN, which says how they came to be
  if kind == 'yarn' and (unread := said.pop('attn_factor', None)) is not None:
    both = [said[key] for key in ('mscale', 'mscale_all_dim') if said.get(key)]
    given = said['factor'], said.get('attention_factor'), *(both if both[1:] else ())
    read = default_attention_factor(*given)
    what = f'transformers (5.24) does not read attn_factor={unread} in {name}'
    fields.note(f'{what}: the factor of attention is {read:.4f} there, and here')
  encoding = {'name': 'rope', 'base': base}
  if fraction != 1 or (is_partial and is_said):  # the family's default may be a part
    encoding['fraction'] = fraction
  if kind == 'default' and any(value is not None for value in said.values()):
    raise fields.refused(name, f'without {min(said)}, or with the rope_type that has it')
  if kind != 'default':
    length = fields.take('max_position_embeddings')
    if kind == 'dynamic':  # as transformers has it, whatever else is said
      said[ORIGINAL] = length
    elif takes_original(kind):  # said, since a tuned run's training length is another
      lengths = original if of is None else None, said.get(ORIGINAL), length
      said[ORIGINAL] = next(value for value in lengths if value is not None)
    elif kind == 'linear' and ORIGINAL not in said:
      said |= start_of_linear(trained_length(fields, kind), said.get('factor'))
    if kind == 'longrope':
      said.setdefault('factor', length / said[ORIGINAL])
    encoding['scaling'] = {'rope_type': kind, **said}
  return encoding


def trained_length(fields: Fields, rope_type: str = 'default') -> int:
  """The tokens that a model with a scaling of this type was trained for: `max_position_embeddings`,
  or `max_sequence_length` where that is more and a linear scaling leads there, as in Vicuna and
  LongChat, whose `max_position_embeddings` is where the scaling starts.
  """
  length = fields.take('max_position_embeddings')
  longer = fields.take('max_sequence_length', length)
  if rope_type == 'linear':
    return max(length, longer)
  if longer != length:
    what = f'max_sequence_length={longer} of its config.json is not read'
    fields.note(f'{what}: it counts as trained for max_position_embeddings={length}')
  return length


def start_of_linear(length: int, factor: object) -> dict:
  """The length that a linear scaling starts from, which no formula needs: what takes its place has
  to start from there, and not from the length of training. {} where that is no whole number.
  """
  is_divisor = type(factor) in (int, float) and factor >= 1 and length % factor == 0
  return {ORIGINAL: int(length / factor)} if is_divisor else {}


def interleaved_rope(fields: Fields, base: float) -> dict:
  """The encoding of families whose RoPE rotates neighboring channels."""
  return rope(fields, base) | {'layout': 'interleaved'}


def takes_original(rope_type: str) -> bool:
  """Whether a type of scaling has the field `original_max_position_embeddings`."""
  return rope_type in SCALINGS and ORIGINAL in inspect.signature(SCALINGS[rope_type]).parameters


def activation(fields: Fields, name: str, of: Mapping[str, str], default: str) -> str:
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
RELU2 = {'relu2': 'relu2'}
