"""How shards of a sequence go round the devices that hold it."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from posenc_jax.attention.mask import Mask
from posenc_jax.attention.request import AttentionRequest
from posenc_jax.attention.tiled.schedule import IDS, TileSchedule, arrays_along
from posenc_jax.target import SEQUENCE_AXIS, sequence_shards


def whole_tiles(schedule: TileSchedule) -> int:
  """The tokens of a tile of each device, of whatever side."""
  return sequence_shards() * math.lcm(schedule.grid.rows, schedule.grid.columns)


def padded_arrays(request: AttentionRequest, schedule: TileSchedule) -> dict:
  """The arrays of a request that lie along the sequence, with whole tiles on each device."""
  padding = -request.k_BSGK.shape[1] % whole_tiles(schedule)

  def pad(name, tree):
    mode = 'edge' if name in IDS else 'constant'  # as tiles are padded
    widths = lambda x: [(0, 0), (0, padding)] + [(0, 0)] * (x.ndim - 2)
    return jax.tree.map(lambda x: jnp.pad(x, widths(x), mode), tree)

  return {name: pad(name, tree) for name, tree in arrays_along(request).items()}


def num_steps(mask: Mask, devices: int, shard: int) -> int:
  """How many shards of so many tokens a device sees any key of, its own and those to the left."""
  if mask.reach is None or mask.looks_ahead or mask.sink_tokens:
    return devices
  return min(devices, (mask.reach - 2) // shard + 2)


def pass_on(tree, devices: int, by: int):
  """Sends a pytree to the device `by` places further round the ring."""
  if by % devices == 0:
    return tree
  places = [(n, (n + by) % devices) for n in range(devices)]
  return jax.tree.map(lambda x: lax.ppermute(x, SEQUENCE_AXIS, places), tree)
