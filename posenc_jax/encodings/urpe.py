"""Weights of attention times learned numbers by distance."""

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.encodings.core.base import WHOLE_ROWS, Dims, Encoding
from posenc_jax.encodings.core.bounds import check_at_least


class URPE(Encoding):
  """o_i = sum_j C_h[i - j] p_ij v_j: weights p of softmax times learned numbers by distance.

  Universal relative positional encoding (Luo et al. 2022, eq. 8): weights of a row need not sum to
  1, so that what is read can say where the query stands. As in the released code all layers share
  C, which starts at 1. It ends there with the training text; here what lies farther apart than
  `max_distance` has the last number. To be chained with an encoding that acts on scores, which is a
  bias there: ('t5', 'urpe'). A row must be whole: `dense` alone takes it.
  """

  paper = 'Luo et al. 2022, arXiv:2205.13401'
  parameter_summary = 'a number a distance and head'
  limit = WHOLE_ROWS
  normalizer = 'rows'

  def __init__(self, dims: Dims, rngs, *, max_distance: int | None = None):
    """`max_distance`: greater ones have its number; None: L - 1, the largest of a training text."""
    super().__init__(dims, rngs)
    if max_distance is None:
      max_distance = max(dims.train_length - 1, 1)
    check_at_least(1, max_distance=max_distance)
    self.max_distance = self.max_relative_distance = max_distance
    self.factors = nnx.Param(jnp.ones((2 * max_distance + 1, dims.heads), jnp.float32))

  def tables(self, r_R):
    most = self.max_distance
    return self.factors[...][jnp.clip(r_R, -most, most) + most]

  def normalize(self, s_BHTS, tile):
    return jax.nn.softmax(s_BHTS, axis=-1) * tile.tables
