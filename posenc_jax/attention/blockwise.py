"""Attention block by block: O(T) memory forward and backward, for every encoding, at any length.

Forward, each row of blocks keeps a running softmax while it walks its key blocks from the diagonal leftwards (the order
in which sums over the keys j..i can be carried along). Backward, each block is computed again and pulled back through
the same `block_attention` by `jax.vjp`, given the rows' log-sum-exp: so gradients reach every table, gate and parameter
that an encoding reads, without a hand-written derivative. Blocks that nothing is visible in are never visited.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from posenc_jax.attention import tables as shared
from posenc_jax.attention.block import MASKED, Block, block_attention, visible
from posenc_jax.attention.call import Call
from posenc_jax.attention.distances import Constant, Diagonals, Lookup
from posenc_jax.attention.grid import Grid
from posenc_jax.attention.sums import Sums
from posenc_jax.products import hold

DEFAULT_BLOCK = (256, 256)  # one divides the other


def refuse(call: Call) -> str | None:
  """Takes everything."""
  del call


class Plan(NamedTuple):
  """What is static in one call."""

  grid: Grid
  scale: float
  contiguous: bool  # tables lie along diagonals and are shared by blocks; else each block looks its distances up
  distances: tuple[int, int]  # lowest and highest that tables hold then

  def tables(self, call: Call):
    if self.contiguous:
      return shared.of_grid(self.grid, call)
    return call.enc.tables(jnp.arange(self.distances[0], self.distances[1] + 1))

  def cut(self, tables, a, b):
    return shared.cut(self.grid, tables, self.grid.diagonal(a, b)) if self.contiguous else tables

  def add(self, totals, parts, a, b):
    if self.contiguous:
      return shared.add(self.grid, totals, parts, self.grid.diagonal(a, b))
    return jax.tree.map(jnp.add, totals, parts)


def run(call: Call):
  """o_BTHK in float32."""
  (B, T, H, _), S = call.q_BTHK.shape, call.k_BSGK.shape[1]
  # Short sides get the power of two above: where one side of a block divides the other, corners are few (see `stride`).
  rows, columns = (min(n, 1 << (m - 1).bit_length()) for n, m in zip(call.block or DEFAULT_BLOCK, (T, S), strict=True))
  lowest, highest = call.distances
  if call.enc.reach is not None:
    lowest, highest = max(lowest, -call.enc.reach), min(highest, call.enc.reach)
  plan = Plan(
    Grid(T, S, rows, columns, call.causal, call.window, lowest, highest), call.scale, call.contiguous, call.distances
  )
  ids = {'position': call.positions_BS, 'segment': call.segments_BS}
  cut_rows = lambda tree: jax.tree.map(lambda x: _cut(x, rows), tree)
  cut_columns = lambda tree: jax.tree.map(lambda x: _cut(x, columns), tree)
  floats = {
    'enc': call.enc,
    'tables': plan.tables(call),
    'rows': {'q': _cut_heads(call.q_BTHK, rows), 'i': cut_rows(call.i)},
    'columns': {
      'k': _cut_heads(call.k_BSGK, columns),
      'v': _cut_heads(call.v_BSGK, columns),
      'j': cut_columns(call.j),
    },
  }
  ints = {'rows': cut_rows(jax.tree.map(lambda x: x[:, call.offset :], ids)), 'columns': cut_columns(ids)}
  o_NBHTK = _attention(plan, floats, ints)
  return o_NBHTK.transpose(1, 0, 3, 2, 4).reshape(B, -1, H, o_NBHTK.shape[-1])[:, :T]


def _cut(x, n: int):
  """[B, T, ...] -> [blocks, B, n, ...], padded at the end."""
  x = jnp.pad(x, [(0, 0), (0, -x.shape[1] % n)] + [(0, 0)] * (x.ndim - 2))
  return jnp.moveaxis(x.reshape(len(x), -1, n, *x.shape[2:]), 1, 0)


def _cut_heads(x_BTHK, n: int):
  """[B, T, H, K] -> [blocks, B, H, n, K]. As one axis B H is laid out at once; XLA would copy twice otherwise."""
  x_NBTHK = _cut(x_BTHK, n)
  N, B, _, H, K = x_NBTHK.shape
  return hold(x_NBTHK.swapaxes(2, 3).reshape(N, B * H, n, K)).reshape(N, B, H, n, K)


def _at(tree, n):
  return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, n, keepdims=False), tree)


def _add_at(total, part, n):
  return jax.tree.map(lambda t, p: lax.dynamic_update_index_in_dim(t, _at(t, n) + p, n, 0), total, part)


def _zeros(tree):
  """Accumulators: float32 whatever the compute dtype."""
  return jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), tree)


def _like(tree, reference):
  return jax.tree.map(lambda x, r: x.astype(r.dtype), tree, reference)


def _block(plan: Plan, constant: bool, a, b, ids, inputs, lse=None, top=None):
  """Block (a, b): what `block_attention` returns of it, and its sums carried on to the block on its left.

  inputs: (enc, row, column, tables of the block, sums carried from the right).
  """
  grid, (row_ids, column_ids), (enc, row, column, tables, carried) = plan.grid, ids, inputs
  order = grid.corner(a, b) + jnp.arange(grid.rows)[:, None] - jnp.arange(grid.columns)[None]
  key = b * grid.columns + jnp.arange(grid.columns)
  mask = visible(order, grid.causal, grid.window)[None]
  if grid.S % grid.columns:
    mask &= (key < grid.S)[None, None]
  if row_ids['segment'] is not None:
    mask &= row_ids['segment'][:, :, None] == column_ids['segment'][:, None]
  if plan.contiguous:
    r = jnp.where(mask, order[None], 0)
    distances = (Constant if constant else Diagonals)(grid.rows, grid.columns)
  else:
    r = jnp.where(mask, row_ids['position'][:, :, None] - column_ids['position'][:, None], 0)
    distances = Lookup.of(r, *plan.distances)
    tables = distances.read(tables)
  sums = Sums(carried)
  block = Block(row['i'], column['j'], order, r, mask, tables, distances, sums)
  return *block_attention(enc, row['q'], column['k'], column['v'], block, plan.scale, lse, top), tuple(sums.totals)


def _by_kind(plan: Plan, tables, a, b, function):
  """function(constant): where vectors of tables may be constant over block (a, b), of whichever is true."""
  has_vectors = any(table.ndim == 3 for table in jax.tree.leaves(tables))
  if not (plan.contiguous and has_vectors and plan.grid.has_constant_blocks):
    return function(False)
  return lax.cond(plan.grid.is_constant(a, b), lambda: function(True), lambda: function(False))


def _carries(plan: Plan, floats, ints):
  """What suffix sums carry into the first block of a row: zeros [B, H, T'], one for each that `score` asks for."""

  def first():
    row, column = _at((floats['rows'], ints['rows']), 0), _at((floats['columns'], ints['columns']), 0)
    inputs = floats['enc'], row[0], column[0], plan.cut(floats['tables'], 0, 0), ()
    return _block(plan, False, 0, 0, (row[1], column[1]), inputs)[-1]

  return _zeros(jax.eval_shape(first))


def _leftwards(enc, blocks, one_block, state):
  """one_block(n, state) for n = 0 .. blocks - 1, or until the sums carried say that the rest has no weight.

  state: (anything, sums carried). Returns the number of blocks that were visited, and the state.
  """
  if enc.spent is None:
    return blocks, lax.fori_loop(0, blocks, one_block, state)
  going = lambda so_far: (so_far[0] < blocks) & ~enc.spent(so_far[1][1])
  return lax.while_loop(going, lambda so_far: (so_far[0] + 1, one_block(*so_far)), (0, state))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(plan: Plan, floats, ints):
  return _forward(plan, floats, ints)[0]


def _forward(plan: Plan, floats, ints):
  enc, grid = floats['enc'], plan.grid
  softmax, carries = enc.normaliser == 'softmax', _carries(plan, floats, ints)
  B, H, T, _ = floats['rows']['q'].shape[1:]

  def one_row(args):
    a, row, row_ids = args
    start, stop = grid.key_blocks(a)

    def one_block(n, so_far):
      (o, sums, top), carried = so_far
      b = stop - 1 - n
      column, column_ids = _at((floats['columns'], ints['columns']), b)
      inputs = enc, row, column, plan.cut(floats['tables'], a, b), carried
      run = lambda constant: _block(plan, constant, a, b, (row_ids, column_ids), inputs, top=top)
      o_b, sums_b, new_top, carried = _by_kind(plan, floats['tables'], a, b, run)
      if not softmax:
        return (o + o_b, sums, top), carried
      old = jnp.exp(top - new_top)
      return (o * old[..., None] + o_b, sums * old + sums_b, new_top), carried

    nothing = (
      jnp.zeros((B, H, T, floats['columns']['v'].shape[-1]), jnp.float32),
      jnp.zeros((B, H, T), jnp.float32),
      jnp.full((B, H, T), MASKED, jnp.float32),
    )
    _, ((o, sums, top), _) = _leftwards(enc, stop - start, one_block, (nothing, carries))
    return (o / sums[..., None], top + jnp.log(sums)) if softmax else (o, top)

  o, lse = lax.map(one_row, (jnp.arange(grid.row_blocks), floats['rows'], ints['rows']))
  return o, (floats, ints, o, lse)


def _backward(plan: Plan, residuals, do):
  floats, ints, o, lse = residuals
  enc, grid, carries = floats['enc'], plan.grid, _carries(plan, floats, ints)
  # Pulled back through o = p @ v and sums = sum(p) with p normalised, these cotangents give ds = p (do . v - delta).
  delta = (do * o).sum(axis=-1)
  d_sums = -delta if enc.normaliser == 'softmax' else jnp.zeros_like(delta)

  def one_row(totals, args):
    a, row, row_ids, do_row, d_sums_row, lse_row = args
    start, stop = grid.key_blocks(a)

    def inputs(b, carried):
      column, column_ids = _at((floats['columns'], ints['columns']), b)
      tables = plan.cut(floats['tables'], a, b)
      return (row_ids, column_ids), (enc, row, column, tables, carried)

    def carry(n, so_far):
      """The forward walk again, for its sums alone: what each block of the row is given."""
      into, carried = so_far
      b = stop - 1 - n
      into = jax.tree.map(lambda all, one: lax.dynamic_update_index_in_dim(all, one, b, 0), into, carried)
      ids, given = inputs(b, carried)
      run = lambda constant: _block(plan, constant, a, b, ids, given, lse_row)[-1]
      return into, _by_kind(plan, floats['tables'], a, b, run)

    into = jax.tree.map(lambda zeros: jnp.zeros((grid.column_blocks, *zeros.shape)), carries)
    if carries:
      visited, (into, _) = _leftwards(enc, stop - start, carry, (into, carries))
      start = stop - visited

    def one_block(b, so_far):
      (d_enc, d_columns, d_tables), d_row, d_carried = so_far
      ids, given = inputs(b, _at(into, b))

      def pull(constant):
        def outputs(*given):
          o, sums, _, carried = _block(plan, constant, a, b, ids, given, lse_row)
          return o, sums, carried

        return jax.vjp(outputs, *given)[1]((do_row, d_sums_row, d_carried))

      g_enc, g_row, g_column, g_tables, d_carried = _by_kind(plan, floats['tables'], a, b, pull)
      d_enc = jax.tree.map(jnp.add, d_enc, g_enc)
      d_tables = plan.add(d_tables, g_tables, a, b)
      return (d_enc, _add_at(d_columns, g_column, b), d_tables), jax.tree.map(jnp.add, d_row, g_row), d_carried

    totals, d_row, _ = lax.fori_loop(start, stop, one_block, (totals, _zeros(row), carries))
    return totals, d_row

  totals = _zeros(enc), _zeros(floats['columns']), _zeros(floats['tables'])
  per_row = (jnp.arange(grid.row_blocks), floats['rows'], ints['rows'], do, d_sums, lse)
  (d_enc, d_columns, d_tables), d_rows = lax.scan(one_row, totals, per_row)
  gradients = {'enc': d_enc, 'tables': d_tables, 'rows': d_rows, 'columns': d_columns}
  return _like(gradients, floats), None


_attention.defvjp(_forward, _backward)
