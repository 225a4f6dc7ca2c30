"""The walks of rows of blocks over columns of blocks: of all of them, or of a share.

Forward, each row keeps a running softmax while it walks its key blocks from the diagonal leftwards
(the order in which sums over the keys j..i can be carried along). Backward, each block is computed
again and pulled back through the same `block_attention` by `jax.vjp`, given the rows' log-sum-exp:
so gradients reach every table, gate and parameter that an encoding reads, without a hand-written
derivative. Blocks that nothing is visible in are never visited.
"""

import jax
import jax.numpy as jnp
from jax import lax

from posenc_jax.attention.tiled.carry import Sums
from posenc_jax.attention.tiled.relative import Constant, Diagonals, Lookup
from posenc_jax.attention.tiled.schedule import Part, add_at, at, zeros
from posenc_jax.attention.tiled.tile import MASKED, Block, block_attention, visible


def _block(part: Part, constant: bool, a, b, ids, inputs, lse=None, top=None):
  """Block (a, b): what `block_attention` returns of it, and its sums carried on to the block on its
  left.

  inputs: (enc, row, column, tables of the block, sums carried from the right).
  """
  plan, grid, (row_ids, column_ids), (enc, row, column, tables, carried) = (
    part.plan,
    part.plan.grid,
    ids,
    inputs,
  )
  a, b = part.of_grid(a, b)
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
  return *block_attention(
    enc, row['q'], column['k'], column['v'], block, plan.scale, lse, top
  ), tuple(sums.totals)


def _by_kind(part: Part, tables, a, b, function):
  """function(constant): where vectors of tables may be constant over block (a, b), of whichever is
  true.
  """
  has_vectors = any(table.ndim == 3 for table in jax.tree.leaves(tables))
  if not (part.plan.contiguous and has_vectors and part.plan.grid.has_constant_blocks):
    return function(False)
  is_constant = part.plan.grid.is_constant(*part.of_grid(a, b))
  return lax.cond(is_constant, lambda: function(True), lambda: function(False))


def nothing(part: Part, floats, tables, ints):
  """What a row has before its first block: (o, sums of weights, what they are relative to), and
  what `score` carries.

  The latter are zeros [B, H, T'], or of its own shape, one for each sum that `score` asks for.
  """

  def first():
    row, column = at((floats['rows'], ints['rows']), 0), at((floats['columns'], ints['columns']), 0)
    inputs = floats['enc'], row[0], column[0], part.cut(tables, 0, 0), ()
    return _block(part, False, 0, 0, (row[1], column[1]), inputs)

  o, sums, top, carried = jax.eval_shape(first)
  return (*zeros((o, sums)), jnp.full(top.shape, MASKED, jnp.float32)), zeros(carried)


def _leftwards(enc, blocks, one_block, state):
  """one_block(n, state) for n = 0 .. blocks - 1, or until the sums carried say that the rest has no
  weight.

  state: (anything, sums carried). Returns the number of blocks that were visited, and the state.
  """
  if enc.spent is None:
    return blocks, lax.fori_loop(0, blocks, one_block, state)
  going = lambda so_far: (so_far[0] < blocks) & ~enc.spent(so_far[1][1])
  return lax.while_loop(going, lambda so_far: (so_far[0] + 1, one_block(*so_far)), (0, state))


def forward(part: Part, floats, tables, ints, so_far=None, finish=lambda state: state):
  """Every row of a part walks leftwards over its columns.

  Args:
    so_far: what each row has of columns further right, as `nothing` has it; None: there are none.
    finish: what is made of a row at the end.
  """
  enc, softmax = floats['enc'], floats['enc'].normalizer == 'softmax'

  def one_row(args):
    a, row, row_ids, so_far = args
    start, stop = part.key_blocks(a)

    def one_block(n, so_far):
      (o, sums, top), carried = so_far
      b = stop - 1 - n
      column, column_ids = at((floats['columns'], ints['columns']), b)
      inputs = enc, row, column, part.cut(tables, a, b), carried
      run = lambda constant: _block(part, constant, a, b, (row_ids, column_ids), inputs, top=top)
      o_b, sums_b, new_top, carried = _by_kind(part, tables, a, b, run)
      if not softmax:
        return (o + o_b, sums, top), carried
      old = jnp.exp(top - new_top)
      return (o * old[..., None] + o_b, sums * old + sums_b, new_top), carried

    so_far = nothing(part, floats, tables, ints) if so_far is None else so_far
    return finish(_leftwards(enc, stop - start, one_block, so_far)[1])

  return lax.map(one_row, (jnp.arange(part.rows), floats['rows'], ints['rows'], so_far))


