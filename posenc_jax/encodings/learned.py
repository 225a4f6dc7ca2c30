"""Learned absolute positions."""

import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims, Encoding, check_input_positions
from posenc_jax.encodings.core.bounds import check_at_least
from posenc_jax.encodings.core.parameters import normal
from posenc_jax.xla_ops import add_rounded_once


def rows_at(table_LX, positions):
  """The table's rows at integer positions; NaN outside the table: an index is never clamped."""
  # JAX would read a negative index from the table's end.
  outside = jnp.where(positions < 0, table_LX.shape[0], positions)
  return jnp.take(table_LX, outside, axis=0, mode='fill', fill_value=jnp.nan)


class Learned(Encoding):
  """x_t = E[token_t] + P[t], P learned with `max_length` rows (Gehring et al. 2017, section 3.1).

  As published, P starts as large as the token embeddings: like theirs, its entries have standard
  deviation D^-1/2, are read times sqrt(D) and reach the model with unit variance. Positions outside
  the table give NaN.
  """

  paper = 'Gehring et al. 2017, arXiv:1705.03122; Devlin et al. 2018, arXiv:1810.04805'
  parameter_summary = 'a row a position'
  reported_extrapolation = 'none: its table ends'
  relative = False

  def __init__(self, dims: Dims, rngs, *, max_length: int | None = None):
    """`max_length`: rows of the table; the training length if None."""
    super().__init__(dims, rngs)
    self.max_length = dims.train_length if max_length is None else max_length
    check_at_least(1, max_length=self.max_length)
    self.rows = normal(rngs, (self.max_length, dims.model_dim), dims.model_dim**-0.5)

  def add_to_input(self, x_BTD, position_ids):
    check_input_positions(x_BTD, position_ids)
    p_BTD = self.dims.model_dim**0.5 * rows_at(self.rows[...], position_ids)
    return add_rounded_once(x_BTD, p_BTD)
