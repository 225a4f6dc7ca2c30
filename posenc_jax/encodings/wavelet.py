"""Wavelets of the distance in the place of learned relative keys."""

import math

import jax.numpy as jnp
import numpy as np

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_between

REACH = 14.5  # from there on e^(-u^2 / 2) is 0 in float32
MOST = 20  # the exponent of the largest scale


class Wavelet(Encoding):
  """s_ij = q_i . (k_j + p[i - j]) / sqrt(K), p_c[r] = (1 - u^2) e^(-u^2 / 2), u = (r - b_c) / a_c.

  Oka et al. 2025, eqs. 10 to 14. Each channel has a Ricker wavelet: all pairs of `scales` scales a,
  2^first and its doubles, and K / `scales` shifts b = 0, 1, 2, .... Wavelets are not divided by
  sqrt(a) as they are in signal processing. There is one table for all heads and layers, and nothing
  to train. The authors had scales 1 to 128 for lengths of 512 and 1,024, 4 to 512 for one of 4,096.
  Gaussian, Haar's and Morlet's wavelets, which they tried besides, are not here.
  """

  paper = 'Oka et al. 2025, arXiv:2502.02004'
  reported_extrapolation = 'perplexity 18.26 at L, 17.44 at 4.9 L (its authors)'
  bias_in_scale = True
  reads_qk = True

  def __init__(self, dims: Dims, rngs, *, scales: int = 8, first: int = 0):
    """Keeps the hyperparameters.

    Args:
      scales: how many scales there are; they divide the width of a head.
      first: the smallest scale is 2^first tokens.
    """
    super().__init__(dims, rngs)
    if not 1 <= scales <= MOST + 1 or dims.head_dim % scales:
      allowed = f'divisors of head_dim={dims.head_dim} up to {MOST + 1}'
      raise ValueError(f'scales={scales}; allowed: {allowed}')
    check_between(0, MOST - scales + 1, first=first)
    shifts = dims.head_dim // scales
    self.scales, self.first = scales, first
    self.max_relative_distance = shifts - 1 + math.ceil(REACH * 2 ** (first + scales - 1))

  def relative_keys(self, r_R):
    shifts = self.dims.head_dim // self.scales
    a_K = np.repeat(2.0 ** (self.first + np.arange(self.scales)), shifts)
    b_K = np.tile(np.arange(shifts), self.scales)
    r_R1 = r_R.astype(jnp.float32)[:, None]
    u_RK = (r_R1 - b_K[None].astype(np.float32)) / a_K[None].astype(np.float32)
    return ((1 - u_RK**2) * jnp.exp(-(u_RK**2) / 2))[:, None]
