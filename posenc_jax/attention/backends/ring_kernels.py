"""The ring in kernels, for TPU: each meeting of two shards is the passes of `fused`.

The number of shards by which the keys lie left of the queries is compiled into a kernel: each step
of the ring has a kernel of its own, and programs grow with the number of devices. Each step gives
its own output and log-sum-exp, which are merged. Backward, each step is given the merged ones, and
the gradients of a shard travel with it.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from posenc_jax.attention.backends import fused
from posenc_jax.attention.backends.ring_walk import num_steps, pass_on, run_on_ring, whole_tiles
from posenc_jax.attention.kernels.run import refuse_mesh
from posenc_jax.attention.kernels.tpu.passes import backward_pass, forward_pass
from posenc_jax.attention.kernels.visits import Visits
from posenc_jax.attention.request import AttentionRequest
from posenc_jax.attention.tiled.differentiable import differentiable
from posenc_jax.attention.tiled.distance_tables import kernel_tables
from posenc_jax.attention.tiled.schedule import TileSchedule, cast_like, zeros_like
from posenc_jax.distributed.mesh import batch_axes
from posenc_jax.encodings.core.base import LOWEST_SEEN
from posenc_jax.target import SEQUENCE_AXIS, sequence_shards


def refuse(request: AttentionRequest) -> str | None:
  """The reason why kernels cannot serve this request on a ring that takes it, or None."""
  return fused.refuse_sizes(request, sequence_shards()) or refuse_interpreted(request)


def refuse_interpreted(request: AttentionRequest) -> str | None:
  """The reason why not even kernels in Pallas' interpreter can serve this request, or None."""
  return _refuse_shards(request) or refuse_mesh(request, (SEQUENCE_AXIS,))


def _refuse_shards(request: AttentionRequest) -> str | None:
  """The reason why the kernels of single shards cannot be merged, or None."""
  if (reason := fused.refuse_in_kernel(request)) is not None:
    return reason
  enc, mask, S = request.enc, request.mask, request.k_BSGK.shape[1]
  if enc.scans_keys:
    return f'{type(enc).__name__} carries sums along the keys, which kernels do not hand on'
  if enc.normalizer != 'softmax':
    return f'{type(enc).__name__} is not normalized by softmax, by whose sums shards are merged'
  if mask.reads_index:
    return (
      'chunks, sink tokens, prefixes, functions: all are counted from the start of the sequence'
    )
  if not mask.is_causal and S % whole_tiles(fused.schedule_of(request, sequence_shards())):
    return f'{S} keys are no whole tiles on each device, and queries would see the padding'
  return None


def run(request: AttentionRequest, interpret: bool = False):
  """o_BTHK in float32."""
  n = sequence_shards()
  schedule = fused.schedule_of(request, n)
  attention = differentiable(_forward, _backward, schedule, n, interpret)
  return run_on_ring(request, schedule, attention, batch_axes())


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

  def _given(self, arrays):
    """The schedule of the two shards, and whether a row of tiles sees any of these keys."""
    schedule = self.of_length(len(arrays['row']['q']) * self.schedule.grid.block_q)
    return schedule, np.isin(np.arange(schedule.grid.tile_rows), Visits.forward(schedule.grid).row)

  def attend(self, arrays, ids):
    """(o, log-sum-exp) of these keys alone; LOWEST_SEEN for queries that see none."""
    schedule, sees = self._given(arrays)
    v, (number, batch, H, rows, _) = arrays['column']['v'], arrays['row']['q'].shape
    nothing = (
      jnp.zeros((number, batch, H, rows, v.shape[-1]), jnp.float32),
      jnp.full((number, batch, H, rows), LOWEST_SEEN, jnp.float32),
    )
    if not sees.any():
      return nothing
    tables = kernel_tables(schedule.grid, arrays['whole'])
    given = arrays | {'diagonal': tables}
    o, lse, _ = forward_pass(schedule, self.interpret, given, ids, jnp.float32)
    # A row of tiles that was not visited holds anything.
    seen = sees.reshape(-1, 1, 1, 1)
    return jnp.where(seen[..., None], o, nothing[0]), jnp.where(seen, lse, nothing[1])

  def pull_back(self, arrays, ids, per_row):
    """The gradients of arrays in float32."""
    schedule, sees = self._given(arrays)
    if not sees.any():
      return zeros_like(arrays)
    make_tables = functools.partial(kernel_tables, schedule.grid)
    tables, pull_back = jax.vjp(make_tables, arrays['whole'])
    given = arrays | {'diagonal': tables}
    found = backward_pass(schedule, self.interpret, given, ids, per_row)
    (d_enc,) = pull_back(cast_like(found.pop('diagonal'), tables))
    return found | {'whole': jax.tree.map(jnp.add, d_enc, found['whole'])}


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


def _forward(schedule: TileSchedule, devices: int, interpret: bool, arrays, ids):
  """o and log-sum-exp of this device's queries, for `differentiable`, as keys come round."""
  travelling, o, lse = (arrays['column'], ids['column']), 0.0, LOWEST_SEEN
  for t in range(num_steps(schedule, devices, len(arrays['column']['k']))):
    travelling = pass_on(travelling, devices, min(t, 1))
    given = _with_keys(arrays, ids, travelling)
    attend = lambda meeting, given=given: meeting.attend(*given)
    nothing = jnp.zeros_like(o), jnp.full_like(lse, LOWEST_SEEN)
    o_t, lse_t = _meet(schedule, devices, interpret, t, attend, nothing)
    before, lse = lse, jnp.logaddexp(lse, lse_t)
    o = o * jnp.exp(before - lse)[..., None] + o_t * jnp.exp(lse_t - lse)[..., None]
  return o, lse


def _backward(schedule: TileSchedule, devices: int, interpret: bool, arrays, ids, per_row):
  """The gradients of `arrays`; those of a shard's keys and values travel with it."""
  rest = {name: arrays[name] for name in ('whole', 'row')}
  totals, travelling = zeros_like(rest), (arrays['column'], ids['column'])
  d_column = zeros_like(arrays['column'])
  steps = num_steps(schedule, devices, len(arrays['column']['k']))
  for t in range(steps):
    *travelling, d_column = pass_on((*travelling, d_column), devices, min(t, 1))
    given = _with_keys(arrays, ids, travelling)
    pull_back = lambda meeting, given=given: meeting.pull_back(*given, per_row)
    found = _meet(schedule, devices, interpret, t, pull_back, zeros_like(arrays))
    d_column = jax.tree.map(jnp.add, d_column, found.pop('column'))
    totals = jax.tree.map(jnp.add, totals, found)
  return totals | {'column': pass_on(d_column, devices, 1 - steps)}


def _with_keys(arrays, ids, keys):
  """The arrays and ids of this device's queries, with the keys of another: (arrays, ids)."""
  column, column_ids = keys
  return arrays | {'column': column}, ids | {'column': column_ids}
