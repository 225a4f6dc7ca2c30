"""Waves of compressed distances, which a small query of each head reads."""

import math

import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_at_least, check_even
from posenc_jax.encodings.core.parameters import uniform
from posenc_jax.xla_ops import exact_matmul


class CompactRelative(Encoding):
  """s_ij = q_i . k_j / sqrt(K) + p_ih . (V_h e(j - i)), e(x) = waves of z(x) in R^d.

    z(x) = atan(2 pi y(x) / (length_factor d)),   y(x) = c sign(x) log(1 + |x| / c),   c = sqrt(d)
    e(x) = (cos z, sin z, cos 2z, sin 2z, .., cos (d/2) z, 1)

  Compact relative positional encoding of Zipformer, Yao et al. 2023. z lies between -pi/2 and pi/2,
  and tells distances below about c apart, far ones hardly. p_ih = W_h x_i + w_h has `query_width`
  channels, of the layer's normalized input x. Each layer has its own V, W and w. In the released
  code e drops out at a rate of 0.15, and the term is left out of some early steps; neither is here.

  There q . k has no 1/sqrt(K): projections start smaller by K^(-1/4), for an optimizer whose steps
  are relative to a parameter's size. Here 1/sqrt(K) stays, and W, w and V start as there: from
  U(-K^(-1/4) / sqrt(D), ..), U(-0.1 K^(-1/4), ..) and U(-0.05 / sqrt(d), ..), upper ends likewise.
  """

  paper = 'Yao et al. 2023, arXiv:2310.11230'
  parameter_summary = 'two projections a layer'
  bias_in_scale = False
  needs_inputs = True
  per_layer = ('w_p', 'b_p', 'w_e')
  parameters_depend_on = ('length_factor',)

  def __init__(
    self, dims: Dims, rngs, *, width: int = 48, query_width: int = 4, length_factor: float = 1.0
  ):
    """Draws the projections.

    Args:
      width: d, channels of e.
      query_width: channels of p.
      length_factor: the greater, the less near distances are told apart.
    """
    super().__init__(dims, rngs)
    check_even(2, width=width)
    check_at_least(1, query_width=query_width, length_factor=length_factor)
    self.width, self.length_factor = width, length_factor
    D, H, K = dims.model_dim, dims.heads, dims.head_dim
    draw = lambda largest, *shape: uniform(rngs, shape, -largest, largest)
    self.w_p = draw(K**-0.25 * D**-0.5, D, H, query_width)
    self.b_p = draw(0.1 * K**-0.25, H, query_width)
    self.w_e = draw(0.05 * width**-0.5, width, H, query_width)

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    """p: float32 [B, S, H, query_width]."""
    p_BSHQ = jnp.einsum('bsd,dhq->bshq', x_BSD.astype(jnp.float32), self.w_p[...])
    return p_BSHQ + self.b_p[...][None, None]

  def waves(self, r_R):
    """e of the distances i - j: float32 [R, d]."""
    x_R, c = -r_R.astype(jnp.float32), math.sqrt(self.width)
    y_R = c * jnp.sign(x_R) * jnp.log1p(jnp.abs(x_R) / c)
    z_R = jnp.arctan(2 * math.pi / (self.length_factor * self.width) * y_R)
    angles_RM = jnp.multiply.outer(z_R, jnp.arange(1, self.width // 2 + 1, dtype=jnp.float32))
    pairs_RM2 = jnp.stack([jnp.cos(angles_RM), jnp.sin(angles_RM)], axis=-1)
    return pairs_RM2.reshape(len(r_R), -1).at[:, -1].set(1.0)

  def tables(self, r_R):
    rows = exact_matmul(self.waves(r_R), self.w_e[...].reshape(self.width, -1))
    return rows.reshape(len(r_R), *self.w_e.shape[1:])

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    return s_BHTS + tile.query_dot(tile.i.swapaxes(1, 2), tile.tables)
