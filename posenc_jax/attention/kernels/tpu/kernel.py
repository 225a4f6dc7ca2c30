"""A kernel that walks over tiles: one step of its grid each, in sequence.

A core of a TPU runs the steps of a grid one after another, so a step finds what the one before it
has left in memory: sums, and what is carried along the keys. Gradients are therefore added up in
one order.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from posenc_jax.attention.kernels.tpu.operands import Operand, Result, operands_of
from posenc_jax.attention.kernels.visits import Visits
from posenc_jax.attention.tiled.geometry import TileGrid

VMEM_BYTES = 100 * 2**20  # of the 128 MiB that v5e and v6e have
# For scalars, which say where tiles lie: v5e, v5p and v6e have 1 MiB, and the compiler takes some.
SMEM_BYTES = 2**20 - 2**12
LANES = 128  # of a TPU's registers


class Segments(NamedTuple):
  """The lowest and the highest segment id of each row and column of tiles, int32 [number, B|1]."""

  lowest_of_row: jax.Array
  highest_of_row: jax.Array
  lowest_of_column: jax.Array
  highest_of_column: jax.Array

  @classmethod
  def of_ids(cls, row_ids, column_ids):
    """The bounds of ids [number, B|1, tokens of a tile]."""
    bounds = [reduce(ids, axis=2) for ids in (row_ids, column_ids) for reduce in (jnp.min, jnp.max)]
    return cls(*(x.astype(jnp.int32) for x in bounds))


def bytes_of_scalars(grid: TileGrid, segments: int) -> int:
  """The bytes that `Visits` and `Segments` take. `segments`: the number of rows of the batch whose
  segments are held; 0: there are none.
  """
  of_visits = len(Visits._fields) * Visits.count(grid)
  of_segments = 2 * (grid.tile_rows + grid.tile_columns) * -(-segments // LANES) * LANES
  return 4 * (of_visits + of_segments)


@dataclasses.dataclass(frozen=True)
class Step:
  """One step: a tile of one row of the batch.

  Attributes:
    visits: references to the fields of `Visits`, by name.
    segments: references to `Segments`, or ().
    n: the number of the tile among the visits.
    batch: the row of the batch.
    is_first: whether it is the first of all.
  """

  visits: dict
  segments: tuple
  n: object
  batch: object
  is_first: object

  @property
  def tile(self):
    """The row and the column of the tile."""
    return self.visits['row'][self.n], self.visits['column'][self.n]

  def may_see(self):
    """Whether any query of the tile may have the same segment as any key."""
    if not self.segments:
      return True
    lowest_row, highest_row, lowest_column, highest_column = (
      ref[tile, self.batch if ref.shape[1] > 1 else 0]
      for ref, tile in zip(self.segments, [self.tile[0]] * 2 + [self.tile[1]] * 2, strict=True)
    )
    return (lowest_row <= highest_column) & (lowest_column <= highest_row)

  def begins(self, kind: str):
    """Whether the tile before it is of another row (column, diagonal) of tiles."""
    number = self.visits[kind]
    return (self.n == 0) | (number[self.n] != number[jnp.maximum(self.n - 1, 0)])

  def ends(self, kind: str):
    """Whether the tile after it is of another row (column, diagonal) of tiles."""
    number, last = self.visits[kind], self.visits[kind].shape[0] - 1
    return (self.n == last) | (number[self.n] != number[jnp.minimum(self.n + 1, last)])


@dataclasses.dataclass(frozen=True)
class Kernel:
  """A walk over the tiles of every row of the batch.

  Attributes:
    grid: where the tiles lie.
    visits: those that are visited, in their order.
    batch: how many rows the batch has.
    segments: those of the tiles, which are passed over where they have none in common; or ().
    batch_inside: whether each tile is visited for all rows of the batch in a row, else all tiles
      for each.
    interpret: whether Pallas interprets it.
  """

  name: str
  grid: TileGrid
  visits: Visits
  batch: int
  segments: Segments | tuple
  interpret: bool
  batch_inside: bool = False

  def run(self, body, programs: dict, inputs: dict, results: list[Result], scratch: list):
    """The arrays that are written.

    Args:
      body: called with (step, on_tile, references to results, references to scratch).
        on_tile(visit) calls visit(compute), where the step has anything to see; compute(*state)
        returns the results of the program for its tile.
      programs: TilePrograms by whether tables are constant over the tile; True may be missing.
      inputs: what the programs read.
      scratch: the shapes of what steps leave to one another, in float32.
    """
    leaves = [*zip(operands_of(inputs), jax.tree.leaves(inputs), strict=True)]
    is_read = [any(reads) for reads in zip(*(p.reads for p in programs.values()), strict=True)]
    read = [n for n in range(len(leaves)) if is_read[n]]
    constants = [jnp.asarray(x) for program in programs.values() for x in program.constants]
    arrays = [leaves[n] for n in read] + [(Operand.of('whole', x), x) for x in constants]
    order, batch_axis = Visits._fields, 1 if self.batch_inside else 0
    tiles = len(self.visits.row)
    steps = (tiles, self.batch) if self.batch_inside else (self.batch, tiles)
    # A v5p has two cores, which share what is parallel: rows of the batch that add to nothing of
    # each other's.
    adds_up_batch = self.batch_inside or any(x.operand.kind == 'whole' for x in results)

    def kernel(*refs):
      visits, refs = dict(zip(order, refs[: len(order)], strict=True)), refs[len(order) :]
      segments, refs = refs[: len(self.segments)], refs[len(self.segments) :]
      given, refs = refs[: len(arrays)], refs[len(arrays) :]
      places = pl.program_id(0), pl.program_id(1)
      is_first = (places[0] == 0) & (places[1] == 0)
      step = Step(visits, segments, places[1 - batch_axis], places[batch_axis], is_first)

      def compute(is_constant: bool, *state):
        values = [
          ref[...].reshape(operand.shape) for (operand, _), ref in zip(arrays, given, strict=True)
        ]
        of_leaf, of_constants = dict(zip(read, values, strict=False)), values[len(read) :]
        own, first = programs[is_constant], programs[False]
        others = len(first.constants) if is_constant else 0
        own_constants = of_constants[others : others + len(own.constants)]
        inputs = [of_leaf.get(n) for n in range(len(leaves))]
        return own(own_constants, *step.tile, inputs, jax.tree.leaves(state))

      def on_tile(visit):
        for is_constant in programs:
          sees = step.may_see()
          if len(programs) > 1:
            sees &= self.grid.is_constant(*step.tile) == is_constant
          pl.when(sees)(functools.partial(visit, functools.partial(compute, is_constant)))

      body(step, on_tile, refs[: len(results)], refs[len(results) :])

    written = pl.pallas_call(
      kernel,
      grid_spec=pltpu.PrefetchScalarGridSpec(
        num_scalar_prefetch=len(order) + len(self.segments),
        grid=steps,
        in_specs=[operand.spec(order, batch_axis) for operand, _ in arrays],
        out_specs=[result.operand.spec(order, batch_axis) for result in results],
        scratch_shapes=[pltpu.VMEM(shape, jnp.float32) for shape in scratch],
      ),
      out_shape=[result.stored(self.batch) for result in results],
      compiler_params=pltpu.CompilerParams(
        dimension_semantics=('arbitrary' if adds_up_batch else 'parallel', 'arbitrary'),
        vmem_limit_bytes=VMEM_BYTES,
      ),
      cost_estimate=self._cost(programs, arrays, results),
      interpret=self.interpret,
      name=self.name,
    )(*map(jnp.asarray, self.visits), *self.segments, *(operand.pack(x) for operand, x in arrays))
    return [result.unpack(x) for result, x in zip(results, written, strict=True)]

  def _cost(self, programs: dict, arrays: list, results: list[Result]) -> pl.CostEstimate:
    """What the kernel does: known from shapes and from which tiles are visited.

    A tile that is passed over as the kernel runs, for its segments, counts as one that is computed.
    FLOPs are those of products of matrices; both they and transcendentals are those of the
    programs, without what merges a tile with its row, 2 exponentials a query. Bytes are those of
    blocks that are copied from and to main memory, without what fills up registers, and of the
    scalars.

    `arrays`: (operand, array) of all that is read.
    """
    visits, operations = self.visits, np.zeros(2, np.int64)
    is_constant = self.grid.is_constant(visits.row, visits.column)
    for of_constant, program in programs.items():
      tiles = np.count_nonzero(is_constant == of_constant) if len(programs) > 1 else len(visits.row)
      operations += self.batch * tiles * program.operations({'tpu'})
    blocks = [(operand, x.dtype) for operand, x in arrays]
    blocks += [(result.operand, jnp.dtype(result.dtype)) for result in results]
    size = sum(
      self._copies(operand.kind, operand.has_batch) * math.prod(operand.stored) * dtype.itemsize
      for operand, dtype in blocks
    )
    size += sum(x.size * x.dtype.itemsize for x in (*visits, *self.segments))
    flops, transcendentals = map(int, operations)
    return pl.CostEstimate(flops, transcendentals, int(size))

  def _copies(self, kind: str, has_batch: bool) -> int:
    """How many blocks are copied: one a step, but for that which the step before had, too."""
    if kind == 'whole':
      return 1
    rows = np.arange(self.batch) if has_batch else np.zeros(self.batch, int)
    blocks = getattr(self.visits, kind)[:, None] * self.batch + rows
    in_order = blocks.ravel() if self.batch_inside else blocks.T.ravel()
    return 1 + np.count_nonzero(np.diff(in_order))
