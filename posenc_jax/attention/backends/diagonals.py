"""Attention by diagonals of square tiles, all rows of tiles at once: for GPUs, where each operation
is a kernel to be launched.

It launches once for a diagonal what `blockwise` launches for each of its tiles. For that it takes
memory of T times the side of a tile; sums that are carried along the keys are kept for every tile,
T^2 / side numbers a head. It visits all tiles, where `blockwise` may stop when the rest has no
weight.
"""

from posenc_jax.attention.backends import blockwise
from posenc_jax.attention.request import AttentionRequest
from posenc_jax.attention.tiled import diagonal_passes, passes
from posenc_jax.attention.tiled.differentiable import differentiable
from posenc_jax.attention.tiled.schedule import (
  TileRange,
  TileSchedule,
  cut_into_tiles,
  first_tokens,
  join_tiles,
)

SIDE = 512  # of a tile: half the launches of 256, for 1.6 times the memory
LARGEST = 2**28  # numbers of an array of pairs on one device, of which there are a few at a time


def refuse(request: AttentionRequest) -> str | None:
  """The reason why diagonals cannot serve this request, or None."""
  if (reason := blockwise.refuse(request)) is not None:
    return reason
  if request.block_sizes is not None and len({*request.block_sizes}) > 1:
    return f'block_sizes={tuple(request.block_sizes)}, where tiles must be square'
  enc, mask = request.enc, request.mask
  name = type(enc).__name__
  if any(enc.scans_keys):
    return f'{name} carries vectors along the keys, of which those of all tiles would be kept'
  if enc.has_vector_tables and not request.distances_by_index:
    return f'{name} has vectors by distance, whose products with all queries would be kept'
  if mask.sink_tokens and mask.reach is not None:
    return 'sink tokens from outside of a window or chunk are on no diagonal of its tiles'
  return None


def is_expected_faster(request: AttentionRequest) -> bool:
  """Whether it should beat `blockwise` on a GPU: where that launches many kernels, each of little
  work. Larger tiles of `blockwise` keep a GPU at work, and few queries have few rows.
  """
  T = request.q_BTHK.shape[1]
  return T >= SIDE and request.max_elements_per_pair * T * SIDE <= LARGEST


def run(request: AttentionRequest):
  """o_BTHK in float32, with log-sum-exp where the request wants it."""
  tiles = TileRange.whole(TileSchedule.of_square_tiles(request, SIDE))
  arrays, ids = cut_into_tiles(tiles.schedule, request)
  attention = differentiable(_forward, _backward, tiles, with_lse=request.wants_lse)
  return first_tokens(join_tiles(attention(arrays, ids)), tiles.schedule.grid.T)


def _forward(tiles: TileRange, arrays, ids):
  enc = arrays['whole']
  state = diagonal_passes.forward_pass(tiles, arrays, tiles.make_tables(enc), ids)
  return passes.divide_out(enc, state)


def _backward(tiles: TileRange, arrays, ids, per_row):
  tables, add_of_tables = tiles.make_differentiable_tables(arrays['whole'])
  found = diagonal_passes.backward_pass(tiles, arrays, tables, ids, per_row)
  d_enc, d_row, d_column, d_tables = found
  return {'whole': add_of_tables(d_enc, d_tables), 'row': d_row, 'column': d_column}
