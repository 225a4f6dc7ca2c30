"""How shards of a sequence go round the devices that hold it."""

import jax
from jax import lax

from posenc_jax.attention.mask import Mask
from posenc_jax.target import SEQUENCE_AXIS


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
