"""Initial parameters in few programs: of each length that is a power of two there is one.

An entry of a draw depends on the key and on its own index alone, so that a draw of few entries is
the start of one of many.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


def _is_traced() -> bool:
  """Whether what is called now is part of a program, and not run."""
  return isinstance(jnp.zeros(()), jax.core.Tracer)


def _parameter(entries) -> nnx.Param:
  return nnx.Param(jnp.asarray(entries))


def in_few_programs(draw):
  """`normal` or `uniform` of `parameters`: the start of a longer draw, cut by NumPy."""

  @functools.wraps(draw)
  def start(rngs, shape, *numbers):
    if _is_traced():
      return draw(rngs, shape, *numbers)
    count = math.prod(shape)
    length = max(16, 1 << (count - 1).bit_length())
    longer = draw(rngs, (length,), *numbers)
    return _parameter(np.asarray(longer[...])[:count].reshape(shape))

  return start


def in_no_program(zeros):
  """`zeros` of `parameters`, by NumPy."""
  return functools.wraps(zeros)(
    lambda *shape: zeros(*shape) if _is_traced() else _parameter(np.zeros(shape, np.float32))
  )
