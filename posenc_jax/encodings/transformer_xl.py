"""Relative sinusoids with global content and position biases."""

import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_at_least
from posenc_jax.encodings.core.parameters import normal
from posenc_jax.encodings.sinusoidal import sinusoid
from posenc_jax.xla_ops import add_rounded_once


class TransformerXL(Encoding):
  """s_ij = [(q_i + u) . k_j + (q_i + v) . W_R R_(i-j)] / sqrt(K), R the sinusoid.

  Dai et al. 2019, section 3.3. u and v stand in the place of a whole projected query (no W_q on
  them) and are shared by all layers; W_R is each layer's. u is added to the queries, so that one
  product has both content terms; `score` exchanges it for v. (Declared as relative keys and a bias
  by distance, (v - u) . W_R R, attention takes 1.07 of the time.) As in the released code, R is
  [sin | cos] and u, v start from N(0, 0.02^2); W_R is a projection and starts at fan-in scale like
  every other.
  """

  paper = 'Dai et al. 2019, arXiv:1901.02860'
  parameter_summary = 'a projection a layer, two biases'
  bias_in_scale = True
  applies_scale = True
  needs_unscaled_queries = True
  reads_qk = True
  reads_own_queries = True
  per_layer = ('w_r',)

  def __init__(self, dims: Dims, rngs, *, max_distance: int | None = None):
    """Draws the projection and the biases.

    Args:
      max_distance: greater distances count as this one (clamp_len in the released code); None:
        they do not.
    """
    super().__init__(dims, rngs)
    check_at_least(1, max_distance=max_distance)
    self.max_distance = self.max_relative_distance = max_distance
    self.w_r = normal(rngs, (dims.model_dim, dims.heads, dims.head_dim), dims.model_dim**-0.5)
    self.u = normal(rngs, (dims.heads, dims.head_dim), 0.02)
    self.v = normal(rngs, (dims.heads, dims.head_dim), 0.02)

  def transform_qk(self, q_BTHK, k_BSGK, i, j):
    return add_rounded_once(q_BTHK, self.u[...][None, None]), k_BSGK

  def tables(self, r_R):
    if self.max_distance is not None:
      r_R = jnp.clip(r_R, -self.max_distance, self.max_distance)
    waves_RD = sinusoid(r_R, self.dims.model_dim, layout='half')
    return jnp.einsum('rd,dhk->rhk', waves_RD, self.w_r[...]) * self.scale(self.dims.head_dim)

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    v_minus_u_HK = self.v[...] - self.u[...]
    with_v_BHTK = add_rounded_once(q_BHTK, v_minus_u_HK[None, :, None])
    return s_BHTS + tile.query_dot(with_v_BHTK, tile.tables)
