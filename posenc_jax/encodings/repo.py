"""Rotary embedding at positions that tokens choose."""

import jax
import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_at_least
from posenc_jax.encodings.core.parameters import normal
from posenc_jax.encodings.core.scaling.formulas import rope_frequencies
from posenc_jax.encodings.rope import check_rotary, rotate_at
from posenc_jax.xla_ops import exact_matmul


class RePo(Encoding):
  """RoPE with z_ih in the place of the position i, z_i = W_z (silu(W_g x_i) * W_c x_i).

  Li et al. 2025, as released. x is the layer's normalized input and z a real number a head (a
  key/value head where there are fewer); order enters through the causal mask alone. Every layer has
  its own projections. Its authors keep RoPE in the first third of the layers, which a pattern
  does. Weights start at fan-in scale, theirs from N(0, 0.02^2).
  """

  paper = 'Li et al. 2025, arXiv:2512.14391'
  parameter_summary = 'three projections a layer'
  needs_inputs = True
  position_kind = None
  rotates_qk = True
  layout = 'half'
  per_layer = ('w_g', 'w_c', 'w_z')

  def __init__(self, dims: Dims, rngs, *, base: float = 500_000.0, hidden: int | None = None):
    """`base`: as for `rope`. `hidden`: channels of W_g x; None: an eighth of the model's."""
    super().__init__(dims, rngs)
    check_rotary(dims.head_dim, base, self.layout)
    hidden = max(dims.model_dim // 8, 1) if hidden is None else hidden
    check_at_least(1, hidden=hidden)
    self.base = base
    self.w_g = normal(rngs, (dims.model_dim, hidden), dims.model_dim**-0.5)
    self.w_c = normal(rngs, (dims.model_dim, hidden), dims.model_dim**-0.5)
    self.w_z = normal(rngs, (hidden, dims.kv_heads), hidden**-0.5)

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    """z: float32 [B, S, G]."""
    x_BSD = x_BSD.astype(jnp.float32)
    gate_BSW, content_BSW = (exact_matmul(x_BSD, w[...]) for w in (self.w_g, self.w_c))
    return exact_matmul(jax.nn.silu(gate_BSW) * content_BSW, self.w_z[...])

  def transform_qk(self, q_BTHK, k_BSGK, i, j):
    frequencies = rope_frequencies(self.dims.head_dim, self.base)
    turn = lambda x, z: rotate_at(x, z, frequencies, self.layout)
    return turn(q_BTHK, i), turn(k_BSGK, j)
