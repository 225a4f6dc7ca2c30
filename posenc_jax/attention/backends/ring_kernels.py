"""The ring in kernels, for TPU: each meeting of two shards is the passes of `fused`.

A kernel knows by how many shards the keys lie left of the queries, so each step of the ring has its
own, and programs grow with the devices. Steps give their output and log-sum-exp, and are merged.
Backward, each step is given those of all keys, and the gradients of a shard travel with it.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec

from posenc_jax.attention.backends import fused
from posenc_jax.attention.kernels.over_batch import batch_axes, refuse_mesh
from posenc_jax.attention.kernels.tables import tables_by_diagonal
from posenc_jax.attention.kernels.tpu.passes import backward_pass, forward_pass
from posenc_jax.attention.kernels.visits import Visits
from posenc_jax.attention.request import OUTPUT, AttentionRequest
from posenc_jax.attention.ring_walk import num_steps, padded_arrays, pass_on, whole_tiles
from posenc_jax.attention.tiled import passes
from posenc_jax.attention.tiled.schedule import (
  TileSchedule,
  cast_like,
  cut_into_tiles,
  join_tiles,
  zeros_like,
)
from posenc_jax.attention.tiled.tile import MASKED
from posenc_jax.target import SEQUENCE_AXIS, sequence_shards


def refuse(request: AttentionRequest) -> str | None:
  """The reason why kernels cannot serve this request on a ring that takes it, or None."""
  sizes = fused.refuse_sizes(request, sequence_shards())
  return sizes or refuse_shards(request) or refuse_mesh(request, (SEQUENCE_AXIS,))


def refuse_shards(request: AttentionRequest) -> str | None:
  """The reason why the kernels of single shards cannot be merged, or None."""
  if (reason := fused.refuse_tile(request)) is not None:
    return reason
  enc, mask, S = request.enc, request.mask, request.k_BSGK.shape[1]
  if enc.scans_keys or enc.normalizer != 'softmax':
    return f'{type(enc).__name__} carries sums along the keys, which kernels do not hand on'
  if mask.reads_index:
    return 'chunks, sink tokens and prefixes are counted from the start of the sequence'
  if not mask.is_causal and S % whole_tiles(fused.schedule_of(request, sequence_shards())):
    return f'{S} keys are no whole tiles on each device, and queries would see the padding'
  return None


def run(request: AttentionRequest, interpret: bool = False):
  """o_BTHK in float32. A length that the devices do not divide, in whole tiles, is padded."""
  n, S = sequence_shards(), request.k_BSGK.shape[1]
  schedule = fused.schedule_of(request, n)
  axes, batch = batch_axes(), len(request.q_BTHK)

  def on_device(enc, arrays):
    arrays, ids = cut_into_tiles(schedule, dataclasses.replace(request, enc=enc, **arrays))
    return join_tiles(_attention(schedule, n, interpret, arrays, ids))

  arrays = padded_arrays(request, schedule)
  along = lambda x: PartitionSpec(axes if len(x) == batch else None, SEQUENCE_AXIS)
  on_devices = jax.shard_map(
    on_device,
    in_specs=(PartitionSpec(), jax.tree.map(along, arrays)),
    out_specs=PartitionSpec(axes, SEQUENCE_AXIS),
    check_vma=False,  # with all axes of the mesh: Mosaic takes no kernel that XLA might cut
  )
  return jax.jit(on_devices)(request.enc, arrays)[:, :S]


@dataclasses.dataclass(frozen=True)
class Meeting:
  """The queries of a shard and the keys of the shard `shards` to its left, or if negative right."""

  schedule: TileSchedule
  shards: int
  interpret: bool

  def of_length(self, shard: int) -> TileSchedule:
    """The schedule of shards of so many tokens."""
    grid = dataclasses.replace(self.schedule.grid, T=shard, S=shard, shift=self.shards * shard)
    return self.schedule._replace(grid=grid)

  def _given(self, arrays, columns):
    """(schedule, what kernels take but tables, whether a row of tiles sees any of these keys)."""
    schedule = self.of_length(len(arrays['rows']['q']) * self.schedule.grid.rows)
    sees = np.isin(np.arange(schedule.grid.tile_rows), Visits.forward(schedule.grid).row)
    parts = {'whole': arrays['enc'], 'row': arrays['rows'], 'column': columns}
    return schedule, parts, sees

  def attend(self, arrays, ids, columns, column_ids):
    """(o, log-sum-exp) of these keys alone; MASKED for queries that see none."""
    schedule, parts, sees = self._given(arrays, columns)
    v, (number, batch, H, rows, _) = columns['v'], arrays['rows']['q'].shape
    nothing = (
      jnp.zeros((number, batch, H, rows, v.shape[-1]), jnp.float32),
      jnp.full((number, batch, H, rows), MASKED, jnp.float32),
    )
    if not sees.any():
      return nothing
    parts['diagonal'] = tables_by_diagonal(schedule.grid, arrays['enc'])
    both_ids = {'row': ids['rows'], 'column': column_ids}
    o, lse, _ = forward_pass(schedule, parts, both_ids, self.interpret, jnp.float32)
    # A row of tiles that was not visited holds anything, a query whose tiles were passed over NaN.
    seen = sees.reshape(-1, 1, 1, 1) & (lse > MASKED / 2)
    return jnp.where(seen[..., None], o, nothing[0]), jnp.where(seen, lse, nothing[1])

  def pull_back(self, arrays, ids, columns, column_ids, per_row):
    """The gradients of arrays, those of `columns` among them, in float32."""
    schedule, parts, sees = self._given(arrays, columns)
    if not sees.any():
      return zeros_like(arrays | {'columns': columns})
    make_tables = functools.partial(tables_by_diagonal, schedule.grid)
    parts['diagonal'], pull_back = jax.vjp(make_tables, arrays['enc'])
    both_ids = {'row': ids['rows'], 'column': column_ids}
    found = backward_pass(schedule, parts, both_ids, per_row, (), self.interpret)
    (d_enc,) = pull_back(cast_like(found['diagonal'], parts['diagonal']))
    d_enc = jax.tree.map(jnp.add, d_enc, found['whole'])
    return {'enc': d_enc, 'rows': found['row'], 'columns': found['column']}


def _meet(schedule: TileSchedule, devices: int, interpret: bool, t: int, function, nothing):
  """function(meeting) of this device's queries with the keys of the shard t before its own, round
  the ring; `nothing` where that lies to the right, and keys to the right are hidden.
  """
  left = lambda: function(Meeting(schedule, t, interpret))
  if t == 0:
    return left()
  right = lambda: function(Meeting(schedule, t - devices, interpret))
  is_left = lax.axis_index(SEQUENCE_AXIS) >= t
  return lax.cond(is_left, left, (lambda: nothing) if schedule.grid.mask.is_causal else right)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _attention(schedule: TileSchedule, devices: int, interpret: bool, arrays, ids):
  return _forward(schedule, devices, interpret, arrays, ids)[0]


def _steps(schedule: TileSchedule, devices: int, arrays) -> range:
  shard = len(arrays['columns']['k']) * schedule.grid.columns
  return range(num_steps(schedule.grid.mask, devices, shard))


def _forward(schedule: TileSchedule, devices: int, interpret: bool, arrays, ids):
  travelling, o, lse = (arrays['columns'], ids['columns']), 0.0, MASKED
  for t in _steps(schedule, devices, arrays):
    travelling = pass_on(travelling, devices, min(t, 1))
    attend = lambda meeting, keys=travelling: meeting.attend(arrays, ids, *keys)
    nothing = jnp.zeros_like(o), jnp.full_like(lse, MASKED)
    o_t, lse_t = _meet(schedule, devices, interpret, t, attend, nothing)
    before, lse = lse, jnp.logaddexp(lse, lse_t)
    o = o * jnp.exp(before - lse)[..., None] + o_t * jnp.exp(lse_t - lse)[..., None]
  o, lse = passes.merge_sink(o, lse, arrays['rows'])
  o, lse = checkpoint_name((o, lse), OUTPUT)
  return o, (arrays, ids, o, lse)


def _backward(schedule: TileSchedule, devices: int, interpret: bool, residuals, do):
  arrays, ids, o, lse = residuals
  per_row = passes.output_cotangents(arrays['enc'], o, do, lse)
  rest = {name: arrays[name] for name in ('enc', 'rows')}
  totals, travelling = zeros_like(rest), (arrays['columns'], ids['columns'])
  d_columns = zeros_like(arrays['columns'])
  steps = _steps(schedule, devices, arrays)
  for t in steps:
    *travelling, d_columns = pass_on((*travelling, d_columns), devices, min(t, 1))
    pull_back = lambda meeting, keys=travelling: meeting.pull_back(arrays, ids, *keys, per_row)
    found = _meet(schedule, devices, interpret, t, pull_back, zeros_like(arrays))
    d_columns = jax.tree.map(jnp.add, d_columns, found.pop('columns'))
    totals = jax.tree.map(jnp.add, totals, found)
  d_columns = pass_on(d_columns, devices, -steps[-1])
  totals['rows'] = passes.add_sink_gradient(totals['rows'], arrays['rows'], per_row)
  return cast_like(totals | {'columns': d_columns}, arrays), None


_attention.defvjp(_forward, _backward)
