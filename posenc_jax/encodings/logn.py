"""Logits that grow with the logarithm of the context."""

import math

import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.bounds import check_at_least
from posenc_jax.encodings.core.temperature import VisibleKeys


class LogN(VisibleKeys):
  """q_i max(floor, log n_i / log L), n_i keys that i sees: logits grow past L (Su 2023).

  So that the entropy of attention does not grow with the length, in models that were trained
  without it. With `floor` 0 it is the factor of Su 2021, who trains with it, where `length` is
  always 512; Chiang and Cholak 2022 multiply logits by log n. What other encodings add to the
  scores without the query is not multiplied. Under a causal mask n_i is i + 1, within windows and
  packed documents as many as there are.
  """

  paper = 'Su 2023, kexue.fm/archives/9706; Su 2021, kexue.fm/archives/8823'

  def __init__(self, dims: Dims, rngs, *, length: int | None = None, floor: float = 1.0):
    """Keeps the hyperparameters.

    Args:
      length: L, where the factor is 1; None: the training length.
      floor: the least factor; 0: the ratio, which is below 1 before L.
    """
    super().__init__(dims, rngs)
    self.length = dims.train_length if length is None else length
    self.floor = floor
    check_at_least(2, length=self.length)
    check_at_least(0, floor=floor)

  def factor(self, i):
    return jnp.maximum(jnp.log(i)[..., None] / math.log(self.length), self.floor)
