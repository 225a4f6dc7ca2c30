"""Absolute positions that a small network makes of learned waves."""

import jax
import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims, Encoding, input_positions
from posenc_jax.encodings.core.bounds import check_above, check_at_least
from posenc_jax.encodings.core.parameters import normal, zeros
from posenc_jax.xla_ops import add_rounded_once, exact_matmul, outer


class LearnedFourier(Encoding):
  """x_t = E[token_t] + GELU(f(t) W_1 + b_1) W_2 + b_2, f(t) = [cos(w t) | sin(w t)] / sqrt(2M).

  Learnable Fourier features (Li et al. 2021, algorithm 1), made for images, where a position t is
  several numbers, `axes`, and each w a vector; by default it is one, as in text. w are M = `waves`
  such vectors, learned, whose entries start from N(0, 1/gamma^2), and f(s) . f(t) near
  exp(-(|s - t| / gamma)^2 / 2) / 2. How the network starts is not said; here its hidden units have
  unit variance before GELU, and what it adds has variance 0.4.
  """

  paper = 'Li et al. 2021, arXiv:2106.02795'
  parameter_summary = 'a number a wave and axis, an MLP'
  limit = 'angles are float32: a million positions out, what it adds is off by some 0.01'
  position_kind = 'floats'
  relative = False

  def __init__(
    self, dims: Dims, rngs, *, waves: int = 64, hidden: int = 32, gamma: float = 10.0, axes: int = 1
  ):
    """Draws the frequencies and the network.

    Args:
      waves: how many frequencies there are.
      hidden: units of the network.
      gamma: tokens within which positions are alike at the start.
      axes: how many positions a token has; without positions, all of them are its index.
    """
    super().__init__(dims, rngs)
    check_at_least(1, waves=waves, hidden=hidden, axes=axes)
    check_above(0, gamma=gamma)
    self.positions_per_token = axes
    self.frequencies = normal(rngs, (waves,) if axes == 1 else (axes, waves), 1 / gamma)
    self.w_in, self.b_in = normal(rngs, (2 * waves, hidden), 2**0.5), zeros(hidden)
    self.w_out = normal(rngs, (hidden, dims.model_dim), hidden**-0.5)
    self.b_out = zeros(dims.model_dim)

  def add_to_input(self, x_BTD, position_ids):
    axes = self.positions_per_token
    position_ids = input_positions(x_BTD, position_ids, axes)
    product = outer if axes == 1 else exact_matmul
    angles = product(position_ids.astype(jnp.float32), self.frequencies[...])
    f_BTF = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
    f_BTF = f_BTF * f_BTF.shape[-1] ** -0.5
    u_BTF = jax.nn.gelu(
      exact_matmul(f_BTF, self.w_in[...]) + self.b_in[...][None, None], approximate=False
    )
    p_BTD = exact_matmul(u_BTF, self.w_out[...]) + self.b_out[...][None, None]
    return add_rounded_once(x_BTD, p_BTD)
