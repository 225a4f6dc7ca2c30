"""The temperature of Llama 4's layers without rotation."""

import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.bounds import check_at_least
from posenc_jax.encodings.core.temperature import VisibleKeys


class Llama4Temperature(VisibleKeys):
  """q_i (1 + c log(1 + floor(n_i / length))), n_i keys that i sees, as in Llama 4 without rotation.

  There it stands in layers without window or chunk, where n_i is the position i + 1. To be chained,
  or to stand in a pattern of layers for `nope`. Ministral 3 has it on every layer, chained behind
  `rope`, with n_i - 1 in the place of n_i: `counts_itself` False. Queries are multiplied: what
  other encodings add to the scores without the query is not.
  """

  paper = 'Llama 4 and Ministral 3, in Hugging Face transformers'

  def __init__(
    self, dims: Dims, rngs, *, length: int = 8192, c: float = 0.1, counts_itself: bool = True
  ):
    """Keeps the hyperparameters.

    Args:
      length: tokens after which it first rises.
      c: by how much, with the logarithm.
      counts_itself: whether a token is one of the keys that it counts; False: as Ministral 3.
    """
    super().__init__(dims, rngs)
    self.length, self.c, self.counts_itself = length, c, counts_itself
    check_at_least(1, length=length)
    check_at_least(0, c=c)

  def factor(self, i):
    keys = i[..., None] if self.counts_itself else i[..., None] - 1
    return 1 + self.c * jnp.log1p(jnp.floor(keys / self.length))
