"""The static geometry of tiles over a score matrix: which are visited, which share distances."""

import dataclasses
import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from posenc_jax.attention.mask import Mask


def _numpy_of(x):
  """numpy for an array of numpy, so that results are known while a program is traced; else jnp."""
  return np if isinstance(x, np.ndarray) else jnp


class RowVisits(NamedTuple):
  """The columns of tiles that a row visits, numbered from `start` to `stop`, left to right.

  Attributes:
    start, stop: the first number, and one past the last.
    sink_columns: how many columns of sink tokens come first; None: columns are their own numbers.
    skipped: how many columns are left out behind them.
  """

  start: object
  stop: object
  sink_columns: object = None
  skipped: object = 0

  def column(self, n):
    """The column of tiles that has the number n among the visits."""
    if self.sink_columns is None:
      return n
    return n + _numpy_of(n).where(n < self.sink_columns, 0, self.skipped)


@dataclasses.dataclass(frozen=True)
class TileGrid:
  """Tiles over [T, S]; the queries are the last T of the S keys. Tile (a, b) is in row a, column b.

  Attributes:
    block_q, block_k: queries and keys of a tile, T' and S'.
    sink_columns: how many columns of tiles are visited for their sink tokens: all where each row of
      the batch has its own, with segments, or where an encoding carries sums along all keys.
    is_packed: whether there are segments.
    lowest, highest: the distances that tables tell apart, both ends included. Beyond them, tables
      are constant or no key is visible; within them, a window or a chunk may hide some.
    shift: how many tokens further right the queries are than the last T of the S keys, where both
      are shards of one sequence. Then the mask may count nothing from a segment's start.
  """

  T: int
  S: int
  block_q: int
  block_k: int
  mask: Mask
  sink_columns: int
  is_packed: bool
  lowest: int
  highest: int
  shift: int = 0

  @property
  def offset(self) -> int:
    """Index of the first query among the keys."""
    return self.S - self.T + self.shift

  @property
  def tile_rows(self) -> int:
    return -(-self.T // self.block_q)

  @property
  def tile_columns(self) -> int:
    return -(-self.S // self.block_k)

  def corner(self, a, b):
    """Distance of indices between the first query and the first key of tile (a, b)."""
    return self.offset + a * self.block_q - b * self.block_k

  def near_columns(self, a):
    """The columns of tiles in which row a of tiles sees any key, but for sink tokens far off.

    Returns:
      The first column; one past the last; one past the last column under the causal mask alone.
    """
    xp, mask, first = _numpy_of(a), self.mask, self.offset + a * self.block_q
    last = first + self.block_q - 1
    start, stop = 0, self.tile_columns
    if mask.is_causal:
      stop = xp.minimum(self._last_in_order(last) // self.block_k + 1, stop)
    in_order = stop
    if mask.window is not None:
      start = xp.maximum(first - mask.window + 1, 0) // self.block_k
      stop = xp.minimum(stop, (last + mask.window - 1) // self.block_k + 1)
    if mask.chunk is not None:
      first_key, last_key = first - mask.chunk + 1, last + mask.chunk - 1
      if not self.is_packed:
        first_key = first // mask.chunk * mask.chunk
        last_key = last // mask.chunk * mask.chunk + mask.chunk - 1
      start = xp.maximum(start, first_key // self.block_k)
      stop = xp.minimum(stop, last_key // self.block_k + 1)
    return start, stop, in_order

  def _last_in_order(self, last):
    """The last key that a causal mask leaves visible to queries up to this one."""
    if not self.mask.prefix:
      return last
    end = self.mask.prefix - 1
    return last + end if self.is_packed else _numpy_of(last).maximum(last, end)

  def visits(self, a, first_column, columns: int) -> RowVisits:
    """The visits of row a of tiles to so many columns, numbered from 0 in their range."""
    xp = _numpy_of(a)
    start, stop, in_order = self.near_columns(a)
    in_range = lambda end: xp.clip(end - first_column, 0, columns)
    start, stop = in_range(start), in_range(stop)
    if not self.sink_columns:
      return RowVisits(start, stop)
    sink_columns = in_range(xp.minimum(self.sink_columns, in_order))
    skipped = xp.maximum(start - sink_columns, 0)
    return RowVisits(0, xp.maximum(stop, sink_columns) - skipped, sink_columns, skipped)

  # Corners are equal modulo `stride`. Tiles of one corner share their distances, and so do tiles
  # whose distances are all beyond `lowest` or `highest`. `diagonal` numbers the different ones that
  # are visited.

  @property
  def stride(self) -> int:
    return math.gcd(self.block_q, self.block_k)

  def _nearest_corner_above(self, corner: int) -> int:
    """The nearest possible corner at or above this one."""
    return self.offset - (self.offset - corner) // self.stride * self.stride

  @property
  def _visited_corners(self) -> tuple[int, int]:
    """Possible corners at or below and at or above those of all visited tiles."""
    lowest, highest = self.corner(0, self.tile_columns - 1), self.corner(self.tile_rows - 1, 0)
    if self.mask.is_causal:
      lowest = max(lowest, 1 - self.block_q - max(self.mask.prefix - 1, 0))
    if self.mask.reach is not None and not self.sink_columns:
      lowest = max(lowest, 2 - self.block_q - self.mask.reach)
      highest = min(highest, self.mask.reach + self.block_k - 2)
    return self._nearest_corner_above(lowest), self._nearest_corner_above(highest - self.stride + 1)

  @property
  def first_corner(self) -> int:
    at_lowest = self._nearest_corner_above(self.lowest - self.block_q + 1 - (self.stride - 1))
    return max(self._visited_corners[0], at_lowest)

  @property
  def last_corner(self) -> int:
    beyond = self._nearest_corner_above(self.highest + self.block_k - 1)
    return max(self.first_corner, min(self._visited_corners[1], beyond))

  @property
  def diagonals(self) -> int:
    """How many different diagonals of tiles there are."""
    return (self.last_corner - self.first_corner) // self.stride + 1

  def diagonal(self, a, b):
    """The number of the diagonal that tile (a, b) lies on."""
    corner = _numpy_of(a).clip(self.corner(a, b), self.first_corner, self.last_corner)
    return (corner - self.first_corner) // self.stride

  def diagonals_of(self, a, b, rows: int, columns: int):
    """(first, count) of the diagonals of so many rows and columns of tiles from tile (a, b) on."""
    corners = (rows - 1) * self.block_q + (columns - 1) * self.block_k
    count = min(self.diagonals, corners // self.stride + 1)
    first = jnp.minimum(self.diagonal(a, b + columns - 1), self.diagonals - count)
    return first, count

  def is_constant(self, a, b):
    """Whether tables are constant over tile (a, b): all its distances lie beyond one end."""
    corner = self.corner(a, b)
    above = corner - self.block_k + 1 >= self.highest
    return above | (corner + self.block_q - 1 <= self.lowest)

  @property
  def has_constant_tiles(self) -> bool:
    """Whether tables are constant over any visited tile that is not on the outermost diagonals."""
    lowest, highest = self._visited_corners
    return highest > self.last_corner or lowest < self.first_corner
