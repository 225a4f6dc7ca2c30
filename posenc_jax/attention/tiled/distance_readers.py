"""Products of content with a vector by distance in one tile, without an array [T', S', K].

A tile has T' rows and S' columns; element (t, s) needs row d(t, s) of a table. Where positions are
contiguous, equal rows lie along diagonals (`ToeplitzDistance`: one product for strips of the tile
with the rows that each needs, then a shift), or one row serves the whole tile (`ConstantDistance`:
beyond an encoding's `max_relative_distance`). For arbitrary positions rows are looked up
(`GatherDistance`: one product with all rows, then a gather). Tables are [H, R, K], or [1, R, K]
where the heads share their rows.
"""

import dataclasses

import jax
import jax.numpy as jnp

from posenc_jax.attention.tiled.distance_tables import Scalars, is_table
from posenc_jax.xla_ops import (
  relative_shift,
  relative_shift_transpose,
  scaled_dot,
  weighted_sum,
  zeros,
)

STRIP = 128  # rows


def product_with_rows(x_BHTK, rows_HRK):
  """x . row for every row of a table: float32 [B, H, T, R]."""
  rows = jnp.broadcast_to(rows_HRK, (x_BHTK.shape[1], *rows_HRK.shape[1:])).astype(x_BHTK.dtype)
  return jnp.einsum('bhtk,hrk->bhtr', x_BHTK, rows, preferred_element_type=jnp.float32)


def sum_of_rows(p_BHTR, rows_HRK):
  """sum_r p[r] row[r]: [B, H, T, K] in the dtype of p."""
  rows = jnp.broadcast_to(rows_HRK, (p_BHTR.shape[1], *rows_HRK.shape[1:]))
  return jnp.einsum('bhtr,hrk->bhtk', p_BHTR, rows)


