"""A Triton kernel whose programs each walk over some tiles of one head.

A GPU runs its programs in any order and side by side, so each has sums of its own: what several add
to is added up afterwards, in one order. Results do not change from run to run.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl

from posenc_jax.attention.kernels.gpu.head_program import HeadProgram
from posenc_jax.attention.kernels.gpu.operands import Heads, operands_of
from posenc_jax.attention.kernels.inputs import arrays_and_ids
from posenc_jax.attention.kernels.visits import Visits

WARPS = 4
STAGES = 2  # of the pipeline in which a loop loads ahead


class Walks(NamedTuple):
  """Which tiles each program visits.

  Attributes:
    visits: tiles, of which those of one program follow each other.
    number: of the block that a program writes or adds to, [programs].
    start, stop: its first tile, and one past its last, [programs].
  """

  visits: Visits
  number: np.ndarray
  start: np.ndarray
  stop: np.ndarray

  @classmethod
  def along(cls, visits: Visits, kind: str, count: int, longest: int | None = None):
    """A program for each of `count` rows, columns or diagonals; of one with more than `longest`
    tiles, several of at most so many each.
    """
    ordered = visits.ordered(kind)
    starts = np.searchsorted(getattr(ordered, kind), np.arange(count + 1))
    parts = []
    for number in range(count):
      start, stop = starts[number], starts[number + 1]
      step = longest or max(stop - start, 1)
      parts += [(number, n, min(n + step, stop)) for n in range(start, max(stop, start + 1), step)]
    return cls(ordered, *np.array(parts, np.int32).T)


@dataclasses.dataclass(frozen=True)
class Kernel:
  """Programs that walk over tiles.

  Attributes:
    kind: what a program's tiles have in common: 'row', 'column' or 'diagonal'.
    heads: of queries.
    batch_inside: whether a program visits its tiles for all rows of the batch, else for one.
    interpret: whether Pallas interprets it.
  """

  name: str
  kind: str
  walks: Walks
  batch: int
  heads: Heads
  interpret: bool
  batch_inside: bool = False

  def run(self, program: HeadProgram, inputs: dict, state: tuple, finish, dtypes):
    """The arrays that are written: [programs, B|1, H, *block].

    Args:
      program: called for each tile with its inputs and the state, it returns the next state.
      state: (shape, value) of each array of the state at the start, in float32.
      finish: called with the state at the end, it returns what to write, [1, 1, *block] each.
      dtypes: of what is written.
    """
    order, visits = Visits._fields[:3], self.walks.visits
    operands, leaves = operands_of(inputs, self.heads), jax.tree.leaves(inputs)
    read = [n for n, is_read in enumerate(program.reads) if is_read]
    constants = [jnp.asarray(x) for x in program.constants]
    packed = [operands[n].pack(leaves[n]) for n in read]
    segments = _segments(inputs)
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape, _ in state]
    written = jax.eval_shape(finish, shapes)
    out_batch = 1 if self.batch_inside else self.batch

    def kernel(*refs):
      walk, head, row = (pl.program_id(axis) for axis in range(3))
      tiles, refs = dict(zip(order, refs[: len(order)], strict=True)), refs[len(order) :]
      (start_ref, stop_ref, *refs) = refs
      given, refs = refs[: len(read)], refs[len(read) :]
      fixed, refs = [ref[...] for ref in refs[: len(constants)]], refs[len(constants) :]
      start, stop = start_ref[walk], stop_ref[walk]

      def block(n, ref, tile, batch):
        number = tile[operands[n].kind]
        return operands[n].block_of(ref, number, batch, head, self.heads.number)

      def tile_at(n):
        return {kind: ref[n] for kind, ref in tiles.items()}

      # What all tiles of the program share is loaded once. A program without tiles loads it, too.
      is_shared = [operands[n].kind == self.kind and not self.batch_inside for n in read]
      own = tile_at(jnp.minimum(start, len(visits.row) - 1))
      shared = [
        block(n, ref, own, row) if is_own else None
        for n, ref, is_own in zip(read, given, is_shared, strict=True)
      ]

      def visit(n, state):
        batch, tile = row, tile_at(n)
        if self.batch_inside:
          tile, batch = tile_at(start + (n - start) // self.batch), (n - start) % self.batch
        values = [
          block(n, ref, tile, batch) if own is None else own
          for n, ref, own in zip(read, given, shared, strict=True)
        ]
        of_leaf = dict(zip(read, values, strict=True))
        compute = lambda: tuple(
          program(
            fixed, tile['row'], tile['column'], [of_leaf.get(n) for n in range(len(leaves))], state
          )
        )
        if not segments:
          return compute()
        ids = [of_leaf[n] for n in segments]
        meet = (ids[0].min() <= ids[1].max()) & (ids[1].min() <= ids[0].max())
        return lax.cond(meet, compute, lambda: state)

      first = tuple(jnp.full(shape, value, jnp.float32) for shape, value in state)
      last = stop if not self.batch_inside else start + (stop - start) * self.batch
      for ref, x in zip(refs, finish(lax.fori_loop(start, last, visit, first)), strict=True):
        ref[walk, row, head] = x.reshape(ref.shape[3:]).astype(ref.dtype)

    # By itself: jax has announced that it will drop it, and `attend` does without.
    from jax.experimental.pallas import triton as plt

    return pl.pallas_call(
      kernel,
      grid=(len(self.walks.number), self.heads.number, out_batch),
      out_shape=[
        jax.ShapeDtypeStruct(
          (len(self.walks.number), out_batch, self.heads.number, *x.shape[2:]), dtype
        )
        for x, dtype in zip(written, dtypes, strict=True)
      ],
      compiler_params=plt.CompilerParams(num_warps=WARPS, num_stages=STAGES),
      interpret=self.interpret,
      name=self.name,
    )(
      *(jnp.asarray(getattr(visits, kind)) for kind in order),
      jnp.asarray(self.walks.start),
      jnp.asarray(self.walks.stop),
      *packed,
      *constants,
    )


def _segments(inputs: dict) -> list[int]:
  """Which leaves of the inputs are the segments of rows and of columns; none without packing."""
  leaves, structure = jax.tree.flatten(inputs)
  _, ids = arrays_and_ids(jax.tree.unflatten(structure, range(len(leaves))))
  numbers = [ids[kind]['segment'] for kind in ('row', 'column')]
  return [] if None in numbers else numbers
