"""A sum of Gaussians of the distance."""

import jax.numpy as jnp
from flax import nnx

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_at_least
from posenc_jax.encodings.core.parameters import normal


class TISA(Encoding):
  """s_ij = q_i . k_j / sqrt(K) + sum_m a_m exp(-|b_m| (j - i - c_m)^2), `kernels` terms a head.

  Translation-invariant self-attention (Wennberg and Henter 2021, eq. 5): a, b and c are learned,
  and every layer has its own. As in the released code a and b start from N(0.1, 0.01^2) and c from
  N(0, 5^2): a head leans to some tokens on either side, and what is far gets nothing. That code has
  i - j - 1 where the paper has j - i, which is another start of c. In ALBERT the authors have it
  alone and beside learned positions, a chain of ('learned', 'tisa').
  """

  paper = 'Wennberg and Henter 2021, arXiv:2106.01950'
  parameter_summary = 'three numbers a kernel and head a layer'
  reported_extrapolation = 'one Gaussian: perplexity 4.1 at L, 18.8 at 4 L (Chi et al. 2022)'
  bias_in_scale = False
  per_layer = ('amplitudes', 'sharpness', 'offsets')

  def __init__(self, dims: Dims, rngs, *, kernels: int = 5):
    """Draws a, b and c: `amplitudes`, `sharpness` and `offsets`. `kernels`: Gaussians a head."""
    super().__init__(dims, rngs)
    check_at_least(1, kernels=kernels)
    shape = kernels, dims.heads
    self.amplitudes, self.sharpness = (nnx.Param(0.1 + normal(rngs, shape, 0.01)) for _ in range(2))
    self.offsets = normal(rngs, shape, 5.0)

  def bias(self, r_R):
    from_center_RMH = -r_R.astype(jnp.float32)[:, None, None] - self.offsets[...][None]
    gaussians_RMH = jnp.exp(-jnp.abs(self.sharpness[...])[None] * from_center_RMH**2)
    return (self.amplitudes[...][None] * gaussians_RMH).sum(axis=1)
