"""Learned vectors of places in numbers."""

import jax
import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.bounds import check_between
from posenc_jax.encodings.learned import Learned


class Abacus(Learned):
  """x_t = E[token_t] + P[a_t + k], or P[0] where a_t = 0, P learned; k ~ U{0, ..., max_k}.

  a_t is the index of a digit in its number, counted from 1, and 0 for all that is no digit (McLeish
  et al. 2024). It comes with the data (`task:addition/reverse=True/positions=abacus`): numbers
  should begin with their lowest digit, so that equal places are at equal positions. As released,
  one k for all of a batch, in training alone; in evaluation k = 0. So a number of more digits than
  in training meets rows that training has met. Vectors are as large as those of `learned`.
  """

  paper = 'McLeish et al. 2024, arXiv:2405.17399'
  parameter_summary = 'a row a place'
  reported_extrapolation = 'from 20 to 100 digits in addition (its authors)'
  takes_carried_positions = True

  def __init__(self, dims: Dims, rngs, *, max_length: int = 1024, max_k: int = 99):
    """`max_length`: rows of the table; `max_k`: the largest offset."""
    super().__init__(dims, rngs, max_length=max_length)
    check_between(0, max_length - 1, max_k=max_k)
    self.max_k = max_k

  def sample_positions(self, position_ids, batch: int, key):
    if key is None:
      return None
    offset = jax.random.randint(key, (), 0, self.max_k + 1)
    return jnp.where(position_ids > 0, position_ids + offset, 0)

  def max_sampled_distance(self, tokens: int) -> int:
    return tokens - 1 + self.max_k
