"""An encoding's per-distance tables as the blocks of a grid share them.

Scalars are spread once per diagonal of blocks, outside the loops: [diagonals, 1, H, T', S'] is
O(T), and the gradient of the spreading, a sum along diagonals, is ordinary autodiff. Vectors stay
rows [H, R, K], and blocks take slices.
"""

import jax
import jax.numpy as jnp
from jax import lax

from posenc_jax.attention.tiled.geometry import Grid
from posenc_jax.attention.tiled.relative import heads_first, spread


def of_grid(grid: Grid, enc, first, count: int):
  """The tables of `count` diagonals. Distances that no visible pair has are read as the nearest
  that one may have.

  `first`, which of the grid's diagonals they start with, may be traced.
  """
  lowest = grid.first_corner + first * grid.stride - grid.columns
  distances = lowest + jnp.arange((count - 1) * grid.stride + grid.rows + grid.columns)

  def prepare(table):
    if table.ndim == 3:
      return heads_first(table)
    take = lambda n: lax.dynamic_slice_in_dim(table, n * grid.stride, grid.rows + grid.columns).T
    return lax.map(lambda n: spread(take(n), grid.rows, grid.columns)[None], jnp.arange(count))

  return jax.tree.map(prepare, enc.tables(jnp.clip(distances, grid.lowest, grid.highest)))


def cut(grid: Grid, tables, diagonal):
  """What the blocks of one diagonal see of tables `of_grid`."""

  def one(table):
    if table.ndim == 5:
      return lax.dynamic_index_in_dim(table, diagonal, keepdims=False)
    return lax.dynamic_slice_in_dim(table, diagonal * grid.stride, grid.rows + grid.columns, axis=1)

  return jax.tree.map(one, tables)


def add(grid: Grid, totals, parts, diagonal):
  """The adjoint of `cut`, added to `totals`."""

  def one(total, part):
    part, axis = (part[None], 0) if total.ndim == 5 else (part, 1)
    start = diagonal if total.ndim == 5 else diagonal * grid.stride
    here = lax.dynamic_slice_in_dim(total, start, part.shape[axis], axis)
    return lax.dynamic_update_slice_in_dim(total, here + part, start, axis)

  return jax.tree.map(one, totals, parts)
