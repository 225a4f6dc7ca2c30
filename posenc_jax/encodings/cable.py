"""Biases that tokens add up on the way to a query."""

import jax
import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.parameters import normal
from posenc_jax.encodings.core.running_sums import ENDS_OF_SUMS, difference_of_sums, running_sum
from posenc_jax.xla_ops import exact_matmul


class CABLE(Encoding):
  """s_ij = q_i . k_j / sqrt(K) - g_hi (S_i - S_j), S_t = sum_(l <= t) relu(w_c,h . x_l).

    g_hi = softplus(w_s,h . x_i)

  Context-aware biases, Veisi et al. 2025, eqs. 2 to 7. x is the layer's normalized input; w_c and
  w_s are each layer's and head's own. The equations lack the minus before g; the text implies it,
  since there ALiBi is the bias -1 of every token with its slopes as g. `weighted=False` sets g = 1,
  the paper's CABLE_NW. The released code is neither: its bias is the sum of -softplus(w_c,h . x_l),
  without g, which is `fox` with -w in the place of w, beside q . k that is not divided by sqrt(K).
  Its weights start from N(0, 0.02^2), here at fan-in scale as other projections do.
  """

  paper = 'Veisi et al. 2025, arXiv:2503.08067'
  parameter_summary = 'two projections a layer, or one'
  reported_extrapolation = 'perplexity 16.52 at L, 15.41 at 15 L (its authors, 334M)'
  limit = ENDS_OF_SUMS
  position_kind = None
  bias_in_scale = False
  causal_only = True
  needs_inputs = True
  per_layer = ('w_c', 'w_s')

  def __init__(self, dims: Dims, rngs, *, weighted: bool = True):
    """`weighted`: whether there is g."""
    super().__init__(dims, rngs)
    self.weighted = weighted
    self.w_c = normal(rngs, (dims.model_dim, dims.heads), dims.model_dim**-0.5)
    if weighted:
      self.w_s = normal(rngs, (dims.model_dim, dims.heads), dims.model_dim**-0.5)

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    """S as `running_sum` gives it, and g: float32 [B, S, H] each."""
    x_BSD = x_BSD.astype(jnp.float32)
    sums = running_sum(jax.nn.relu(exact_matmul(x_BSD, self.w_c[...])))
    return sums, jax.nn.softplus(exact_matmul(x_BSD, self.w_s[...])) if self.weighted else None

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    (c_i, g_BTH), (c_j, _) = tile.i, tile.j
    bias_BHTS = difference_of_sums(tile, c_i, c_j)
    if self.weighted:
      bias_BHTS = g_BTH.swapaxes(1, 2)[..., None] * bias_BHTS
    return s_BHTS - bias_BHTS
