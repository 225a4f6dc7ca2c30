"""Factors on the queries: what temperatures share."""

import jax.numpy as jnp


def multiply_queries(q_BTHK, factor):
  """Queries times a factor [B|1, T|1, H|1], computed in float32."""
  return (q_BTHK.astype(jnp.float32) * factor[..., None]).astype(q_BTHK.dtype)


def log_visible_keys(i_BT):
  """log of the number of keys that a query sees under a causal mask, itself included: [B|1, T, 1].

  The number i + 1 is counted by positions: right in packed rows; too large under a window, whose
  queries see no more keys than it holds, and where positions are sampled with gaps.
  """
  return jnp.log1p(i_BT)[..., None]
