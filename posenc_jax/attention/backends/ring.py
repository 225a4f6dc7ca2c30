"""Attention of a sequence that lies on many devices: each keeps its queries, and blocks of keys
travel round.

The sequence is cut into shares along the axis `context` of the mesh. In step t a device meets the
keys of the share t before its own (Liu et al. 2023, arXiv:2310.01889) by the walks of `blockwise`,
and hands on what it has so far: under a causal mask that is the order, leftwards, in which sums
over the keys j..i can be carried along. Backward, shares come back in the opposite order, and the
gradients of keys and values travel with them. Tables are made for the distances between two shares,
when they meet: so nothing that grows with the length is on every device, but what sums are carried
into each share, [B, H, T' (, K)] a step.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from posenc_jax.attention.request import Call
from posenc_jax.attention.tiled import passes
from posenc_jax.attention.tiled.schedule import EDGES, Part, Plan, cut, join, like, zeros

AXIS = 'context'


def refuse(call: Call) -> str | None:
  """The reason why this call cannot go round a ring, or None."""
  mesh, T, S = jax.sharding.get_abstract_mesh(), call.q_BTHK.shape[1], call.k_BSGK.shape[1]
  if AXIS not in mesh.axis_names:
    return f'it needs a mesh with an axis {AXIS}, set by jax.set_mesh'
  if (kind := mesh.axis_types[mesh.axis_names.index(AXIS)]) != AxisType.Auto:
    return f'the axis {AXIS} of the mesh is {kind.name}, it must be Auto'
  if T != S:
    return f'devices hold the queries of their own keys, but there are {T} queries for {S} keys'
  if not call.causal and shares() > 1 and _carries(call):
    return f'{type(call.enc).__name__} sums from the last key leftwards, but walks start at the keys of the device'
  return None


def shares() -> int:
  """How many devices the mesh that is set cuts a sequence over."""
  return jax.sharding.get_abstract_mesh().shape[AXIS]


def _carries(call: Call) -> bool:
  """Whether `score` asks for sums that blocks hand on."""
  plan = Plan.of(call)

  def carried():
    part, (floats, ints) = Part.all(plan), cut(plan, call)
    return passes.nothing(part, floats, part.tables(call.enc), ints)[1]

  return call.enc.score is not None and bool(jax.eval_shape(carried))


def run(call: Call):
  """o_BTHK in float32. A length that the devices do not divide, in whole blocks, is padded."""
  n, S = shares(), call.k_BSGK.shape[1]
  plan = Plan.of(call, n)
  whole = n * math.lcm(plan.grid.rows, plan.grid.columns)
  pad = lambda x, edge='constant': jnp.pad(
    x, [(0, 0), (0, -S % whole)] + [(0, 0)] * (x.ndim - 2), mode=edge
  )
  fields = ('q_BTHK', 'k_BSGK', 'v_BSGK', 'i', 'j', 'segments_BS')

  def on_device(enc, arrays):
    floats, ints = cut(plan, dataclasses.replace(call, enc=enc, **arrays))
    return join(_attention(plan, n, floats, ints))

  along = PartitionSpec(None, AXIS)
  on_devices = jax.shard_map(
    on_device,
    in_specs=(PartitionSpec(), along),
    out_specs=along,
    axis_names={AXIS},
    check_vma=False,
  )
  on_devices = jax.jit(on_devices)  # jax 0.10 cannot run it eagerly on a mesh with other axes
  arrays = jax.tree.map(pad, {name: getattr(call, name) for name in fields})
  return on_devices(call.enc, arrays | {'positions_BS': pad(call.positions_BS, EDGES['position'])})[
    :, :S
  ]


def _steps(plan: Plan, shares: int, blocks: int) -> int:
  """Shares to the left, and its own, of which a device sees any."""
  window = plan.grid.window
  if window is None or not plan.grid.causal:
    return shares
  return min(shares, (window - 2) // (blocks * plan.grid.columns) + 2)


def _meeting(plan: Plan, shares: int, floats, t) -> Part:
  """The queries of this device and the keys of the share t before."""
  rows, columns, here = len(floats['rows']['q']), len(floats['columns']['k']), lax.axis_index(AXIS)
  return Part(plan, rows, columns, (here * rows, (here - t) % shares * columns))


def _hand_on(tree, shares: int, by: int):
  """To the device `by` places on."""
  places = [(n, (n + by) % shares) for n in range(shares)]
  return tree if by % shares == 0 else jax.tree.map(lambda x: lax.ppermute(x, AXIS, places), tree)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attention(plan: Plan, shares: int, floats, ints):
  return _forward(plan, shares, floats, ints)[0]


def _forward(plan: Plan, shares: int, floats, ints):
  enc, columns = floats['enc'], (floats['columns'], ints['columns'])
  first = _meeting(plan, shares, floats, 0)
  of_row = passes.nothing(first, floats, first.tables(enc), ints)
  nothing = jax.tree.map(lambda x: jnp.broadcast_to(x, (first.rows, *x.shape)), of_row)

  def step(so_far, t):
    state, columns = so_far
    # Else jax takes tables that are alike in all layers of a model out of their loop: those of
    # every step at once.
    t, columns = lax.optimization_barrier((t, columns))
    part = _meeting(plan, shares, floats, t)
    here = floats | {'columns': columns[0]}, part.tables(enc), ints | {'columns': columns[1]}
    return (passes.forward(part, *here, state), _hand_on(columns, shares, 1)), state[1]

  steps = jnp.arange(_steps(plan, shares, first.columns))
  (state, _), carried = lax.scan(step, (nothing, columns), steps)
  o, lse = passes.normalized(enc, state)
  return o, (floats, ints, carried, o, lse)


def _backward(plan: Plan, shares: int, residuals, do):
  floats, ints, carried, o, lse = residuals
  enc, per_row = floats['enc'], passes.cotangents(floats['enc'], o, do, lse)

  def step(so_far, args):
    d_enc, d_rows, d_carried, travelling = so_far
    t, carried = args
    columns, column_ids, d_columns = _hand_on(travelling, shares, -1)
    part = _meeting(plan, shares, floats, t)
    tables, pull = jax.vjp(part.tables, enc)
    here = floats | {'columns': columns}, tables, ints | {'columns': column_ids}
    totals = d_enc, d_columns, zeros(tables)
    totals, g_rows, d_carried = passes.backward(part, *here, per_row, totals, carried, d_carried)
    d_enc, d_columns, d_tables = totals
    d_enc, d_rows = jax.tree.map(jnp.add, (d_enc, d_rows), (*pull(like(d_tables, tables)), g_rows))
    return (d_enc, d_rows, d_carried, (columns, column_ids, d_columns)), None

  steps = _steps(plan, shares, len(floats['columns']['k']))
  travelling = _hand_on(
    (floats['columns'], ints['columns'], zeros(floats['columns'])), shares, steps
  )
  none_handed_on = jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), carried)
  start = zeros(enc), zeros(floats['rows']), none_handed_on, travelling
  (d_enc, d_rows, _, travelling), _ = lax.scan(
    step, start, (jnp.arange(steps), carried), reverse=True
  )
  return like({'enc': d_enc, 'rows': d_rows, 'columns': travelling[-1]}, floats), None


_attention.defvjp(_forward, _backward)
