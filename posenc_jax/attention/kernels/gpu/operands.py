"""What a Triton kernel reads: whole arrays, of which a program takes blocks of one head."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

# Coordinates and ids, [tiles, B|1, n, ...].
TOKEN_KEYS = ('i', 'j', 'position', 'segment', 'index', 'mask_id')


class Heads(NamedTuple):
  """How many heads queries have, and of which coordinates each of them has its own.

  Attributes:
    coordinates: their paths in the pytrees i and j.
  """

  number: int
  coordinates: tuple[str, ...] = ()

  @staticmethod
  def candidates(number: int, coordinates) -> tuple[str, ...]:
    """The paths of coordinates that may be per head: of these arrays [tiles, B|1, n, ...] those
    whose axis 3 is as long as there are heads, which may also be another axis.
    """
    leaves = jax.tree_util.tree_leaves_with_path(coordinates)
    return tuple(jax.tree_util.keystr(path) for path, x in leaves if x.shape[3:4] == (number,))

  def axis_of(self, path) -> int | None:
    """The axis of heads of the leaf at a path of the inputs; None: all heads share it."""
    keys = [getattr(key, 'key', None) for key in path]
    of_tokens = [n for n, key in enumerate(keys) if key in TOKEN_KEYS]
    if not of_tokens:
      return 2
    is_own = jax.tree_util.keystr(path[of_tokens[0] + 1 :]) in self.coordinates
    return 3 if is_own and keys[of_tokens[0]] in ('i', 'j') else None


class Operand(NamedTuple):
  """How an array is stored for programs of one row of the batch and one head.

  Attributes:
    kind: what its blocks are numbered by, a field of `Visits`, or 'whole'.
    heads_axis: which axis of the array is that of heads; None: all heads share it.
    axes: of the array, [number, B|1, ...].
  """

  kind: str
  heads_axis: int | None
  axes: tuple[int, ...]

  @property
  def seen(self) -> tuple[int, ...]:
    """The shape of a block as a tile sees it: of one row of the batch, and of one head."""
    if self.kind == 'whole':
      return self.axes
    return (
      1,
      *(1 if axis == self.heads_axis else n for axis, n in enumerate(self.axes) if axis > 1),
    )

  @property
  def block(self) -> tuple[int, ...]:
    """The shape of a block in memory."""
    return tuple(n for axis, n in enumerate(self.axes) if axis > 1 and axis != self.heads_axis)

  @property
  def heads(self) -> int:
    """How many heads it has; 1 where all share it."""
    return 1 if self.heads_axis is None else self.axes[self.heads_axis]

  def pack(self, array):
    """The array as it is stored: [number, B|1, heads, *block]."""
    if self.heads_axis is None:
      return array[:, :, None]
    return jnp.moveaxis(array, self.heads_axis, 2)

  def block_of(self, ref, number, batch, head, heads: int):
    """The block of a row of the batch and one of so many heads of queries, as a tile sees it."""
    place = head if self.heads == heads else head // (heads // self.heads)
    return ref[number, batch if self.axes[1] > 1 else 0, place].reshape(self.seen)

  def fold(self, gradient):
    """The gradient of the array, given that of each row of the batch and head of queries.

    It is [number, B, H, *block], and what heads and rows of the batch share is added up.
    """
    number, B, H = gradient.shape[:3]
    of_heads = gradient.reshape(number, B, self.heads, H // self.heads, *self.block).sum(axis=3)
    if self.axes[1] == 1:
      of_heads = of_heads.sum(axis=1, keepdims=True)
    return (
      of_heads[:, :, 0] if self.heads_axis is None else jnp.moveaxis(of_heads, 2, self.heads_axis)
    )


def operands_of(inputs: dict, heads: Heads) -> list[Operand]:
  """The operand of each leaf of a dict of pytrees of arrays [number, B|1, ...], by their kind."""
  leaves = jax.tree_util.tree_leaves_with_path(inputs)
  return [Operand(path[0].key, heads.axis_of(path), x.shape) for path, x in leaves]


def blocks_of(inputs: dict, heads: Heads) -> dict:
  """The shapes of what a tile sees of them."""
  operands = jax.tree.unflatten(jax.tree.structure(inputs), operands_of(inputs, heads))
  return jax.tree.map(lambda x, o: jax.ShapeDtypeStruct(o.seen, x.dtype), inputs, operands)
