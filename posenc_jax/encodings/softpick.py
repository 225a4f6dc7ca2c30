"""A rectified softmax, of which weights need not sum to 1."""

import jax.numpy as jnp
from jax import lax

from posenc_jax.encodings.core.base import LOWEST_SEEN, WHOLE_ROWS, Encoding

EPSILON = 1e-8  # so that a row of zeros gets no weight


class Softpick(Encoding):
  """p_ij = relu(e^s_ij - 1) / (sum_l |e^s_il - 1| + epsilon) (Zuhri et al. 2025, eq. 1).

  A score below 0 has no weight and takes some from others; a row of such scores has none at all. As
  in eq. 2 both parts are divided by e^m, m the largest score, and epsilon is added then. Here m is
  at least 0: else e^-m overflows far below, where no score has weight. To be chained with an
  encoding of positions: ('rope', 'softpick'). A row must be whole: `dense` alone takes it.
  """

  paper = 'Zuhri et al. 2025, arXiv:2504.20966'
  limit = WHOLE_ROWS
  position_kind = None
  normalizer = 'rows'

  def normalize(self, s_BHTS, tile):
    m_BHT1 = lax.stop_gradient(jnp.maximum(s_BHTS.max(axis=-1, keepdims=True), 0.0))
    # |e^s - 1| / e^m, also near 0, where a difference of exponentials would lose digits.
    sizes_BHTS = jnp.exp(jnp.maximum(s_BHTS, 0.0) - m_BHT1) * -jnp.expm1(-jnp.abs(s_BHTS))
    sizes_BHTS = jnp.where(s_BHTS > LOWEST_SEEN, sizes_BHTS, 0.0)
    totals_BHT1 = sizes_BHTS.sum(axis=-1, keepdims=True) + EPSILON
    return jnp.where(s_BHTS > 0, sizes_BHTS, 0.0) / totals_BHT1
