"""Factors on the queries, which papers call temperatures of attention.

A factor above 1 sharpens: it is the inverse of a temperature that divides logits.
"""

import jax.numpy as jnp

from posenc_jax.encodings.core.base import Encoding


class Temperature(Encoding):
  """An encoding that multiplies queries by a factor of each token and head, and does no more.

  So it multiplies logits q . k, and all that others add to scores by the query, in their turn.
  """

  multiplies_queries = True

  def factor(self, i):
    """The factor of queries of the coordinates i: float32 [B|1, T|1, H|1]."""
    raise NotImplementedError

  def transform_qk(self, q_BTHK, k_BSGK, i, j):
    factor_BTH = self.factor(i)
    return (q_BTHK.astype(jnp.float32) * factor_BTH[..., None]).astype(q_BTHK.dtype), k_BSGK


class VisibleKeys(Temperature):
  """A temperature that knows of a token how many keys it sees, and nothing of where it stands.

  Under a causal mask that is i + 1 for the i-th token of a segment; no more than a window or a
  chunk holds, but for sink tokens.
  """

  needs_num_visible = True
  position_kind = None

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    return num_visible_BS.astype(jnp.float32)
