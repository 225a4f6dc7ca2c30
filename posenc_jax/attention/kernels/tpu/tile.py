"""One tile in a kernel: `tile_attention` with what a TPU has in the place of shifts and scans."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from posenc_jax.attention.kernels.tpu.relative_shift import (
  relative_shift,
  relative_shift_transpose,
  spread,
)
from posenc_jax.attention.tiled.carry import RowCarry
from posenc_jax.attention.tiled.distance_readers import ConstantDistance
from posenc_jax.attention.tiled.distance_tables import Scalars, is_read_by_keys, is_table
from posenc_jax.attention.tiled.pairs import Pairs
from posenc_jax.attention.tiled.schedule import TileSchedule
from posenc_jax.attention.tiled.tile import attend_pairs
from posenc_jax.xla_ops import scaled_dot, weighted_sum


class KernelCarry(RowCarry):
  """The carry of a row, with sums over keys as one product with a triangle of ones."""

  def sums_of_tile(self, x_BHTS, inclusive: bool):
    S = x_BHTS.shape[-1]
    from_S1, to_1S = (lax.broadcasted_iota(jnp.int32, (S, S), axis) for axis in (0, 1))
    is_summed_SS = from_S1 >= to_1S if inclusive else from_S1 > to_1S
    ones_SS = is_summed_SS.astype(jnp.float32)
    sums = jnp.dot(x_BHTS.reshape(-1, S), ones_SS, precision=lax.Precision.HIGHEST)
    return sums.reshape(x_BHTS.shape)

  def cond_saturated(self, bound: float, near, far):
    """near(), always: a kernel would hold both, and has nothing by which to skip one."""
    return near()


@dataclasses.dataclass(frozen=True)
class KernelToeplitzDistance:
  """Tables hold the distances of a tile in the order of `kernel_tables`: [H|1, T' + S', K].

  Attributes:
    of_keys: the tables that lie in the order in which keys read them. Of the others, reversed, a
      TPU has no cheap way to make that.
  """

  rows: int
  columns: int
  of_keys: tuple

  def query_dot(self, q_BHTK, table_HRK):
    """q_i . table[i - j]: float32 [B, H, T', S']."""
    self._check_order(table_HRK, False)
    return relative_shift(self._dot(q_BHTK, table_HRK), self.columns)

  def key_dot(self, k_BHSK, table_HRK):
    """k_j . table[i - j]: `query_dot` of the keys, with rows and columns exchanged."""
    self._check_order(table_HRK, True)
    return relative_shift(self._dot(k_BHSK, table_HRK), self.rows).swapaxes(-1, -2)

  def sum_by_distance(self, p_BHTS, table_HRK):
    """sum_j p_ij table[i - j]: [B, H, T', K]."""
    self._check_order(table_HRK, False)
    by_distance = relative_shift_transpose(p_BHTS)
    (_, H, _, _), (G, R, K) = p_BHTS.shape, table_HRK.shape
    stacked = by_distance.reshape(1, G, -1, R)
    return weighted_sum(stacked, table_HRK[None]).reshape(1, H, self.rows, K)

  def _check_order(self, table_HRK, by_keys: bool) -> None:
    """Raises NotImplementedError for a table that lies in the other order."""
    if any(table_HRK is table for table in self.of_keys) == by_keys:
      return
    if by_keys:
      raise NotImplementedError('lets keys read vectors other than `relative_queries`')
    raise NotImplementedError('has vectors called `relative_queries` that keys do not read')

  @staticmethod
  def _dot(x_BHTK, table_HRK):
    (_, H, T, K), (G, R, _) = x_BHTK.shape, table_HRK.shape
    stacked = x_BHTK.reshape(1, G, H // G * T, K)
    return scaled_dot(stacked, table_HRK[None].astype(x_BHTK.dtype)).reshape(1, H, T, R)


class KernelConstantDistance(ConstantDistance):
  """The row is the first one of a table, [H|1, T' + S', K]."""

  def sum_by_distance(self, p_BHTS, table_HRK):
    """sum_j p_ij row: [B, H, T', K]."""
    return p_BHTS.sum(axis=-1, keepdims=True) * table_HRK[None, :, :1].astype(jnp.float32)

  def _dot(self, x_BHTK, table_HRK):
    """x . row: float32 [B, H, T]."""
    row_1H1K = table_HRK[None, :, :1].astype(x_BHTK.dtype).astype(jnp.float32)
    return (x_BHTK.astype(jnp.float32) * row_1H1K).sum(axis=-1)


def attend_tile(schedule: TileSchedule, is_constant: bool, a, b, arrays, ids, carried, lse=None):
  """What `tile_attention` returns for tile (a, b), and the carry for the tile on its left.

  Args:
    is_constant: whether tables are constant over the tile.
    arrays: 'whole', the encoding; its 'row' and 'column'; 'diagonal', its tables. The batch is 1.
    ids: positions, segments, indices and `mask_ids` of its row and of its column.
    carried: what `score` carries from the right.
    lse: the log-sum-exp of the rows, if it is known.
  """
  shape = schedule.grid.block_q, schedule.grid.block_k

  def read(table):
    if isinstance(table, Scalars) and is_constant:
      one = table.values[..., :1, None]
      return jnp.broadcast_to(one, (*one.shape[:2], *shape))
    if isinstance(table, Scalars):
      return spread(table.values, shape[0])
    return table.values[0]

  terms = jax.tree.map(read, arrays['diagonal'], is_leaf=is_table)
  reader = KernelConstantDistance(*shape)
  if not is_constant:
    by_path = jax.tree_util.tree_leaves_with_path(terms)
    reader = KernelToeplitzDistance(
      *shape, tuple(x for path, x in by_path if is_read_by_keys(path))
    )
  pairs = Pairs.of_tile(schedule, a, b, ids)
  return attend_pairs(schedule, pairs, arrays, terms, reader, KernelCarry(carried), lse)
