"""The tiles that a kernel visits, in the order in which it does: one step of its grid each."""

from typing import NamedTuple

import numpy as np

from posenc_jax.attention.tiled.geometry import TileGrid


class Visits(NamedTuple):
  """Tiles, as arrays int32 [N].

  Attributes:
    row, column, diagonal: where a tile lies.
    visit: its number in the order of the forward pass.
  """

  row: np.ndarray
  column: np.ndarray
  diagonal: np.ndarray
  visit: np.ndarray

  @staticmethod
  def count(grid: TileGrid) -> int:
    """How many tiles are visited."""
    visits = grid.visits(np.arange(grid.tile_rows), 0, grid.tile_columns)
    return np.broadcast_to(np.maximum(visits.stop - visits.start, 0), grid.tile_rows).sum()

  @classmethod
  def forward(cls, grid: TileGrid):
    """Row by row from the last key leftwards, the order in which sums are carried along keys."""
    a, n = np.mgrid[: grid.tile_rows, : grid.tile_columns]
    visits = grid.visits(a, 0, grid.tile_columns)
    column = visits.column(n)
    is_visited = ((visits.start <= n) & (n < visits.stop))[:, ::-1]
    of_tile = a, column, grid.diagonal(a, column)
    fields = [x[:, ::-1][is_visited] for x in of_tile]
    return cls(*(x.astype(np.int32) for x in (*fields, np.arange(len(fields[0])))))

  def ordered(self, kind: str):
    """Tiles of one row, column or diagonal in sequence, from the first key rightwards."""
    order = np.lexsort((self.column, self.row, getattr(self, kind)))
    return Visits(*(x[order] for x in self))
