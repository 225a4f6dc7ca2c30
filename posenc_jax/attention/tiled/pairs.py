"""The pairs of a query and a key in a tile: which are visible, and how far apart they are."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from posenc_jax.attention.mask import Mask
from posenc_jax.attention.tiled.schedule import TileSchedule


class Pairs(NamedTuple):
  """T' queries and S' keys, as a `ScoreTile` has them."""

  index_distance: jax.Array
  distance: jax.Array
  mask: jax.Array

  @classmethod
  def of_tile(cls, schedule: TileSchedule, a, b, ids: dict):
    """The pairs of tile (a, b) of the grid; `ids`: those of its row and of its column."""
    grid = schedule.grid
    shape = grid.block_q, grid.block_k
    # A TPU's kernels know no iota of one axis.
    t_TS, s_TS = (lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (0, 1))
    is_key = (b * grid.block_k + s_TS < grid.S)[None] if grid.S % grid.block_k else None
    distance = grid.corner(a, b) + t_TS - s_TS
    return cls.of_ids(
      grid.mask, distance, ids['row'], ids['column'], is_key, schedule.distances_by_index
    )

  @classmethod
  def of_ids(
    cls, mask: Mask, index_distance, row_ids, column_ids, is_key=None, distances_by_index=False
  ):
    """The pairs of queries and keys with these ids: dicts as `ids_of` makes them.

    Args:
      index_distance: i - j by index, integers [T', S'].
      is_key: which keys are none of the padding, or may be seen for another reason, bool
        [B|1, T'|1, S']; None: all.
      distances_by_index: whether positions are as far apart as indices, wherever a key is seen.
    """
    index_distance = index_distance.astype(jnp.int32)  # under `jax_enable_x64` it has 64 bits
    read_by_mask = row_ids['index'], column_ids['index'], row_ids['mask_id'], column_ids['mask_id']
    mask_BTS = mask.visible(index_distance, *read_by_mask)
    if is_key is not None:
      mask_BTS &= is_key
    if row_ids['segment'] is not None:
      mask_BTS &= row_ids['segment'][:, :, None] == column_ids['segment'][:, None]
    distance = index_distance[None]
    if not distances_by_index:
      distance = row_ids['position'][:, :, None] - column_ids['position'][:, None]
    return cls(index_distance, jnp.where(mask_BTS, distance, 0), mask_BTS)
