"""The temperature of HyPE, for layers without positions."""

import math

import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.bounds import check_above
from posenc_jax.encodings.core.temperature import VisibleKeys


class HyPETemperature(VisibleKeys):
  """q_i log(t_i + a) / log a, t_i + 1 keys that i sees: logits grow slowly from the first token on.

  Chen et al. 2026. In their hybrid encoding HyPE it stands in the layers of attention, which have
  no positions; layers of a recurrent network have RoPE. They train without it, and apply it to the
  trained model at evaluation, with an a for each model: 500 for that of 2 billion parameters; their
  code has 362 by default. Under a causal mask t_i is the position i, counted from 0. Queries are
  multiplied: what other encodings add to the scores without the query is not.
  """

  paper = 'Chen et al. 2026, arXiv:2601.22156'

  def __init__(self, dims: Dims, rngs, *, a: float = 362.0):
    """`a`: greater than 1; where t_i = a^2 - a logits are twice as large."""
    super().__init__(dims, rngs)
    self.a = a
    check_above(1, a=a)

  def factor(self, i):
    return jnp.log(i[..., None] - 1 + self.a) / math.log(self.a)
