"""The forward and the backward pass over tiles, as kernels.

Forward, a row of tiles keeps a running softmax while it visits its tiles from the diagonal
leftwards. Backward, each tile is computed again and pulled back by `jax.vjp`: once for the
gradients of rows and parameters, once for those of columns, once for those of tables by distance.
Each of these kernels visits the tiles that add to one block one after another, and computes nothing
but its own.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl

from posenc_jax.attention.kernels.inputs import (
  arrays_and_ids,
  inputs_of,
  reads_of_arrays,
  with_leaves,
)
from posenc_jax.attention.kernels.program import TileProgram
from posenc_jax.attention.kernels.tpu.kernel import Kernel, Segments
from posenc_jax.attention.kernels.tpu.operands import Operand, Result, blocks_of, operands_of
from posenc_jax.attention.kernels.tpu.tile import attend_tile
from posenc_jax.attention.kernels.visits import Visits
from posenc_jax.attention.tiled.schedule import TileSchedule
from posenc_jax.attention.tiled.tile import without_zeros
from posenc_jax.encodings.core.base import LOWEST_SEEN


def _carries(arrays) -> list[tuple[int, ...]]:
  """The shapes of what a row of tiles carries along the keys."""
  _, _, H, rows, _ = arrays['row']['q'].shape
  return [(1, H, rows, *shape) for shape in arrays['whole'].scans_keys]


def _float32(shapes) -> tuple:
  return tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)


def _fill(refs, value: float = 0.0) -> None:
  for ref in refs:
    ref[...] = jnp.full(ref.shape, value, ref.dtype)


def _segments(arrays, ids) -> Segments | tuple:
  """The segments by which tiles are passed over; what is carried along keys goes through all."""
  row_ids = ids['row']['segment']
  if row_ids is None or arrays['whole'].scans_keys:
    return ()
  return Segments.of_ids(row_ids, ids['column']['segment'])


def _programs(schedule: TileSchedule, make) -> dict:
  """make(is_constant) for tiles with tables, and for those over which tables are constant."""
  has_both = schedule.distances_by_index and schedule.grid.has_constant_tiles
  return {
    is_constant: make(is_constant) for is_constant in ([False, True] if has_both else [False])
  }


def forward_program(schedule: TileSchedule, arrays, ids, is_constant: bool) -> TileProgram:
  """What the forward pass computes of a tile, given what is carried."""

  def tile(a, b, inputs, carried):
    parts = arrays_and_ids(inputs)
    return attend_tile(schedule, is_constant, a, b, *parts, carried)

  return TileProgram(tile, blocks_of(inputs_of(arrays, ids)), _float32(_carries(arrays)))


def pulled_back_program(schedule: TileSchedule, arrays, ids) -> TileProgram:
  """What the passes compute of a tile, forward and backward, to see what it needs.

  Differentiated, a function may be computed in another way than it is alone: both are here.
  """

  def tile(a, b, inputs, carried):
    arrays, ids = arrays_and_ids(inputs)
    attend = lambda *given: attend_tile(schedule, False, a, b, given[0], ids, given[1])
    found, pull_back = jax.vjp(attend, arrays, carried)
    return attend(arrays, carried), pull_back(found)  # any numbers serve as cotangents

  return TileProgram(tile, blocks_of(inputs_of(arrays, ids)), _float32(_carries(arrays)))


def forward_pass(
  schedule: TileSchedule, interpret: bool, arrays, ids, dtype=None, keeps_carried: bool = True
):
  """Attention of all rows of tiles. Rows without a visit hold what the memory happened to hold.

  Args:
    arrays: 'whole', the encoding; 'row', 'column' and 'diagonal', pytrees of [number, B|1, ...].
    ids: those of 'row' and 'column'.
    dtype: of o; None: that of v.
    keeps_carried: whether what is carried into each tile is kept for the backward pass, which takes
      as much memory as T^2 / S' numbers.

  Returns:
    o and the rows' log-sum-exp in float32, [rows of tiles, B, H, T' (, K)]; and
    what was carried into each tile, [visits, B, H, T', ...], where it is kept.
  """
  enc, row, v = arrays['whole'], arrays['row'], arrays['column']['v']
  number, batch, H, rows, _ = row['q'].shape
  is_softmax, carries = enc.normalizer == 'softmax', _carries(arrays)
  visits = Visits.forward(schedule.grid)

  def body(step, on_tile, results, scratch):
    (o_ref, lse_ref, *into), (sum_ref, denominator_ref, maxima_ref, *carry) = results, scratch

    @pl.when(step.begins('row'))
    def _():
      _fill([sum_ref, denominator_ref, *carry])
      _fill([maxima_ref], LOWEST_SEEN)

    @on_tile
    def _(compute):
      carried = [ref[...] for ref in carry]
      for ref, x in zip(into, carried, strict=keeps_carried):
        ref[...] = x.reshape(ref.shape)
      o, denominator, maxima_b, *carried = compute(carried)
      for ref, x in zip(carry, carried, strict=True):
        ref[...] = x
      if is_softmax:
        # Relative to the tile's maxima: those of the row would have to be laid out anew for it.
        maxima, maxima_b = maxima_ref[...], maxima_b[..., None]
        new_maxima = jnp.maximum(maxima, maxima_b)
        shrink, shrink_b = jnp.exp(maxima - new_maxima), jnp.exp(maxima_b - new_maxima)
        sum_ref[...] = sum_ref[...] * shrink + o * shrink_b
        denominator_b = denominator[..., None] * shrink_b
        denominator_ref[...] = denominator_ref[...] * shrink + denominator_b
        maxima_ref[...] = new_maxima
      else:
        sum_ref[...] += o

    @pl.when(step.ends('row'))
    def _():
      o, lse = sum_ref[...], maxima_ref[...]
      if is_softmax:
        denominator = without_zeros(denominator_ref[...])
        o, lse = o / denominator, lse + jnp.log(denominator)
      o_ref[...] = o[0].astype(o_ref.dtype)
      lse_ref[...] = lse[0, ..., 0]

  output, per_row = (1, H, rows, v.shape[-1]), (1, H, rows)
  results = [
    Result(Operand('row', output, batch > 1), number, dtype or v.dtype),
    Result(Operand('row', per_row, batch > 1), number),
  ]
  if keeps_carried:
    results += [Result(Operand('visit', shape, batch > 1), len(visits.row)) for shape in carries]
  scratch = [output, (*per_row, 1), (*per_row, 1), *carries]
  programs = _programs(schedule, functools.partial(forward_program, schedule, arrays, ids))
  kernel = Kernel('attention', schedule.grid, visits, batch, _segments(arrays, ids), interpret)
  o, lse, *into = kernel.run(body, programs, inputs_of(arrays, ids), results, scratch)
  return o, lse, tuple(into)


def backward_pass(schedule: TileSchedule, interpret: bool, arrays, ids, per_row, into=()):
  """The gradients of `arrays`, in float32.

  Args:
    per_row: as `differentiable` gives it.
    into: what was carried into each tile.
  """
  leaves, tree = jax.tree.flatten(arrays)
  program = forward_program(schedule, arrays, ids, is_constant=False)
  reads = reads_of_arrays(program, inputs_of(arrays, ids))
  operands = operands_of(arrays)
  gradients = [jnp.zeros(x.shape, jnp.float32) for x in leaves]
  d_into, visits = tuple(into), Visits.forward(schedule.grid)
  for kinds in (('row', 'whole'), ('column',), ('diagonal',)):
    wanted = [n for n, x in enumerate(operands) if x.kind in kinds and reads[n]]
    if not wanted and not (into and kinds[0] == 'row'):
      continue
    sums, d_carried = _gradients(
      schedule, arrays, ids, per_row, (into, d_into), wanted, kinds[0], interpret
    )
    d_into = d_carried if kinds[0] == 'row' else d_into
    for n, x in zip(wanted, sums, strict=True):
      if operands[n].kind != 'whole':
        is_visited = np.isin(np.arange(len(x)), getattr(visits, operands[n].kind))
        if not is_visited.all():  # else what the memory happened to hold
          x = jnp.where(is_visited.reshape(-1, *[1] * (x.ndim - 1)), x, 0.0)
      has_own = operands[n].kind == 'whole' or x.shape == leaves[n].shape
      gradients[n] = x if has_own else x.sum(axis=1, keepdims=True)
  return jax.tree.unflatten(tree, gradients)


def _gradients(schedule, arrays, ids, per_row, carries, wanted, kind: str, interpret: bool):
  """The gradients of the leaves `wanted` of the arrays, by a kernel that walks along a kind.

  The walk along rows passes the cotangents of what is carried on from tile to tile.

  Args:
    carries: what was carried into each tile, and its cotangents, which the walk along rows makes.

  Returns:
    A list of the gradients, [number, B|1, ...], or whole; the cotangents of what was carried.
  """
  leaves, batch = jax.tree.leaves(arrays), arrays['row']['q'].shape[1]
  operands = operands_of(arrays)
  along_rows, along_tables = kind == 'row', kind == 'diagonal'
  state = _carries(arrays) if along_rows else []
  visits = Visits.forward(schedule.grid).ordered(kind)
  inputs = inputs_of(arrays, ids, per_row, carries)

  def tile(is_constant: bool, a, b, inputs, d_carry):
    carried, d_given = inputs['visit'] if carries[0] else ((), ())
    arrays, ids = arrays_and_ids(inputs)
    do, d_denominator, lse = inputs['row'][2]
    leaves = jax.tree.leaves(arrays)

    def outputs(chosen, carried):
      merged = with_leaves(arrays, wanted, chosen)
      o, denominator, _, totals = attend_tile(
        schedule, is_constant, a, b, merged, ids, carried, lse
      )
      return o, denominator, totals

    _, pull_back = jax.vjp(outputs, [leaves[n] for n in wanted], carried)
    d_totals = d_carry if along_rows else d_given
    d_chosen, d_carried = pull_back((do.astype(jnp.float32), d_denominator, tuple(d_totals)))
    d_chosen = [x.astype(jnp.float32) for x in d_chosen]
    return d_chosen, d_carried if along_rows else ()

  def result(n):
    operand = operands[n]
    if operand.kind == 'whole':
      return Result(operand, 1)
    return Result(operand._replace(has_batch=batch > 1 and not along_tables), len(leaves[n]))

  def body(step, on_tile, results, carry):
    sums, d_into = results[: len(wanted)], results[len(wanted) :]
    begins = step.begins(kind)
    if along_tables:
      begins &= step.batch == 0
    for n, ref in zip(wanted, sums, strict=True):
      starts = step.is_first if operands[n].kind == 'whole' else begins
      pl.when(starts)(functools.partial(_fill, [ref]))
    if carry:
      pl.when(begins)(functools.partial(_fill, carry))

    @on_tile
    def _(compute):
      d_carry = [ref[...] for ref in carry]
      for ref, x in zip(d_into, d_carry, strict=True):
        ref[...] = x.reshape(ref.shape)
      computed = compute(d_carry)
      for ref, x in zip(sums, computed[: len(wanted)], strict=True):
        ref[...] += x.reshape(ref.shape)
      for ref, x in zip(carry, computed[len(wanted) :], strict=True):
        ref[...] = x

  results = [result(n) for n in wanted]
  results += [Result(Operand('visit', shape, batch > 1), len(visits.row)) for shape in state]
  make = lambda is_constant: TileProgram(
    functools.partial(tile, is_constant), blocks_of(inputs), _float32(state)
  )
  name, segments = f'attention_d_{kind}', _segments(arrays, ids)
  kernel = Kernel(
    name, schedule.grid, visits, batch, segments, interpret, batch_inside=along_tables
  )
  written = kernel.run(body, _programs(schedule, make), inputs, results, state)
  return written[: len(wanted)], tuple(written[len(wanted) :])
