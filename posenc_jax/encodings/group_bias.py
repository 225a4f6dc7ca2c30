"""A learned bias by whether two tokens are of one group."""

import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_at_least
from posenc_jax.encodings.core.parameters import normal


class GroupBias(Encoding):
  """s_ij = q_i . k_j / sqrt(K) + b_h if g_i = g_j, else + c_h; g is the last position of a token.

  The bias of any-variate attention in Moirai (Woo et al. 2024), whose tokens are pieces of several
  series: g says of which, and no order among them. Each layer has its own b and c, which start from
  N(0, 1) as released. A token's positions before g, such as a time, are for others: Moirai is the
  chain of `axial_rope` with sections (K/4, 0), fraction 0.5, spectrum 'split' and layout
  'interleaved', and `group_bias`. Without positions, as on text, all of them are the token's index,
  and each token is a group of its own.
  """

  paper = 'Woo et al. 2024, arXiv:2402.02592'
  parameter_summary = 'two numbers a head and layer'
  limit = 'groups are float32: different ones from 2^24 on may count as one'
  position_kind = 'floats'
  bias_in_scale = False
  per_layer = ('b', 'c')

  def __init__(self, dims: Dims, rngs, *, axes: int = 2):
    """`axes`: how many positions a token has, of which the last is its group."""
    super().__init__(dims, rngs)
    check_at_least(1, axes=axes)
    self.positions_per_token = axes
    self.b, self.c = (normal(rngs, (dims.heads,), 1.0) for _ in range(2))

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    """Groups, float32 [B|1, S, 1]; b and c at every token, [1, S, H] each, where kernels for GPUs
    find those of their head.
    """
    groups_BS = position_ids if position_ids.ndim == 2 else position_ids[..., -1]
    shape = 1, groups_BS.shape[1], self.dims.heads
    at_tokens = (jnp.broadcast_to(x[...][None, None], shape) for x in (self.b, self.c))
    return groups_BS.astype(jnp.float32)[..., None], *at_tokens

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    groups_i, *at_queries = tile.i
    is_one_B1TS = tile.difference(groups_i, tile.j[0]) == 0
    b, c = (x_1TH.swapaxes(1, 2)[..., None] for x_1TH in at_queries)
    return s_BHTS + jnp.where(is_one_B1TS, b, c)
