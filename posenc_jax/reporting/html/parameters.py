"""How many parameters a config's model has. Imports jax."""

import jax
from flax import nnx
from ml_collections import ConfigDict

from posenc_jax import data, errors
from posenc_jax.model.decoder import build


def count(c: ConfigDict) -> tuple[int, int]:
  """Of the model, and how many of them are the encoding's own; none is made. UserError for what
  cannot be built.
  """
  with errors.user_errors(ValueError, TypeError, AttributeError, KeyError):
    model = nnx.eval_shape(lambda: build(c, data.vocab(c.data), nnx.Rngs(0)))
  return tuple(
    sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (model, model.encodings)
  )
