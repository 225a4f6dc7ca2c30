"""One block of the score matrix: what an encoding sees of it, and the only place that knows softmax."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from posenc_jax.attention.distances import Diagonals, Lookup

MASKED = -1e30  # a score no key ever has; finite, so that differences of two stay finite


@dataclasses.dataclass(frozen=True)
class Block:
  """What `score` and `value` of an encoding may ask of their block of T' queries and S' keys.

  i, j: coordinates of its rows and columns, pytrees of [B|1, T', ...] and [B|1, S', ...].
  order: distance of indices, int32 [T', S'].
  r: distance of positions, int32 [B|1, T', S'], 0 where masked.
  mask: what is visible, bool [B|1, T', S'].
  tables: the encoding's tables cut to the block: scalars as [B|1, H|1, T', S'], ready to add; vectors as the rows that
    query_dot, key_dot and sum_by_distance take.
  """

  i: object
  j: object
  order: jax.Array
  r: jax.Array
  mask: jax.Array
  tables: object
  distances: Diagonals | Lookup

  def query_dot(self, q_BTHK, rows):
    """q_i . table[i - j]: [B, H, T', S']."""
    return self.distances.query_dot(q_BTHK, rows)

  def key_dot(self, k_BSHK, rows):
    """k_j . table[i - j]: [B, H, T', S']."""
    return self.distances.key_dot(k_BSHK, rows)

  def sum_by_distance(self, p_BHTS, rows):
    """sum_j p_ij table[i - j]: [B, T', H, K]."""
    return self.distances.sum_by_distance(p_BHTS, rows)


@jax.custom_vjp
def _hold(x):
  """The identity, computed once: XLA would otherwise repeat the exponentials inside each product that reads them."""
  return lax.optimization_barrier(x)


_hold.defvjp(lambda x: (_hold(x), None), lambda _, g: (lax.optimization_barrier(g),))


def visible(order_TS, causal: bool, window: int | None):
  """Which keys a query sees, by distance of indices: itself and the past, or both sides; `window` counts itself."""
  seen = order_TS >= 0 if causal else jnp.ones_like(order_TS, bool)
  if window is not None:
    seen &= jnp.abs(order_TS) < window
  return seen


def block_attention(enc, q_BTHK, k_BSGK, v_BSGK, block: Block, scale: float, lse_BHT=None):
  """Attention of one block, not normalised.

  Args:
    lse_BHT: what the exponentials are taken relative to: the rows' log-sum-exp if known, else each row's maximum here.

  Returns:
    o_BTHK = p @ v (+ the encoding's value), the sums of p and what p is relative to [B, H, T'], all float32.
  """
  heads = q_BTHK.shape[2]
  k_BSHK = jnp.repeat(k_BSGK, heads // k_BSGK.shape[2], axis=2)
  v_BSHK = jnp.repeat(v_BSGK, heads // v_BSGK.shape[2], axis=2)
  s_BHTS = scale * jnp.einsum('bthk,bshk->bhts', q_BTHK, k_BSHK, preferred_element_type=jnp.float32)
  if enc.score is not None:
    s_BHTS = enc.score(s_BHTS, q_BTHK, k_BSHK, block)
  s_BHTS = jnp.where(block.mask[:, None], s_BHTS, MASKED)
  if enc.normaliser == 'none':
    lse_BHT = jnp.zeros(s_BHTS.shape[:-1], s_BHTS.dtype)
  elif lse_BHT is None:
    lse_BHT = lax.stop_gradient(s_BHTS.max(axis=-1))
  p_BHTS = _hold(jnp.exp(s_BHTS - lse_BHT[..., None]))
  o_BTHK = jnp.einsum('bhts,bshk->bthk', p_BHTS.astype(v_BSHK.dtype), v_BSHK, preferred_element_type=jnp.float32)
  if enc.value is not None:
    o_BTHK += enc.value(p_BHTS, block)
  return o_BTHK, p_BHTS.sum(axis=-1), lse_BHT
