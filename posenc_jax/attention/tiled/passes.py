"""The forward and the backward pass of rows of tiles over columns of tiles: all, or a range.

Forward, each row keeps a running softmax while it visits its tiles from the diagonal leftwards, the
order in which sums over the keys j..i can be carried along. Backward, each tile is computed again
and pulled back through the same `tile_attention` by `jax.vjp`, given the rows' log-sum-exp: so
gradients reach every table, gate and parameter that an encoding reads, without a hand-written
derivative. Tiles that order, window and chunk hide are never visited; those that lie in two
segments, or that a function hides, are.
"""

import jax
import jax.numpy as jnp
from jax import lax

from posenc_jax.attention.tiled.carry import RowCarry
from posenc_jax.attention.tiled.distance_readers import (
  ConstantDistance,
  GatherDistance,
  ToeplitzDistance,
)
from posenc_jax.attention.tiled.pairs import Pairs
from posenc_jax.attention.tiled.schedule import (
  TileRange,
  TileSchedule,
  tree_add_at,
  tree_index,
  zeros_like,
)
from posenc_jax.attention.tiled.tile import attend_pairs, without_zeros
from posenc_jax.encodings.core.base import LOWEST_SEEN
from posenc_jax.xla_ops import zeros


def _attend_tile(tiles: TileRange, is_constant: bool, a, b, ids, inputs, lse=None, maxima=None):
  """What `tile_attention` returns for tile (a, b), and the carry for the tile on its left.

  Args:
    is_constant: whether tables are constant over the tile.
    ids: positions, segments, indices and `mask_ids` of its row and of its column.
    inputs: (encoding, row, column, terms of the tile, carried from the right).
    lse, maxima: as `tile_attention` takes them.
  """
  schedule = tiles.schedule
  enc, row, column, terms, carried = inputs
  pairs = Pairs.of_tile(schedule, *tiles.in_grid(a, b), ids)
  reader, terms = reader_and_terms(schedule, enc, pairs, terms, is_constant)
  arrays = {'whole': enc, 'row': row, 'column': column}
  return attend_pairs(schedule, pairs, arrays, terms, reader, RowCarry(carried), lse, maxima)


def reader_and_terms(schedule: TileSchedule, enc, pairs: Pairs, terms, is_constant: bool):
  """What reads vectors by distance for these pairs, and the terms of their tile as a tile has them.

  Args:
    terms: of the tile, from `TileRange.terms_of_tile`.
    is_constant: whether they are constant over it.
  """
  if schedule.distances_by_index:
    kind = ConstantDistance if is_constant else ToeplitzDistance
    return kind(schedule.grid.block_q, schedule.grid.block_k), terms
  end = enc.max_relative_distance
  reader = GatherDistance.of_range(pairs.distance, *schedule.distance_range, end)
  return reader, reader.terms_of_tile(terms)


def _cond_constant(tiles: TileRange, enc, a, b, function):
  """function(is_constant), under a `lax.cond` where vectors may be constant over a tile."""
  grid = tiles.schedule.grid
  if not (tiles.schedule.distances_by_index and enc.has_vector_tables and grid.has_constant_tiles):
    return function(False)
  is_constant = grid.is_constant(*tiles.in_grid(a, b))
  return lax.cond(is_constant, lambda: function(True), lambda: function(False))


def empty_row(enc, arrays):
  """The state of a row of tiles before its first tile.

  Returns:
    ((output, denominator, maxima), carry): zeros, maxima that are lower than any score, and zeros
    for each value that the encoding declares in `scans_keys`; all float32 [B, H, T', ...].
  """
  q = arrays['row']['q']
  B, H, rows, _ = q.shape[1:]
  of_rows = lambda *shape: zeros((B, H, rows, *shape), jnp.float32, q)
  output = of_rows(arrays['column']['v'].shape[-1])
  carry = tuple(of_rows(*shape) for shape in enc.scans_keys)
  return (output, of_rows(), of_rows() + LOWEST_SEEN), carry


def add_tile(enc, state, of_tile):
  """The state of a row of tiles after one more, of which `attend_pairs` gave this."""
  (o, denominator, maxima), _ = state
  o_b, denominator_b, new_maxima, carry = of_tile
  if enc.normalizer != 'softmax':
    return (o + o_b, denominator, maxima), carry
  shrink = jnp.exp(maxima - new_maxima)
  o = o * shrink[..., None] + o_b
  return (o, denominator * shrink + denominator_b, new_maxima), carry


def _scan_left(enc, softcap, count, visit, state):
  """visit(n, state) for n = 0 .. count - 1, or until the carry says that the rest has no weight.

  Args:
    softcap: where there is one, no key is without weight.
    state: (anything, carry).
  Returns:
    The number of tiles that were visited, and the state.
  """
  if softcap is not None or not enc.has('is_exhausted'):
    return count, lax.fori_loop(0, count, visit, state)

  def goes_on(n_and_state):
    n, (_, carry) = n_and_state
    return (n < count) & ~enc.is_exhausted(carry)

  def step(n_and_state):
    n, state = n_and_state
    return n + 1, visit(n, state)

  return lax.while_loop(goes_on, step, (0, state))


