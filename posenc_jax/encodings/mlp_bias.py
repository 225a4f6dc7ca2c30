"""A bias by distance that a small network computes."""

import jax
import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_at_least
from posenc_jax.encodings.core.parameters import uniform
from posenc_jax.xla_ops import exact_matmul


class MLPBias(Encoding):
  """s_ij = q_i . k_j / sqrt(K) + f(u)_h, f: an MLP 1 -> hidden -> .. -> H with SiLU, u = i - j.

    with `log`:   u = sign(i - j) log(1 + |i - j|)

  Dynamic position bias, as x-transformers has it for text, without its optional norms. CrossFormer
  (Wang et al. 2021) has it for images, with norms and ReLU; the logarithm is Swin V2's (Liu et al.
  2021). All layers share one MLP. Weights start from U(-1/sqrt(fan-in), 1/sqrt(fan-in)) as there.
  The bias of its last layer is left out: alike for all keys, it changes no softmax.

  Distances are tokens, as there, and not divided by anything. So an untrained f is nearly linear,
  by about 0.1 a token, and up in about half of the heads: these prefer what is far.
  """

  paper = 'Wang et al. 2021, arXiv:2108.00154; Liu et al. 2021, arXiv:2111.09883'
  parameter_summary = 'an MLP'
  reported_extrapolation = 'to 8 L from 128, better without log (E. Engelhart, in x-transformers)'
  limit = 'without `log` biases grow with distance: untrained, to 2e4 at 1e5, rounded to 0.005'
  bias_in_scale = False

  def __init__(
    self, dims: Dims, rngs, *, hidden: int | None = None, depth: int = 2, log: bool = False
  ):
    """Draws the MLP.

    Args:
      hidden: width of its hidden layers; None: D // 4.
      depth: how many hidden layers it has.
      log: whether it gets logarithms of distances.
    """
    super().__init__(dims, rngs)
    check_at_least(1, hidden=hidden, depth=depth)
    self.log = log
    F = max(dims.model_dim // 4, 1) if hidden is None else hidden
    draw = lambda *shape: uniform(rngs, shape, -(F**-0.5), F**-0.5)
    self.w_in, self.b_in = (uniform(rngs, (F,), -1.0, 1.0) for _ in range(2))
    if depth > 1:
      self.w_hidden, self.b_hidden = draw(depth - 1, F, F), draw(depth - 1, F)
    self.w_out = draw(F, dims.heads)
    self.depth = depth

  def bias(self, r_R):
    u_R = r_R.astype(jnp.float32)
    if self.log:
      u_R = jnp.sign(u_R) * jnp.log1p(jnp.abs(u_R))
    # Distances have no bound, so products at a lower precision would be off by whole units.
    x_RF = jax.nn.silu(jnp.multiply.outer(u_R, self.w_in[...]) + self.b_in[...][None])
    for n in range(self.depth - 1):
      x_RF = jax.nn.silu(exact_matmul(x_RF, self.w_hidden[n]) + self.b_hidden[n][None])
    return exact_matmul(x_RF, self.w_out[...])
