"""Attention in Pallas kernels, for TPU: the passes of `blockwise`, each of them one kernel.

The block function is the encoding's own, with `tile_attention` around it; so an encoding gets its
kernel, with all gradients, from the hooks that it has.
"""

import dataclasses
import functools
import math

import jax

from posenc_jax import target
from posenc_jax.attention.backends import blockwise
from posenc_jax.attention.backends.refusals import HIGHEST, refuse_products
from posenc_jax.attention.kernels.run import refuse_mesh, run_kernels
from posenc_jax.attention.kernels.tpu.kernel import LANES, SMEM_BYTES, bytes_of_scalars
from posenc_jax.attention.kernels.tpu.passes import backward_pass, forward_pass, pulled_back_program
from posenc_jax.attention.kernels.unsupported import UNSUPPORTED_IN_MOSAIC
from posenc_jax.attention.request import AttentionRequest
from posenc_jax.attention.tiled.distance_tables import kernel_tables
from posenc_jax.attention.tiled.schedule import TileSchedule, cut_into_tiles
from posenc_jax.distributed.mesh import devices_of_batch

# They cannot gather along sublanes: compiled for a v4, no kernel is lowered.
TOO_OLD = ('TPU v2', 'TPU v3', 'TPU v4')
# The first jax that multiplies arrays of several leading axes in a kernel for TPU.
OLDEST_JAX = (0, 11, 1)
MOST_PAIRS = 2**19  # pairs of a tile, of all heads: 2 MiB in float32
# A kernel holds some nine float32 arrays of a tile's pairs and eight of its rows, half of these in
# the dtype of the request. What compiles, and what does not, lies on either side of these limits
# (LOG/161).
BYTES_OF_PAIR = 36
VMEM, HALF_VMEM = 95 * 2**20, 61 * 2**20
HAVE_HALF = ('TPU v5', 'TPU v5p', 'TPU7x')  # 64 MiB, where a v5e has 128


def refuse(request: AttentionRequest) -> str | None:
  """The reason why no kernel for TPU can serve this request, or None."""
  return refuse_sizes(request) or refuse_interpreted(request)


def refuse_interpreted(request: AttentionRequest) -> str | None:
  """The reason why no kernel can serve this request even in Pallas' interpreter, or None."""
  return refuse_in_kernel(request) or refuse_mesh(request)


