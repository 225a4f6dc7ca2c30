"""Stick-breaking attention."""

import jax.numpy as jnp

from posenc_jax.encodings.base import Encoding


class StickBreaking(Encoding):
  """a_ij = sigmoid(z_ij) prod_(j < l < i) (1 - sigmoid(z_il)) for j < i, z_ij = q_i . k_j / sqrt(K) (Tan et al. 2024).

  The weights of a row are what keys break off a stick, the nearest first: no softmax, no position. `score` returns
  their logarithms, log sigmoid(z_ij) - sum_(j < l < i) softplus(z_il). As published a token does not attend to itself;
  what is left of the stick is dropped (the released code can give it to v_i): weights sum to at most 1, and a first
  token gets 0.
  """

  paper = 'Tan et al. 2024, arXiv:2410.17980'
  bias_in_scale = False
  causal_only = True
  normaliser = 'none'

  def score(self, s_BHTS, q_BTHK, k_BSHK, block):
    before = block.order > 0
    # log sigmoid(z) = z - softplus(z): the key's own part of the stick goes into the sum.
    broken_off = block.suffix_sum(jnp.where(before, softplus(s_BHTS), 0.0))
    return jnp.where(before, s_BHTS - broken_off, -1e30)

  def spent(self, sums):
    """Every weight further left is at most exp of minus what is broken off, and exp(-104) is 0 in float32."""
    return jnp.all(sums[0] > 104)


def softplus(x):
  """log(1 + e^x). The rounding of 1 + e is added back: as exact as log1p at less than its cost."""
  e = jnp.exp(-jnp.abs(x))
  u = 1 + e
  return jnp.maximum(x, 0) + (jnp.log(u) + (e - (u - 1)))
