"""What a kernel computes of one tile, as a traced function."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import partial_eval

TRANSCENDENTALS = {
  *('exp', 'exp2', 'expm1', 'log', 'log1p', 'logistic', 'pow', 'sqrt', 'rsqrt', 'cbrt'),
  *('sin', 'cos', 'tan', 'sinh', 'cosh', 'tanh', 'asin', 'acos', 'atan', 'atan2'),
  *('asinh', 'acosh', 'atanh', 'erf', 'erfc', 'erf_inv'),
}


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

  def operations(self, platforms: set[str]) -> np.ndarray:
    """[FLOPs of products of matrices, two a multiplication and addition; transcendentals].

    Of a conditional both are those of the dearest branch; of `lax.platform_dependent` those of the
    branch that devices of these names take.
    """
    return _operations(self._jaxpr, platforms)

  def primitives(self) -> set[str]:
    """The names of all primitives in it."""
    return set(_primitives(self._jaxpr))


def open_jaxpr(closed):
  """A jaxpr without its constants. From jax 0.12 on it has them itself, and `.jaxpr` is to go."""
  return getattr(closed, 'jaxpr', closed)


def branch_of_platform(branches, platforms: set[str]) -> int:
  """Which branch of `lax.platform_dependent` devices of these names take.

  `branches`: for which platforms each is; None: for all that are left.
  """
  return next(n for n, names in enumerate(branches) if names is None or platforms & {*names})


def _inner_jaxprs(equation) -> list:
  leaves = map(open_jaxpr, jax.tree.leaves(list(equation.params.values())))
  return [x for x in leaves if hasattr(x, 'eqns')]


def _primitives(jaxpr):
  for equation in jaxpr.eqns:
    yield equation.primitive.name
    for inner in _inner_jaxprs(equation):
      yield from _primitives(inner)


def _operations(jaxpr, platforms: set[str]) -> np.ndarray:
  found = np.zeros(2, np.int64)
  for equation in jaxpr.eqns:
    name, sizes = equation.primitive.name, [math.prod(x.aval.shape) for x in equation.outvars]
    inner = [_operations(x, platforms) for x in _inner_jaxprs(equation)]
    if name == 'cond':
      of_platforms = equation.params.get('branches_platforms')
      inner = [inner[branch_of_platform(of_platforms, platforms)]] if of_platforms else inner
      found += np.max(inner, axis=0)
    elif name == 'dot_general':
      (contracted, _), _ = equation.params['dimension_numbers']
      shape = equation.invars[0].aval.shape
      found[0] += 2 * sizes[0] * math.prod(shape[axis] for axis in contracted)
    elif name in TRANSCENDENTALS:
      found[1] += sizes[0]
    else:
      found += sum(inner)
  return found
