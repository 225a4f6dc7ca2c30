"""Attention tile by tile: O(T) memory forward and backward, at any length."""

import functools

from posenc_jax.attention.backends.refusals import NO_ARRAY, NO_BIAS
from posenc_jax.attention.request import AttentionRequest
from posenc_jax.attention.tiled import passes
from posenc_jax.attention.tiled.differentiable import differentiable
from posenc_jax.attention.tiled.schedule import (
  TileRange,
  TileSchedule,
  cut_into_tiles,
  first_tokens,
  join_tiles,
  zeros_like,
)


def refuse(request: AttentionRequest) -> str | None:
  """The reason why tiles cannot serve this request, or None."""
  if request.enc.normalizer == 'rows':
    name = type(request.enc).__name__
    return f'{name} makes weights of whole rows of scores, of which a tile holds a part'
  if request.array_mask_BTS is not None:
    return NO_ARRAY
  if request.bias_BHTS is not None:
    return NO_BIAS
  return None


def run(request: AttentionRequest):
  """o_BTHK in float32, with log-sum-exp where the request wants it."""
  schedule = TileSchedule.of_request(request)
  tiles = TileRange.whole(schedule)
  arrays, ids = cut_into_tiles(schedule, request)
  attention = differentiable(_forward, _backward, tiles, with_lse=request.wants_lse)
  return first_tokens(join_tiles(attention(arrays, ids)), schedule.grid.T)


def _forward(tiles: TileRange, arrays, ids):
  enc = arrays['whole']
  finish = functools.partial(passes.divide_out, enc)
  return passes.forward_pass(tiles, arrays, tiles.make_tables(enc), ids, finish=finish)


def _backward(tiles: TileRange, arrays, ids, per_row):
  tables, add_of_tables = tiles.make_differentiable_tables(arrays['whole'])
  totals = zeros_like((arrays['whole'], arrays['column'], tables))
  totals, d_row, _ = passes.backward_pass(tiles, arrays, tables, ids, per_row, totals)
  d_enc, d_column, d_tables = totals
  return {'whole': add_of_tables(d_enc, d_tables), 'row': d_row, 'column': d_column}
