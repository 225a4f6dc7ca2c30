"""A request for attention cut into tiles, and ranges of tiles with the tables that they read."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from posenc_jax.attention.mask import Mask
from posenc_jax.attention.request import AttentionRequest
from posenc_jax.attention.tiled.distance_tables import is_table, read_terms, spread_tables
from posenc_jax.attention.tiled.geometry import RowVisits, TileGrid
from posenc_jax.distributed.mesh import seeds_of_device
from posenc_jax.xla_ops import materialize_on_cpu, zeros

# Rows of a tile, and columns; by platform, where others than SIDE are faster: on a TPU by the
# compiler's estimate, on a GPU since each tile is a dozen kernels one after another. There the
# first is taken whose numbers are not too many.
SIDE = 256
SIDES_OF_PLATFORM = {'gpu': (1024, 512, SIDE), 'tpu': (512,)}
MOST_NUMBERS = 2**25  # of an array of one tile on a GPU, which has a few such arrays at a time
MOST_IN_TABLES = 2**28  # numbers that are laid out beforehand for tiles of each diagonal

# What padding has of the last token; of the rest it has zeros.
AS_LAST = (
  *('q_BTHK', 'k_BSGK', 'v_BSGK', 'i', 'j'),
  *('position_ids', 'segment_ids', 'index_BS', 'mask_ids'),
)
ALONG = ('sink_BTH', *AS_LAST)


class TileSchedule(NamedTuple):
  """All that is static in one request.

  Attributes:
    distances_by_index: whether distances are those of indices: then tables lie along diagonals and
      are shared by tiles; else each tile looks its distances up.
    distance_range: the lowest and the highest distance that tables hold in the latter case.
  """

  grid: TileGrid
  scale: float
  softcap: float | None
  distances_by_index: bool
  distance_range: tuple[int, int]

  @classmethod
  def of_square_tiles(cls, request: AttentionRequest, usual: int):
    """The schedule of a request in tiles with sides of `usual`, or as it asks for, or shorter."""
    T = request.q_BTHK.shape[1]
    side = min(*(request.block_sizes or (usual, usual)), 1 << (T - 1).bit_length())
    return cls.of_request(dataclasses.replace(request, block_sizes=(side, side)))

  @classmethod
  def of_request(cls, request: AttentionRequest, num_devices: int = 1):
    """The schedule of a request whose sequence lies on so many devices, each with whole tiles."""
    sizes = [request.block_sizes]
    if request.block_sizes is None:
      sizes = [(side, side) for side in SIDES_OF_PLATFORM.get(request.platform, (SIDE,))]
    *larger, last = (_grid(request, *of_tile, num_devices) for of_tile in sizes)
    grid = next((grid for grid in larger if _is_small_enough(grid, request)), last)
    return cls(
      grid, request.scale, request.softcap, request.distances_by_index, request.distance_range
    )


def _grid(request: AttentionRequest, rows: int, columns: int, num_devices: int) -> TileGrid:
  """The grid of a request in tiles of at most so many rows and columns, whole ones on each of the
  devices that its sequence lies on.
  """
  T, S = request.q_BTHK.shape[1], request.k_BSGK.shape[1]
  # Short sides get the power of two above: where one side of a tile divides the other, there are
  # few different corners (`TileGrid.stride`).
  sides = (1 << (-(-n // num_devices) - 1).bit_length() for n in (T, S))
  rows, columns = map(min, (rows, columns), sides)
  lowest, highest = request.distance_range
  end = request.enc.max_relative_distance
  if end is not None:
    lowest, highest = max(lowest, -end), min(highest, end)
  mask, is_packed = _mask(request), request.segment_ids is not None
  sink_columns = -(-mask.sink_tokens // columns)
  if sink_columns and (is_packed or request.enc.scans_keys):
    sink_columns = -(-S // columns)
  return TileGrid(T, S, rows, columns, mask, sink_columns, is_packed, lowest, highest)


def _mask(request: AttentionRequest) -> Mask:
  """The mask of a request, with a window where its encoding hides what is far."""
  mask, end = request.mask, request.enc.hides_from
  if end is None or not request.distances_by_index:
    return mask
  window = end if mask.window is None else min(end, mask.window)
  return dataclasses.replace(mask, window=window).cut(request.k_BSGK.shape[1])


def _is_small_enough(grid: TileGrid, request: AttentionRequest) -> bool:
  """Whether a tile and its diagonals have not too many numbers, and a window or a chunk has room
  for two of its sides: more would be computed in vain.
  """
  H, pairs, reach = request.q_BTHK.shape[2], grid.block_q * grid.block_k, grid.mask.reach
  has_tables = request.distances_by_index and request.enc.has_terms
  in_tables = has_tables * seeds_of_device() * H * grid.diagonals * pairs
  is_within_reach = reach is None or 2 * max(grid.block_q, grid.block_k) <= reach
  is_small = request.max_elements_per_pair * pairs <= MOST_NUMBERS and in_tables <= MOST_IN_TABLES
  return is_within_reach and is_small


class TileRange(NamedTuple):
  """Consecutive rows of tiles against consecutive columns of tiles, numbered from 0 in the range.

  Attributes:
    rows, columns: how many.
    first: the row and the column of the grid that are 0 here; they may be traced.
  """

  schedule: TileSchedule
  rows: int
  columns: int
  first: tuple = (0, 0)

  @classmethod
  def whole(cls, schedule: TileSchedule):
    return cls(schedule, schedule.grid.tile_rows, schedule.grid.tile_columns)

  def in_grid(self, a, b):
    """The row and the column of the grid of tile (a, b) of the range."""
    return self.first[0] + a, self.first[1] + b

  def visits(self, a) -> RowVisits:
    """The visits of row a to columns of the range."""
    return self.schedule.grid.visits(self.first[0] + a, self.first[1], self.columns)

  @property
  def most_visits(self) -> int:
    """How many columns of the range a row visits at most."""
    grid = self.schedule.grid
    visits = grid.visits(np.arange(grid.tile_rows), 0, grid.tile_columns)
    return min(self.columns, int(np.max(visits.stop - visits.start)))

  @property
  def diagonals(self):
    """(first, count) of the grid's diagonals in the range."""
    return self.schedule.grid.diagonals_of(*self.first, self.rows, self.columns)

  def diagonal(self, a, b):
    """The diagonal of tile (a, b), counted from the first of the range."""
    return self.schedule.grid.diagonal(*self.in_grid(a, b)) - self.diagonals[0]

  def make_tables(self, enc):
    """The encoding's terms for all distances in the range."""
    if self.schedule.distances_by_index:
      return spread_tables(self.schedule.grid, enc, *self.diagonals)
    lowest, highest = self.schedule.distance_range
    return read_terms(enc, jnp.arange(lowest, highest + 1))

  def make_differentiable_tables(self, enc):
    """The tables, made anew for a backward pass, which is to hold them no longer than it runs.

    Returns:
      tables: as `make_tables` makes them.
      add: (d_enc, d_tables) -> the gradient of the encoding with that of its tables added.
    """
    tables, pull_back = jax.vjp(self.make_tables, enc)

    def add(d_enc, d_tables):
      (of_tables,) = pull_back(cast_like(d_tables, tables))
      return jax.tree.map(jnp.add, d_enc, of_tables)

    return tables, add

  def terms_of_tile(self, tables, a, b):
    """What tile (a, b) sees of the tables; without contiguous positions, all of them."""
    if not self.schedule.distances_by_index:
      return tables
    diagonal = self.diagonal(a, b)
    of_tile = lambda table: table.of_tile(self.schedule.grid, diagonal)
    return jax.tree.map(of_tile, tables, is_leaf=is_table)

  def add_gradients(self, totals, gradients, a, b):
    """The adjoint of `terms_of_tile`, added to the totals."""
    if not self.schedule.distances_by_index:
      return jax.tree.map(jnp.add, totals, gradients)
    diagonal = self.diagonal(a, b)
    add = lambda total, gradient: total.add(self.schedule.grid, gradient, diagonal)
    return jax.tree.map(add, totals, gradients, is_leaf=is_table)


