"""Attention in Pallas kernels, for TPU: the passes of `blockwise`, each of them one kernel.

The block function is the encoding's own, with `tile_attention` around it; so an encoding gets its
kernel, with all gradients, from the hooks that it has.
"""

import functools

import jax
import jax.numpy as jnp

from posenc_jax.attention.backends import blockwise
from posenc_jax.attention.fused.passes import backward_pass, forward_pass
from posenc_jax.attention.fused.tables import tables_by_diagonal
from posenc_jax.attention.request import AttentionRequest
from posenc_jax.attention.tiled import passes
from posenc_jax.attention.tiled.schedule import TileSchedule, cast_like, cut_into_tiles, join_tiles


def refuse(request: AttentionRequest) -> str | None:
  """The reason why no kernel for TPU can serve this request, or None."""
  if request.platform != 'tpu':
    return f'jax runs on {request.platform}, these kernels need a TPU'
  return refuse_in_kernels(request)


def refuse_in_kernels(request: AttentionRequest) -> str | None:
  """The reason why tiles of this request cannot be computed in a kernel, or None."""
  if (reason := blockwise.refuse(request)) is not None:
    return reason
  if request.enc.has_terms and not request.contiguous:
    return 'with explicit positions each pair looks its distance up, which a kernel cannot'
  return None


def run(request: AttentionRequest, interpret: bool = False):
  """o_BTHK in the dtype of v."""
  schedule = TileSchedule.of_request(request)
  tiles, ids = cut_into_tiles(schedule, request)
  arrays = {'whole': tiles['enc'], 'row': tiles['rows'], 'column': tiles['columns']}
  has_tables = request.enc.has_terms
  arrays['diagonal'] = tables_by_diagonal(schedule.grid, request.enc) if has_tables else {}
  ids = {'row': ids['rows'], 'column': ids['columns']}
  return join_tiles(_attention(schedule, interpret, arrays, ids))[:, : schedule.grid.T]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attention(schedule: TileSchedule, interpret: bool, arrays, ids):
  return _forward(schedule, interpret, arrays, ids)[0]


def _forward(schedule: TileSchedule, interpret: bool, arrays, ids):
  o, lse, into = forward_pass(schedule, arrays, ids, interpret)
  if 'sink' in arrays['row']:
    lse_of_keys, lse = lse, jnp.logaddexp(lse, arrays['row']['sink'])
    o = (o * jnp.exp(lse_of_keys - lse)[..., None]).astype(o.dtype)
  return o, (arrays, ids, o, lse, into)


def _backward(schedule: TileSchedule, interpret: bool, residuals, do):
  arrays, ids, o, lse, into = residuals
  enc, row = arrays['whole'], arrays['row']
  exact = (x.astype(jnp.float32) for x in (o, do))
  _, d_denominator, lse = passes.output_cotangents(enc, *exact, lse)
  per_row = do, d_denominator, lse
  gradients = backward_pass(schedule, arrays, ids, per_row, into, interpret)
  gradients['row'] = passes.add_sink_gradient(gradients['row'], row, per_row)
  return cast_like(gradients, arrays), None


_attention.defvjp(_forward, _backward)
