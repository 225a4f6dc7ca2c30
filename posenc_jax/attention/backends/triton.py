"""Attention in Pallas kernels for NVIDIA GPUs, through Triton: the passes of `blockwise`.

A program has one head, for which the encoding's own code is traced. Biases by distance are laid out
beforehand, a tile for each diagonal, as `blockwise` has them. An encoding whose scores mix heads,
read parameters, or turn vectors by distance stays with `blockwise` and `dense`. At the default
precision products of float32 have the digits of TF32.
"""

import dataclasses
import importlib

import jax
import jax.numpy as jnp

from posenc_jax.attention.backends import blockwise
from posenc_jax.attention.kernels.gpu.passes import (
  backward_pass,
  check_pulled_back,
  forward_pass,
  forward_program,
  is_of_one_head,
)
from posenc_jax.attention.kernels.run import refuse_mesh, run_kernels
from posenc_jax.attention.request import AttentionRequest
from posenc_jax.attention.tiled.distance_tables import Scalars, is_table, kernel_tables, spread
from posenc_jax.attention.tiled.schedule import TileSchedule, cut_into_tiles
from posenc_jax.errors import MAX_REASON, one_line
from posenc_jax.target import shared_memory

# Queries and keys of a tile, of which the first is taken that the shared memory of a GPU has room
# for.
SIDES = ((64, 64), (32, 32), (16, 16))
LEAST = 16  # numbers along each axis of a product
# There Triton holds up to so many copies of the rows of a tile's queries and keys, and bytes of
# each pair: compiled for an RTX 4090, an A100 and an H100, which alone has four copies. In tiles
# whose sides are shorter than FOR_WARP_GROUPS, it holds up to three copies in all.
COPIES_OF_ROWS, BYTES_OF_PAIR = 4, 3
FOR_WARP_GROUPS, COPIES_OF_SHORT_ROWS = 64, 3
RESERVED = 3 * 2**10  # of shared memory, for sums and what CUDA keeps


def refuse(request: AttentionRequest) -> str | None:
  """The reason why no kernel for GPUs can serve this request, or None."""
  return _refuse_sizes(request) or refuse_interpreted(request)


def refuse_interpreted(request: AttentionRequest) -> str | None:
  """The reason why no kernel can serve this request even in Pallas' interpreter, or None."""
  return _refuse_jax() or refuse_in_kernel(request) or refuse_mesh(request)


def _refuse_jax() -> str | None:
  try:
    importlib.import_module('jax.experimental.pallas.triton')
  except ImportError:
    return 'this version of jax has no Pallas for Triton'
  return None


def _refuse_sizes(request: AttentionRequest) -> str | None:
  if request.platform != 'gpu':
    return f'jax runs on {request.platform}, these kernels need an NVIDIA GPU'
  T, S = request.q_BTHK.shape[1], request.k_BSGK.shape[1]
  if min(T, S) < LEAST:
    return f'a tile has at least {LEAST} queries and {LEAST} keys, not {T} and {S}'
  width = min(request.q_BTHK.shape[-1], request.v_BSGK.shape[-1])
  if width < LEAST:
    return f'a head is at least {LEAST} wide, not {width}'
  for n in _sides(request):
    if n < LEAST or n & (n - 1):
      return f'a side of a tile must be a power of 2 and at least {LEAST}, not {n}'
  return _refuse_large_tile(request)


def _refuse_large_tile(request: AttentionRequest) -> str | None:
  grid = schedule_of(request).grid  # of short sequences the sides are shorter
  if not _fits(request, (grid.block_q, grid.block_k)):
    tile = (
      f'{grid.block_q} queries and {grid.block_k} keys in rows of {_longest_row(request)} bytes'
    )
    memory = f'the shared memory of a GPU, {shared_memory() >> 10} KiB'
    return f'a tile of {tile} takes more than {memory}: block_sizes or heads are too large'
  return None


