"""A call of attention cut into blocks, and shares of them with the tables that they read."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from posenc_jax.attention.request import Call
from posenc_jax.attention.tiled import relative_tables as shared
from posenc_jax.attention.tiled.geometry import Grid
from posenc_jax.xla_ops import hold

DEFAULT_BLOCK = (256, 256)  # one divides the other


class Plan(NamedTuple):
  """What is static in one call."""

  grid: Grid
  scale: float
  # tables lie along diagonals and are shared by blocks; else each block looks its distances up
  contiguous: bool
  distances: tuple[int, int]  # lowest and highest that tables hold then

  @classmethod
  def of(cls, call: Call, shares: int = 1):
    """`shares`: of how many devices; each has whole blocks."""
    T, S = call.q_BTHK.shape[1], call.k_BSGK.shape[1]
    # Short sides get the power of two above: where one side of a block divides the other, corners
    # are few (`stride`).
    sides = (1 << (-(-n // shares) - 1).bit_length() for n in (T, S))
    rows, columns = map(min, call.block or DEFAULT_BLOCK, sides)
    lowest, highest = call.distances
    if call.enc.reach is not None:
      lowest, highest = max(lowest, -call.enc.reach), min(highest, call.enc.reach)
    grid = Grid(T, S, rows, columns, call.causal, call.window, lowest, highest)
    return cls(grid, call.scale, call.contiguous, call.distances)


class Part(NamedTuple):
  """Consecutive rows of blocks against consecutive columns of blocks, which are numbered from 0 in
  it.
  """

  plan: Plan
  rows: int  # how many
  columns: int
  first: tuple = (0, 0)  # row and column of the grid that are 0 here; may be traced

  @classmethod
  def all(cls, plan: Plan):
    return cls(plan, plan.grid.row_blocks, plan.grid.column_blocks)

  def of_grid(self, a, b):
    return self.first[0] + a, self.first[1] + b

  def key_blocks(self, a):
    """First and one past the last column of which row a sees any."""
    ends = self.plan.grid.key_blocks(self.first[0] + a)
    return tuple(jnp.clip(end - self.first[1], 0, self.columns) for end in ends)

  @property
  def diagonals(self):
    """The first, and how many."""
    return self.plan.grid.diagonals_of(*self.first, self.rows, self.columns)

  def diagonal(self, a, b):
    return self.plan.grid.diagonal(*self.of_grid(a, b)) - self.diagonals[0]

  def tables(self, enc):
    if self.plan.contiguous:
      return shared.of_grid(self.plan.grid, enc, *self.diagonals)
    lowest, highest = self.plan.distances
    return enc.tables(jnp.arange(lowest, highest + 1))

  def cut(self, tables, a, b):
    return (
      shared.cut(self.plan.grid, tables, self.diagonal(a, b)) if self.plan.contiguous else tables
    )

  def add(self, totals, parts, a, b):
    if self.plan.contiguous:
      return shared.add(self.plan.grid, totals, parts, self.diagonal(a, b))
    return jax.tree.map(jnp.add, totals, parts)


# How ids are padded: at another position than the last, padding could be farther away than tables
# reach, and be NaN.
EDGES = {'position': 'edge', 'segment': 'constant'}


def cut(plan: Plan, call: Call):
  """The arrays of a call as walks take them, in blocks: those that have gradients, but for tables,
  and ids.
  """
  rows, columns = plan.grid.rows, plan.grid.columns
  ids = {'position': call.positions_BS, 'segment': call.segments_BS}
  cut_rows = lambda tree: jax.tree.map(lambda x: _cut(x, rows), tree)
  cut_columns = lambda tree: jax.tree.map(lambda x: _cut(x, columns), tree)
  floats = {
    'enc': call.enc,
    'rows': {'q': _cut_heads(call.q_BTHK, rows), 'i': cut_rows(call.i)},
    'columns': {
      'k': _cut_heads(call.k_BSGK, columns),
      'v': _cut_heads(call.v_BSGK, columns),
      'j': cut_columns(call.j),
    },
  }
  cut_ids = lambda tree, n: {
    name: x if x is None else _cut(x, n, EDGES[name]) for name, x in tree.items()
  }
  of_rows = jax.tree.map(lambda x: x[:, call.offset :], ids)
  return floats, {'rows': cut_ids(of_rows, rows), 'columns': cut_ids(ids, columns)}


def join(o_NBHTK):
  """[blocks, B, H, n, K] -> [B, T, H, K], padded as the blocks are."""
  _, B, H, _, K = o_NBHTK.shape
  return o_NBHTK.transpose(1, 0, 3, 2, 4).reshape(B, -1, H, K)


def _cut(x, n: int, edge: str = 'constant'):
  """[B, T, ...] -> [blocks, B, n, ...], padded at the end."""
  x = jnp.pad(x, [(0, 0), (0, -x.shape[1] % n)] + [(0, 0)] * (x.ndim - 2), mode=edge)
  return jnp.moveaxis(x.reshape(len(x), -1, n, *x.shape[2:]), 1, 0)


def _cut_heads(x_BTHK, n: int):
  """[B, T, H, K] -> [blocks, B, H, n, K]. As one axis B H is laid out at once; XLA would copy twice
  otherwise.
  """
  x_NBTHK = _cut(x_BTHK, n)
  N, B, _, H, K = x_NBTHK.shape
  return hold(x_NBTHK.swapaxes(2, 3).reshape(N, B * H, n, K)).reshape(N, B, H, n, K)


def at(tree, n):
  return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, n, keepdims=False), tree)


def add_at(total, part, n):
  return jax.tree.map(
    lambda t, p: lax.dynamic_update_index_in_dim(t, at(t, n) + p, n, 0), total, part
  )


def zeros(tree):
  """Accumulators: float32 whatever the compute dtype."""
  return jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), tree)


def like(tree, reference):
  return jax.tree.map(lambda x, r: x.astype(r.dtype), tree, reference)