def normalized(enc, state):
  """Of what rows have at the end: o, and log-sum-exp as `backward` takes it."""
  (o, sums, top), _ = state
  return (o / sums[..., None], top + jnp.log(sums)) if enc.normalizer == 'softmax' else (o, top)


def cotangents(enc, o, do, lse):
  """Those of a row's o and sums of weights, with weights taken relative to lse: what `backward`
  takes of rows.

  Pulled back through o = p @ v and sums = sum(p) with p normalized, they give ds = p (do . v -
  delta).
  """
  delta = (do * o).sum(axis=-1)
  return do, -delta if enc.normalizer == 'softmax' else jnp.zeros_like(delta), lse


def backward(part: Part, floats, tables, ints, per_row, totals, carried=None, d_carried=None):
  """Every row of a part walks back rightwards.

  Args:
    per_row: `cotangents`.
    totals: gradients of (enc, columns, tables), which the part's are added to.
    carried: what each row was given from columns further right; None: there are none.
    d_carried: the cotangent of what each row handed on to columns further left; None: there are
      none.

  Returns:
    totals; the gradients of rows; the cotangent of `carried`.
  """
  enc = floats['enc']
  _, carries = nothing(part, floats, tables, ints)

  def one_row(totals, args):
    a, row, row_ids, (do_row, d_sums_row, lse_row), carried, d_carried = args
    start, stop = part.key_blocks(a)

    def inputs(b, carried):
      column, column_ids = at((floats['columns'], ints['columns']), b)
      return (row_ids, column_ids), (enc, row, column, part.cut(tables, a, b), carried)

    def carry(n, so_far):
      """The forward walk again, for its sums alone: what each block of the row is given."""
      into, carried = so_far
      b = stop - 1 - n
      into = jax.tree.map(
        lambda all, one: lax.dynamic_update_index_in_dim(all, one, b, 0), into, carried
      )
      ids, given = inputs(b, carried)
      run = lambda constant: _block(part, constant, a, b, ids, given, lse_row)[-1]
      return into, _by_kind(part, tables, a, b, run)

    into = jax.tree.map(lambda zeros: jnp.zeros((part.columns, *zeros.shape)), carries)
    if carries:
      visited, (into, _) = _leftwards(
        enc, stop - start, carry, (into, carries if carried is None else carried)
      )
      start = stop - visited

    def one_block(b, so_far):
      (d_enc, d_columns, d_tables), d_row, d_carried = so_far
      ids, given = inputs(b, at(into, b))

      def pull(constant):
        def outputs(*given):
          o, sums, _, carried = _block(part, constant, a, b, ids, given, lse_row)
          return o, sums, carried

        return jax.vjp(outputs, *given)[1]((do_row, d_sums_row, d_carried))

      g_enc, g_row, g_column, g_tables, d_carried = _by_kind(part, tables, a, b, pull)
      d_enc = jax.tree.map(jnp.add, d_enc, g_enc)
      d_tables = part.add(d_tables, g_tables, a, b)
      return (
        (d_enc, add_at(d_columns, g_column, b), d_tables),
        jax.tree.map(jnp.add, d_row, g_row),
        d_carried,
      )

    last = carries if d_carried is None else d_carried
    totals, d_row, d_carried = lax.fori_loop(start, stop, one_block, (totals, zeros(row), last))
    return totals, (d_row, d_carried)

  rows = jnp.arange(part.rows), floats['rows'], ints['rows'], per_row, carried, d_carried
  totals, (d_rows, d_carried) = lax.scan(one_row, totals, rows)
  return totals, d_rows, d_carried
