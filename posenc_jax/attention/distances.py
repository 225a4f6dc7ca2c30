"""Reading per-distance tables in one block of the score matrix, without ever making an array [T', S', K].

A block has T' rows and S' columns; element (t, s) needs row d(t, s) of a table. Where positions are contiguous that is
a diagonal (`Diagonals`: one matmul with T' + S' rows, then a shift); for arbitrary positions it is a lookup (`Lookup`:
one matmul with all rows, then a gather). Rows are [R, H, K], or [R, 1, K] where the heads share them.
"""

import dataclasses

import jax
import jax.numpy as jnp


def shear(g, start: int, width: int):
  """out[..., a, b] = g[..., a, start - a + b] for b < width: a reshape, since a row less one slides by one.

  g is [..., n, n + width]; start is n - 1 or n.
  """
  *lead, n, columns = g.shape
  flat = g.reshape(*lead, n * columns)[..., start : start + n * (columns - 1)]
  return flat.reshape(*lead, n, columns - 1)[..., :width]


def spread(values_HR, rows: int, columns: int):
  """Scalars of the T' + S' distances first - S' .. first + T' - 1 along the diagonals of a block: [H, T', S']."""
  descending_HR = values_HR[:, ::-1]
  return shear(jnp.broadcast_to(descending_HR[:, None], (len(values_HR), rows, rows + columns)), rows - 1, columns)


def product(x_BTHK, rows_RHK):
  """x . row for every row of the table: float32 [B, H, T, R]."""
  rows = rows_RHK.astype(x_BTHK.dtype)
  if rows.shape[1] == 1:
    return jnp.einsum('bthk,rk->bhtr', x_BTHK, rows[:, 0], preferred_element_type=jnp.float32)
  return jnp.einsum('bthk,rhk->bhtr', x_BTHK, rows, preferred_element_type=jnp.float32)


def weighted(p_BHTR, rows_RHK):
  """sum_r p[r] row[r]: [B, T, H, K] in the dtype of p."""
  if rows_RHK.shape[1] == 1:
    return jnp.einsum('bhtr,rk->bthk', p_BHTR, rows_RHK[:, 0])
  return jnp.einsum('bhtr,rhk->bthk', p_BHTR, rows_RHK)


@dataclasses.dataclass(frozen=True)
class Diagonals:
  """Tables hold the T' + S' distances first - S' .. first + T' - 1 of the block, ascending."""

  rows: int
  columns: int

  def query_dot(self, q_BTHK, table_RHK):
    return shear(product(q_BTHK, table_RHK[::-1]), self.rows - 1, self.columns)

  def key_dot(self, k_BSHK, table_RHK):
    return shear(product(k_BSHK, table_RHK), self.columns, self.rows).swapaxes(-1, -2)

  def sum_by_distance(self, p_BHTS, table_RHK):
    shape = (*p_BHTS.shape[:-1], self.rows + self.columns)
    by_distance = jax.linear_transpose(
      lambda g: shear(g, self.rows - 1, self.columns), jax.ShapeDtypeStruct(shape, p_BHTS.dtype)
    )
    return weighted(by_distance(p_BHTS)[0], table_RHK[::-1])


@dataclasses.dataclass(frozen=True)
class Constant:
  """All distances of the block have the same row: the last, since the first is of a distance that no pair has."""

  rows: int
  columns: int

  def query_dot(self, q_BTHK, table_RHK):
    dot_BHT1 = product(q_BTHK, table_RHK[-1:])
    return jnp.broadcast_to(dot_BHT1, (*dot_BHT1.shape[:-1], self.columns))

  def key_dot(self, k_BSHK, table_RHK):
    dot_BHS = product(k_BSHK, table_RHK[-1:])[..., 0]
    return jnp.broadcast_to(dot_BHS[:, :, None], (*dot_BHS.shape[:2], self.rows, self.columns))

  def sum_by_distance(self, p_BHTS, table_RHK):
    return weighted(p_BHTS.sum(axis=-1, keepdims=True), table_RHK[-1:])


@dataclasses.dataclass(frozen=True)
class Lookup:
  """Element (t, s) reads row index[t, s] of a table, [B|1, 1, T', S']; NaN where `known` is false."""

  index: jax.Array
  known: jax.Array

  @classmethod
  def of(cls, r_BTS, lowest: int, highest: int):
    """For tables that hold the distances lowest .. highest."""
    known = ((r_BTS >= lowest) & (r_BTS <= highest))[:, None]
    return cls(jnp.where(known, r_BTS[:, None] - lowest, 0), known)

  def spread(self, values_RH):
    """Scalars [R, H|1] at the block's distances: [B|1, H|1, T', S']."""
    return jnp.where(self.known, jnp.moveaxis(values_RH[self.index[:, 0]], -1, 1), jnp.nan)

  def _pick(self, g_BHTR):
    shape = (*g_BHTR.shape[:-1], self.index.shape[-1])
    return jnp.take_along_axis(g_BHTR, jnp.broadcast_to(self.index, shape), axis=-1)

  def query_dot(self, q_BTHK, table_RHK):
    return jnp.where(self.known, self._pick(product(q_BTHK, table_RHK)), jnp.nan)

  def key_dot(self, k_BSHK, table_RHK):
    turned = Lookup(self.index.swapaxes(-1, -2), self.known.swapaxes(-1, -2))
    return turned.query_dot(k_BSHK, table_RHK).swapaxes(-1, -2)

  def sum_by_distance(self, p_BHTS, table_RHK):
    shape = (*p_BHTS.shape[:-1], len(table_RHK))
    by_distance = jax.linear_transpose(self._pick, jax.ShapeDtypeStruct(shape, p_BHTS.dtype))
    return weighted(by_distance(jnp.where(self.known, p_BHTS, jnp.nan))[0], table_RHK)
