"""A bank of profiles over the distance, mixed by the query's token."""

import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_at_least, check_unread
from posenc_jax.encodings.core.parameters import normal


class RelativeProjection(Encoding):
  """s_ij = t_i (q_i . k_j / sqrt(K) + (W_h x_i) . bank[i - j]): a relation of token and distance.

  x is the layer's normalized input; the bank holds `rank` profiles over the distances below
  `max_distance` for all heads of a layer, and is zero elsewhere. t_i is 1, or with `length` 1 +
  c log(max((i + 1) / length, 1)). No paper: the formula is that of the model Inkling in Hugging
  Face transformers, where the bank starts from N(0, 0.02^2). There q and k are normed and their
  product scaled by 1/K (here that is the model's to choose, `qk_norm`), and layers with a window
  end the bank at the window. x-transformers adds a bias to W x.
  """

  paper = 'Inkling, in Hugging Face transformers'
  parameter_summary = 'a projection and a bank a layer'
  bias_in_scale = False
  causal_only = True
  needs_inputs = True
  per_layer = ('w_r', 'bank')

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    rank: int = 16,
    max_distance: int = 1024,
    length: int | None = None,
    c: float | None = None,
  ):
    """Draws the projection and the bank.

    Args:
      rank: profiles in the bank.
      max_distance: the bank has a row for each distance below it.
      length: tokens after which logits grow; None: they do not.
      c: by how much, with the logarithm; 0.1 if None.
    """
    super().__init__(dims, rngs)
    check_at_least(1, rank=rank, max_distance=max_distance, length=length)
    if length is None:
      check_unread('there is a length', c=c)
    check_at_least(0, c=c)
    self.length, self.c = length, 0.1 if c is None else c
    self.max_distance = self.max_relative_distance = max_distance
    self.relative = length is None
    self.w_r = normal(rngs, (dims.model_dim, dims.heads, rank), dims.model_dim**-0.5)
    self.bank = normal(rngs, (max_distance, rank), 0.02)

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    """(W x, t): float32 [B, S, H, rank] and [B|1, S]."""
    t_BS = jnp.ones(position_ids.shape, jnp.float32)
    if self.length is not None:
      contexts = (position_ids.astype(jnp.float32) + 1) / self.length
      t_BS += self.c * jnp.log(jnp.maximum(contexts, 1))
    return jnp.einsum('bsd,dhr->bshr', x_BSD.astype(jnp.float32), self.w_r[...]), t_BS

  def tables(self, r_R):
    rows_RK = self.bank[...][jnp.clip(r_R, 0, self.max_distance - 1)]
    return jnp.where(((r_R >= 0) & (r_R < self.max_distance))[:, None], rows_RK, 0.0)[:, None]

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    wx_BTHR, t_BT = tile.i
    s_BHTS += tile.query_dot(wx_BTHR.swapaxes(1, 2), tile.tables)
    return s_BHTS if self.length is None else s_BHTS * t_BT[:, None, :, None]