def refuse_in_kernel(request: AttentionRequest) -> str | None:
  """The reason why tiles of this request cannot be computed in a kernel, or None."""
  enc, name = request.enc, type(request.enc).__name__
  if (reason := blockwise.refuse(request)) is not None:
    return reason
  if enc.has_terms and not request.distances_by_index:
    return 'with explicit positions each pair looks its distance up, which a kernel cannot'
  if enc.has_vector_tables:
    return f'{name} has vectors by distance, which would have to be shifted along diagonals'
  if enc.scans_keys:
    return f'{name} carries sums along the keys, which programs side by side do not'
  schedule = schedule_of(request)
  shapes = jax.eval_shape(lambda: _cut(schedule, request))
  try:
    program, heads = forward_program(schedule, *shapes)
  except (TypeError, ValueError) as error:  # shapes do not fit
    what = f'{name} cannot score one head alone, as wide as a power of 2, and a program has one'
    return f'{what} ({one_line(error, MAX_REASON)})'
  if not is_of_one_head(program, shapes[0]):
    return f'{name} has numbers for each head in its scores, and a program has one head'
  inputs = len(program.reads) - len(jax.tree.leaves(shapes[0]['whole']))
  if any(program.reads[inputs:]):
    return f'{name} reads parameters in its scores, whose gradients programs would share'
  try:
    check_pulled_back(schedule, heads, *shapes)
  except NotImplementedError as what:
    return f'{name} {what} in every tile, which Triton does not'
  return None


def run(request: AttentionRequest, interpret: bool = False):
  """o_BTHK in the dtype of v, with log-sum-exp where the request wants it."""
  return run_kernels(request, schedule_of(request), _cut, forward_pass, backward_pass, interpret)


def schedule_of(request: AttentionRequest) -> TileSchedule:
  """The schedule of a request in kernels."""
  return TileSchedule.of_request(dataclasses.replace(request, block_sizes=_sides(request)))


def _sides(request: AttentionRequest) -> tuple[int, int]:
  """Queries and keys of a tile."""
  return request.block_sizes or _usual_sides(request)


def _usual_sides(request: AttentionRequest) -> tuple[int, int]:
  """Queries and keys of a tile, where a request does not say."""
  return next((sides for sides in SIDES if _fits(request, sides)), SIDES[-1])


def _fits(request: AttentionRequest, sides: tuple[int, int]) -> bool:
  """Whether shared memory has room for a tile, whatever the encoding is."""
  rows, columns = sides
  of_rows = (rows + columns) * _longest_row(request)
  needed = COPIES_OF_ROWS * of_rows + BYTES_OF_PAIR * rows * columns
  if max(sides) < FOR_WARP_GROUPS:
    needed = COPIES_OF_SHORT_ROWS * of_rows
  return needed <= shared_memory() - RESERVED


def _longest_row(request: AttentionRequest) -> int:
  """Bytes of a query, key or value as kernels read it, whichever is longest."""
  rows = request.q_BTHK, request.k_BSGK, request.v_BSGK
  return max(_padded(x.shape[-1]) * x.dtype.itemsize for x in rows)


def _cut(schedule: TileSchedule, request: AttentionRequest):
  """The arrays of a request and its ids, by how kernels cut them.

  Heads are as wide as the next power of 2, filled up with zeros.
  """
  wide = {name: _widen(getattr(request, name)) for name in ('q_BTHK', 'k_BSGK', 'v_BSGK')}
  arrays, ids = cut_into_tiles(schedule, dataclasses.replace(request, **wide))
  arrays['diagonal'] = _spread_tables(schedule, request.enc)
  return arrays, ids


def _widen(x):
  width = x.shape[-1]
  return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, _padded(width) - width)])


def _padded(width: int) -> int:
  """The next power of 2."""
  return 1 << (width - 1).bit_length()


def _spread_tables(schedule: TileSchedule, enc):
  """A pytree of Scalars [diagonals, 1, H|1, T', S'], of all diagonals at once: a GPU waits between
  the turns of a loop.
  """
  grid = schedule.grid
  spread_table = lambda table: Scalars(spread(table.values, grid.block_q, grid.block_k))
  return jax.tree.map(spread_table, kernel_tables(grid, enc), is_leaf=is_table)
