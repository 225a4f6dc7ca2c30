"""Sums over the keys from a pair leftwards to its query, carried from block to block of a row."""

import jax.numpy as jnp
from jax import lax

from posenc_jax.products import hold

GROUP = 16  # keys that one small product adds up


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
    own = x_BHTS if inclusive else jnp.pad(x_BHTS[..., 1:], ((0, 0), (0, 0), (0, 0), (0, 1)))  # not a difference
    sums = suffix_sum(own) + carried[..., None]
    self.totals.append(sums[..., 0] if inclusive else sums[..., 0] + x_BHTS[..., 0])
    return sums

  def unless(self, reached: float, near, far):
    """near(), or far() where all that is carried into this block is at least `reached`.

    `near` asks for one suffix sum, which `far` leaves as it is.
    """
    if not self.carried:
      return near()
    totals, carried = self.totals, self.carried[len(self.totals)]

    def visit():
      self.totals = list(totals)
      return near(), self.totals[-1]

    out, total = lax.cond(jnp.all(carried >= reached), lambda: (far(), carried), visit)
    self.totals = [*totals, total]
    return out


def suffix_sum(x):
  """Sums of x over its last axis from each place to the end: within groups by a product, then over groups."""
  *lead, n = x.shape
  if n % GROUP:
    return lax.cumsum(x, axis=x.ndim - 1, reverse=True)
  ones = jnp.tril(jnp.ones((GROUP, GROUP), x.dtype))
  within = hold((x.reshape(-1, GROUP) @ ones).reshape(*lead, n // GROUP, GROUP))
  groups = within[..., 0]
  later = lax.cumsum(groups, axis=groups.ndim - 1, reverse=True) - groups
  return (within + later[..., None]).reshape(x.shape)
