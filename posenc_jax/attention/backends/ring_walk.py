"""How shards of a sequence go round the devices that hold it."""

import dataclasses
import math

import jax
from jax import lax
from jax.sharding import PartitionSpec

from posenc_jax.attention.request import AttentionRequest
from posenc_jax.attention.tiled.schedule import (
  AS_LAST,
  TileSchedule,
  arrays_along,
  cut_into_tiles,
  join_tiles,
  pad_as_last,
  pad_with_zeros,
)
from posenc_jax.target import SEQUENCE_AXIS, sequence_shards


def run_on_ring(request: AttentionRequest, schedule: TileSchedule, attention, batch_axes=None):
  """o_BTHK in float32, by attention(arrays, ids) of what lies on each device, both as
  `cut_into_tiles` makes them of its own queries and keys.

  A length that the devices do not divide, in whole tiles, is padded. `batch_axes`: the axes of the
  mesh over which devices share rows of the batch; None: XLA cuts the batch itself.
  """
  arrays, batch = _padded_arrays(request, schedule), len(request.q_BTHK)

  def on_device(enc, arrays):
    arrays, ids = cut_into_tiles(schedule, dataclasses.replace(request, enc=enc, **arrays))
    return join_tiles(attention(arrays, ids))

  along = lambda x: PartitionSpec(batch_axes if len(x) == batch else None, SEQUENCE_AXIS)
  on_devices = jax.shard_map(
    on_device,
    in_specs=(PartitionSpec(), jax.tree.map(along, arrays)),
    out_specs=PartitionSpec(batch_axes, SEQUENCE_AXIS),
    # all, where kernels share the batch: Mosaic takes no kernel that XLA might cut
    axis_names={SEQUENCE_AXIS} if batch_axes is None else set(),
    check_vma=False,
  )
  on_devices = jax.jit(on_devices)  # jax 0.10 cannot run it eagerly on a mesh with other axes
  return on_devices(request.enc, arrays)[:, : request.k_BSGK.shape[1]]


def whole_tiles(schedule: TileSchedule) -> int:
  """The number of tokens that gives each device whole tiles, both of queries and of keys."""
  return sequence_shards() * math.lcm(schedule.grid.block_q, schedule.grid.block_k)


def tiles_of_device(schedule: TileSchedule) -> tuple[int, int]:
  """How many tiles the queries of one device are, and its keys, as `run_on_ring` pads them."""
  grid, unit = schedule.grid, whole_tiles(schedule)
  tokens = -(-grid.S // unit) * unit // sequence_shards()
  return tokens // grid.block_q, tokens // grid.block_k


def _padded_arrays(request: AttentionRequest, schedule: TileSchedule) -> dict:
  """The arrays of a request that lie along the sequence, with whole tiles on each device."""
  padding = -request.k_BSGK.shape[1] % whole_tiles(schedule)

  def pad(name, tree):
    pad_tokens = pad_as_last if name in AS_LAST else pad_with_zeros
    return jax.tree.map(lambda x: pad_tokens(x, padding), tree)

  return {name: pad(name, tree) for name, tree in arrays_along(request).items()}


def num_steps(schedule: TileSchedule, devices: int, columns: int) -> int:
  """The number of shards of which a device sees any key: its own and those to the left.

  `columns`: how many tiles the keys of one device are.
  """
  mask, shard = schedule.grid.mask, columns * schedule.grid.block_k
  if mask.reach is None or mask.looks_ahead or mask.sink_tokens:
    return devices
  return min(devices, (mask.reach - 2) // shard + 2)


def pass_on(tree, devices: int, by: int):
  """Sends a pytree to the device `by` places further round the ring."""
  if by % devices == 0:
    return tree
  places = [(n, (n + by) % devices) for n in range(devices)]
  return jax.tree.map(lambda x: lax.ppermute(x, SEQUENCE_AXIS, places), tree)
