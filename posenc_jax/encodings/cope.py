"""Contextual position encoding."""

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.encodings.base import Dims, Encoding


class CoPE(Encoding):
  """s_ij = z_ij + q_i . e[p_ij], z_ij = q_i . k_j / sqrt(K) (Golovneva et al. 2024).

    p_ij = min(sum_(t=j..i) sigmoid(z_it), positions - 1)

  A position counts the visible tokens j..i that the query opens a gate for; between whole numbers q_i . e[p] is
  interpolated. As in the paper's code the gates read the scaled, masked scores, the positional term is not scaled, and
  e is zero at the start, one table a layer for all heads.
  """

  paper = 'Golovneva et al. 2024, arXiv:2405.18719'
  bias_in_scale = False
  causal_only = True
  per_layer = ('rows',)

  def __init__(self, dims: Dims, rngs, *, positions: int = 64):
    """`positions`: rows of e; larger counts share the last."""
    super().__init__(dims, rngs)
    if positions < 2:
      raise ValueError(f'cope: positions={positions} must be at least 2')
    self.rows = nnx.Param(jnp.zeros((positions, dims.head_dim), jnp.float32))

  def score(self, s_BHTS, q_BTHK, k_BSHK, block):
    last = self.rows.shape[0] - 1
    p_BHTS = jnp.minimum(block.suffix_sum(jax.nn.sigmoid(s_BHTS)), last)
    rows_PK = self.rows[...].astype(q_BTHK.dtype)
    by_row_BHTP = jnp.einsum('bthk,pk->bhtp', q_BTHK, rows_PK, preferred_element_type=jnp.float32)
    below = jnp.floor(p_BHTS).astype(jnp.int32)
    fraction = p_BHTS - below  # an integer has no derivative: the gradient is through the fraction alone
    read = lambda row: jnp.take_along_axis(by_row_BHTP, row, axis=-1)
    return s_BHTS + (1 - fraction) * read(below) + fraction * read(jnp.minimum(below + 1, last))
