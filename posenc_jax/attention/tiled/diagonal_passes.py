"""The forward and the backward pass by diagonals of square tiles: all rows of tiles at once.

The tiles of a diagonal share their distances, so that one program computes them all, along an axis
of rows. Each row visits its tiles from right to left, the order in which sums over the keys j..i
can be carried along; backward each tile is computed again and pulled back by `jax.vjp`, as in
`passes`. How often a loop turns is known when a program is compiled, and no loop has a branch,
unless the encoding has one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from posenc_jax.attention.tiled.carry import RowCarry
from posenc_jax.attention.tiled.pairs import Pairs
from posenc_jax.attention.tiled.passes import add_tile, empty_row, reader_and_terms
from posenc_jax.attention.tiled.schedule import TileRange, zeros_like
from posenc_jax.attention.tiled.tile import attend_pairs

# Causal rows have a tile on ever fewer diagonals. Loops over so many parts of these, each of the
# rows that it needs, compute at most 1.25 tiles for each that is visible, where T = S.
STRETCHES = 4


class Stretch(NamedTuple):
  """Neighbouring diagonals, for the rows that have a tile on any of them.

  Attributes:
    shift, count: the column less the row of the tiles on the rightmost diagonal, and how many
      diagonals there are from there leftwards.
    start, stop: the first row, and one past the last.
    is_constant: whether tables are constant over each of the tiles.
  """

  shift: int
  count: int
  start: int
  stop: int
  is_constant: bool

  @property
  def rows(self) -> int:
    return self.stop - self.start

  @property
  def shifts(self):
    """The column less the row of the tiles of each diagonal, from right to left."""
    return self.shift - jnp.arange(self.count)

  def cut(self, tree):
    """The rows of the stretch of pytrees over all rows of tiles, [tiles, ...]."""
    return jax.tree.map(lambda x: x[self.start : self.stop], tree)

  def put(self, tree, part):
    """The pytrees over all rows of tiles with `part` in the place of the rows of the stretch."""
    return jax.tree.map(lambda x, y: x.at[self.start : self.stop].set(y), tree, part)


def is_visited(tiles: TileRange, a, b):
  """Whether any pair of the tile in row a and column b may be visible; b may be no column."""
  start, stop, _ = tiles.schedule.grid.near_columns(a)
  return (b >= start) & (b < stop) & (b >= 0) & (b < tiles.columns)


def stretches(tiles: TileRange, tells_constant: bool) -> list[Stretch]:
  """All diagonals with a tile that is visited, from right to left.

  Args:
    tells_constant: whether tiles over which tables are constant stand apart.
  """
  a = np.arange(tiles.rows)
  found = []
  for shift in range(tiles.columns - 1, -tiles.rows, -1):
    rows = np.flatnonzero(is_visited(tiles, a, a + shift))
    if len(rows):
      is_constant = tells_constant and bool(tiles.schedule.grid.is_constant(0, shift))
      found.append(Stretch(shift, 1, int(rows[0]), int(rows[-1]) + 1, is_constant))
  most = -(-len(found) // STRETCHES)
  joined = []
  for one in found:
    last = joined[-1] if joined else None
    goes_on = last is not None and last.count < most and last.is_constant == one.is_constant
    if goes_on and one.shift == last.shift - last.count:
      start, stop = min(last.start, one.start), max(last.stop, one.stop)
      joined[-1] = last._replace(count=last.count + 1, start=start, stop=stop)
    else:
      joined.append(one)
  return joined


class Walk:
  """The visits of all rows of a range of tiles, which starts at the first of the grid.

  Columns are padded, for a row may have no column on a diagonal that others have one on.
  """

  def __init__(self, tiles: TileRange, enc):
    grid = tiles.schedule.grid
    tells_constant = (
      tiles.schedule.distances_by_index and enc.has_vector_tables and grid.has_constant_tiles
    )
    self.tiles = tiles
    self.stretches = stretches(tiles, tells_constant)
    self._before = max(0, *(s.count - 1 - s.shift - s.start for s in self.stretches))
    self._behind = max(0, *(s.stop + s.shift - tiles.columns for s in self.stretches))

  def pad(self, columns):
    """Pytrees over all columns of tiles, [tiles, ...], padded with the first and the last: of zeros
    a score might have no gradient (`schedule.pad_as_last`).
    """

    def pad(x):
      return jnp.pad(x, [(self._before, self._behind)] + [(0, 0)] * (x.ndim - 1), mode='edge')

    return jax.tree.map(pad, columns)

  def unpad(self, columns):
    """The columns themselves of padded ones."""
    return jax.tree.map(lambda x: x[self._before : self._before + self.tiles.columns], columns)

  def columns_on(self, stretch: Stretch, shift, columns):
    """The columns that the rows of a stretch meet on a diagonal, of padded ones."""
    first = self._before + stretch.start + shift
    cut = lambda x: lax.dynamic_slice_in_dim(x, first, stretch.rows)
    return jax.tree.map(cut, columns)

  def add_on(self, stretch: Stretch, shift, totals, columns):
    """The adjoint of `columns_on`, added to totals."""
    first = self._before + stretch.start + shift

    def add(total, part):
      here = lax.dynamic_slice_in_dim(total, first, stretch.rows)
      return lax.dynamic_update_slice_in_dim(total, here + part, first, 0)

    return jax.tree.map(add, totals, columns)

  def attend(self, stretch: Stretch, shift, ids, inputs, lse=None, maxima=None):
    """What `tile_attention` returns for the tiles of a stretch on a diagonal, and their carries.

    Args:
      ids: of all rows, and of padded columns.
      inputs: (encoding, rows, columns, terms of the diagonal, carried from the right).
      lse, maxima: as `tile_attention` takes them.

    All arrays but the encoding and the terms are [rows of the stretch, B|1, ...].
    """
    schedule, grid = self.tiles.schedule, self.tiles.schedule.grid
    enc, row, column, terms, carried = inputs
    t_TS, s_TS = (lax.broadcasted_iota(jnp.int32, (grid.block_q, grid.block_k), n) for n in (0, 1))
    index_distance = grid.corner(0, shift) + t_TS - s_TS

    def of_row(a, row, row_ids, column, column_ids, carried, lse, maxima):
      b = a + shift
      visited = is_visited(self.tiles, a, b)
      is_key = (visited & (b * grid.block_k + s_TS < grid.S))[None]
      pairs = Pairs.of_ids(
        grid.mask, index_distance, row_ids, column_ids, is_key, schedule.distances_by_index
      )
      reader, of_tile = reader_and_terms(schedule, enc, pairs, terms, stretch.is_constant)
      arrays = {'whole': enc, 'row': row, 'column': column}
      *found, carry = attend_pairs(
        schedule, pairs, arrays, of_tile, reader, RowCarry(carried), lse, maxima
      )
      # there is no tile: what was carried goes on
      keep = lambda new, old: jnp.where(visited, new, old)
      return *found, jax.tree.map(keep, carry, carried)

    # Rows are an axis of their own, not a part of the batch, which a mesh may have cut.
    a = stretch.start + jnp.arange(stretch.rows)
    row_ids, column_ids = stretch.cut(ids['row']), self.columns_on(stretch, shift, ids['column'])
    return jax.vmap(of_row)(a, row, row_ids, column, column_ids, carried, lse, maxima)


def forward_pass(tiles: TileRange, arrays, tables, ids):
  """The state of every row after all of its columns: as `passes.forward_pass` gives it."""
  enc, walk = arrays['whole'], Walk(tiles, arrays['whole'])
  columns, ids = walk.pad(arrays['column']), ids | {'column': walk.pad(ids['column'])}
  state = _empty_rows(enc, arrays)
  for stretch in walk.stretches:
    row = stretch.cut(arrays['row'])

    def visit(state, shift, stretch=stretch, row=row):
      (_, _, maxima), carry = state
      on_diagonal = walk.columns_on(stretch, shift, columns)
      given = enc, row, on_diagonal, tiles.terms_of_tile(tables, 0, shift), carry
      return add_tile(enc, state, walk.attend(stretch, shift, ids, given, maxima=maxima)), None

    after, _ = lax.scan(visit, stretch.cut(state), stretch.shifts)
    state = stretch.put(state, after)
  return state


def backward_pass(tiles: TileRange, arrays, tables, ids, per_row):
  """The gradients of (encoding, rows, columns, tables).

  Args:
    per_row: as `differentiable` gives it.
  """
  enc, walk = arrays['whole'], Walk(tiles, arrays['whole'])
  columns, ids = walk.pad(arrays['column']), ids | {'column': walk.pad(ids['column'])}
  _, carry = _empty_rows(enc, arrays)
  into = []
  for stretch in walk.stretches if carry else ():
    row, lse = stretch.cut((arrays['row'], per_row[2]))

    def keep_carry(carry, shift, stretch=stretch, row=row, lse=lse):
      """The forward pass again, for its carry alone: what each tile is given."""
      on_diagonal = walk.columns_on(stretch, shift, columns)
      given = enc, row, on_diagonal, tiles.terms_of_tile(tables, 0, shift), carry
      return walk.attend(stretch, shift, ids, given, lse)[-1], carry

    after, given = lax.scan(keep_carry, stretch.cut(carry), stretch.shifts)
    carry = stretch.put(carry, after)
    into.append(given)

  d_row, d_carry = zeros_like((arrays['row'], carry))
  totals = zeros_like((enc, columns, tables))
  for stretch in walk.stretches[::-1]:
    row, (do, d_denominator, lse) = stretch.cut((arrays['row'], per_row))

    def visit(state, inputs, stretch=stretch, row=row, lse=lse, d_out=(do, d_denominator)):
      (d_enc, d_columns, d_tables), d_row, d_carry = state
      shift, carry = inputs
      on_diagonal = walk.columns_on(stretch, shift, columns)
      given = enc, row, on_diagonal, tiles.terms_of_tile(tables, 0, shift), carry

      def outputs(*given):
        o, denominator, _, carry = walk.attend(stretch, shift, ids, given, lse)
        return o, denominator, carry

      g_enc, g_row, g_columns, g_terms, d_carry = jax.vjp(outputs, *given)[1]((*d_out, d_carry))
      d_enc = jax.tree.map(jnp.add, d_enc, g_enc)
      d_columns = walk.add_on(stretch, shift, d_columns, g_columns)
      d_tables = tiles.add_gradients(d_tables, g_terms, 0, shift)
      return ((d_enc, d_columns, d_tables), jax.tree.map(jnp.add, d_row, g_row), d_carry), None

    state = totals, *stretch.cut((d_row, d_carry))
    given = into.pop() if into else ()
    state, _ = lax.scan(visit, state, (stretch.shifts, given), reverse=True)
    totals, *parts = state
    d_row, d_carry = stretch.put((d_row, d_carry), tuple(parts))
  d_enc, d_columns, d_tables = totals
  return d_enc, d_row, walk.unpad(d_columns), d_tables


def _empty_rows(enc, arrays):
  """`passes.empty_row` for every row of tiles."""
  repeat = lambda x: jnp.broadcast_to(x, (len(arrays['row']['q']), *x.shape))
  return jax.tree.map(repeat, empty_row(enc, arrays))
