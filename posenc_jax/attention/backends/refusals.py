"""Reasons why kernels refuse a request that more than one backend has."""

import jax
import jax.numpy as jnp

from posenc_jax import target
from posenc_jax.attention.request import AttentionRequest
from posenc_jax.encodings.core.base import PLACES_OF_PAIRS

NO_BFLOAT16 = ('TPU v2', 'TPU v3')
# The reason against a mask that is an array.
NO_ARRAY = 'the mask is an array over all pairs; tiles take a function, with mask_ids'
# The reason against an array that is added to scores.
NO_BIAS = 'bias is an array over pairs; tiles take what an encoding makes of distances or tokens'
HIGH = ('high', 'bfloat16_3x', 'tensorfloat32')  # jax's names of one precision
HIGHEST = ('highest', 'float32')  # and of another


def refuse_beyond_softmax(request: AttentionRequest) -> str | None:
  """The reason why a kernel that knows of softmax alone cannot serve this request, or None."""
  enc, name = request.enc, type(request.enc).__name__
  if {*PLACES_OF_PAIRS} & {*enc.acts_on()}:
    return f'{name} acts on pairs of a query and a key, which this kernel does not show'
  if request.sink_BTH is not None:
    return f'{name} has a sink in the softmax, which this kernel does not take'
  if enc.normalizer != 'softmax':
    return f'{name} is not normalized by softmax'
  dtypes = [str(x.dtype) for x in (request.q_BTHK, request.k_BSGK, request.v_BSGK)]
  if len({*dtypes}) > 1:
    given = ', '.join(dtypes)
    return f'this kernel takes queries, keys and values of one dtype, not {given}'
  if request.array_mask_BTS is not None:
    return NO_ARRAY
  if request.bias_BHTS is not None:
    return NO_BIAS
  if request.mask.function is not None:
    return 'a mask that is a function acts on pairs, which this kernel does not show'
  if request.wants_lse:
    return 'this kernel does not return the log-sum-exp'
  return None


def refuse_block_sizes(request: AttentionRequest) -> str | None:
  """The reason why a kernel that chooses its own tiles cannot serve this request, or None."""
  sizes = request.block_sizes
  return None if sizes is None else f'block_sizes={tuple(sizes)}, where it has tiles of its own'


def refuse_products(request: AttentionRequest) -> str | None:
  """The reason why Mosaic, the compiler of TPU kernels, cannot multiply these arrays, or None."""
  dtypes = [x.dtype for x in (request.q_BTHK, request.k_BSGK, request.v_BSGK)]
  if jnp.float16 in dtypes:
    return 'kernels for TPU take float32 or bfloat16, not float16'
  if jnp.bfloat16 in dtypes and (kind := target.device_kind()) in NO_BFLOAT16:
    return f'in kernels, a {kind} multiplies no bfloat16; a v4 or later does'
  precision = jax.config.jax_default_matmul_precision
  if precision in HIGH and jax.__version_info__ < (0, 11, 1):
    return f'jax before 0.11.1 has no products at {precision!r} in kernels for TPU'
  return None
