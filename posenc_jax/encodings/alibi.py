"""Attention with linear biases."""

import jax.numpy as jnp
from flax import nnx

from posenc_jax.encodings.core.base import Dims, Encoding


def slopes(heads: int) -> list[float]:
  """ALiBi's slopes: 2^(-8h/H) for h = 1..H where H is a power of two.

  Other numbers of heads take the slopes of the power of two below, then every second slope of the
  power above.
  """
  power = 1 << (heads.bit_length() - 1)
  first = [2.0 ** (-8 * (h + 1) / power) for h in range(power)]
  return first + [2.0 ** (-8 * (2 * h + 1) / (2 * power)) for h in range(heads - power)]


class ALiBi(Encoding):
  """s_ij = q_i . k_j / sqrt(K) - slope_h |i - j| in all layers (Press et al. 2021, section 3)."""

  paper = 'Press et al. 2021, arXiv:2108.12409'
  parameter_summary = 'none, or its slopes'
  reported_extrapolation = 'better to about 3 L, then flat; sliding windows: flat (its authors)'
  bias_in_scale = False

  def __init__(self, dims: Dims, rngs, *, learned: bool = False):
    """`learned`: the slopes are parameters that start at the fixed ones."""
    super().__init__(dims, rngs)
    self.learned = learned
    if learned:
      self.slopes = nnx.Param(jnp.array(slopes(dims.heads), jnp.float32))

  def bias(self, r_R):
    fixed_H = jnp.array(slopes(self.dims.heads), jnp.float32)
    slopes_H = self.slopes[...] if self.learned else fixed_H
    return -jnp.multiply.outer(jnp.abs(r_R).astype(jnp.float32), slopes_H)
