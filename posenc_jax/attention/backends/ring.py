"""Attention of a sequence that lies on many devices: each keeps its queries, keys travel round.

The sequence is cut into shards along the axis `context` of the mesh. In step t a device meets the
keys of the shard t before its own (Liu et al. 2023, arXiv:2310.01889) by the passes of `blockwise`,
and goes on from its state so far: under a causal mask that is the order, leftwards, in which sums
over the keys j..i can be carried along. Backward, shards come back in the opposite order, and the
gradients of keys and values travel with them. Tables are made for the distances between two shards,
when they meet. So nothing that grows with the length is on every device but the values carried into
each shard, [B, H, T' (, K)] a step; and, where positions are given, tables of all distances up to
`max_position_distance` or the encoding's `max_relative_distance`, which each step makes anew.

On a TPU the passes are kernels, where `ring_kernels` does not refuse.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType

from posenc_jax.attention.backends import blockwise, ring_kernels
from posenc_jax.attention.backends.ring_walk import num_steps, pass_on, run_on_ring
from posenc_jax.attention.request import AttentionRequest
from posenc_jax.attention.tiled import passes
from posenc_jax.attention.tiled.differentiable import differentiable
from posenc_jax.attention.tiled.schedule import TileRange, TileSchedule, zeros_like
from posenc_jax.target import SEQUENCE_AXIS, sequence_shards


def refuse(request: AttentionRequest) -> str | None:
  """The reason why this request cannot go round a ring, or None."""
  mesh = jax.sharding.get_abstract_mesh()
  T, S = request.q_BTHK.shape[1], request.k_BSGK.shape[1]
  if SEQUENCE_AXIS not in mesh.axis_names:
    return f'it needs a mesh with an axis {SEQUENCE_AXIS}, set by jax.set_mesh'
  if (kind := mesh.axis_types[mesh.axis_names.index(SEQUENCE_AXIS)]) != AxisType.Auto:
    return f'the axis {SEQUENCE_AXIS} of the mesh is {kind.name}, it must be Auto'
  if T != S:
    return f'devices hold the queries of their own keys, but there are {T} queries for {S} keys'
  if request.wants_lse:
    return 'it returns no log-sum-exp'
  return blockwise.refuse(request)


def refuse_interpreted(request: AttentionRequest) -> str | None:
  """The reason why this request cannot go round a ring in interpreted kernels, or None."""
  return refuse(request) or ring_kernels.refuse_interpreted(request)


def run(request: AttentionRequest):
  """o_BTHK in float32."""
  if ring_kernels.refuse(request) is None:
    return ring_kernels.run(request)
  n = sequence_shards()
  schedule = TileSchedule.of_request(request, n)
  return run_on_ring(request, schedule, differentiable(_forward, _backward, schedule, n))


def _tiles_of_step(schedule: TileSchedule, devices: int, arrays, t) -> TileRange:
  """The queries of this device against the keys of the shard t before its own."""
  rows, columns = len(arrays['row']['q']), len(arrays['column']['k'])
  here = lax.axis_index(SEQUENCE_AXIS)
  return TileRange(schedule, rows, columns, (here * rows, (here - t) % devices * columns))


def _forward(schedule: TileSchedule, devices: int, arrays, ids):
  enc = arrays['whole']
  rows, of_one_row = len(arrays['row']['q']), passes.empty_row(enc, arrays)
  states = jax.tree.map(lambda x: jnp.broadcast_to(x, (rows, *x.shape)), of_one_row)

  def step(so_far, t):
    states, travelling = so_far
    # Else jax takes tables that are alike in all layers of a model out of their loop: those of
    # every step at once.
    t, travelling = lax.optimization_barrier((t, travelling))
    columns, column_ids = travelling
    tiles = _tiles_of_step(schedule, devices, arrays, t)
    new_states = passes.forward_pass(
      tiles,
      arrays | {'column': columns},
      tiles.make_tables(enc),
      ids | {'column': column_ids},
      states,
    )
    return (new_states, pass_on(travelling, devices, 1)), states[1]

  steps = jnp.arange(num_steps(schedule, devices, len(arrays['column']['k'])))
  travelling = arrays['column'], ids['column']
  (states, _), carried = lax.scan(step, (states, travelling), steps)
  return *passes.divide_out(enc, states), carried


def _backward(schedule: TileSchedule, devices: int, arrays, ids, per_row, carried):
  enc = arrays['whole']

  def step(so_far, step_and_carried):
    d_enc, d_rows, d_carry, travelling = so_far
    t, carried = step_and_carried
    columns, column_ids, d_columns = pass_on(travelling, devices, -1)
    tiles = _tiles_of_step(schedule, devices, arrays, t)
    tables, add_of_tables = tiles.make_differentiable_tables(enc)
    totals, g_rows, d_carry = passes.backward_pass(
      tiles,
      arrays | {'column': columns},
      tables,
      ids | {'column': column_ids},
      per_row,
      (d_enc, d_columns, zeros_like(tables)),
      carried,
      d_carry,
    )
    d_enc, d_columns, d_tables = totals
    d_enc = add_of_tables(d_enc, d_tables)
    d_rows = jax.tree.map(jnp.add, d_rows, g_rows)
    return (d_enc, d_rows, d_carry, (columns, column_ids, d_columns)), None

  steps = num_steps(schedule, devices, len(arrays['column']['k']))
  travelling = (arrays['column'], ids['column'], zeros_like(arrays['column']))
  travelling = pass_on(travelling, devices, steps)
  no_carry = jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), carried)
  start = zeros_like(enc), zeros_like(arrays['row']), no_carry, travelling
  state, _ = lax.scan(step, start, (jnp.arange(steps), carried), reverse=True)
  d_enc, d_rows, _, (_, _, d_columns) = state
  return {'whole': d_enc, 'row': d_rows, 'column': d_columns}
