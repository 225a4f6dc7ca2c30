"""A bias that adds up along the way from key to query, as the query sees the tokens between."""

import jax
import jax.numpy as jnp
from jax import lax

from posenc_jax.encodings.alibi import slopes
from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_even
from posenc_jax.encodings.core.parameters import normal
from posenc_jax.encodings.rope import rotate


class GrapeAP(Encoding):
  """s_ij = q_i . k_j / sqrt(K) + slope_h sum_(t=j+1..i) log sigmoid(p_i . R_t n_t / width).

  GRAPE-AP, as released. p_t = W_h x_t, x the layer's normalized input; n_t is p_t over its root
  mean square; R_t rotates every pair of channels by -t radians (the code's rotary embedding of base
  1), so that absolute positions count; slopes are ALiBi's. W is a projection and starts at fan-in
  scale like every other.
  """

  paper = 'GRAPE, ICLR 2026, arXiv:2512.07805'
  parameter_summary = 'a projection a layer'
  position_kind = 'floats'
  bias_in_scale = False
  causal_only = True
  needs_inputs = True
  relative = False
  scans_keys = ((),)
  per_layer = ('w_p',)

  def __init__(self, dims: Dims, rngs, *, width: int = 8):
    """`width`: channels of p."""
    super().__init__(dims, rngs)
    check_even(2, width=width)
    self.width = width
    self.w_p = normal(rngs, (dims.model_dim, dims.heads, width), dims.model_dim**-0.5)

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    """(p, R n): float32 [B, S, H, width] each."""
    p_BSHP = jnp.einsum('bsd,dhp->bshp', x_BSD.astype(jnp.float32), self.w_p[...])
    mean_square = jnp.mean(p_BSHP**2, axis=-1, keepdims=True)
    n_BSHP = p_BSHP * lax.rsqrt(mean_square + jnp.finfo(jnp.float32).eps)
    angles_BS1 = -position_ids.astype(jnp.float32)[..., None]
    angles = jnp.broadcast_to(angles_BS1, (*position_ids.shape, self.width // 2))
    return p_BSHP, rotate(n_BSHP, angles, 'half')

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    edges_BHTS = jnp.einsum('bthp,bshp->bhts', tile.i[0], tile.j[1]) / self.width
    slopes_H = jnp.asarray(slopes(self.dims.heads), jnp.float32)[None, :, None, None]
    sums_BHTS = tile.suffix_sum(jax.nn.log_sigmoid(edges_BHTS), inclusive=False)
    return s_BHTS + slopes_H * sums_BHTS
