"""The forward and the backward pass over tiles, as Triton kernels.

Forward, a program has a row of tiles of one head and keeps its running softmax. Backward, each tile
is computed again and pulled back by `jax.vjp`, three times: by programs that have a row, a column,
and a diagonal of tiles, for the gradients of what belongs to each.
"""

import contextlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from posenc_jax.attention.kernels.gpu.head_program import HeadProgram
from posenc_jax.attention.kernels.gpu.kernel import Kernel, Walks
from posenc_jax.attention.kernels.gpu.operands import Heads, blocks_of, operands_of
from posenc_jax.attention.kernels.inputs import (
  arrays_and_ids,
  inputs_of,
  reads_of_arrays,
  with_leaves,
)
from posenc_jax.attention.kernels.visits import Visits
from posenc_jax.attention.tiled.carry import RowCarry
from posenc_jax.attention.tiled.distance_tables import is_table
from posenc_jax.attention.tiled.pairs import Pairs
from posenc_jax.attention.tiled.passes import add_tile, divide_out
from posenc_jax.attention.tiled.schedule import TileSchedule
from posenc_jax.attention.tiled.tile import attend_pairs
from posenc_jax.encodings.core.base import LOWEST_SEEN

KINDS = ('row', 'column', 'diagonal')
MOST_TRIES = 32  # sets of coordinates of which it is asked whether each head has its own


def _attend(schedule: TileSchedule, a, b, arrays, ids, **softmax):
  """Output, sums of weights and what they are relative to, of one head."""
  terms = jax.tree.map(lambda table: table.values, arrays['diagonal'], is_leaf=is_table)
  pairs = Pairs.of_tile(schedule, a, b, ids)
  return attend_pairs(schedule, pairs, arrays, terms, None, RowCarry(()), **softmax)[:3]


def _shapes_of_state(arrays) -> tuple:
  """(shape, value at the start) of output, sums of weights and maxima of a row of tiles."""
  rows, width = arrays['row']['q'].shape[3], arrays['column']['v'].shape[-1]
  return ((1, 1, rows, width), 0.0), ((1, 1, rows), 0.0), ((1, 1, rows), LOWEST_SEEN)


def forward_program(schedule: TileSchedule, arrays, ids) -> tuple[HeadProgram, Heads]:
  """What the forward pass makes of the state of a row at a tile, and which coordinates each head
  has its own of.

  Takes a smallest set of per-head coordinates with which the traced state has one head; without
  one, returns the attempt with all that may be, or raises its error.
  """
  is_softmax, inputs = arrays['whole'].normalizer == 'softmax', inputs_of(arrays, ids)

  def tile(a, b, inputs, state):
    maxima = state[-1] if is_softmax else None
    of_tile = _attend(schedule, a, b, *arrays_and_ids(inputs), maxima=maxima)
    state, _ = add_tile(arrays['whole'], (state, ()), (*of_tile, ()))  # nothing is carried on
    return state

  state = tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape, _ in _shapes_of_state(arrays))
  number = arrays['row']['q'].shape[2]
  paths = Heads.candidates(number, arrays['row']['i'])

  def attempt(paths):
    heads = Heads(number, paths)
    return HeadProgram(tile, blocks_of(inputs, heads), state), heads

  def attempt_one_head(paths):
    with contextlib.suppress(TypeError, ValueError):  # shapes do not fit
      program, heads = attempt(paths)
      return (program, heads) if is_of_one_head(program, arrays) else None

  if (found := attempt_one_head(())) is not None:
    return found
  if paths and (found := attempt_one_head(paths)) is not None:
    # Each is left out in turn: another axis, cut as if it were that of heads, may fit by chance.
    for path in paths:
      fewer = tuple(x for x in found[1].coordinates if x != path)
      found = (fewer and attempt_one_head(fewer)) or found
    return found
  some = (x for count in range(1, len(paths)) for x in itertools.combinations(paths, count))
  for few in itertools.islice(some, MOST_TRIES):
    if (found := attempt_one_head(few)) is not None:
      return found
  return attempt(paths)


def check_pulled_back(schedule: TileSchedule, heads: Heads, arrays, ids) -> None:
  """Raises NotImplementedError, saying what Triton lacks of what the passes compute of a tile,
  forward and backward. Differentiated, a function may be computed in another way than it is alone.
  """

  def tile(a, b, inputs):
    arrays, ids = arrays_and_ids(inputs)
    parts = {kind: arrays[kind] for kind in KINDS}
    attend = lambda parts: _attend(schedule, a, b, arrays | parts, ids)
    found, pull_back = jax.vjp(attend, parts)
    return attend(parts), pull_back(found)  # any numbers serve as cotangents

  HeadProgram(tile, blocks_of(inputs_of(arrays, ids), heads)).check()


