"""What a Triton program computes of one tile and one head, in the operations that Triton has.

The encoding's own code is traced for a batch of one and one head, and evaluated with what Triton
lacks put differently: products have two axes there, and no platforms are told apart.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Literal

from posenc_jax.attention.kernels.program import TileProgram, branch_of_platform, open_jaxpr
from posenc_jax.attention.kernels.unsupported import UNSUPPORTED_IN_TRITON

# Calls of traced functions, whose own operations are evaluated in their place.
CALLS = ('closed_call', 'custom_jvp_call', 'custom_vjp_call', 'jit', 'pjit')


class HeadProgram(TileProgram):
  """A TileProgram for a Triton kernel. It raises NotImplementedError, saying what Triton lacks."""

  def check(self) -> None:
    """Raises NotImplementedError if Triton lacks anything that the program needs."""
    jax.eval_shape(
      lambda *arguments: self.evaluate(self._jaxpr, self.constants, arguments), *self.takes
    )

  def evaluate(self, jaxpr, constants, arguments):
    """The results of the traced function."""
    return _evaluate(jaxpr, constants, arguments)


def _evaluate(jaxpr, constants, arguments):
  values = dict(zip(jaxpr.constvars, constants, strict=True))
  values |= dict(zip(jaxpr.invars, arguments, strict=True))
  read = lambda x: x.val if isinstance(x, Literal) else values[x]
  for equation in jaxpr.eqns:
    results = _results(equation, [read(x) for x in equation.invars])
    values |= zip(equation.outvars, results, strict=True)
  return [read(x) for x in jaxpr.outvars]


def _results(equation, arguments) -> list:
  name, parameters = equation.primitive.name, equation.params
  if name in CALLS:
    inner = parameters['call_jaxpr' if 'call_jaxpr' in parameters else 'jaxpr']
    return _evaluate(open_jaxpr(inner), inner.consts, arguments)
  if name == 'platform_index':
    return [branch_of_platform(parameters['platforms'], {'cuda', 'gpu'})]
  if name == 'cond':
    index, *arguments = arguments
    evaluated = lambda b: functools.partial(_evaluate, open_jaxpr(b), b.consts)
    branches = list(map(evaluated, parameters['branches']))
    if isinstance(index, int):
      return branches[index](arguments)
    return lax.switch(index, branches, arguments)
  if name == 'dot_general':
    return [_dot(*arguments, equation.outvars[0].aval, parameters)]
  if name == 'slice':
    return [_slice(*arguments, parameters)]
  if name == 'pad':
    return [_pad(*arguments, parameters)]
  if name in UNSUPPORTED_IN_TRITON:
    raise NotImplementedError(f'{UNSUPPORTED_IN_TRITON[name]} ({name})')
  results = equation.primitive.bind(*arguments, **parameters)
  return results if equation.primitive.multiple_results else [results]


def _slice(x, parameters):
  """One of several equal parts of an axis, as a sum in which all others are 0."""
  starts, limits = parameters['start_indices'], parameters['limit_indices']
  if any(stride != 1 for stride in parameters['strides'] or ()):
    raise NotImplementedError('takes parts of arrays (slice)')
  for axis, (start, limit) in enumerate(zip(starts, limits, strict=True)):
    length, part = x.shape[axis], limit - start
    if part == length:
      continue
    if length % part or start % part:
      raise NotImplementedError('takes parts of arrays (slice)')
    parts = x.reshape(*x.shape[:axis], length // part, part, *x.shape[axis + 1 :])
    is_taken = lax.broadcasted_iota(jnp.int32, parts.shape, axis) == start // part
    x = jnp.where(is_taken, parts, jnp.zeros_like(parts)).sum(axis=axis)
  return x


def _pad(x, value, parameters):
  """The adjoint of `_slice`: one of several equal parts along an axis, and the value elsewhere."""
  for axis, (low, high, inner) in enumerate(parameters['padding_config']):
    part = x.shape[axis]
    length = low + part + high
    if low == high == inner == 0:
      continue
    if min(low, high) < 0 or inner or length % part or low % part:
      raise NotImplementedError('pads arrays (pad)')
    whole = (*x.shape[:axis], length, *x.shape[axis + 1 :])
    x = jnp.expand_dims(x, axis)
    parts = (*x.shape[:axis], length // part, *x.shape[axis + 1 :])
    is_taken = lax.broadcasted_iota(jnp.int32, parts, axis) == low // part
    x = jnp.where(is_taken, jnp.broadcast_to(x, parts), value).reshape(whole)
  return x


def _dot(x, y, result, parameters):
  """A product of matrices where all other axes are 1 long."""
  (contracted, batch), sides = parameters['dimension_numbers'], []
  for array, summed, leading in zip((x, y), contracted, batch, strict=True):
    free = [n for n in range(array.ndim) if n not in (*summed, *leading)]
    lengths = {axis: array.shape[axis] for axis in free}
    if any(array.shape[axis] != 1 for axis in leading) or len(summed) != 1:
      raise NotImplementedError('multiplies arrays of more than two axes (dot_general)')
    if sum(length != 1 for length in lengths.values()) > 1:
      raise NotImplementedError('multiplies arrays of more than two axes (dot_general)')
    is_first = all(summed[0] < axis for axis in free if lengths[axis] != 1)
    shape = (array.shape[summed[0]], math.prod(lengths.values()))
    sides.append((array.reshape(shape if is_first else shape[::-1]), 0 if is_first else 1))
  (x, of_x), (y, of_y) = sides
  product = lax.dot_general(
    x,
    y,
    (((of_x,), (of_y,)), ((), ())),
    precision=parameters['precision'],
    preferred_element_type=parameters['preferred_element_type'] or jnp.float32,
  )
  return product.reshape(result.shape).astype(result.dtype)
