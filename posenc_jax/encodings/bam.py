"""A prior over distances whose shape is learned."""

import jax.numpy as jnp
from flax import nnx

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.parameters import zeros

EPSILON = 1e-5  # keeps a power of the distance 0 finite, as in the released code
LARGEST = 40.0  # a bias of e^40 is finite, with its gradient, and leaves no weight but to itself


class BAM(Encoding):
  """s_ij = q_i . k_j / sqrt(K) - e^alpha_h (|i - j + mu_h| + 1e-5)^beta_h (Bianchessi et al. 2025).

    with `ssmax`:   c_h log(n_i) s_ij,   n_i the keys that i sees

  The Bayesian attention mechanism: the logarithm of a generalized Gaussian prior over j - i, of the
  mean mu = e^theta_h - e^-theta_h. Every layer has its own numbers. As in the code of the published
  version alpha, beta and theta start at 0, where the bias is -1 for all keys, which is nothing, and
  theta is not trained, unless `learned_mean`; an earlier version trained theta, started as ALiBi
  (beta 1, e^alpha its slopes), and had one prior for all layers. beta is free:
  below 0 a head looks away from what is near. c starts at 1. It multiplies the bias, too, as a
  chain with the encoding `ssmax` does not. ALiBi where beta is 1 and e^alpha its slopes.
  """

  paper = 'Bianchessi et al. 2025, arXiv:2505.22842'
  parameter_summary = 'two to four numbers a head a layer'
  reported_extrapolation = 'passkeys found at 500 L, with SSMax (its authors)'
  limit = 'a negative exponent makes its bias at distance 0 large, and its rounding with it'
  bias_in_scale = False
  per_layer = ('log_size', 'exponent', 'theta', 'factor')

  def __init__(self, dims: Dims, rngs, *, ssmax: bool = False, learned_mean: bool = False):
    """Makes the numbers: alpha is `log_size`, beta `exponent`, c `factor`.

    Args:
      ssmax: whether scores grow with the number of keys.
      learned_mean: whether mu is trained; else it is 0.
    """
    super().__init__(dims, rngs)
    self.needs_num_visible, self.has_mean = ssmax, learned_mean
    self.switched_off = () if ssmax else ('score',)
    self.log_size, self.exponent = zeros(dims.heads), zeros(dims.heads)
    if learned_mean:
      self.theta = zeros(dims.heads)
    if ssmax:
      self.factor = nnx.Param(jnp.ones(dims.heads, jnp.float32))

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    """The factor of a query's scores, [B|1, S, H]; without `ssmax` the positions."""
    if not self.needs_num_visible:
      return super().coordinates(x_BSD, position_ids, num_visible_BS, index_BS)
    return self.factor[...][None, None] * jnp.log(num_visible_BS.astype(jnp.float32))[..., None]

  def bias(self, r_R):
    mean_H = jnp.zeros(self.dims.heads, jnp.float32)
    if self.has_mean:
      mean_H = 2 * jnp.sinh(self.theta[...])
    distance_RH = jnp.abs(r_R.astype(jnp.float32)[:, None] + mean_H[None]) + EPSILON
    log_bias_RH = self.log_size[...][None] + self.exponent[...][None] * jnp.log(distance_RH)
    return -jnp.exp(jnp.minimum(log_bias_RH, LARGEST))

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    return s_BHTS * tile.i.swapaxes(1, 2)[..., None]
