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
    rows = np.arange(grid.tile_rows)
    with jax.ensure_compile_time_eval():
      visits = grid.visits(rows, 0, grid.tile_columns)
      starts, stops = (np.broadcast_to(x, rows.shape) for x in (visits.start, visits.stop))
      steps = [
        np.arange(stop - 1, start - 1, -1) for start, stop in zip(starts, stops, strict=True)
      ]
      skipped = np.broadcast_to(visits.skipped, rows.shape)
      columns = [
        n
        if visits.sink_columns is None
        else n + np.where(n < np.broadcast_to(visits.sink_columns, rows.shape)[a], 0, skipped[a])
        for a, n in enumerate(steps)
      ]
      row, column = np.repeat(rows, [len(n) for n in columns]), np.concatenate(columns)
      diagonal = np.asarray(grid.diagonal(row, column))
    return cls(*(np.asarray(x, np.int32) for x in (row, column, diagonal, np.arange(len(row)))))

  def ordered(self, kind: str):
    """Tiles of one row, column or diagonal in sequence, from the first key rightwards."""
    order = np.lexsort((self.column, self.row, getattr(self, kind)))
    return Visits(*(x[order] for x in self))
