"""Disentangled attention."""

import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.parameters import normal


class DeBERTa(Encoding):
  """Content and position projected apart (He et al. 2020, eq. 4, and their code).

    s_ij = [q_i . k_j + q_i . K^r[d] + k_j . Q^r[d]] / sqrt(3K), d = clamp(i - j + span, 0, 2 span -
    1) K^r = P W_(K,r), Q^r = P W_(Q,r)

  P is shared by all layers and read with unit variance, its two projections are each layer's. The
  position-to-content term gathers delta(i, j), as the released code does. With one of the two terms
  switched off the scale is 1/sqrt(2K), as in the code.
  """

  paper = 'He et al. 2020, arXiv:2006.03654'
  weights, claims = 'a table, two projections a layer', None
  bias_in_scale = True
  per_layer = ('w_k', 'w_q')

  def __init__(
    self, dims: Dims, rngs, *, span: int | None = None, c2p: bool = True, p2c: bool = True
  ):
    """`span`: distances are clamped to [-span, span - 1]; the training length if None."""
    super().__init__(dims, rngs)
    self.span = dims.train_length if span is None else span
    if self.span < 1:
      raise ValueError(f'deberta: span={span} must be at least 1')
    if not (c2p or p2c):
      raise ValueError(
        'deberta: c2p=False and p2c=False leave no position term; use the encoding nope'
      )
    self.c2p, self.p2c, self.reach = c2p, p2c, self.span
    projection = (dims.model_dim, dims.heads, dims.head_dim)
    self.rows = normal(rngs, (2 * self.span, dims.model_dim), dims.model_dim**-0.5)
    if c2p:
      self.w_k = normal(rngs, projection, dims.model_dim**-0.5)
    if p2c:
      self.w_q = normal(rngs, projection, dims.model_dim**-0.5)

  def scale(self, head_dim: int) -> float:
    return ((1 + self.c2p + self.p2c) * head_dim) ** -0.5

  def tables(self, r_R):
    index_R = jnp.clip(r_R + self.span, 0, 2 * self.span - 1)
    scale = self.scale(self.dims.head_dim) * self.dims.model_dim**0.5
    project = lambda w: jnp.einsum('rd,dhk->rhk', self.rows[...], w[...])[index_R] * scale
    return {
      **({'k': project(self.w_k)} if self.c2p else {}),
      **({'q': project(self.w_q)} if self.p2c else {}),
    }

  def score(self, s_BHTS, q_BTHK, k_BSHK, block):
    if self.c2p:
      s_BHTS += block.query_dot(q_BTHK, block.tables['k'])
    if self.p2c:
      s_BHTS += block.key_dot(k_BSHK, block.tables['q'])
    return s_BHTS
