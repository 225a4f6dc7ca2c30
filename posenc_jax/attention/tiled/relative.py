"""Reading per-distance tables in one block of the score matrix, without ever making an array [T',
S', K].

A block has T' rows and S' columns; element (t, s) needs row d(t, s) of a table. Where positions are
contiguous that is a diagonal (`Diagonals`: one matmul for strips of the block with the rows each
needs, then a shift), or one row for all (`Constant`: beyond an encoding's reach); for arbitrary
positions it is a lookup (`Lookup`: one matmul with all rows, then a gather). Rows are [H, R, K], or
[1, R, K] where the heads share them.
"""

import dataclasses

import jax
import jax.numpy as jnp

from posenc_jax.xla_ops import dot, mix, shear, unshear

STRIP = 128  # rows


def spread(values_HR, rows: int, columns: int):
  """Scalars of the T' + S' distances first - S' .. first + T' - 1 along the diagonals of a block:
  [H, T', S'].
  """
  descending_HR = values_HR[:, ::-1]
  return shear(
    jnp.broadcast_to(descending_HR[:, None], (len(values_HR), rows, rows + columns)),
    rows - 1,
    columns,
  )


def heads_first(table_RHK):
  """A table of vectors as it is read here: [H|1, R, K]."""
  return jnp.moveaxis(table_RHK, 1, 0)


def product(x_BTHK, rows_HRK):
  """x . row for every row of the table: float32 [B, H, T, R]."""
  rows = jnp.broadcast_to(rows_HRK, (x_BTHK.shape[2], *rows_HRK.shape[1:])).astype(x_BTHK.dtype)
  return jnp.einsum('bthk,hrk->bhtr', x_BTHK, rows, preferred_element_type=jnp.float32)


def weighted(p_BHTR, rows_HRK):
  """sum_r p[r] row[r]: [B, T, H, K] in the dtype of p."""
  rows = jnp.broadcast_to(rows_HRK, (p_BHTR.shape[1], *rows_HRK.shape[1:]))
  return jnp.einsum('bhtr,hrk->bthk', p_BHTR, rows)


@dataclasses.dataclass(frozen=True)
class Diagonals:
  """Tables hold the T' + S' distances first - S' .. first + T' - 1 of the block, ascending.

  The block is cut into strips of rows: each needs only as many rows of the table as it has, and S'.
  """

  rows: int
  columns: int

  @property
  def strip(self) -> int:
    return STRIP if self.rows % STRIP == 0 else self.rows

  def _strips(self, table_GRK):
    """Rows of each strip, the farthest first: [G, M, R, K]; G is H, or 1 where heads share them."""
    size = self.strip + self.columns
    starts = range(0, self.rows, self.strip)
    return jnp.stack([table_GRK[:, n : n + size][:, ::-1] for n in starts], axis=1)

  def _stack(self, x_BHTn, G: int):
    """[B, H, T', n] -> [G, M, N, strip, n]: what meets the rows of a strip stands in one batch of
    products.
    """
    B, H, _, n = x_BHTn.shape
    x = x_BHTn.reshape(B, G, H // G, -1, self.strip, n).transpose(1, 3, 0, 2, 4, 5)
    return x.reshape(G, -1, B * H // G, self.strip, n)

  def _unstack(self, x, B: int):
    G, M, N, _, n = x.shape
    x = x.reshape(G, M, B, N // B, self.strip, n).transpose(2, 0, 3, 1, 4, 5)
    return x.reshape(B, G * N // B, self.rows, n)

  def query_dot(self, q_BTHK, table_GRK):
    q = self._stack(q_BTHK.swapaxes(1, 2), len(table_GRK))
    strips = self._strips(table_GRK).astype(q.dtype)
    by_row = dot(q.reshape(*q.shape[:2], -1, q.shape[-1]), strips).reshape(*q.shape[:-1], -1)
    return self._unstack(shear(by_row, self.strip - 1, self.columns), len(q_BTHK))

  def key_dot(self, k_BSHK, table_GRK):
    """That of the keys, as queries, with the distances from there."""
    turned = jnp.roll(table_GRK[:, ::-1], 1, axis=1)
    return Diagonals(self.columns, self.rows).query_dot(k_BSHK, turned).swapaxes(-1, -2)

  def sum_by_distance(self, p_BHTS, table_GRK):
    by_row = unshear(self._stack(p_BHTS, len(table_GRK)), self.strip - 1)
    sums = mix(by_row.reshape(*by_row.shape[:2], -1, by_row.shape[-1]), self._strips(table_GRK))
    return self._unstack(sums.reshape(*by_row.shape[:-1], -1), len(p_BHTS)).swapaxes(1, 2)


@dataclasses.dataclass(frozen=True)
class Constant:
  """All distances of the block have the same row: the last, since the first is of a distance that
  no pair has.
  """

  rows: int
  columns: int

  def query_dot(self, q_BTHK, table_HRK):
    dot_BHT1 = product(q_BTHK, table_HRK[:, -1:])
    return jnp.broadcast_to(dot_BHT1, (*dot_BHT1.shape[:-1], self.columns))

  def key_dot(self, k_BSHK, table_HRK):
    dot_BHS = product(k_BSHK, table_HRK[:, -1:])[..., 0]
    return jnp.broadcast_to(dot_BHS[:, :, None], (*dot_BHS.shape[:2], self.rows, self.columns))

  def sum_by_distance(self, p_BHTS, table_HRK):
    return weighted(p_BHTS.sum(axis=-1, keepdims=True), table_HRK[:, -1:])


@dataclasses.dataclass(frozen=True)
class Lookup:
  """Element (t, s) reads row index[t, s] of a table, [B|1, 1, T', S']; NaN where `known` is
  false.
  """

  index: jax.Array
  known: jax.Array

  @classmethod
  def of(cls, r_BTS, lowest: int, highest: int):
    """For tables that hold the distances lowest .. highest."""
    known = ((r_BTS >= lowest) & (r_BTS <= highest))[:, None]
    return cls(jnp.where(known, r_BTS[:, None] - lowest, 0), known)

  def read(self, tables):
    """Tables as a block has them: of scalars [R, H|1] those of its distances, [B|1, H|1, T', S'];
    vectors as rows.
    """
    spread = lambda values_RH: jnp.where(
      self.known, jnp.moveaxis(values_RH[self.index[:, 0]], -1, 1), jnp.nan
    )
    return jax.tree.map(
      lambda table: spread(table) if table.ndim == 2 else heads_first(table), tables
    )

  def _pick(self, g_BHTR):
    shape = (*g_BHTR.shape[:-1], self.index.shape[-1])
    return jnp.take_along_axis(g_BHTR, jnp.broadcast_to(self.index, shape), axis=-1)

  def query_dot(self, q_BTHK, table_HRK):
    return jnp.where(self.known, self._pick(product(q_BTHK, table_HRK)), jnp.nan)

  def key_dot(self, k_BSHK, table_HRK):
    turned = Lookup(self.index.swapaxes(-1, -2), self.known.swapaxes(-1, -2))
    return turned.query_dot(k_BSHK, table_HRK).swapaxes(-1, -2)

  def sum_by_distance(self, p_BHTS, table_HRK):
    shape = (*p_BHTS.shape[:-1], table_HRK.shape[1])
    by_distance = jax.linear_transpose(self._pick, jax.ShapeDtypeStruct(shape, p_BHTS.dtype))
    return weighted(by_distance(jnp.where(self.known, p_BHTS, jnp.nan))[0], table_HRK)