def refuse_sizes(request: AttentionRequest, devices: int = 1) -> str | None:
  """The reason why there are no kernels here, or none of these sizes, or None.

  `devices`: how many hold a part of the sequence.
  """
  if request.platform != 'tpu':
    return f'jax runs on {request.platform}, these kernels need a TPU'
  if jax.__version_info__ < OLDEST_JAX:
    oldest = '.'.join(map(str, OLDEST_JAX))
    return f'jax {jax.__version__} compiles no such kernels for TPU; {oldest} does'
  if (kind := target.device_kind()) in TOO_OLD:
    return f'a {kind} cannot gather as these kernels do; a v5 or later can'
  if (reason := refuse_products(request)) is not None:
    return reason
  T, S = (-(-x.shape[1] // devices) for x in (request.q_BTHK, request.k_BSGK))
  if min(T, S) < LANES:
    return f'a tile has at least {LANES} queries and {LANES} keys, not {T} and {S}'
  sizes = request.block_sizes or _block_sizes(request, devices)
  if any(n % LANES for n in sizes):
    return f'the sides of a tile must be multiples of {LANES}, not {sizes[0]} and {sizes[1]}'
  if not _has_room(request, sizes):
    heads, width = request.q_BTHK.shape[2], _width(request)
    tile = f'{sizes[0]} queries and {sizes[1]} keys of {heads} heads {width} wide'
    return f'a tile of {tile} takes more than the memory of these kernels'
  if (needed := _bytes_of_scalars(request, sizes, devices)) > SMEM_BYTES:
    what = f'where the tiles of {T} x {S} lie takes {needed / 2**20:.2f} MiB'
    return f'{what}, and a TPU has 1 MiB for such numbers; larger tiles are fewer'
  return None


def refuse_in_kernel(request: AttentionRequest) -> str | None:
  """The reason why tiles of this request cannot be computed in a kernel, or None."""
  if (reason := blockwise.refuse(request)) is not None:
    return reason
  for n in request.block_sizes or ():
    if n & (n - 1):
      return f'a side of a tile must be a power of 2, not {n}: tables are added up by halves of it'
  if request.enc.has_terms and not request.distances_by_index:
    return 'with explicit positions each pair looks its distance up, which a kernel cannot'
  schedule = schedule_of(request)
  arrays, ids = jax.eval_shape(lambda: _cut(schedule, request))
  name = type(request.enc).__name__
  try:
    needed = pulled_back_program(schedule, arrays, ids).primitives()
  except NotImplementedError as what:
    return f'{name} {what}, which lie in another order in a kernel'
  for primitive, what in UNSUPPORTED_IN_MOSAIC.items():
    if primitive in needed:
      return f'{name} {what} in every tile ({primitive}), which Mosaic does not compile'
  return None


def run(request: AttentionRequest, interpret: bool = False):
  """o_BTHK in the dtype of v, with log-sum-exp where the request wants it."""
  alone = functools.partial(forward_pass, keeps_carried=False)
  passes = forward_pass, backward_pass
  return run_kernels(request, schedule_of(request), _cut, *passes, interpret, alone)


def schedule_of(request: AttentionRequest, devices: int = 1) -> TileSchedule:
  """The schedule of a request in kernels, on so many devices, each with a part of the sequence."""
  return _schedule(request, request.block_sizes or _block_sizes(request, devices), devices)


def _schedule(request: AttentionRequest, sizes: tuple[int, int], devices: int) -> TileSchedule:
  return TileSchedule.of_request(dataclasses.replace(request, block_sizes=sizes), devices)


def _cut(schedule: TileSchedule, request: AttentionRequest):
  """The arrays of a request and its ids, by how kernels cut them."""
  arrays, ids = cut_into_tiles(schedule, request)
  arrays['diagonal'] = kernel_tables(schedule.grid, request.enc)
  return arrays, ids


def _block_sizes(request: AttentionRequest, devices: int) -> tuple[int, int]:
  """Queries and keys of a tile: as many as leave a kernel room for a dozen arrays of all heads, and
  more where those would be too many tiles.
  """
  sizes = (4, 4), (2, 2), (1, 2), (1, 1)
  sizes = [(LANES * queries, LANES * keys) for queries, keys in sizes]
  heads = request.q_BTHK.shape[2]
  is_exact = request.enc.exact_products or jax.config.jax_default_matmul_precision in HIGHEST
  if is_exact and request.enc.has('score'):
    sizes = sizes[1:]  # products in several passes take room of their own: FIRE's all there is
  fits = lambda n: heads * math.prod(n) <= MOST_PAIRS and _has_room(request, n)
  usual = next(filter(fits, sizes[1:]), sizes[-1])
  larger = [n for n in sizes[: sizes.index(usual)][::-1] if _has_room(request, n)]
  are_few = lambda n: _bytes_of_scalars(request, n, devices) <= SMEM_BYTES
  return next(filter(are_few, (usual, *larger)), (usual, *larger)[-1])


def _bytes_of_scalars(request: AttentionRequest, sizes: tuple[int, int], devices: int) -> int:
  """The bytes of the numbers that say where tiles of so many queries and keys lie."""
  grid, has_segments = _schedule(request, sizes, devices).grid, request.segment_ids is not None
  # Of the rows of segments a device has those of its share of the batch; one row is all devices'.
  rows = len(request.segment_ids) if has_segments and not request.enc.scans_keys else 0
  segments = rows if rows < 2 else -(-rows // devices_of_batch())
  # On a ring, a shard meets no other in more tiles than itself or its neighbor on the left.
  T, S = (-(-n // devices) for n in (grid.T, grid.S))
  grids = [grid] if devices == 1 else [dataclasses.replace(grid, T=T, S=S, shift=n) for n in (0, S)]
  return max(bytes_of_scalars(grid, segments) for grid in grids)


def _has_room(request: AttentionRequest, sizes: tuple[int, int]) -> bool:
  """Whether a kernel's arrays of a tile of so many queries and keys fit into its memory."""
  bytes_of_channel = 4 * 4 + 4 * request.q_BTHK.dtype.itemsize
  bytes_of_row = -(-_width(request) // LANES) * LANES * bytes_of_channel
  of_head = math.prod(sizes) * BYTES_OF_PAIR + max(sizes) * bytes_of_row
  most = HALF_VMEM if target.device_kind() in HAVE_HALF else VMEM
  return request.q_BTHK.shape[2] * of_head <= most


def _width(request: AttentionRequest) -> int:
  """The channels of a query or a value, whichever has more."""
  return max(request.q_BTHK.shape[-1], request.v_BSGK.shape[-1])
