"""Runs kernels, on a mesh of devices each on its rows of the batch.

XLA cannot cut a kernel itself, and would gather what it reads on every device.
"""

import dataclasses

import jax
from jax.sharding import PartitionSpec

from posenc_jax.attention.request import AttentionRequest
from posenc_jax.attention.tiled.differentiable import differentiable
from posenc_jax.attention.tiled.schedule import TileSchedule, arrays_along, join_tiles
from posenc_jax.distributed.mesh import TOKENS, batch_axes, devices_of_batch


def refuse_mesh(request: AttentionRequest, also: tuple[str, ...] = ()) -> str | None:
  """The reason why the devices of the mesh that is set cannot share the batch, or None.

  `also`: other axes of the mesh that something is shared over.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.manual_axes:  # arrays are one device's rows already, and no axis is left to share over
    axes = ', '.join(mesh.manual_axes)
    return f'within jax.shard_map over {axes} kernels cannot share out the batch'
  shape, shared = mesh.shape, {*TOKENS[0], *also}
  others = [f'{name}={n}' for name, n in shape.items() if n > 1 and name not in shared]
  if others:
    return f'kernels share out the batch alone, but the mesh has {", ".join(others)}'
  batch, devices = len(request.q_BTHK), devices_of_batch()
  if batch % devices:
    return f'{batch} rows of the batch cannot be shared by {devices} devices'
  return None


def over_batch(function, arrays, whole=()):
  """function(arrays, *whole) on each device of the mesh, which has its rows of `arrays`.

  Args:
    arrays: a pytree of [B|1, ...].
    whole: a tuple of pytrees that every device has.
  """
  axes = batch_axes()
  if not axes:
    return function(arrays, *whole)
  batch = max(len(x) for x in jax.tree.leaves(arrays))
  rows = PartitionSpec(axes)
  specs = jax.tree.map(lambda x: rows if len(x) == batch else PartitionSpec(), arrays)
  on_devices = jax.shard_map(
    function,
    in_specs=(specs, *(PartitionSpec() for _ in whole)),
    out_specs=rows,
    check_vma=False,  # with all axes of the mesh: Mosaic takes no kernel that XLA might cut
  )
  return jax.jit(on_devices)(arrays, *whole)


def run_kernels(
  request: AttentionRequest,
  schedule: TileSchedule,
  cut,
  forward,
  backward,
  interpret,
  forward_alone=None,
):
  """What kernels make of a request: o_BTHK, or (o_BTHK, log-sum-exp [B, T, H]).

  Args:
    cut: (schedule, request) -> (arrays, ids), as the passes `forward` and `backward` read them.
    interpret: whether Pallas interprets the kernels.
    forward_alone: as for `differentiable`.
  """
  options = {'with_lse': request.wants_lse, 'forward_alone': forward_alone}
  attention = differentiable(forward, backward, schedule, interpret, **options)
  T, width = schedule.grid.T, request.v_BSGK.shape[-1]

  def on_device(arrays, enc):
    arrays, ids = cut(schedule, dataclasses.replace(request, enc=enc, **arrays))
    own = lambda x: x[:, :T, :, :width] if x.ndim == 4 else x[:, :T]
    return jax.tree.map(own, join_tiles(attention(arrays, ids)))

  return over_batch(on_device, arrays_along(request), (request.enc,))
