"""Sums over the keys from a pair leftwards to its query, carried from block to block of a row."""

import jax.numpy as jnp
from jax import lax


class Sums:
  """The suffix sums that `score` asks for in one block, in the order in which it asks.

  carried: for each, its sum over all blocks to the right, float32 [B, H, T']; none of them is known in the first block.
  totals: the same with this block included, filled while `score` runs: what the next block on the left is given.
  """

  def __init__(self, carried=()):
    self.carried = carried
    self.totals = []

  def suffix(self, x_BHTS, inclusive: bool):
    carried = self.carried[len(self.totals)] if self.carried else jnp.zeros(x_BHTS.shape[:-1], x_BHTS.dtype)
    self.totals.append(carried + x_BHTS.sum(axis=-1))
    own = x_BHTS if inclusive else jnp.pad(x_BHTS[..., 1:], ((0, 0), (0, 0), (0, 0), (0, 1)))
    return lax.cumsum(own, axis=3, reverse=True) + carried[..., None]
