"""What a score gathers over the keys from a query leftwards, carried from tile to tile of a row."""

import jax.numpy as jnp
from jax import lax

from posenc_jax.xla_ops import exact_matmul, materialize_on_cpu

GROUP = 16  # keys that one small product adds up


class RowCarry:
  """The values that `score` carries along the keys of one row of tiles, in the order in which it
  asks for them.

  Attributes:
    carried: the totals over all tiles to the right: a tuple of float32 [B, H, T', ...], one for
      each shape that the encoding declares in `scans_keys`.
    totals: the same with this tile included, filled while `score` runs: what the next tile on the
      left is given.
  """

  def __init__(self, carried: tuple, is_rightmost: bool = False):
    """`is_rightmost`: whether the tile is known to be the last of its row while it is traced."""
    self.carried = carried
    self.totals = []
    self._is_rightmost = is_rightmost

  def _next_carried(self):
    """What is carried into this tile of the value that `score` asks for next. Raises ValueError."""
    if len(self.totals) == len(self.carried):
      declared = len(self.carried)
      allowed = 'a shape in `scans_keys` for each, such as scans_keys = ((),) for one sum'
      raise ValueError(
        f'score carries more along the keys than {declared} values; allowed: {allowed}'
      )
    return self.carried[len(self.totals)]

  def scan_keys(self, step):
    """Returns the result of step(carried) -> (result, total), and keeps the total."""
    result, total = step(self._next_carried())
    self.totals.append(total)
    return result

  def suffix_sum(self, x_BHTS, inclusive: bool):
    """For each key j the sum of x over the keys from j on (after j if not inclusive), to i."""

    def add(carried_BHT):
      sums_BHTS = self.sums_of_tile(x_BHTS, inclusive) + carried_BHT[..., None]
      first_BHT = sums_BHTS[..., 0]
      return sums_BHTS, first_BHT if inclusive else first_BHT + x_BHTS[..., 0]

    return self.scan_keys(add)

  def sums_of_tile(self, x_BHTS, inclusive: bool):
    """The same sum over the keys of this tile alone."""
    # Shifted, not subtracted: a difference of sums would lose digits.
    own = x_BHTS if inclusive else jnp.pad(x_BHTS[..., 1:], ((0, 0), (0, 0), (0, 0), (0, 1)))
    return suffix_sum(own)

  def cond_saturated(self, bound: float, near, far):
    """near(), or far() where all that is carried into this tile is at least `bound`.

    `near` asks for one suffix sum, and `far` leaves that sum as it is.
    """
    if self._is_rightmost:
      return near()
    carried = self._next_carried()

    def visit():
      return near(), self.totals.pop()

    result, total = lax.cond(jnp.all(carried >= bound), lambda: (far(), carried), visit)
    self.totals.append(total)
    return result


def suffix_sum(x):
  """Sums of x over its last axis from each place to the end: in groups by a product, then over
  groups.
  """
  *lead, n = x.shape
  if n % GROUP:
    return lax.cumsum(x, axis=x.ndim - 1, reverse=True)
  ones = jnp.tril(jnp.ones((GROUP, GROUP), x.dtype))
  within = exact_matmul(x.reshape(-1, GROUP), ones)
  within = materialize_on_cpu(within.reshape(*lead, n // GROUP, GROUP))
  groups = within[..., 0]
  following = jnp.pad(groups[..., 1:], [(0, 0)] * (groups.ndim - 1) + [(0, 1)])
  later = lax.cumsum(following, axis=groups.ndim - 1, reverse=True)
  return (within + later[..., None]).reshape(x.shape)
