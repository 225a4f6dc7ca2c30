"""A prior over distances whose shape is learned."""

import jax.numpy as jnp
from flax import nnx

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.parameters import zeros

EPSILON = 1e-5  # keeps a power of the distance 0 finite, as in the released code


class BAM(Encoding):
  """s_ij = q_i . k_j / sqrt(K) - e^alpha_h (|i - j + mu_h| + 1e-5)^beta_h (Bianchessi et al. 2025).

    with `ssmax`:   c_h log(n_i) s_ij,   n_i the keys that i sees

  The Bayesian attention mechanism: the logarithm of a generalized Gaussian prior over j - i, with
  the mean mu = e^theta_h - e^-theta_h. Every layer has its own numbers. As in the code of the
  published version alpha, beta and theta start at 0, where the bias is -1 for all keys, which is
  nothing, and theta is not trained, unless `learned_mu`; an earlier version started beta at 1. beta
  is free: below 0 a head looks away from what is near. c starts at 1. It multiplies the bias, too,
  as a chain with the encoding `ssmax` does not. ALiBi where beta is 1 and e^alpha its slopes.
  """

  paper = 'Bianchessi et al. 2025, arXiv:2505.22842'
  parameter_summary = 'two to four numbers a head a layer'
  reported_extrapolation = 'passkeys found at 500 L, with SSMax (its authors)'
  bias_in_scale = False
  per_layer = ('alpha', 'beta', 'theta', 'c')

  def __init__(self, dims: Dims, rngs, *, ssmax: bool = False, learned_mu: bool = False):
    """`ssmax`: whether scores grow with the number of keys; `learned_mu`: whether mu is trained."""
    super().__init__(dims, rngs)
    self.needs_visible = ssmax
    self.switched_off = () if ssmax else ('score',)
    self.alpha, self.beta = zeros(dims.heads), zeros(dims.heads)
    if learned_mu:
      self.theta = zeros(dims.heads)
    if ssmax:
      self.c = nnx.Param(jnp.ones(dims.heads, jnp.float32))
    self.learned_mu = learned_mu
    self.per_layer = tuple(name for name in type(self).per_layer if hasattr(self, name))

  def coordinates(self, x_BSD, position_ids, visible_BS, index_BS):
    """The factor of a query's scores, [B|1, S, H]; without `ssmax` the positions."""
    if not self.needs_visible:
      return super().coordinates(x_BSD, position_ids, visible_BS, index_BS)
    return self.c[...][None, None] * jnp.log(visible_BS.astype(jnp.float32))[..., None]

  def bias(self, r_R):
    mu_H = 2 * jnp.sinh(self.theta[...]) if self.learned_mu else jnp.zeros(self.dims.heads)
    distance_RH = jnp.abs(r_R.astype(jnp.float32)[:, None] + mu_H[None])
    return -jnp.exp(self.alpha[...])[None] * (distance_RH + EPSILON) ** self.beta[...][None]

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    return s_BHTS * tile.i.swapaxes(1, 2)[..., None]
