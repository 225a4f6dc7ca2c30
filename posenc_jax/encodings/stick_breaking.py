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
    # log sigmoid(z) = min(z, 0) - t and softplus(z) = max(z, 0) + t: nothing large cancels.
    t_BHTS = log1p_exp(-jnp.abs(s_BHTS))
    taken_BHTS = jnp.where(is_reached, jnp.maximum(s_BHTS, 0) + t_BHTS, 0.0)
    broken_off = tile.suffix_sum(taken_BHTS, inclusive=False)
    return jnp.where(is_reached, jnp.minimum(s_BHTS, 0) - t_BHTS - broken_off, MASKED)

  def is_exhausted(self, carried):
    # Every weight further left is at most exp(-broken off), and exp(-104) is 0 in float32.
    return jnp.all(carried[0] > 104)


def log1p_exp(x):
  """log(1 + e^x) for x <= 0, within 2^-23, cheaper than log1p: the rounding of 1 + e is added back.

  In a program jax 0.10 makes log1p(e) of log(1 + e), to which that is added in vain.
  """
  e = jnp.exp(x)
  u = 1 + e
  return jnp.log(u) + (e - (u - 1))
