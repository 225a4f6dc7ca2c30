"""How many parameters the model of a config has."""

import jax
from ml_collections import ConfigDict

from posenc_jax import data, errors
from posenc_jax.model import decoder


def by_part(model) -> dict[str, int]:
  """The numbers of parameters of a model's parts; parts without any are left out."""
  names = ('embedding', 'attention', 'MLP', 'LoRA', 'norms', 'encodings', 'output')
  parts = dict.fromkeys(names, 0)
  for path, leaf in jax.tree_util.tree_leaves_with_path(model):
    parts[_part(*(key.name for key in path if hasattr(key, 'name')))] += leaf.size
  return {part: number for part, number in parts.items() if number}


def _part(first: str, *names: str) -> str:
  """The part that the parameter of this path belongs to."""
  if first in ('embedding', 'encodings'):
    return first
  if first == 'w_logits':
    return 'output'
  name = names[0] if first == 'layers' else first
  if name == 'lora':
    return 'LoRA'
  if 'norm' in name:
    return 'norms'
  return 'MLP' if name in ('w_in', 'w_out', 'w_gate', 'b_in', 'b_out', 'b_gate') else 'attention'


def count(c: ConfigDict) -> tuple[int, int]:
  """The numbers of the model's parameters and of the encoding's among them; no model is made.

  Raises UserError for a config that no model can be built of.
  """
  with errors.user_errors(ValueError, TypeError, AttributeError, KeyError):
    model = decoder.shapes(c, data.vocab(c.data))
  total, of_encoding = (
    sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (model, model.encodings)
  )
  return total, of_encoding
