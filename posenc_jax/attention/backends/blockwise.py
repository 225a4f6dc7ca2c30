"""Attention tile by tile: O(T) memory forward and backward, for every encoding, at any length."""

import functools

import jax
from jax.ad_checkpoint import checkpoint_name

from posenc_jax.attention.request import OUTPUT, AttentionRequest
from posenc_jax.attention.tiled import passes
from posenc_jax.attention.tiled.schedule import (
  TileRange,
  TileSchedule,
  cast_like,
  cut_into_tiles,
  join_tiles,
  zeros_like,
)


def refuse(request: AttentionRequest) -> str | None:
  """The reason why tiles cannot serve this request, or None."""
  if request.enc.normalizer == 'rows':
    name = type(request.enc).__name__
    return f'{name} makes weights of whole rows of scores, of which a tile holds a part'
  return None


def run(request: AttentionRequest):
  """o_BTHK in float32."""
  schedule = TileSchedule.of_request(request)
  arrays, ids = cut_into_tiles(schedule, request)
  arrays['tables'] = TileRange.whole(schedule).make_tables(request.enc)
  return join_tiles(_attention(schedule, arrays, ids))[:, : schedule.grid.T]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(schedule: TileSchedule, arrays, ids):
  return _forward(schedule, arrays, ids)[0]


def _forward(schedule: TileSchedule, arrays, ids):
  finish = functools.partial(passes.normalize, arrays['enc'])
  tiles = TileRange.whole(schedule)
  o, lse = passes.forward_pass(tiles, arrays, arrays['tables'], ids, finish=finish)
  o, lse = passes.merge_sink(o, lse, arrays['rows'])
  o, lse = checkpoint_name((o, lse), OUTPUT)
  return o, (arrays, ids, o, lse)


def _backward(schedule: TileSchedule, residuals, do):
  arrays, ids, o, lse = residuals
  per_row = passes.output_cotangents(arrays['enc'], o, do, lse)
  totals = zeros_like((arrays['enc'], arrays['columns'], arrays['tables']))
  tiles = TileRange.whole(schedule)
  totals, d_rows, _ = passes.backward_pass(tiles, arrays, arrays['tables'], ids, per_row, totals)
  d_rows = passes.add_sink_gradient(d_rows, arrays['rows'], per_row)
  gradients = dict(zip(('enc', 'columns', 'tables'), totals, strict=True), rows=d_rows)
  return cast_like(gradients, arrays), None


_attention.defvjp(_forward, _backward)