def is_of_one_head(program: HeadProgram, arrays) -> bool:
  """Whether the state that a forward program makes is as large as the one that it is given."""
  return [x.shape for x in program.results] == [shape for shape, _ in _shapes_of_state(arrays)]


def forward_pass(schedule: TileSchedule, interpret: bool, arrays, ids):
  """o and the rows' log-sum-exp in float32, [rows of tiles, B, H, T' (, K)].

  Args:
    arrays: 'whole', the encoding; 'row', 'column' and 'diagonal', pytrees of [number, B|1, ...].
    ids: those of 'row' and 'column'.
  """
  grid, (number, B) = schedule.grid, arrays['row']['q'].shape[:2]
  finish = lambda state: divide_out(arrays['whole'], (state, ()))  # nothing is carried on
  walks = Walks.along(Visits.forward(grid), 'row', number)
  program, heads = forward_program(schedule, arrays, ids)
  kernel, state = Kernel('attention', 'row', walks, B, heads, interpret), _shapes_of_state(arrays)
  dtypes = arrays['column']['v'].dtype, jnp.float32
  o, lse = kernel.run(program, inputs_of(arrays, ids), state, finish, dtypes)
  return o, lse


def backward_pass(schedule: TileSchedule, interpret: bool, arrays, ids, per_row):
  """The gradients of `arrays`, in float32; `per_row` as `differentiable` gives it."""
  leaves, tree = jax.tree.flatten(arrays)
  program, heads = forward_program(schedule, arrays, ids)
  operands = operands_of(arrays, heads)
  reads = reads_of_arrays(program, inputs_of(arrays, ids))
  gradients = [jnp.zeros(x.shape, jnp.float32) for x in leaves]
  for kind in KINDS:
    wanted = [n for n, x in enumerate(operands) if x.kind == kind and reads[n]]
    if wanted:
      sums = _gradients(schedule, heads, arrays, ids, per_row, wanted, kind, interpret)
      for n, x in zip(wanted, sums, strict=True):
        gradients[n] = operands[n].fold(x)
  return jax.tree.unflatten(tree, gradients)


def _gradients(schedule, heads, arrays, ids, per_row, wanted, kind: str, interpret: bool) -> list:
  """The gradients of the leaves `wanted` of the arrays, by programs that walk along a kind.

  Returns:
    A list of [number, B|1, H, *block].
  """
  B = arrays['row']['q'].shape[1]
  operands = operands_of(arrays, heads)
  inputs = inputs_of(arrays, ids, per_row)

  def tile(a, b, inputs, state):
    arrays, ids = arrays_and_ids(inputs)
    do, d_denominator, lse = inputs['row'][2]
    leaves = jax.tree.leaves(arrays)

    def outputs(*chosen):
      return _attend(schedule, a, b, with_leaves(arrays, wanted, chosen), ids, lse=lse)[:2]

    _, pull_back = jax.vjp(outputs, *(leaves[n] for n in wanted))
    added = pull_back((do.astype(jnp.float32), d_denominator))
    return tuple(total + x.astype(jnp.float32) for total, x in zip(state, added, strict=True))

  shapes = tuple(operands[n].seen for n in wanted)
  state = tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
  program = HeadProgram(tile, blocks_of(inputs, heads), state)
  is_table_walk, visits, count = (
    kind == 'diagonal',
    Visits.forward(schedule.grid),
    len(jax.tree.leaves(arrays)[wanted[0]]),
  )
  # All tiles beyond the reach of a table lie on one diagonal, too many for one program.
  walks = Walks.along(visits, kind, count, schedule.grid.tile_rows if is_table_walk else None)
  kernel = Kernel(
    f'attention_d_{kind}', kind, walks, B, heads, interpret, batch_inside=is_table_walk
  )
  blocks = [operands[n].block for n in wanted]
  finish = lambda state: [x.reshape(1, 1, *block) for x, block in zip(state, blocks, strict=True)]
  written = kernel.run(
    program, inputs, tuple((shape, 0.0) for shape in shapes), finish, [jnp.float32] * len(wanted)
  )
  if not is_table_walk:
    return written
  # Added up as a product, since a GPU scatters in any order.
  is_part = jnp.asarray(walks.number[None] == np.arange(count)[:, None], jnp.float32)
  add_parts = lambda parts: jnp.tensordot(is_part, parts, 1, precision=lax.Precision.HIGHEST)
  return [add_parts(parts) for parts in written]
