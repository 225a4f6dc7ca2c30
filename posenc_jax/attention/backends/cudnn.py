"""NVIDIA's fused attention, for encodings that leave the score matrix alone."""

import jax
import jax.numpy as jnp

from posenc_jax.attention.backends.refusals import refuse_beyond_softmax, refuse_block_sizes
from posenc_jax.attention.kernels.run import over_batch, refuse_mesh
from posenc_jax.attention.request import AttentionRequest
from posenc_jax.distributed.mesh import is_run_mesh
from posenc_jax.target import SEQUENCE_AXIS, compute_capability, sequence_shards


def refuse(request: AttentionRequest) -> str | None:
  """The reason why cuDNN cannot serve this request, or None."""
  name = type(request.enc).__name__
  dtype, width = request.q_BTHK.dtype, request.q_BTHK.shape[-1]
  if (reason := refuse_beyond_softmax(request) or refuse_block_sizes(request)) is not None:
    return reason
  if request.softcap is not None:
    return 'a soft-cap acts on scores, which this kernel does not show'
  if request.platform != 'gpu':
    return f'jax runs on {request.platform}, cuDNN needs an NVIDIA GPU'
  if (reason := _refuse_gpu()) is not None:
    return reason
  if dtype not in (jnp.bfloat16, jnp.float16):
    return f'cuDNN takes bfloat16 or float16, not {dtype}'
  if len({width, request.k_BSGK.shape[-1], request.v_BSGK.shape[-1]}) > 1:
    return f'{name} makes queries, keys and values of different widths'
  if width % 8 or width > _max_width():
    allowed = f'a multiple of 8 and at most {_max_width()} here'
    return f'cuDNN takes heads of a width that is {allowed}, not {width}'
  if request.mask.reads_index:
    return 'chunks, sink tokens and prefixes are not passed to cuDNN'
  if not request.mask.is_causal and request.mask.window is not None:
    return 'cuDNN has no window to the right of a query, and without a causal mask it has two sides'
  T, S = request.q_BTHK.shape[1], request.k_BSGK.shape[1]
  if request.mask.is_causal and T != S:
    return 'cuDNN aligns a causal mask to the first key, so it needs as many queries as keys'
  if T == 1:
    return 'cuDNN has no gradient of a single query'
  if not request.mask.is_causal and (T % 2 or S % 2):
    odd = T if T % 2 else S
    return (
      f'jax has no gradient of cuDNN for an odd number of tokens, and all would see one more: {odd}'
    )
  if request.segment_ids is not None:
    return 'segments are not passed to cuDNN'
  return _refuse_mesh()


def _refuse_mesh() -> str | None:
  """The reason why cuDNN cannot serve the mesh that is set, or None. Batches `run` cuts, or jax,
  which cuts heads, too; within jax.shard_map arrays are one device's own.
  """
  is_whole = SEQUENCE_AXIS in jax.sharding.get_abstract_mesh().manual_axes
  if (shards := sequence_shards()) > 1 and not is_whole:
    return f'cuDNN needs whole sequences, but the mesh has {SEQUENCE_AXIS}={shards}'
  return None


def _refuse_gpu() -> str | None:
  """The reason why cuDNN has no fused attention for the GPU, or None, as for one elsewhere."""
  capability = compute_capability()
  if capability.startswith('gfx'):
    return f'cuDNN needs an NVIDIA GPU, not an AMD {capability}'
  if capability and float(capability) < 8:
    return f'cuDNN needs a GPU of compute capability 8.0 or more, not {capability}'
  return None


def _max_width() -> int:
  """The widest head whose gradient cuDNN has: 256 on Hopper. On later GPUs jax asks for
  that, too, and cuDNN refuses it once the program runs. A program for a GPU elsewhere uses what
  every one that cuDNN serves can do.
  """
  return 256 if 9 <= float(compute_capability() or 0) < 10 else 128


def run(request: AttentionRequest, implementation: str = 'cudnn'):
  """o_BTHK in the dtype of v. `implementation` is jax.nn.dot_product_attention's."""
  window = request.mask.window
  if window is not None:
    window = (window - 1, 0)  # jax does not count the token itself
  T = request.q_BTHK.shape[1]

  def on_device(qkv):
    # Under a causal mask no query sees the token that makes an odd number even.
    even = [jnp.pad(x, ((0, 0), (0, T % 2), (0, 0), (0, 0))) for x in qkv]
    o_BTHK = jax.nn.dot_product_attention(
      *even,
      scale=request.scale,
      is_causal=request.mask.is_causal,
      local_window_size=window,
      implementation=implementation,
    )
    return o_BTHK[:, :T]

  qkv = request.q_BTHK, request.k_BSGK, request.v_BSGK
  # Of seeds in one program jax makes one batch, which it would gather on every device.
  is_shared = is_run_mesh() and refuse_mesh(request) is None
  return over_batch(on_device, qkv) if is_shared else on_device(qkv)
