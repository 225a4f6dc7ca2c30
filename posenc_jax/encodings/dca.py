"""Dual chunk attention: trained rotary encodings read at positions within chunks."""

import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.bounds import check_at_least
from posenc_jax.encodings.rerope import ReindexedRoPE


class DCA(ReindexedRoPE):
  """RoPE at positions within chunks of c = chunk - local tokens: no distance is above `chunk`.

  An et al. 2024, as released. Keys stand at j mod c, queries at one position for each range:

    i mod c                    where the key is in the chunk of the query
    min(i mod c + c, chunk)    where it is in the chunk before
    min(2c - 1, chunk)         where it is in any earlier chunk

  So the min(local, c) tokens before a query, and often more, are read at their true distance. A
  model trained with `rope` can be evaluated with it. Chunks begin at multiples of c, so that
  outputs change when all positions are shifted by the same amount. The attention factor of the
  released code, which its paper does not use, is left out.
  """

  paper = 'An et al. 2024, arXiv:2402.17463'
  limit = (
    'a query that sees a key in a later chunk, as where positions decrease, is NaN; positions are '
    'float32: from 2^23 on, those at an end of a chunk may count in the next'
  )
  relative = False
  position_kind = 'integers'
  qk_width_factor = 3

  def __init__(
    self, dims: Dims, rngs, *, chunk: int | None = None, local: int | None = None, **rope
  ):
    """Keeps the hyperparameters.

    Args:
      chunk: positions, in tokens; None: three quarters of the training length.
      local: tokens; None: an eighth of the training length, or all but one of a shorter chunk.
      **rope: the hyperparameters of RoPE, as they were trained.
    """
    super().__init__(dims, rngs, **rope)
    self.chunk = max(dims.train_length * 3 // 4, 1) if chunk is None else chunk
    check_at_least(1, chunk=self.chunk)
    local = min(dims.train_length // 8, self.chunk - 1) if local is None else local
    if not 0 <= local < self.chunk:
      raise ValueError(f'local={local}; allowed: from 0 to below chunk={self.chunk}')
    self.stride = self.chunk - local

  def positions(self, i, j):
    inside_i, inside_j = (x - self.stride * self._chunk_of(x) for x in (i, j))
    next_i = jnp.minimum(inside_i + self.stride, self.chunk)
    far_i = jnp.full_like(i, min(2 * self.stride - 1, self.chunk))
    return (inside_i, inside_j), (next_i, inside_j), (far_i, inside_j)

  def is_beyond(self, tile):
    chunks_BTS = self._chunks_between(tile)
    return chunks_BTS >= 1, chunks_BTS >= 2

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    s_BHTS = super().score(s_BHTS, q_BHTK, k_BGSK, tile)
    # not of keys that are hidden: members of a chain would multiply that NaN by gradients of 0
    is_open_BTS = tile.mask & (self._chunks_between(tile) < 0)
    return jnp.where(is_open_BTS[:, None], jnp.nan, s_BHTS)

  def _chunks_between(self, tile):
    return self._chunk_of(tile.i)[:, :, None] - self._chunk_of(tile.j)[:, None]

  def _chunk_of(self, position):
    return self._groups_before(position, self.stride)
