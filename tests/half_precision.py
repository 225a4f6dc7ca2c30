"""What a program adds up in half precision, of which sums of many equal terms stand still."""

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr

from posenc_jax.attention.kernels.program import open_jaxpr

SUMS = ('reduce_sum', 'scatter-add', 'cumsum')
HALF = (jnp.bfloat16, jnp.float16)


def sums_in_half_precision(function, *arguments) -> list[str]:
  """The sums, whole equations, of function(*arguments) and of all that it calls."""
  return _sums(open_jaxpr(jax.make_jaxpr(function)(*arguments)))


def _sums(program) -> list[str]:
  found = []
  for e in program.eqns:
    if e.primitive.name in SUMS and e.outvars[0].aval.dtype in HALF:
      found.append(str(e))
    for value in jax.tree.leaves(e.params, is_leaf=lambda x: hasattr(x, 'jaxpr')):
      inner = getattr(value, 'jaxpr', value)
      found += _sums(inner) if isinstance(inner, Jaxpr) else []
  return found
