"""A bias that adds up along the way from key to query, as the query sees the tokens between."""

import jax
import jax.numpy as jnp
from jax import lax

from posenc_jax.encodings.alibi import slopes
from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.parameters import normal
from posenc_jax.encodings.rope import rotate


class GrapeAP(Encoding):
  """s_ij = q_i . k_j / sqrt(K) + slope_h sum_(t=j+1..i) log sigmoid(p_i . R_t n_t / width)
  (GRAPE-AP, as released).

  p_t = W_h x_t, x the layer's normalized input; n_t is p_t over its root mean square; R_t turns
  every pair of channels by -t radians (the code's rotary embedding of base 1), so that absolute
  positions count; slopes are ALiBi's. W is a projection and starts at fan-in scale like every
  other.
  """

  paper = 'GRAPE, ICLR 2026, arXiv:2512.07805'
  weights, claims = 'a projection a layer', None
  bias_in_scale = False
  causal_only = True
  relative = False
  per_layer = ('w_p',)

  def __init__(self, dims: Dims, rngs, *, width: int = 8):
    """`width`: channels of p."""
    super().__init__(dims, rngs)
    if width < 2 or width % 2:
      raise ValueError(f'grape_ap: width={width} must be even and at least 2')
    self.width = width
    self.w_p = normal(rngs, (dims.model_dim, dims.heads, width), dims.model_dim**-0.5)

  def locate(self, x_BSD, positions_BS):
    """(p, R n): float32 [B, S, H, width] each."""
    if x_BSD is None:
      raise ValueError(
        'GrapeAP reads content: attention needs x, the normalized input of the layer'
      )
    p_BSHP = jnp.einsum('bsd,dhp->bshp', x_BSD.astype(jnp.float32), self.w_p[...])
    n_BSHP = p_BSHP * lax.rsqrt(
      jnp.mean(p_BSHP**2, axis=-1, keepdims=True) + jnp.finfo(jnp.float32).eps
    )
    angles = jnp.broadcast_to(
      -positions_BS.astype(jnp.float32)[..., None], (*positions_BS.shape, self.width // 2)
    )
    return p_BSHP, rotate(n_BSHP, angles, 'half')

  def score(self, s_BHTS, q_BTHK, k_BSHK, block):
    edges_BHTS = jax.nn.log_sigmoid(
      jnp.einsum('bthp,bshp->bhts', block.i[0], block.j[1]) / self.width
    )
    slopes_H = jnp.asarray(slopes(self.dims.heads), jnp.float32)[None, :, None, None]
    return s_BHTS + slopes_H * block.suffix_sum(edges_BHTS, inclusive=False)