def forward_pass(tiles: TileRange, arrays, tables, ids, states=None, finish=lambda state: state):
  """Every row of a range visits its columns, from right to left.

  Args:
    arrays, ids: from `cut_into_tiles`.
    tables: from `TileRange.make_tables`.
    states: the state of each row after the columns further right; None: `empty_row`.
    finish: what is made of the state of a row at its end.

  Returns:
    What `finish` gives of each row, stacked: pytrees of [rows of the range, ...].
  """
  enc = arrays['whole']

  def one_row(inputs):
    a, row, row_ids, state = inputs
    visits = tiles.visits(a)
    start, stop = visits.start, visits.stop

    def visit(n, state):
      (_, _, maxima), carry = state
      b = visits.column(stop - 1 - n)
      column, column_ids = tree_index((arrays['column'], ids['column']), b)
      given = enc, row, column, tiles.terms_of_tile(tables, a, b), carry

      def attend_tile(is_constant):
        both_ids = {'row': row_ids, 'column': column_ids}
        return _attend_tile(tiles, is_constant, a, b, both_ids, given, maxima=maxima)

      return add_tile(enc, state, _cond_constant(tiles, enc, a, b, attend_tile))

    state = empty_row(enc, arrays) if state is None else state
    return finish(_scan_left(enc, tiles.schedule.softcap, stop - start, visit, state)[1])

  return lax.map(one_row, (jnp.arange(tiles.rows), arrays['row'], ids['row'], states))


def divide_out(enc, state):
  """(o, log-sum-exp) from the state of rows at their end."""
  (o, denominator, maxima), _ = state
  if enc.normalizer != 'softmax':
    return o, maxima
  denominator = without_zeros(denominator)
  return o / denominator[..., None], maxima + jnp.log(denominator)


def backward_pass(
  tiles: TileRange, arrays, tables, ids, per_row, totals, carried=None, d_carry=None
):
  """Every row of a range visits its columns again, from left to right.

  Args:
    arrays, tables, ids: as for `forward_pass`.
    per_row: as `differentiable` gives it.
    totals: gradients of (encoding, columns, tables), to which those of the range are added.
    carried: the carry that each row was given from columns further right; None: zeros.
    d_carry: the cotangent of the carry that each row gave to columns further left; None: zeros.

  Returns:
    totals; the gradients of rows; the cotangent of `carried`.
  """
  enc = arrays['whole']
  _, no_carry = empty_row(enc, arrays)

  def one_row(totals, inputs):
    a, row, row_ids, (do_row, d_denominator_row, lse_row), carried, d_carry = inputs
    visits = tiles.visits(a)
    start, stop = visits.start, visits.stop

    def inputs_of_tile(b, carry):
      column, column_ids = tree_index((arrays['column'], ids['column']), b)
      given = enc, row, column, tiles.terms_of_tile(tables, a, b), carry
      return {'row': row_ids, 'column': column_ids}, given

    def keep_carry(n, state):
      """The forward pass again, for its carry alone: what each tile of the row is given."""
      into, carry = state
      b = visits.column(stop - 1 - n)
      keep = lambda all, one: lax.dynamic_update_index_in_dim(all, one, n, 0)
      into = jax.tree.map(keep, into, carry)
      both_ids, given = inputs_of_tile(b, carry)

      def carry_on(is_constant):
        return _attend_tile(tiles, is_constant, a, b, both_ids, given, lse_row)[-1]

      return into, _cond_constant(tiles, enc, a, b, carry_on)

    into = jax.tree.map(lambda x: zeros((tiles.most_visits, *x.shape), x.dtype, x), no_carry)
    if no_carry:
      first = no_carry if carried is None else carried
      softcap, columns = tiles.schedule.softcap, stop - start
      visited, (into, _) = _scan_left(enc, softcap, columns, keep_carry, (into, first))
      start = stop - visited

    def visit(n, state):
      (d_enc, d_columns, d_tables), d_row, d_carry = state
      b = visits.column(n)
      both_ids, given = inputs_of_tile(b, tree_index(into, stop - 1 - n))

      def pull_back(is_constant):
        def outputs(*given):
          o, denominator, _, carry = _attend_tile(
            tiles, is_constant, a, b, both_ids, given, lse_row
          )
          return o, denominator, carry

        return jax.vjp(outputs, *given)[1]((do_row, d_denominator_row, d_carry))

      gradients = _cond_constant(tiles, enc, a, b, pull_back)
      g_enc, g_row, g_column, g_terms, d_carry = gradients
      d_enc = jax.tree.map(jnp.add, d_enc, g_enc)
      d_tables = tiles.add_gradients(d_tables, g_terms, a, b)
      d_columns = tree_add_at(d_columns, _transposed(g_column), b)
      return (d_enc, d_columns, d_tables), jax.tree.map(jnp.add, d_row, g_row), d_carry

    last = no_carry if d_carry is None else d_carry
    state = totals, zeros_like(row), last
    totals, d_row, d_carry = lax.fori_loop(start, stop, visit, state)
    return totals, (d_row, d_carry)

  rows = jnp.arange(tiles.rows), arrays['row'], ids['row'], per_row, carried, d_carry
  d_enc, d_columns, d_tables = totals
  totals = d_enc, _transposed(d_columns), d_tables
  (d_enc, d_columns, d_tables), (d_rows, d_carry) = lax.scan(one_row, totals, rows)
  return (d_enc, _transposed(d_columns), d_tables), d_rows, d_carry


def _transposed(d_columns):
  """The gradients of columns with channels before keys in those of keys and values, or back.

  That is the order in which they come out of a tile's products (`xla_ops`): they are added up as
  they lie in memory, and transposed once in the end.
  """
  return d_columns | {name: d_columns[name].swapaxes(-1, -2) for name in ('k', 'v')}
