"""Attention by diagonals of square tiles, all rows of tiles at once: for GPUs, where each operation
is a kernel to be launched.

It takes O(T) memory and every encoding that `blockwise` takes, which launches for each tile what
this launches for a diagonal of them.
"""

from posenc_jax.attention.backends import blockwise
from posenc_jax.attention.request import AttentionRequest
from posenc_jax.attention.tiled import diagonal_passes, passes
from posenc_jax.attention.tiled.differentiable import differentiable
from posenc_jax.attention.tiled.schedule import TileRange, TileSchedule, cut_into_tiles, join_tiles

SIDE = 512  # of a tile: half the launches of 256, for 1.6 times the memory


def refuse(request: AttentionRequest) -> str | None:
  """The reason why diagonals cannot serve this request, or None."""
  if (reason := blockwise.refuse(request)) is not None:
    return reason
  if request.block_sizes is not None and len({*request.block_sizes}) > 1:
    return f'block_sizes={tuple(request.block_sizes)}, where tiles must be square'
  return None


def run(request: AttentionRequest):
  """o_BTHK in float32."""
  tiles = TileRange.whole(TileSchedule.of_square_tiles(request, SIDE))
  arrays, ids = cut_into_tiles(tiles.schedule, request)
  arrays['tables'] = tiles.make_tables(request.enc)
  attention = differentiable(_forward, _backward, tiles)
  return join_tiles(attention(arrays, ids))[:, : tiles.schedule.grid.T]


def _forward(tiles: TileRange, arrays, ids):
  state = diagonal_passes.forward_pass(tiles, arrays, arrays['tables'], ids)
  return passes.normalize(arrays['whole'], state)


def _backward(tiles: TileRange, arrays, ids, per_row):
  d = diagonal_passes.backward_pass(tiles, arrays, arrays['tables'], ids, per_row)
  return dict(zip(('whole', 'row', 'column', 'tables'), d, strict=True))
