"""NVIDIA's fused attention, for encodings that leave the score matrix alone."""

import jax
import jax.numpy as jnp

from posenc_jax.attention.request import Call


def refuse(call: Call) -> str | None:
  """The reason why cuDNN cannot serve this call, or None."""
  name, dtype, width = type(call.enc).__name__, call.q_BTHK.dtype, call.q_BTHK.shape[-1]
  if call.enc.score is not None or call.enc.value is not None:
    return f'{name} acts on scores or values, which the fused kernel keeps to itself'
  if call.enc.normalizer != 'softmax':
    return f'{name} is not normalized by softmax'
  if call.platform != 'gpu':
    return f'jax runs on {call.platform}, cuDNN needs an NVIDIA GPU'
  if dtype not in (jnp.bfloat16, jnp.float16):
    return f'cuDNN takes bfloat16 or float16, not {dtype}'
  if len({width, call.k_BSGK.shape[-1], call.v_BSGK.shape[-1]}) > 1:
    return f'{name} makes queries, keys and values of different widths'
  if width % 8 or width > _widest():
    return f'cuDNN takes heads of a width that is a multiple of 8 and at most {_widest()} here, not {width}'
  if not call.causal and (call.window or 1) > 1:
    return 'cuDNN has no window to the right of a query, and without a causal mask it has two sides'
  if call.q_BTHK.shape[1] != call.k_BSGK.shape[1]:
    return 'cuDNN aligns a causal mask to the first key, so it needs as many queries as keys'
  if call.segments_BS is not None:
    return 'segments are not passed to cuDNN'
  return None


def _widest() -> int:
  """As jax asks of cuDNN: 256 from Hopper on."""
  return 256 if float(getattr(jax.devices()[0], 'compute_capability', 0)) >= 9 else 128


def run(call: Call, implementation: str = 'cudnn'):
  """o_BTHK in the dtype of v. `implementation` is jax.nn.dot_product_attention's."""
  # jax counts neighbours, not the token itself
  side = None if call.window is None else call.window - 1
  return jax.nn.dot_product_attention(
    call.q_BTHK,
    call.k_BSGK,
    call.v_BSGK,
    scale=call.scale,
    is_causal=call.causal,
    local_window_size=side if side is None or not call.causal else (side, 0),
    implementation=implementation,
  )