def cut_into_tiles(schedule: TileSchedule, request: AttentionRequest):
  """The arrays of a request as the passes take them.

  Returns:
    arrays: what has gradients: 'whole', the encoding; 'row', queries, their coordinates and sink,
      and 'column', keys, values and theirs, each a dict of pytrees [tiles, B|1, ...].
    ids: positions, segments, indices and `mask_ids` of 'row' and 'column'.
  """
  rows, columns = schedule.grid.block_q, schedule.grid.block_k
  arrays = {
    'whole': request.enc,
    'row': {'q': _cut_heads(request.q_BTHK, rows), 'i': cut_as_last(request.i, rows)},
    'column': {
      'k': _cut_heads(request.k_BSGK, columns),
      'v': _cut_heads(request.v_BSGK, columns),
      'j': cut_as_last(request.j, columns),
    },
  }
  if request.sink_BTH is not None:
    arrays['row']['sink'] = _cut(request.sink_BTH, rows).swapaxes(2, 3)
  ids = ids_of(request)
  row_ids = jax.tree.map(lambda x: x[:, request.offset :], ids)
  return arrays, {'row': cut_as_last(row_ids, rows), 'column': cut_as_last(ids, columns)}


def arrays_along(request: AttentionRequest) -> dict:
  """The arrays of a request that lie along its tokens: all that `cut_into_tiles` cuts, by name."""
  return {name: getattr(request, name) for name in ALONG}


