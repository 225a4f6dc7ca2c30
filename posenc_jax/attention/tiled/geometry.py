"""The static geometry of blocks over a score matrix: which are visited, and which share their
distances.
"""

import dataclasses
import math

import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Grid:
  """Blocks over [T, S]; the queries are the last T of the keys. Block (a, b) is row a, column b of
  blocks.
  """

  T: int
  S: int
  rows: int  # T', queries a block
  columns: int  # S', keys a block
  causal: bool
  window: int | None
  # the distances that tables tell apart, both ends included: beyond, they are constant or nothing
  # is seen
  lowest: int
  highest: int

  @property
  def offset(self) -> int:
    return self.S - self.T

  @property
  def row_blocks(self) -> int:
    return -(-self.T // self.rows)

  @property
  def column_blocks(self) -> int:
    return -(-self.S // self.columns)

  def corner(self, a, b):
    """Distance of indices between the first query and the first key of block (a, b)."""
    return self.offset + a * self.rows - b * self.columns

  def key_blocks(self, a):
    """First and one past the last block of keys of which row a of blocks sees any."""
    first, last = self.offset + a * self.rows, self.offset + (a + 1) * self.rows - 1
    start, stop = 0, self.column_blocks
    if self.causal:
      stop = jnp.minimum(last // self.columns + 1, stop)
    if self.window is not None:
      start = jnp.maximum(first - self.window + 1, 0) // self.columns
      stop = jnp.minimum(stop, (last + self.window - 1) // self.columns + 1)
    return start, stop

  # Corners are equal modulo `stride`. Blocks of one corner share their distances; so do those whose
  # distances are all beyond `lowest` or `highest`. `diagonal` numbers the different ones.

  @property
  def stride(self) -> int:
    return math.gcd(self.rows, self.columns)

  def _above(self, corner: int) -> int:
    """The nearest possible corner at or above this one."""
    return self.offset - (self.offset - corner) // self.stride * self.stride

  @property
  def first_corner(self) -> int:
    visited = 1 - self.rows if self.causal else self.corner(0, self.column_blocks - 1)
    at_or_below_lowest = self._above(self.lowest - self.rows + 1 - (self.stride - 1))
    return max(self._above(visited), at_or_below_lowest)

  @property
  def last_corner(self) -> int:
    beyond = self._above(self.highest + self.columns - 1)
    return max(self.first_corner, min(self.corner(self.row_blocks - 1, 0), beyond))

  @property
  def diagonals(self) -> int:
    return (self.last_corner - self.first_corner) // self.stride + 1

  def diagonal(self, a, b):
    return (
      jnp.clip(self.corner(a, b), self.first_corner, self.last_corner) - self.first_corner
    ) // self.stride

  def diagonals_of(self, a, b, rows: int, columns: int):
    """The first diagonal, and how many, of so many rows and columns of blocks from block (a, b)
    on.
    """
    count = min(
      self.diagonals, ((rows - 1) * self.rows + (columns - 1) * self.columns) // self.stride + 1
    )
    return jnp.minimum(self.diagonal(a, b + columns - 1), self.diagonals - count), count

  def is_constant(self, a, b):
    """Whether tables are constant over block (a, b): all its distances lie beyond one end."""
    corner = self.corner(a, b)
    return (corner - self.columns + 1 >= self.highest) | (corner + self.rows - 1 <= self.lowest)

  @property
  def has_constant_blocks(self) -> bool:
    """Whether any block but those at the very ends is."""
    return self.corner(self.row_blocks - 1, 0) > self.last_corner or (
      not self.causal and self.corner(0, self.column_blocks - 1) < self.first_corner
    )
