"""Stick-breaking attention: each key takes a share of what nearer ones left."""

import jax.numpy as jnp

from posenc_jax.encodings.core.base import MASKED, Dims, Encoding


class StickBreaking(Encoding):
  """a_ij = sigmoid(z_ij) prod_(j < l < i) (1 - sigmoid(z_il)) for j < i (Tan et al. 2024).

  z_ij = q_i . k_j / sqrt(K). The weights of a row are what keys break off a stick, the nearest
  first: no softmax, no position. `score` returns their logarithms, log sigmoid(z_ij) - sum_(j < l <
  i) softplus(z_il). As published a token does not attend to itself; what is left of the stick is
  dropped: weights sum to at most 1, and a first token gets 0. The released code can let a token
  attend to itself, too (`attend_current`): j and l go up to i. It can also give the rest to v_i;
  their models give it to a learned vector a head, before a norm over each head. Neither is in this.
  """

  paper = 'Tan et al. 2024, arXiv:2410.17980'
  reported_extrapolation = 'better to 8 L (its authors)'
  position_kind = None
  bias_in_scale = False
  causal_only = True
  scans_keys = ((),)
  normalizer = 'none'

  def __init__(self, dims: Dims, rngs, *, attend_current: bool = False):
    """`attend_current`: whether a token attends to itself, too, and first."""
    super().__init__(dims, rngs)
    self.attend_current = attend_current

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    is_reached = tile.index_distance > (-1 if self.attend_current else 0)
    log_taken_BHTS, log_left_BHTS = log_sigmoids(s_BHTS)
    before_BHTS = tile.suffix_sum(jnp.where(is_reached, log_left_BHTS, 0.0), inclusive=False)
    return jnp.where(is_reached, log_taken_BHTS + before_BHTS, MASKED)

  def is_exhausted(self, carried):
    # Every weight further left is at most the exponential of this, and exp(-104) is 0 in float32.
    return jnp.all(carried[0] < -104)


def log_sigmoids(z):
  """log sigmoid(z) and log sigmoid(-z), which is -softplus(z): nothing large cancels.

  Both are a part that is 0 on one side less t = log(1 + e), e = exp(-|z|). t is within 2^-23 and
  cheaper than log1p: the rounding of 1 + e is added back. In a program jax 0.10 makes log1p(e) of
  log(1 + e), to which that is added in vain.
  """
  # In place of -|z|, max and min: gradients of these at 0 are -1, 1/2 and 1/2, which do not fit.
  is_positive = z > 0
  e = jnp.exp(jnp.where(is_positive, -z, z))
  u = 1 + e
  t = jnp.log(u) + (e - (u - 1))
  return jnp.where(is_positive, 0.0, z) - t, jnp.where(is_positive, -z, 0.0) - t
