"""A layer of the decoder: attention and an MLP, each normalized and added to the residual stream.

What the layers of published models differ in are named flags of a config's section `model`.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from posenc_jax.attention import attend
from posenc_jax.encodings.core.parameters import normal, stream
from posenc_jax.model import lora
from posenc_jax.xla_ops import add_bias, matmul

# For each `model.mlp`, its activation, and whether that gates another projection of the input.
MLPS = {
  'gelu': (jax.nn.gelu, False),  # by tanh, as in GPT-2
  'gelu_exact': (functools.partial(jax.nn.gelu, approximate=False), False),  # by erf; of NeoX
  'relu2': (lambda x: jnp.square(jax.nn.relu(x)), False),  # So et al. 2021, arXiv:2109.08668
  'geglu': (jax.nn.gelu, True),  # Shazeer 2020, arXiv:2002.05202, eq. 6
  'swiglu': (jax.nn.silu, True),  # the same, eq. 6; of Llama
}


def rms_norm(x, scale, epsilon: float = 1e-6):
  """x / sqrt(mean(x^2) + epsilon) * scale over the last axis, in float32 inside."""
  x32 = x.astype(jnp.float32)
  y = x32 * lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + epsilon)
  return (y * _along_last(scale, x)).astype(x.dtype)


def _along_last(vector, x):
  return vector.reshape((1,) * (x.ndim - 1) + (-1,))


class Norm(nnx.Module):
  """RMSNorm, or LayerNorm with a bias, over the last axis; in float32 inside."""

  def __init__(self, width: int, kind: str, epsilon: float):
    """`kind`: 'rms' or 'layer'; `epsilon` is added to the mean square."""
    self.epsilon = epsilon
    self.scale = nnx.Param(jnp.ones(width, jnp.float32))
    self.bias = nnx.Param(jnp.zeros(width, jnp.float32)) if kind == 'layer' else None

  def __call__(self, x):
    if self.bias is None:
      return rms_norm(x, self.scale[...], self.epsilon)
    x32 = x.astype(jnp.float32)
    centered = x32 - jnp.mean(x32, axis=-1, keepdims=True)
    y = rms_norm(centered, self.scale[...], self.epsilon) + _along_last(self.bias[...], x)
    return y.astype(x.dtype)


def _heads(x_BTC, heads: int, norm: Norm | None):
  """Cuts channels into heads, [B, T, heads, K]. A norm as wide as all heads together acts before
  that (OLMo 2), one as wide as a head after (Qwen 3).
  """
  is_of_all = norm is not None and norm.scale.shape[-1] == x_BTC.shape[-1]
  x_BTC = norm(x_BTC) if is_of_all else x_BTC
  x_BTHK = x_BTC.reshape(*x_BTC.shape[:2], heads, -1)
  return x_BTHK if norm is None or is_of_all else norm(x_BTHK)


class Layer(nnx.Module):
  """Attention and an MLP, each with its norms and added to the residual stream."""

  def __init__(self, config, heads_out_per_head: int, rngs: nnx.Rngs):
    """Builds the layer. Each matrix is drawn by its name: flags and encodings change no other one.

    Args:
      config: the section `model` of a run's config.
      heads_out_per_head: how many heads the encoding makes of each head of queries.
    Raises:
      ValueError: LoRA is asked for of a matrix that the layer lacks, or of too large a rank.
    """
    D, K, F = config.model_dim, config.head_dim, config.mlp_dim
    H, G = config.heads, config.kv_heads or config.heads
    heads_out = H * heads_out_per_head
    gates = {'none': 0, 'elementwise': heads_out * K, 'headwise': heads_out}[config.output_gate]
    key = rngs.params()

    def matrix(name, rows, columns):
      return normal(stream(key, name), (rows, columns), rows**-0.5)

    def bias(width, is_there):
      return nnx.Param(jnp.zeros(width, jnp.float32)) if is_there else None

    def norm():
      return Norm(D, config.norm, config.norm_eps)

    def qk_norm(heads):
      width = {'none': 0, 'head': K, 'projection': heads * K}[config.qk_norm]
      return Norm(width, 'rms', config.norm_eps) if width else None

    self.sizes = H, G, K
    self.heads_out = heads_out
    self.norm_placement, self.is_parallel = config.norm_placement, config.parallel_residual
    self.mlp = config.mlp  # by name: copies of a function, as deepcopy makes them, are not equal
    _, is_gated = MLPS[config.mlp]
    self.attention_norm, self.mlp_norm = norm(), norm()
    if config.norm_placement == 'sandwich':
      self.attention_output_norm, self.mlp_output_norm = norm(), norm()
    self.w_q = matrix('q', D, H * K)
    self.w_k = matrix('k', D, G * K)
    self.w_v = None if config.shared_kv else matrix('v', D, G * K)
    self.w_o = matrix('o', heads_out * K, D)
    self.w_output_gate = matrix('output_gate', D, gates) if gates else None
    self.w_in = matrix('in', D, F)
    self.w_gate = matrix('gate', D, F) if is_gated else None
    self.w_out = matrix('out', F, D)
    has_all, has_qkv = config.bias == 'all', config.bias != 'none'
    self.b_q, self.b_k = bias(H * K, has_qkv), bias(G * K, has_qkv)
    self.b_v = bias(G * K, has_qkv and not config.shared_kv)
    self.b_o, self.b_out = bias(D, has_all), bias(D, has_all)
    self.b_in, self.b_gate = bias(F, has_all), bias(F, has_all and is_gated)
    self.q_norm, self.k_norm = qk_norm(H), qk_norm(G)
    matrices = {n: w for n, w in vars(self).items() if n.startswith('w_') and w is not None}
    self.lora = lora.of_matrices(matrices, config, key)

  def __call__(self, x_BTD, enc, state=None, **attention):
    """(x [B, T, D], the state that the encoding carries) -> both for the next layer.

    `attention` are keyword arguments of `attend`.
    """

    def attend_to_all(q_BTHK, k_BTGK, v_BTGK, y_BTD):
      return attend(q_BTHK, k_BTGK, v_BTGK, enc, x=y_BTD, outer_hooks_applied=True, **attention)

    return self.apply(x_BTD, enc, attend_to_all, state)

  def apply(self, x_BTD, enc, attend_by, state=None):
    """What a call returns, with attention by a function of queries, keys, values and y.

    `attend_by` returns o [B, T, H, K]; y is the layer's normalized input, [B, T, D].
    """
    y_BTD = self.block_input(x_BTD, 'attention')
    mixed_BTD, state = self._attend(y_BTD, enc, attend_by, state)
    if self.is_parallel:  # GPT-NeoX (Black et al. 2022, arXiv:2204.06745, sect. 2.1)
      before_BTD, x_BTD = x_BTD, x_BTD + mixed_BTD
      out_BTD = self._mlp(self.block_input(before_BTD, 'mlp'))
      return x_BTD + out_BTD, enc.leave_mlp(out_BTD, state)
    x_BTD = self._add(x_BTD, 'attention', mixed_BTD)
    out_BTD = self._mlp(self.block_input(x_BTD, 'mlp'))
    return self._add(x_BTD, 'mlp', out_BTD), enc.leave_mlp(out_BTD, state)

  def _add(self, x_BTD, name, y_BTD):
    """Adds y = f(x) of a block to x, with the norm n where `model.norm_placement` says.

    pre: x + f(n(x)). post: n(x + f(x)), of the first transformer (Vaswani et al. 2017,
    arXiv:1706.03762). output: x + n(f(x)), of OLMo 2 (arXiv:2501.00656). sandwich: x + n(f(n(x))),
    of Gemma 2 (arXiv:2408.00118).
    """
    norm, placement = getattr(self, f'{name}_norm'), self.norm_placement
    if placement == 'output':
      y_BTD = norm(y_BTD)
    if placement == 'sandwich':
      y_BTD = getattr(self, f'{name}_output_norm')(y_BTD)
    return norm(x_BTD + y_BTD) if placement == 'post' else x_BTD + y_BTD

  def block_input(self, x_BTD, name):
    """What the block 'attention' or 'mlp' reads of x: normalized, if norms stand before blocks."""
    is_first = self.norm_placement in ('pre', 'sandwich')
    return getattr(self, f'{name}_norm')(x_BTD) if is_first else x_BTD

  def _project(self, x, name):
    """x @ w_NAME, plus what LoRA and a bias add where it has them, in the dtype of x."""
    y = matmul(x, getattr(self, f'w_{name}')[...].astype(x.dtype))
    if f'w_{name}' in self.lora:
      y += self.lora[f'w_{name}'](x)
    b = getattr(self, f'b_{name}', None)  # gates of the output have none
    return y if b is None else add_bias(y, b[...])

  def project_heads(self, y_BTD, enc):
    """Queries [B, T, H, K], keys and values [B, T, G, K] of what attention reads, y [B, T, D]."""
    H, G, K = self.sizes
    B, T, _ = y_BTD.shape
    q_BTHK = _heads(self._project(y_BTD, 'q'), H, self.q_norm)
    k_BTGK = _heads(self._project(y_BTD, 'k'), G, self.k_norm)
    v_BTGK = k_BTGK  # with model.shared_kv values are the keys, as their norm left them
    if self.w_v is not None:
      v_BTGK = self._project(y_BTD, 'v').reshape(B, T, G, K)
    if enc.query_scale != 1:
      q_BTHK *= enc.query_scale
    return q_BTHK, k_BTGK, v_BTGK

  def _attend(self, y_BTD, enc, attend_by, state):
    B, T, _ = y_BTD.shape
    heads = enc.enter_attention(*self.project_heads(y_BTD, enc), state)
    o_BTHK, state = enc.leave_attention(attend_by(*heads, y_BTD), state)
    if self.w_output_gate is not None:
      o_BTHK = self._gate_output(o_BTHK, y_BTD)
    return self._project(o_BTHK.reshape(B, T, -1), 'o'), state

  def _gate_output(self, o_BTHK, y_BTD):
    """o_i * sigmoid(W_g y_i), y the layer's normalized input (Qiu et al. 2025, arXiv:2505.06708).

    A number a channel, as in Qwen3-Next, or one a head.
    """
    B, T, H, _ = o_BTHK.shape
    return o_BTHK * jax.nn.sigmoid(self._project(y_BTD, 'output_gate')).reshape(B, T, H, -1)

  def _mlp(self, y_BTD):
    activation, _ = MLPS[self.mlp]
    hidden_BTF = self._project(y_BTD, 'in')
    if self.w_gate is None:
      hidden_BTF = activation(hidden_BTF)
    else:
      hidden_BTF *= activation(self._project(y_BTD, 'gate'))
    return self._project(hidden_BTF, 'out')
