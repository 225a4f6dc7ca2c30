"""The inner product of sinusoids as a bias."""

import jax.numpy as jnp
import numpy as np

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_even


class Sandwich(Encoding):
  """s_ij = q_i . k_j / sqrt(K) + b_h(i - j), alike in all layers (Chi et al. 2023).

    b_h(r) = [sum_(m=1..d/2) cos(r / 10000^(2m/d)) - d/2] / (8h/H),   h = 1..H

  The sum is the inner product of two sinusoidal positions of width d, whatever the width of the
  model; -d/2 makes the bias 0 at r = 0 and changes no softmax. It begins at m = 1 as in the paper;
  with m from 0 to d/2 - 1, as sinusoids often have it, the fastest wave would be cos(r). The
  compression 8h/H and the width 128 are taken from secondary sources.
  """

  paper = 'Chi et al. 2023, arXiv:2212.10356'
  limit = 'the fastest wave is cos(r / 10000^(2/d)) as in the paper; others begin at cos(r)'
  bias_in_scale = False

  def __init__(self, dims: Dims, rngs, *, width: int = 128):
    """`width`: of the sinusoid, d."""
    super().__init__(dims, rngs)
    check_even(2, width=width)
    self.width = width

  def bias(self, r_R):
    half = self.width // 2
    frequencies = jnp.asarray(10_000.0 ** (-np.arange(1, half + 1) / half), jnp.float32)
    angles_RM = jnp.multiply.outer(jnp.abs(r_R).astype(jnp.float32), frequencies)
    waves_R = jnp.cos(angles_RM).sum(axis=-1) - half
    compression = 8 * np.arange(1, self.dims.heads + 1) / self.dims.heads
    return jnp.multiply.outer(waves_R, jnp.asarray(1 / compression, jnp.float32))
