"""The tiles that a kernel visits, in the order in which it does: one step of its grid each."""

from typing import NamedTuple

import jax
import numpy as np

from posenc_jax.attention.tiled.geometry import TileGrid

KINDS = ('row', 'column', 'diagonal', 'visit')  # what an operand can be cut by


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

  @classmethod
  def forward(cls, grid: TileGrid):
    """Row by row from the last key leftwards, the order in which sums are carried along keys."""
    row, column = [], []
    with jax.ensure_compile_time_eval():
      for a in range(grid.tile_rows):
        visits = grid.visits(a, 0, grid.tile_columns)
        leftwards = np.arange(int(visits.stop) - 1, int(visits.start) - 1, -1)
        column.append(np.asarray(visits.column(leftwards)))
        row.append(np.full(len(leftwards), a))
      row, column = np.concatenate(row), np.concatenate(column)
      diagonal = np.asarray(grid.diagonal(row, column))
    fields = row, column, diagonal, np.arange(len(row))
    return cls(*(np.asarray(x, np.int32) for x in fields))

  def ordered(self, kind: str):
    """Tiles of one row, column or diagonal in sequence, from the first key rightwards."""
    order = np.lexsort((self.column, self.row, getattr(self, kind)))
    return Visits(*(x[order] for x in self))
