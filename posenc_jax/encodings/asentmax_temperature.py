"""A temperature that tokens choose, as a power of the logarithm of the context."""

import jax
import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.bounds import check_above, check_at_least
from posenc_jax.encodings.core.parameters import normal, zeros
from posenc_jax.encodings.core.temperature import VisibleKeys
from posenc_jax.xla_ops import exact_matmul


class AsentmaxTemperature(VisibleKeys):
  """q_i (delta + softplus(W_b x_i) log(n_i + 1)^(gamma tanh(W_g x_i))), n_i keys that i sees.

  The temperature of adaptive-scalable entmax, Vasylenko et al. 2025, as released (a key more keeps
  the logarithm of the first token from 0), before softmax, or chained with `entmax`. x is the
  layer's normalized input; every layer has its own projections to a number a head each. Queries are
  multiplied, so what other encodings add to the scores without the query is not. Projections start
  at fan-in scale, theirs from N(0, 0.02^2), Hugging Face's default.
  """

  paper = 'Vasylenko et al. 2025, arXiv:2506.16640'
  parameter_summary = 'two projections a layer'
  needs_inputs = True
  per_layer = ('w_b', 'w_g', 'b_b', 'b_g')

  def __init__(
    self, dims: Dims, rngs, *, delta: float = 1.0, gamma: float = 2.0, bias: bool = False
  ):
    """Draws the projections.

    Args:
      delta: added to the factor.
      gamma: the largest size of the exponent.
      bias: whether the projections have a bias, 0 at the start, as in the paper's synthetic tasks.
    """
    super().__init__(dims, rngs)
    check_at_least(0, delta=delta)
    check_above(0, gamma=gamma)
    self.delta, self.gamma, self.has_offset = delta, gamma, bias
    self.w_b = normal(rngs, (dims.model_dim, dims.heads), dims.model_dim**-0.5)
    self.w_g = normal(rngs, (dims.model_dim, dims.heads), dims.model_dim**-0.5)
    if bias:
      self.b_b, self.b_g = zeros(dims.heads), zeros(dims.heads)

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    """The factor of each head: float32 [B, S, H]."""
    x_BSD = x_BSD.astype(jnp.float32)
    size_BSH, power_BSH = (exact_matmul(x_BSD, w[...]) for w in (self.w_b, self.w_g))
    if self.has_offset:
      size_BSH += self.b_b[...][None, None]
      power_BSH += self.b_g[...][None, None]
    log_BS1 = jnp.log1p(num_visible_BS.astype(jnp.float32))[..., None]
    growth_BSH = log_BS1 ** (self.gamma * jnp.tanh(power_BSH))
    return self.delta + jax.nn.softplus(size_BSH) * growth_BSH

  def factor(self, i):
    return i
