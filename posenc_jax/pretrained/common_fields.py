"""What the fields that many families share mean: sizes, rotary positions, activations."""

from posenc_jax.pretrained.config_fields import Fields


def sizes(fields: Fields) -> dict:
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


def rope(fields: Fields, base: float = 10_000.0, of: str | None = None) -> dict:
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


def activation(fields: Fields, name: str, of: dict[str, str], default: str) -> str:
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
