"""What a kernel reads and writes, in the blocks that its steps see."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl


class Operand(NamedTuple):
  """How an array is cut into blocks.

  Attributes:
    kind: what its blocks are numbered by, a field of `Visits`, or 'whole'.
    shape: of a block as a tile sees it; [1, ...] of one row of the batch where it is cut.
    has_batch: whether each row of the batch has its own.
  """

  kind: str
  shape: tuple[int, ...]
  has_batch: bool = False

  @classmethod
  def of(cls, kind: str, array):
    """The operand of an array [number, B|1, ...], or of a whole one."""
    if kind == 'whole':
      return cls(kind, array.shape)
    return cls(kind, (1, *array.shape[2:]), array.shape[1] > 1)

  @property
  def stored(self) -> tuple[int, ...]:
    """The shape of a block in memory: of two axes or more."""
    shape = self.shape if self.kind == 'whole' else self.shape[1:]
    return (1,) * (2 - len(shape)) + shape

  def spec(self, order: tuple[str, ...], batch_axis: int):
    """Its BlockSpec, for a grid of tiles and batch whose scalars start with those of `order`."""
    zeros = (0,) * len(self.stored)
    if self.kind == 'whole':
      return pl.BlockSpec(self.stored, lambda *_: zeros)
    place = 2 + order.index(self.kind)

    def block(*indices):
      batch = indices[batch_axis] if self.has_batch else 0
      return (indices[place][indices[1 - batch_axis]], batch, *zeros)

    return pl.BlockSpec((None, None, *self.stored), block)

  def pack(self, array):
    """The array as it is stored."""
    lead = () if self.kind == 'whole' else array.shape[:2]
    return array.reshape(*lead, *self.stored)


class Result(NamedTuple):
  """An array that a kernel writes: how it is cut into blocks, how many
  there are, and its dtype.
  """

  operand: Operand
  number: int
  dtype: object = jnp.float32

  def stored(self, batch: int) -> jax.ShapeDtypeStruct:
    """The array as it is stored."""
    lead = (
      () if self.operand.kind == 'whole' else (self.number, batch if self.operand.has_batch else 1)
    )
    return jax.ShapeDtypeStruct((*lead, *self.operand.stored), self.dtype)

  def unpack(self, array):
    """[number, B|1, ...], or a whole array, in its own shape."""
    if self.operand.kind == 'whole':
      return array.reshape(self.operand.shape)
    return array.reshape(*array.shape[:2], *self.operand.shape[1:])


def operands_of(inputs: dict) -> list[Operand]:
  """The operand of each leaf of a dict of pytrees of arrays, by how they are cut."""
  return [Operand.of(path[0].key, x) for path, x in jax.tree_util.tree_leaves_with_path(inputs)]


def blocks_of(inputs: dict) -> dict:
  """The shapes of what a tile sees of them."""
  operands = jax.tree.unflatten(jax.tree.structure(inputs), operands_of(inputs))
  return jax.tree.map(lambda x, o: jax.ShapeDtypeStruct(o.shape, x.dtype), inputs, operands)
