"""Rotary embedding whose frequencies tokens choose, one number a head."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.parameters import zeros
from posenc_jax.encodings.core.running_sums import running_angle
from posenc_jax.encodings.rope import ByAngles, check_rotary
from posenc_jax.xla_ops import exact_matmul


class CARoPE(ByAngles):
  """Pair m of q and k rotates by sum_(l <= t) f_l^m, f_l = 1 / (1 + softplus(w_h . x_l + b_h)).

  Context-aware RoPE, Veisi et al. 2025, section 2; RoPE is f = base^(-2/K). There is no released
  code, and what the paper leaves open is ours: m counts from 0, so that the first pair rotates by
  one radian a token whatever the tokens are; x is the layer's normalized input, and every layer has
  its own w and b. The paper has no b. It is here so that the model starts as RoPE, with w = 0 and
  f = base^(-2/K). With fewer key/value heads than heads each of them has one f.
  """

  paper = 'Veisi et al. 2025, arXiv:2507.23083'
  parameter_summary = 'a projection to key/value heads a layer'
  reported_extrapolation = 'perplexity 21.23 at L, 21.39 at 2 L; RoPE 21.31, 56.61 (its authors)'
  position_kind = None
  causal_only = True
  needs_inputs = True
  per_layer = ('w_f', 'b_f')

  def __init__(self, dims: Dims, rngs, *, base: float = 10_000.0, **angles):
    """`base`: of the RoPE at the start; `angles`: the hyperparameters of ByAngles."""
    super().__init__(dims, rngs, **angles)
    check_rotary(dims.head_dim, base)
    log_most = math.log(np.finfo(np.float32).max)
    if 2 / dims.head_dim * math.log(base) > log_most:
      allowed = 'base ** (2 / head_dim) up to 3.4e+38'
      raise ValueError(f'base={base} for head_dim={dims.head_dim}; allowed: {allowed}')
    # softplus(b) = base^(2/K) - 1, of which the exponential may overflow
    start = base ** (2 / dims.head_dim) - 1
    start += math.log(-math.expm1(-start))
    self.w_f = zeros(dims.model_dim, dims.kv_heads)
    self.b_f = nnx.Param(jnp.full(dims.kv_heads, start, jnp.float32))

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    """Angles in (-pi, pi]: float32 [B, S, G, K/2]."""
    logits_BSG = exact_matmul(x_BSD.astype(jnp.float32), self.w_f[...])
    logits_BSG += self.b_f[...][None, None]
    log_f_BSG = -jnp.log1p(jax.nn.softplus(logits_BSG))
    m_M = np.arange(self.dims.head_dim // 2, dtype=np.float32)
    f_BSGM = jnp.exp(log_f_BSG[..., None] * m_M[None, None, None])
    return running_angle(f_BSGM / (2 * math.pi), index_BS)
