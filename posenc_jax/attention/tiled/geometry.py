"""The static geometry of tiles over a score matrix: which are visited, which share distances."""

import dataclasses
import math

import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class TileGrid:
  """Tiles over [T, S]; the queries are the last T of the S keys. Tile (a, b) is in row a, column b.

  Attributes:
    rows, columns: queries and keys of a tile, T' and S'.
    lowest, highest: the distances that tables tell apart, both ends included. Beyond them, tables
      are constant or no key is visible.
  """

  T: int
  S: int
  rows: int
  columns: int
  is_causal: bool
  window: int | None
  lowest: int
  highest: int

  @property
  def offset(self) -> int:
    """Index of the first query among the keys."""
    return self.S - self.T

  @property
  def tile_rows(self) -> int:
    return -(-self.T // self.rows)

  @property
  def tile_columns(self) -> int:
    return -(-self.S // self.columns)

  def corner(self, a, b):
    """Distance of indices between the first query and the first key of tile (a, b)."""
    return self.offset + a * self.rows - b * self.columns

  def visited_columns(self, a):
    """The first column of tiles, and one past the last, in which row a of tiles sees any key."""
    first = self.offset + a * self.rows
    last = first + self.rows - 1
    start, stop = 0, self.tile_columns
    if self.is_causal:
      stop = jnp.minimum(last // self.columns + 1, stop)
    if self.window is not None:
      start = jnp.maximum(first - self.window + 1, 0) // self.columns
      stop = jnp.minimum(stop, (last + self.window - 1) // self.columns + 1)
    return start, stop

  # Corners are equal modulo `stride`. Tiles of one corner share their distances, and so do tiles
  # whose distances are all beyond `lowest` or `highest`. `diagonal` numbers the different ones.

  @property
  def stride(self) -> int:
    return math.gcd(self.rows, self.columns)

  def _nearest_corner_above(self, corner: int) -> int:
    """The nearest possible corner at or above this one."""
    return self.offset - (self.offset - corner) // self.stride * self.stride

  @property
  def first_corner(self) -> int:
    visited = 1 - self.rows if self.is_causal else self.corner(0, self.tile_columns - 1)
    at_lowest = self._nearest_corner_above(self.lowest - self.rows + 1 - (self.stride - 1))
    return max(self._nearest_corner_above(visited), at_lowest)

  @property
  def last_corner(self) -> int:
    beyond = self._nearest_corner_above(self.highest + self.columns - 1)
    return max(self.first_corner, min(self.corner(self.tile_rows - 1, 0), beyond))

  @property
  def diagonals(self) -> int:
    """How many different diagonals of tiles there are."""
    return (self.last_corner - self.first_corner) // self.stride + 1

  def diagonal(self, a, b):
    """The number of the diagonal that tile (a, b) lies on."""
    corner = jnp.clip(self.corner(a, b), self.first_corner, self.last_corner)
    return (corner - self.first_corner) // self.stride

  def diagonals_of(self, a, b, rows: int, columns: int):
    """(first, count) of the diagonals of so many rows and columns of tiles from tile (a, b) on."""
    corners = (rows - 1) * self.rows + (columns - 1) * self.columns
    count = min(self.diagonals, corners // self.stride + 1)
    first = jnp.minimum(self.diagonal(a, b + columns - 1), self.diagonals - count)
    return first, count

  def is_constant(self, a, b):
    """Whether tables are constant over tile (a, b): all its distances lie beyond one end."""
    corner = self.corner(a, b)
    above = corner - self.columns + 1 >= self.highest
    return above | (corner + self.rows - 1 <= self.lowest)

  @property
  def has_constant_tiles(self) -> bool:
    """Whether tables are constant over any visited tile that is not on the outermost diagonals."""
    if self.corner(self.tile_rows - 1, 0) > self.last_corner:
      return True
    return not self.is_causal and self.corner(0, self.tile_columns - 1) < self.first_corner
