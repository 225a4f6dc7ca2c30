"""What a kernel computes of one tile, as a traced function."""

import jax
import jax.numpy as jnp
from jax.interpreters import partial_eval


class TileProgram:
  """A function of (row, column, inputs, *state) of one tile, traced for blocks of these shapes.

  Kernels take no arrays from outside, so what it closes over becomes operands; what its results do
  not need never reaches the kernel.

  Attributes:
    reads: which leaves of the inputs it needs.
    results: the shapes of its results.
    constants: the arrays that it closes over.
  """

  def __init__(self, function, blocks: dict, *state):
    tile_number = jax.ShapeDtypeStruct((), jnp.int32)
    closed = jax.make_jaxpr(function)(tile_number, tile_number, blocks, *state)
    self.results = closed.out_avals
    outputs = [True] * len(closed.out_avals)
    self.constants = closed.consts
    self._jaxpr, self._used = partial_eval.dce_jaxpr(open_jaxpr(closed), outputs)
    self.reads = self._used[2 : 2 + len(jax.tree.leaves(blocks))]

  def __call__(self, constants, a, b, inputs: list, state: list):
    """Its results, flat, for all leaves of inputs and state; what it does not read may be None."""
    arguments = zip([a, b, *inputs, *state], self._used, strict=True)
    return self.evaluate(self._jaxpr, constants, [x for x, is_used in arguments if is_used])

  def evaluate(self, jaxpr, constants, arguments):
    """The results of the traced function."""
    return jax.core.eval_jaxpr(jaxpr, constants, *arguments)

  @property
  def takes(self):
    """The shapes of what it reads: tile numbers, inputs and state."""
    return [jax.ShapeDtypeStruct(x.aval.shape, x.aval.dtype) for x in self._jaxpr.invars]

  def primitives(self) -> set[str]:
    """The names of all primitives in it."""
    return set(_primitives(self._jaxpr))


def open_jaxpr(closed):
  """A jaxpr without its constants. From jax 0.12 on it has them itself, and `.jaxpr` is to go."""
  return getattr(closed, 'jaxpr', closed)


def _primitives(jaxpr):
  for equation in jaxpr.eqns:
    yield equation.primitive.name
    for parameter in jax.tree.leaves(list(equation.params.values())):
      inner = open_jaxpr(parameter)
      if hasattr(inner, 'eqns'):
        yield from _primitives(inner)
