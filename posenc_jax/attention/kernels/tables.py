"""Terms by distance as a kernel reads them: for each diagonal of tiles its T' + S' distances."""

import jax
import jax.numpy as jnp

from posenc_jax.attention.tiled.distance_tables import Scalars, Vectors, is_table, read_terms
from posenc_jax.attention.tiled.geometry import TileGrid


def tables_by_diagonal(grid: TileGrid, enc):
  """A pytree of Scalars [diagonals, 1, H|1, T' + S'] and Vectors [diagonals, 1, H|1, T' + S', K].

  As `RotatedDistance` wants them: distances descend, but in tables that keys read. There they
  ascend, and the lowest, which no pair of a tile has, is last.
  Distances that no visible pair has are read as the nearest distance that one may have.
  """
  size, lowest = grid.rows + grid.columns, grid.first_corner - grid.columns
  distances = lowest + jnp.arange((grid.diagonals - 1) * grid.stride + size)
  terms = read_terms(enc, jnp.clip(distances, grid.lowest, grid.highest))

  def cut(path, table):
    is_scalar = isinstance(table, Scalars)
    values = table.values if is_scalar else jnp.moveaxis(table.values, 1, 0)
    blocks = values.reshape(-1, grid.stride, *values.shape[1:])
    shifted = [blocks[n : n + grid.diagonals] for n in range(size // grid.stride)]
    values = jnp.moveaxis(jnp.concatenate(shifted, axis=1), 1, 2)[:, None]
    is_of_keys = getattr(path[-1], 'key', None) == 'relative_queries'
    values = jnp.roll(values, -1, axis=3) if is_of_keys else jnp.flip(values, axis=3)
    return (Scalars if is_scalar else Vectors)(values)

  return jax.tree_util.tree_map_with_path(cut, terms, is_leaf=is_table)
