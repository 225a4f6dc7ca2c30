"""Selective attention: tokens take weight from earlier ones for all later queries."""

import jax
import jax.numpy as jnp

from posenc_jax.encodings.core.base import ALL_ROWS, Encoding


class Selective(Encoding):
  """p_i = softmax(s_i - f_i), f_ij = sum_(j < l < i) relu(s_lj), s_lj those of the first head.

  Leviathan et al. 2024, section 3. If a query l gives an earlier key j a positive score in the
  first head, the score of j falls by that amount for all later queries, in all heads. Scores of the
  first token of a text never fall, and a query lowers no score of a key that it does not see. The
  first head attends as the others do. To be chained with an encoding of positions: ('rope',
  'selective'); s is what all members made of it. All queries must be there: decoding keeps them and
  makes all rows anew for each token, and no key is dropped, as the paper does. All scores must
  be there at once: `dense` alone takes it.
  """

  paper = 'Leviathan et al. 2024, arXiv:2410.02703'
  limit = ALL_ROWS
  position_kind = None
  causal_only = True
  needs_all_queries = True
  normalizer = 'rows'
  adapts_scores = True
  mixes_heads = True

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    """1, or 0 of the first token of a text."""
    return (index_BS > 0).astype(jnp.float32)

  def normalize(self, s_BHTS, tile):
    may_lose_BTS = (tile.index_distance > 0)[None] & (tile.j > 0)[:, None]
    taken_BTS = jnp.where(may_lose_BTS, jax.nn.relu(s_BHTS[:, 0]), 0.0)  # 0 of masked scores
    earlier_BTS = jnp.pad(taken_BTS, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    return jax.nn.softmax(s_BHTS - jnp.cumsum(earlier_BTS, axis=1)[:, None], axis=-1)
