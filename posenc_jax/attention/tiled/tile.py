"""One block of the score matrix: what an encoding sees of it, and the only place that knows
softmax.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax

from posenc_jax.attention.tiled.carry import Sums
from posenc_jax.attention.tiled.relative import Constant, Diagonals, Lookup
from posenc_jax.xla_ops import dot, hold, mix

MASKED = -1e30  # a score no key ever has; finite, so that differences of two stay finite


@dataclasses.dataclass(frozen=True)
class Block:
  """What `score` and `value` of an encoding may ask of their block of T' queries and S' keys.

  i, j: coordinates of its rows and columns, pytrees of [B|1, T', ...] and [B|1, S', ...].
  order: distance of indices, int32 [T', S'].
  r: distance of positions, int32 [B|1, T', S'], 0 where masked.
  mask: what is visible, bool [B|1, T', S'].
  tables: the encoding's tables cut to the block: scalars as [B|1, H|1, T', S'], ready to add;
    vectors as the rows that query_dot, key_dot and sum_by_distance take.
  """

  i: object
  j: object
  order: jax.Array
  r: jax.Array
  mask: jax.Array
  tables: object
  distances: Diagonals | Constant | Lookup
  sums: Sums

  def query_dot(self, q_BTHK, rows):
    """q_i . table[i - j]: [B, H, T', S']."""
    return self.distances.query_dot(q_BTHK, rows)

  def key_dot(self, k_BSHK, rows):
    """k_j . table[i - j]: [B, H, T', S']."""
    return self.distances.key_dot(k_BSHK, rows)

  def sum_by_distance(self, p_BHTS, rows):
    """sum_j p_ij table[i - j]: [B, T', H, K]."""
    return self.distances.sum_by_distance(p_BHTS, rows)

  def suffix_sum(self, x_BHTS, inclusive: bool = True):
    """Sum of x over visible keys j .. i (j + 1 .. i if not inclusive), also in blocks to the right:
    as x, float32.
    """
    return self.sums.suffix(
      jnp.where(self.mask[:, None], x_BHTS, 0.0).astype(jnp.float32), inclusive
    )

  def fold(self, shape: tuple[int, ...], step):
    """The result of step(handed) -> (result, handed on): what the block to the right handed on,
    zeros in the first.

    float32 of `shape`, for what a query gathers on its way leftwards over its keys.
    """
    return self.sums.fold(shape, step)

  def unless(self, reached: float, near, far):
    """near(), which takes one suffix_sum; or far() where that sum is at least `reached` all over
    this block.

    Known from the blocks to the right, so that sums of what is not negative need not be taken;
    where nothing is known, near(). Both must agree there.
    """
    return self.sums.unless(reached, near, far)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _hide(s_BHTS, mask, hold_it: bool):
  """MASKED where nothing is visible; computed once, if `hold_it`, for all that reads it.

  Its gradient is held: all gradients of scores come from it. It is 0 at hidden pairs already, as
    their weights are.
  """
  s_BHTS = jnp.where(mask[:, None], s_BHTS, MASKED)
  return hold(s_BHTS) if hold_it else s_BHTS


_hide.defvjp(
  lambda s, mask, hold_it: (_hide(s, mask, hold_it), None), lambda hold_it, _, d: (hold(d), None)
)


@jax.custom_vjp
def _weights(s_BHTS, lse_BHT):
  """exp(s - lse), computed once."""
  return hold(jnp.exp(s_BHTS - lse_BHT[..., None]))


def _weights_forward(s, lse):
  p = _weights(s, lse)
  return p, p


_weights.defvjp(_weights_forward, lambda p, d: (d * p, None))


def visible(order_TS, causal: bool, window: int | None):
  """Which keys a query sees, by distance of indices: itself and the past, or both sides; `window`
  counts itself.
  """
  seen = order_TS >= 0 if causal else jnp.ones_like(order_TS, bool)
  if window is not None:
    seen &= jnp.abs(order_TS) < window
  return seen


def block_attention(
  enc, q_BHTK, k_BGSK, v_BGSK, block: Block, scale: float, lse_BHT=None, top_BHT=None
):
  """Attention of one block, not normalized. Arrays are heads-major here: products need no copies
  then.

  Args:
    lse_BHT: what the exponentials are taken relative to: the rows' log-sum-exp if known, else each
      row's maximum here or, if it is larger, top_BHT.

  Returns:
    o_BHTK = p @ v (+ the encoding's value), the sums of p and what p is relative to [B, H, T'], all
    float32.
  """
  s_BHTS = _by_keys(lambda q, k: dot(q, k, scale), q_BHTK, k_BGSK)
  if enc.score is not None:
    k_BHSK = jnp.repeat(k_BGSK, q_BHTK.shape[1] // k_BGSK.shape[1], axis=1)
    s_BHTS = enc.score(s_BHTS, q_BHTK.swapaxes(1, 2), k_BHSK.swapaxes(1, 2), block)
  s_BHTS = _hide(s_BHTS, block.mask, lse_BHT is None)
  if enc.normalizer == 'none':
    lse_BHT = jnp.zeros(s_BHTS.shape[:-1], s_BHTS.dtype)
  elif lse_BHT is None:
    lse_BHT = lax.stop_gradient(s_BHTS.max(axis=-1))
    lse_BHT = lse_BHT if top_BHT is None else jnp.maximum(lse_BHT, top_BHT)
  p_BHTS = _weights(s_BHTS, lse_BHT)
  o_BHTK = _by_keys(mix, p_BHTS.astype(v_BGSK.dtype), v_BGSK)
  if enc.value is not None:
    o_BHTK += enc.value(p_BHTS, block).swapaxes(1, 2)
  return o_BHTK, p_BHTS.sum(axis=-1), lse_BHT


def _by_keys(product, x_BHTn, y_BGSK):
  """product(x, y), the rows of heads that share a y stacked: y is neither copied nor read twice."""
  (B, H, T, n), G = x_BHTn.shape, y_BGSK.shape[1]
  return product(x_BHTn.reshape(B, G, H // G * T, n), y_BGSK).reshape(B, H, T, -1)