@dataclasses.dataclass(frozen=True)
class ToeplitzDistance:
  """Tables hold the T' + S' distances first - S' .. first + T' - 1 of the tile, ascending.

  The tile is cut into strips of rows, each of which needs only as many rows of the table as it has,
  and S' more.
  """

  rows: int
  columns: int

  @property
  def strip(self) -> int:
    return STRIP if self.rows % STRIP == 0 else self.rows

  def _strips(self, table_GRK):
    """The table's rows for each strip, the farthest first: [G, M, R, K]; G is H or 1."""
    size = self.strip + self.columns
    starts = range(0, self.rows, self.strip)
    return jnp.stack([table_GRK[:, n : n + size][:, ::-1] for n in starts], axis=1)

  def _stack(self, x_BHTn, G: int):
    """[B, H, T', n] -> [G, M, N, strip, n]: one batch of products for all that a strip meets."""
    B, H, _, n = x_BHTn.shape
    x = x_BHTn.reshape(B, G, H // G, -1, self.strip, n).transpose(1, 3, 0, 2, 4, 5)
    return x.reshape(G, -1, B * H // G, self.strip, n)

  def _unstack(self, x, B: int):
    G, M, N, _, n = x.shape
    x = x.reshape(G, M, B, N // B, self.strip, n).transpose(2, 0, 3, 1, 4, 5)
    return x.reshape(B, G * N // B, self.rows, n)

  def query_dot(self, q_BHTK, table_GRK):
    """q_i . table[i - j]: float32 [B, H, T', S']."""
    q = self._stack(q_BHTK, len(table_GRK))
    strips = self._strips(table_GRK).astype(q.dtype)
    by_row = scaled_dot(q.reshape(*q.shape[:2], -1, q.shape[-1]), strips)
    by_row = by_row.reshape(*q.shape[:-1], -1)
    return self._unstack(relative_shift(by_row, self.columns), q_BHTK.shape[0])

  def key_dot(self, k_BHSK, table_GRK):
    """k_j . table[i - j]: `query_dot` of the keys, with rows and columns exchanged."""
    reversed_GRK = jnp.roll(table_GRK[:, ::-1], 1, axis=1)
    exchanged = ToeplitzDistance(self.columns, self.rows)
    return exchanged.query_dot(k_BHSK, reversed_GRK).swapaxes(-1, -2)

  def sum_by_distance(self, p_BHTS, table_GRK):
    """sum_j p_ij table[i - j]: [B, H, T', K]."""
    by_row = relative_shift_transpose(self._stack(p_BHTS, len(table_GRK)))
    flat = by_row.reshape(*by_row.shape[:2], -1, by_row.shape[-1])
    sums = weighted_sum(flat, self._strips(table_GRK))
    return self._unstack(sums.reshape(*by_row.shape[:-1], -1), p_BHTS.shape[0])


@dataclasses.dataclass(frozen=True)
class ConstantDistance:
  """All distances of the tile have the same row of a table, its last one.

  The first row belongs to a distance that no pair of the tile has.
  """

  rows: int
  columns: int

  def query_dot(self, q_BHTK, table_HRK):
    """q_i . row: float32 [B, H, T', S']."""
    dot_BHT1 = self._dot(q_BHTK, table_HRK)[..., None]
    return jnp.broadcast_to(dot_BHT1, (*dot_BHT1.shape[:-1], self.columns))

  def key_dot(self, k_BHSK, table_HRK):
    """k_j . row: float32 [B, H, T', S']."""
    dot_BH1S = self._dot(k_BHSK, table_HRK)[:, :, None]
    return jnp.broadcast_to(dot_BH1S, (*dot_BH1S.shape[:2], self.rows, self.columns))

  def sum_by_distance(self, p_BHTS, table_HRK):
    """sum_j p_ij row: [B, H, T', K]."""
    return sum_of_rows(p_BHTS.sum(axis=-1, keepdims=True), table_HRK[:, -1:])

  def _dot(self, x_BHTK, table_HRK):
    """x . row: float32 [B, H, T]."""
    return product_with_rows(x_BHTK, table_HRK[:, -1:]).squeeze(-1)


@dataclasses.dataclass(frozen=True)
class GatherDistance:
  """Element (t, s) reads row index[t, s] of a table, [B|1, 1, T', S']; NaN where not `known`."""

  index: jax.Array
  known: jax.Array

  @classmethod
  def of_range(cls, distance_BTS, lowest: int, highest: int, end: int | None = None):
    """For tables that hold the distances lowest .. highest, and are constant from `end` on."""
    if end is not None:
      distance_BTS = jnp.clip(distance_BTS, -end, end)
    known = ((distance_BTS >= lowest) & (distance_BTS <= highest))[:, None]
    return cls(jnp.where(known, distance_BTS[:, None] - lowest, 0), known)

  def terms_of_tile(self, tables):
    """Scalars as the tile's own, [B|1, H|1, T', S']; the rows of Vectors as they are."""

    def read(table):
      if not isinstance(table, Scalars):
        return table.values
      values = jnp.moveaxis(table.values[self.index[:, 0]], -1, 1)
      return jnp.where(self.known, values, jnp.nan)

    return jax.tree.map(read, tables, is_leaf=is_table)

  def _pick(self, x_BHTR):
    shape = (*x_BHTR.shape[:-1], self.index.shape[-1])
    return jnp.take_along_axis(x_BHTR, jnp.broadcast_to(self.index, shape), axis=-1)

  def query_dot(self, q_BHTK, table_HRK):
    """q_i . table[i - j]: float32 [B, H, T', S']."""
    return jnp.where(self.known, self._pick(product_with_rows(q_BHTK, table_HRK)), jnp.nan)

  def key_dot(self, k_BHSK, table_HRK):
    """k_j . table[i - j]: `query_dot` of the keys, with rows and columns exchanged."""
    exchanged = GatherDistance(self.index.swapaxes(-1, -2), self.known.swapaxes(-1, -2))
    return exchanged.query_dot(k_BHSK, table_HRK).swapaxes(-1, -2)

  def sum_by_distance(self, p_BHTS, table_HRK):
    """sum_j p_ij table[i - j]: [B, H, T', K]."""
    shape = (*p_BHTS.shape[:-1], table_HRK.shape[1])
    # the adjoint of `_pick`, which is linear: where it is taken does not matter
    _, by_distance = jax.vjp(self._pick, zeros(shape, p_BHTS.dtype, p_BHTS))
    return sum_of_rows(by_distance(jnp.where(self.known, p_BHTS, jnp.nan))[0], table_HRK)
