"""What is gathered over the keys from a query leftwards, sums mostly, carried from block to block
of a row.
"""

import jax.numpy as jnp
from jax import lax

from posenc_jax.xla_ops import hold

GROUP = 16  # keys that one small product adds up


class Sums:
  """The suffix sums and folds that `score` asks for in one block, in the order in which it asks.

  carried: for each, what all blocks to the right come to, float32, of a sum [B, H, T']; nothing is
    known in the first.
  totals: the same with this block included, filled while `score` runs: what the next block on the
    left is given.
  """

  def __init__(self, carried=()):
    self.carried = carried
    self.totals = []

  def fold(self, shape, step):
    """step(carried, or zeros) -> (result, total)."""
    result, total = step(
      self.carried[len(self.totals)] if self.carried else jnp.zeros(shape, jnp.float32)
    )
    self.totals.append(total)
    return result

  def suffix(self, x_BHTS, inclusive: bool):
    # not a difference
    own = x_BHTS if inclusive else jnp.pad(x_BHTS[..., 1:], ((0, 0), (0, 0), (0, 0), (0, 1)))

    def add(carried):
      sums = suffix_sum(own) + carried[..., None]
      return sums, sums[..., 0] if inclusive else sums[..., 0] + x_BHTS[..., 0]

    return self.fold(x_BHTS.shape[:-1], add)

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
  """Sums of x over its last axis from each place to the end: within groups by a product, then over
  groups.
  """
  *lead, n = x.shape
  if n % GROUP:
    return lax.cumsum(x, axis=x.ndim - 1, reverse=True)
  ones = jnp.tril(jnp.ones((GROUP, GROUP), x.dtype))
  within = hold((x.reshape(-1, GROUP) @ ones).reshape(*lead, n // GROUP, GROUP))
  groups = within[..., 0]
  later = lax.cumsum(groups, axis=groups.ndim - 1, reverse=True) - groups
  return (within + later[..., None]).reshape(x.shape)
