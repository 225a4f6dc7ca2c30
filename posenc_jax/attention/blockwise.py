"""Attention block by block: O(T) memory forward and backward, for every encoding, at any length.

Forward, each row of blocks keeps a running softmax while it walks its key blocks from the diagonal leftwards (the order
in which sums over the keys j..i can be carried along). Backward, each block is computed again and pulled back through
the same `block_attention` by `jax.vjp`, given the rows' log-sum-exp: so gradients reach every table, gate and parameter
that an encoding reads, without a hand-written derivative. Blocks that nothing is visible in are never visited.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from posenc_jax.attention.block import MASKED, Block, block_attention, visible
from posenc_jax.attention.call import Call
from posenc_jax.attention.distances import Diagonals, Lookup, spread

DEFAULT_BLOCK = (256, 256)  # one divides the other


def refuse(call: Call) -> str | None:
  """Takes everything."""
  del call


@dataclasses.dataclass(frozen=True)
class Grid:
  """The static geometry of blocks over a [T, S] score matrix; the queries are the last T of the keys."""

  T: int
  S: int
  rows: int  # T', queries a block
  columns: int  # S', keys a block
  causal: bool
  window: int | None
  scale: float
  contiguous: bool
  distances: tuple[int, int]  # lowest and highest that tables hold where they are looked up

  @property
  def offset(self) -> int:
    return self.S - self.T

  @property
  def row_blocks(self) -> int:
    return -(-self.T // self.rows)

  @property
  def column_blocks(self) -> int:
    return -(-self.S // self.columns)

  def corner(self, a, b):
    """Distance of indices between the first query and the first key of block (a, b)."""
    return self.offset + a * self.rows - b * self.columns

  # Corners are equal modulo `stride`, so the blocks of one corner share their distances and are numbered by `diagonal`.

  @property
  def stride(self) -> int:
    return math.gcd(self.rows, self.columns)

  @property
  def first_corner(self) -> int:
    lowest = 1 - self.rows if self.causal else self.corner(0, self.column_blocks - 1)
    return self.offset - (self.offset - lowest) // self.stride * self.stride

  @property
  def last_corner(self) -> int:
    return self.corner(self.row_blocks - 1, 0)

  def diagonal(self, a, b):
    return (self.corner(a, b) - self.first_corner) // self.stride

  def key_blocks(self, a):
    """First and one past the last block of keys of which row a of blocks sees any."""
    first, last = self.offset + a * self.rows, self.offset + (a + 1) * self.rows - 1
    start, stop = 0, self.column_blocks
    if self.causal:
      stop = jnp.minimum(last // self.columns + 1, stop)
    if self.window is not None:
      start = jnp.maximum(first - self.window + 1, 0) // self.columns
      stop = jnp.minimum(stop, (last + self.window - 1) // self.columns + 1)
    return start, stop


def run(call: Call):
  """o_BTHK in float32."""
  T, S = call.q_BTHK.shape[1], call.k_BSGK.shape[1]
  # Short sides get the power of two above: where one side of a block divides the other, corners are few (see `stride`).
  rows, columns = (min(n, 1 << (m - 1).bit_length()) for n, m in zip(call.block or DEFAULT_BLOCK, (T, S), strict=True))
  grid = Grid(T, S, rows, columns, call.causal, call.window, call.scale, call.contiguous, call.distances)
  cut_rows = lambda tree: jax.tree.map(lambda x: _cut(x, rows), tree)
  cut_columns = lambda tree: jax.tree.map(lambda x: _cut(x, columns), tree)
  ids = {'position': call.positions_BS, 'segment': call.segments_BS}
  floats = {
    'enc': call.enc,
    'tables': _tables(grid, call),
    'rows': cut_rows({'q': call.q_BTHK, 'i': call.i}),
    'columns': cut_columns({'k': call.k_BSGK, 'v': call.v_BSGK, 'j': call.j}),
  }
  ints = {'rows': cut_rows(jax.tree.map(lambda x: x[:, call.offset :], ids)), 'columns': cut_columns(ids)}
  o_NBTHK = _attention(grid, floats, ints)
  return jnp.moveaxis(o_NBTHK, 0, 1).reshape(len(call.q_BTHK), -1, *o_NBTHK.shape[3:])[:, :T]


def _cut(x, n: int):
  """[B, T, ...] -> [blocks, B, n, ...], padded at the end."""
  x = jnp.pad(x, [(0, 0), (0, -x.shape[1] % n)] + [(0, 0)] * (x.ndim - 2))
  return jnp.moveaxis(x.reshape(len(x), -1, n, *x.shape[2:]), 1, 0)


# Tables. Scalars are spread once per diagonal of blocks, outside the loops: [diagonals, 1, H, T', S'] is O(T), and the
# gradient of the spreading, a sum along diagonals, is ordinary autodiff. Vectors stay rows, and blocks take slices.


def _tables(grid: Grid, call: Call):
  lowest, highest = call.distances
  if not grid.contiguous:
    return call.enc.tables(jnp.arange(lowest, highest + 1))
  size = grid.rows + grid.columns
  distances = jnp.arange(grid.first_corner - grid.columns, grid.last_corner + grid.rows)
  diagonals = jnp.arange((grid.last_corner - grid.first_corner) // grid.stride + 1)

  def prepare(table):
    if table.ndim == 3:
      return table
    take = lambda n: lax.dynamic_slice_in_dim(table, n * grid.stride, size).T
    return lax.map(lambda n: spread(take(n), grid.rows, grid.columns)[None], diagonals)

  # Distances that no visible pair has are read as the nearest that one may have: masked, they reach no score.
  return jax.tree.map(prepare, call.enc.tables(jnp.clip(distances, lowest, highest)))


def _cut_table(grid: Grid, table, diagonal):
  if not grid.contiguous:
    return table
  if table.ndim == 5:
    return lax.dynamic_index_in_dim(table, diagonal, keepdims=False)
  return lax.dynamic_slice_in_dim(table, diagonal * grid.stride, grid.rows + grid.columns)


def _add_to_table(grid: Grid, total, part, diagonal):
  if not grid.contiguous:
    return total + part
  start = diagonal if total.ndim == 5 else diagonal * grid.stride
  part = part[None] if total.ndim == 5 else part
  here = lax.dynamic_slice_in_dim(total, start, len(part))
  return lax.dynamic_update_slice_in_dim(total, here + part, start, axis=0)


# The loops.


def _at(tree, n):
  return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, n, keepdims=False), tree)


def _add_at(total, part, n):
  return jax.tree.map(lambda t, p: lax.dynamic_update_index_in_dim(t, _at(t, n) + p, n, 0), total, part)


def _zeros(tree):
  """Accumulators: float32 whatever the compute dtype."""
  return jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), tree)


def _like(tree, reference):
  return jax.tree.map(lambda x, r: x.astype(r.dtype), tree, reference)


def _block(grid: Grid, a, b, row_ids, column_ids, enc, row, column, tables, lse=None):
  order = grid.corner(a, b) + jnp.arange(grid.rows)[:, None] - jnp.arange(grid.columns)[None]
  key = b * grid.columns + jnp.arange(grid.columns)
  mask = (visible(order, grid.causal, grid.window) & (key < grid.S)[None])[None]
  if row_ids['segment'] is not None:
    mask &= row_ids['segment'][:, :, None] == column_ids['segment'][:, None]
  if grid.contiguous:
    r, distances = jnp.where(mask, order[None], 0), Diagonals(grid.rows, grid.columns)
  else:
    r = jnp.where(mask, row_ids['position'][:, :, None] - column_ids['position'][:, None], 0)
    distances = Lookup.of(r, *grid.distances)
    tables = jax.tree.map(lambda table: distances.spread(table) if table.ndim == 2 else table, tables)
  block = Block(row['i'], column['j'], order, r, mask, tables, distances)
  return block_attention(enc, row['q'], column['k'], column['v'], block, grid.scale, lse)


_to_columns = lambda x_BHT: x_BHT.swapaxes(1, 2)[..., None]  # against o_BTHK


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(grid: Grid, floats, ints):
  return _forward(grid, floats, ints)[0]


def _forward(grid: Grid, floats, ints):
  enc, columns = floats['enc'], floats['columns']
  B, _, H, _ = floats['rows']['q'].shape[1:]
  softmax = enc.normaliser == 'softmax'

  def one_row(args):
    a, row, row_ids = args
    start, stop = grid.key_blocks(a)

    def one_block(n, so_far):
      o, sums, top = so_far
      b = stop - 1 - n
      tables = jax.tree.map(lambda table: _cut_table(grid, table, grid.diagonal(a, b)), floats['tables'])
      o_b, sums_b, top_b = _block(grid, a, b, row_ids, _at(ints['columns'], b), enc, row, _at(columns, b), tables)
      new_top = jnp.maximum(top, top_b)
      old, new = jnp.exp(top - new_top), jnp.exp(top_b - new_top)
      return o * _to_columns(old) + o_b * _to_columns(new), sums * old + sums_b * new, new_top

    nothing = (
      jnp.zeros((B, grid.rows, H, columns['v'].shape[-1]), jnp.float32),
      jnp.zeros((B, H, grid.rows), jnp.float32),
      jnp.full((B, H, grid.rows), MASKED, jnp.float32),
    )
    o, sums, top = lax.fori_loop(0, stop - start, one_block, nothing)
    if not softmax:
      return o, jnp.zeros_like(top)
    return o / _to_columns(sums), top + jnp.log(sums)

  o, lse = lax.map(one_row, (jnp.arange(grid.row_blocks), floats['rows'], ints['rows']))
  return o, (floats, ints, o, lse)


def _backward(grid: Grid, residuals, do):
  floats, ints, o, lse = residuals
  enc, columns = floats['enc'], floats['columns']
  # Pulled back through o = p @ v and sums = sum(p) with p normalised, these cotangents give ds = p (do . v - delta).
  delta = (do * o).sum(axis=-1).swapaxes(-1, -2)
  d_sums = -delta if enc.normaliser == 'softmax' else jnp.zeros_like(delta)

  def one_row(totals, args):
    a, row, row_ids, do_row, d_sums_row, lse_row = args
    start, stop = grid.key_blocks(a)

    def one_block(b, so_far):
      (d_enc, d_columns, d_tables), d_row = so_far
      diagonal = grid.diagonal(a, b)
      tables = jax.tree.map(lambda table: _cut_table(grid, table, diagonal), floats['tables'])
      outputs = lambda *inputs: _block(grid, a, b, row_ids, _at(ints['columns'], b), *inputs, lse_row)[:2]
      _, pull = jax.vjp(outputs, enc, row, _at(columns, b), tables)
      g_enc, g_row, g_column, g_tables = pull((do_row, d_sums_row))
      d_enc = jax.tree.map(jnp.add, d_enc, g_enc)
      d_tables = jax.tree.map(lambda t, g: _add_to_table(grid, t, g, diagonal), d_tables, g_tables)
      return (d_enc, _add_at(d_columns, g_column, b), d_tables), jax.tree.map(jnp.add, d_row, g_row)

    return lax.fori_loop(start, stop, one_block, (totals, _zeros(row)))

  totals = _zeros(enc), _zeros(columns), _zeros(floats['tables'])
  per_row = (jnp.arange(grid.row_blocks), floats['rows'], ints['rows'], do, d_sums, lse)
  (d_enc, d_columns, d_tables), d_rows = lax.scan(one_row, totals, per_row)
  gradients = {'enc': d_enc, 'tables': d_tables, 'rows': d_rows, 'columns': d_columns}
  return _like(gradients, floats), None


_attention.defvjp(_forward, _backward)
