"""Factors on the queries: what temperatures share."""

import jax.numpy as jnp

from posenc_jax.encodings.core.base import Encoding


def multiply_queries(q_BTHK, factor):
  """Queries times a factor [B|1, T|1, H|1], computed in float32."""
  return (q_BTHK.astype(jnp.float32) * factor[..., None]).astype(q_BTHK.dtype)


class VisibleKeys(Encoding):
  """An encoding that knows of a token how many keys it sees, and nothing of where it stands.

  Under a causal mask that is i + 1 for the i-th token of a document; no more than a window or a
  chunk holds, but for sink tokens.
  """

  needs_visible = True
  position_kind = None

  def coordinates(self, x_BSD, position_ids, visible_BS, index_BS):
    return visible_BS.astype(jnp.float32)
