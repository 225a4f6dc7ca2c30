"""Attention with linear biases."""

import jax.numpy as jnp
from flax import nnx

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_above


def slopes(heads: int, exponent: float = 8.0) -> list[float]:
  """ALiBi's slopes: 2^(-exponent h/H) for h = 1..H where H is a power of two.

  Other numbers of heads take the slopes of the power of two below, then every second slope of the
  power above.
  """
  power = 1 << (heads.bit_length() - 1)
  first = [2.0 ** (-exponent * (h + 1) / power) for h in range(power)]
  between = [2.0 ** (-exponent * (2 * h + 1) / (2 * power)) for h in range(heads - power)]
  return first + between


class ALiBi(Encoding):
  """s_ij = q_i . k_j / sqrt(K) - slope_h |i - j| / c in all layers (Press et al. 2021, section 3).

  c is 1. Position interpolation for ALiBi (Al-Khateeb et al. 2023) lays c = S / L over a trained
  model, for S tokens at evaluation: distances, and with them biases, stay those of L tokens.
  """

  paper = 'Press et al. 2021, arXiv:2108.12409; Al-Khateeb et al. 2023, arXiv:2310.13017'
  parameter_summary = 'none, or its slopes'
  reported_extrapolation = 'better to about 3 L, then flat; sliding windows: flat (its authors)'
  bias_in_scale = False

  def __init__(
    self, dims: Dims, rngs, *, learned: bool = False, exponent: float = 8.0, factor: float = 1.0
  ):
    """Computes the slopes.

    Args:
      learned: the slopes are parameters that start at the fixed ones.
      exponent: the lowest slope is 2^-exponent where H is a power of two (MPT's alibi_bias_max).
      factor: c, which distances are divided by.
    """
    super().__init__(dims, rngs)
    check_above(0, exponent=exponent, factor=factor)
    self.learned, self.exponent, self.factor = learned, exponent, factor
    if learned:
      self.slopes = nnx.Param(jnp.array(slopes(dims.heads, exponent), jnp.float32))

  def bias(self, r_R):
    fixed_H = jnp.array(slopes(self.dims.heads, self.exponent), jnp.float32)
    slopes_H = self.slopes[...] if self.learned else fixed_H
    return -jnp.multiply.outer(jnp.abs(r_R).astype(jnp.float32) / self.factor, slopes_H)