def ids_of(request: AttentionRequest) -> dict:
  """The integers [B|1, S], or None, that say which keys a query sees and how far away they are."""
  return {
    'position': request.position_ids,
    'segment': request.segment_ids,
    'index': request.index_BS,
    'mask_id': request.mask_ids,
  }


def pad_as_last(x, padding: int):
  """x [B, T, ...] with so many tokens more, which have what the last one has.

  At another position padding could be farther away than tables reach, and be NaN; with a segment of
  its own, the last tiles would seem to share that segment. Of what no token has, such as a query of
  zeros, of which a score may take the norm, or one that sees 0 keys, gradients may be NaN.
  """
  if not padding:
    return x
  last = lax.stop_gradient(x[:, -1:])  # the cotangent of padding is 0, and need not be added up
  return jnp.concatenate([x, jnp.repeat(last, padding, axis=1)], axis=1)


def pad_with_zeros(x, padding: int):
  """x [B, T, ...] with so many tokens more."""
  return jnp.pad(x, [(0, 0), (0, padding)] + [(0, 0)] * (x.ndim - 2))


def join_tiles(tree):
  """[tiles, B, H, n, ...] -> [B, T, H, ...] of each array, padded as the tiles are."""

  def join(x):
    _, B, H, _, *each = x.shape
    return x.transpose(1, 0, 3, 2, *range(4, x.ndim)).reshape(B, -1, H, *each)

  return jax.tree.map(join, tree)


def first_tokens(tree, T: int):
  """The first T tokens of each array [B, T, ...], without what tiles are padded with."""
  return jax.tree.map(lambda x: x[:, :T], tree)


def _cut(x, n: int, pad=pad_with_zeros):
  """[B, T, ...] -> [tiles, B, n, ...], padded at the end."""
  x = pad(x, -x.shape[1] % n)
  return jnp.moveaxis(x.reshape(x.shape[0], -1, n, *x.shape[2:]), 1, 0)


def cut_as_last(tree, n: int):
  return jax.tree.map(lambda x: _cut(x, n, pad_as_last), tree)


def _cut_heads(x_BTHK, n: int):
  """[B, T, H, K] -> [tiles, B, H, n, K]."""
  x_NBTHK = _cut(x_BTHK, n, pad_as_last)
  N, B, _, H, K = x_NBTHK.shape
  # B and H as one axis are laid out at once; XLA would copy twice otherwise.
  flat = x_NBTHK.swapaxes(2, 3).reshape(N, B * H, n, K)
  return materialize_on_cpu(flat).reshape(N, B, H, n, K)


def tree_index(tree, n):
  """The n-th slice of every leaf along its first axis."""
  return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, n, keepdims=False), tree)


def tree_add_at(totals, parts, n):
  """The totals with the parts added to their n-th slices."""

  def add(total, part):
    return lax.dynamic_update_index_in_dim(total, tree_index(total, n) + part, n, 0)

  return jax.tree.map(add, totals, parts)


def zeros_like(tree):
  """Accumulators for a pytree: float32 whatever the compute dtype."""
  return jax.tree.map(lambda x: zeros(x.shape, jnp.float32, x), tree)


def cast_like(tree, reference):
  """The leaves of a tree in the dtypes of another one."""
  return jax.tree.map(lambda x, r: x.astype(r.dtype), tree, reference)
