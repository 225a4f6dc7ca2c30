"""How many parameters the model of a config has."""

import jax
from flax import nnx
from ml_collections import ConfigDict

from posenc_jax import data, errors
from posenc_jax.model.decoder import build


def count(c: ConfigDict) -> tuple[int, int]:
  """The numbers of the model's parameters and of the encoding's among them; no model is made.

  Raises UserError for a config that no model can be built of.
  """
  with errors.user_errors(ValueError, TypeError, AttributeError, KeyError):
    model = nnx.eval_shape(lambda: build(c, data.vocab(c.data), nnx.Rngs(0)))
  total, of_encoding = (
    sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (model, model.encodings)
  )
  return total, of_encoding
