"""Scores whose mean falls and whose spread grows with the logarithm of the distance."""

import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_above


class ScaleInvariant(Encoding):
  """s_ij = a_r q_i . k_j / sqrt(K) + 1 - a_r^2, a_r^2 = 2 log(1 + r / tau) + 1, r = |i - j|.

  Anson et al. 2025. If q . k / sqrt(K) is a unit normal deviate, every decade of distances gets
  the same share of attention, on few of its tokens: to be used with `qk_norm`. All that members
  before it in a chain add to the scores is multiplied too. Its authors have it behind p-RoPE
  without wavelengths beyond L, which is `hope`: ('hope', 'scale_invariant').
  """

  paper = 'Anson et al. 2025, arXiv:2505.17083'
  bias_in_scale = False

  def __init__(self, dims: Dims, rngs, *, tau: float = 10.0):
    """`tau`: the unit of distances, in tokens: scores are multiplied by 1 at a distance of 0, by
    1.5 at tau, by 2.4 at 10 tau.
    """
    super().__init__(dims, rngs)
    check_above(0, tau=tau)
    self.tau = tau

  def tables(self, r_R):
    """a_r and 1 - a_r^2: float32 [R, 1] each."""
    square_R1 = 2 * jnp.log1p(jnp.abs(r_R).astype(jnp.float32) / self.tau)[:, None] + 1
    return jnp.sqrt(square_R1), 1 - square_R1

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    factor_BHTS, shift_BHTS = tile.tables
    return factor_BHTS * s_BHTS + shift_BHTS
