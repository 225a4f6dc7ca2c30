"""Learned vectors of positions that tokens share."""

import jax
import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims, Encoding, in_32_bits, input_positions
from posenc_jax.encodings.core.bounds import check_at_least
from posenc_jax.encodings.core.parameters import normal
from posenc_jax.encodings.learned import rows_at
from posenc_jax.xla_ops import add_rounded_once


class PositionCoupling(Encoding):
  """x_t = E[token_t] + sum_n P_n[c_tn + s_n], or P_n[0] where c_tn = 0; s_n random in training.

  Tokens that belong together share a position c, such as digits of one place (Cho et al. 2024),
  and each of several `levels` groups them in another way (Cho et al. 2025). Positions come with the
  data (`task:addition/reverse=True/positions=coupled`), 1 or more; 0 is for tokens outside, BOS and
  padding. As released, an example has a random start on each level: s_n is uniform among those that
  leave all its positions in the table, in training; in evaluation it is 0. Vectors are as large as
  those of `learned`, on each level.
  """

  paper = 'Cho et al. 2024, arXiv:2405.20671; Cho et al. 2025, arXiv:2410.15787'
  parameter_summary = 'a row a position and level'
  reported_extrapolation = 'from 30 to 200 digits in addition (its authors)'
  relative = False
  takes_carried_positions = True

  def __init__(self, dims: Dims, rngs, *, max_length: int | None = None, levels: int = 1):
    """`max_length`: rows of each table; the training length if None. `levels`: tables."""
    super().__init__(dims, rngs)
    self.max_length = dims.train_length if max_length is None else max_length
    check_at_least(1, max_length=self.max_length, levels=levels)
    self.positions_per_token = levels
    shape = (levels, self.max_length, dims.model_dim)
    self.rows = normal(rngs, shape, dims.model_dim**-0.5)

  def sample_positions(self, position_ids, batch: int, key):
    if key is None:
      return None
    position_ids = in_32_bits(position_ids)
    largest = position_ids.max(axis=1, keepdims=True)
    shape = (batch, *largest.shape[1:])
    start = jax.random.randint(key, shape, 0, self.max_length - largest)
    return jnp.where(position_ids > 0, position_ids + start, 0)

  def max_sampled_distance(self, tokens: int) -> int:
    return max(tokens, self.max_length) - 1

  def add_to_input(self, x_BTD, position_ids):
    position_ids = input_positions(x_BTD, position_ids, self.positions_per_token)
    levels = [position_ids] if position_ids.ndim == 2 else jnp.moveaxis(position_ids, 2, 0)
    each = [rows_at(table, level) for table, level in zip(self.rows[...], levels, strict=True)]
    p_BTD = self.dims.model_dim**0.5 * sum(each)
    return add_rounded_once(x_BTD, p_BTD)
