"""JAX's own fused attention for TPU, for encodings that leave the score matrix alone."""

import functools
import importlib

import jax
import jax.numpy as jnp

from posenc_jax.attention.backends.refusals import (
  refuse_beyond_softmax,
  refuse_block_sizes,
  refuse_products,
)
from posenc_jax.attention.kernels.run import over_batch, refuse_mesh
from posenc_jax.attention.kernels.tpu.kernel import LANES, SMEM_BYTES
from posenc_jax.attention.request import CHECKPOINT_NAME, AttentionRequest
from posenc_jax.xla_ops import with_gradient

BLOCK = 512  # queries and keys; blocks are multiples of LANES
# What its kernels are told of a pair of blocks: a number of 16 bits and one of 8.
BYTES_OF_BLOCK_PAIR = 3


def refuse(request: AttentionRequest) -> str | None:
  """The reason why splash attention cannot serve this request, or None."""
  if (reason := refuse_beyond_softmax(request) or refuse_block_sizes(request)) is not None:
    return reason
  if request.platform != 'tpu':
    return f'jax runs on {request.platform}, splash attention needs a TPU'
  if (reason := _refuse_jax() or refuse_products(request)) is not None:
    return reason
  T, S = request.q_BTHK.shape[1], request.k_BSGK.shape[1]
  if request.q_BTHK.shape[-1] != request.v_BSGK.shape[-1]:
    name = type(request.enc).__name__
    return f'{name} makes queries and keys of another width than values'
  if request.mask.reads_index:
    return 'chunks, sink tokens and prefixes are not passed to splash attention'
  if T != S or T % LANES:
    return f'splash attention takes as many queries as keys, in multiples of {LANES}, not {T}, {S}'
  needed = BYTES_OF_BLOCK_PAIR * (T // _block(T)) * _most_columns(request, T)
  if needed > SMEM_BYTES:
    what = f'what splash attention is told of blocks of {_block(T)} tokens takes'
    return f'{what} {needed / 2**20:.2f} MiB, and a TPU has 1 MiB for such numbers'
  return refuse_mesh(request)


def _refuse_jax() -> str | None:
  try:
    _splash_attention()
  except ImportError:
    return 'this version of jax has no splash attention'
  return None


def _splash_attention():
  """The module. It is one of Pallas' examples, which a later jax may leave out."""
  return importlib.import_module('jax.experimental.pallas.ops.tpu.splash_attention')


def _block(T: int) -> int:
  """Queries and keys of a block."""
  return next(n for n in (BLOCK, BLOCK // 2, LANES) if T % n == 0)


def _most_columns(request: AttentionRequest, T: int) -> int:
  """The blocks of keys that a block of queries sees, at most: what kernels are told of each."""
  window, block = request.mask.window, _block(T)
  if window is None:
    return T // block
  neighbors = -(-(window - 1) // block)  # blocks on one side that a window reaches into
  return min(T // block, 1 + (1 if request.mask.is_causal else 2) * neighbors)


def run(request: AttentionRequest, interpret: bool = False):
  """o_BTHK in the dtype of v."""
  T, H = request.q_BTHK.shape[1:3]
  splash_attention = _splash_attention()
  kernel = splash_attention.make_splash_mha(
    splash_attention.MultiHeadMask([_mask(request, T)] * H),
    block_sizes=splash_attention.BlockSizes(*[_block(T)] * 8),
    attn_logits_soft_cap=request.softcap,
    head_shards=1,
    q_seq_shards=1,
    residual_checkpoint_name=CHECKPOINT_NAME,
    interpret=interpret,
  )

  precision = jax.config.jax_default_matmul_precision
  if request.q_BTHK.dtype.itemsize < 4:
    precision = 'default'  # at another one Mosaic does not multiply bfloat16

  def on_device(arrays):
    heads_first = (arrays[name].swapaxes(1, 2) for name in 'qkv')
    ids = arrays['segment']
    segments = None if ids is None else splash_attention.SegmentIds(ids, ids)
    axis_of_ids = None if ids is None else 0
    attend = jax.vmap(functools.partial(_call, kernel), in_axes=(0, 0, 0, axis_of_ids))
    with jax.default_matmul_precision(precision):
      return attend(*heads_first, segments).swapaxes(1, 2)

  ids = request.segment_ids
  arrays = {
    'q': (request.q_BTHK * request.scale).astype(request.q_BTHK.dtype),
    'k': request.k_BSGK,
    'v': request.v_BSGK,
    'segment': None if ids is None else jnp.broadcast_to(ids, request.q_BTHK.shape[:2]),
  }
  return over_batch(on_device, arrays)


def _forward(kernel, q, k, v, segments):
  return jax.vjp(lambda q, k, v: kernel(q, k, v, segments), q, k, v)


def _backward(pull_back, d):
  return None, *pull_back(d), None


@with_gradient(_forward, _backward)
def _call(kernel, q, k, v, segments):
  return kernel(q, k, v, segments)


def _mask(request: AttentionRequest, T: int):
  window, is_causal = request.mask.window, request.mask.is_causal
  splash_attention = _splash_attention()
  if window is not None:
    neighbors = window - 1  # the token itself is not counted
    sides = (neighbors, 0 if is_causal else neighbors)
    return splash_attention.LocalMask((T, T), sides, offset=0)
  of_shape = splash_attention.CausalMask if is_causal else splash_attention.FullMask
  return of_shape((T, T))
