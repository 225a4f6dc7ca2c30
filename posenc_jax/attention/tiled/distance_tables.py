"""Terms by distance as the tiles of a grid share them.

Scalars are spread once for each diagonal of tiles, outside the loops: [diagonals, 1, H, T', S'] is
O(T), and the gradient of the spreading, a sum along diagonals, is ordinary autodiff. Vectors stay
rows, [H, R, K], and tiles take slices.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from posenc_jax.attention.tiled.geometry import TileGrid
from posenc_jax.xla_ops import relative_shift


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Scalars:
  """A number for each distance and head: [R, H|1], or spread, [diagonals, 1, H|1, T', S']."""

  values: jax.Array

  def of_tile(self, grid: TileGrid, diagonal):
    """[1, H|1, T', S']."""
    del grid
    return lax.dynamic_index_in_dim(self.values, diagonal, keepdims=False)

  def add(self, grid: TileGrid, gradient, diagonal):
    """This total with the gradient of a tile's part added."""
    del grid
    return Scalars(_add_slice(self.values, gradient[None], diagonal, axis=0))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Vectors:
  """A vector for each distance and head: [H|1, R, K]."""

  values: jax.Array

  def of_tile(self, grid: TileGrid, diagonal):
    """The rows of the T' + S' distances of a tile: [H|1, T' + S', K]."""
    size = grid.block_q + grid.block_k
    return lax.dynamic_slice_in_dim(self.values, diagonal * grid.stride, size, axis=1)

  def add(self, grid: TileGrid, gradient, diagonal):
    """This total with the gradient of a tile's rows added."""
    return Vectors(_add_slice(self.values, gradient, diagonal * grid.stride, axis=1))


def is_table(x) -> bool:
  return isinstance(x, Scalars | Vectors)


def read_terms(enc, r_R):
  """The encoding's terms at these distances, told apart: [R, H|1] Scalars, [R, H|1, K] Vectors."""

  def tell(term):
    return Scalars(term) if term.ndim == 2 else Vectors(jnp.moveaxis(term, 1, 0))

  return jax.tree.map(tell, enc.distance_terms(r_R.astype(jnp.int32)))


def spread_tables(grid: TileGrid, enc, first, count: int):
  """The tables of `count` diagonals of tiles from the diagonal `first` on, which may be traced.

  Distances that no visible pair has are read as the nearest distance that one may have.
  """
  lowest = grid.first_corner + first * grid.stride - grid.block_k
  distances = lowest + jnp.arange((count - 1) * grid.stride + grid.block_q + grid.block_k)

  def spread_scalars(table):
    if isinstance(table, Vectors):
      return table

    def one_diagonal(n):
      size = grid.block_q + grid.block_k
      values_RH = lax.dynamic_slice_in_dim(table.values, n * grid.stride, size)
      return spread(values_RH.T[:, ::-1], grid.block_q, grid.block_k)[None]

    return Scalars(lax.map(one_diagonal, jnp.arange(count)))

  terms = read_terms(enc, jnp.clip(distances, grid.lowest, grid.highest))
  return jax.tree.map(spread_scalars, terms, is_leaf=is_table)


def kernel_tables(grid: TileGrid, enc):
  """Terms by distance as a kernel reads them, for each diagonal of tiles its T' + S' distances: a
  pytree of Scalars [diagonals, 1, H|1, T' + S'] and Vectors [diagonals, 1, H|1, T' + S', K].

  As `KernelToeplitzDistance` wants them, distances descend, but ascend in tables that keys read.
  There the lowest, which no pair of a tile has, is last.
  Distances that no visible pair has are read as the nearest distance that one may have.
  """
  size, lowest = grid.block_q + grid.block_k, grid.first_corner - grid.block_k
  distances = lowest + jnp.arange((grid.diagonals - 1) * grid.stride + size)
  terms = read_terms(enc, jnp.clip(distances, grid.lowest, grid.highest))

  def cut(path, table):
    is_scalar = isinstance(table, Scalars)
    values = table.values if is_scalar else jnp.moveaxis(table.values, 1, 0)
    blocks = values.reshape(-1, grid.stride, *values.shape[1:])
    shifted = [blocks[n : n + grid.diagonals] for n in range(size // grid.stride)]
    values = jnp.moveaxis(jnp.concatenate(shifted, axis=1), 1, 2)[:, None]
    by_keys = is_read_by_keys(path)
    values = jnp.roll(values, -1, axis=3) if by_keys else jnp.flip(values, axis=3)
    return (Scalars if is_scalar else Vectors)(values)

  return jax.tree_util.tree_map_with_path(cut, terms, is_leaf=is_table)


def is_read_by_keys(path) -> bool:
  """Whether the table at a path of the terms by distance is one that keys read; chains have those
  of their members among their own tables.
  """
  return getattr(path[-1], 'key', None) == 'relative_queries'


def spread(descending, rows: int, columns: int):
  """Scalars [..., T' + S'] of the distances of a tile along its diagonals: [..., T', S']."""
  shape = (*descending.shape[:-1], rows, rows + columns)
  return relative_shift(jnp.broadcast_to(descending[..., None, :], shape), columns)


def _add_slice(total, part, start, axis: int):
  here = lax.dynamic_slice_in_dim(total, start, part.shape[axis], axis)
  return lax.dynamic_update_slice_in_dim(total, here + part, start, axis)
