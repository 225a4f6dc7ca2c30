"""Rotary embedding of learned frequencies, by positions or by phases that tokens add up to."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.bounds import check_above
from posenc_jax.encodings.core.parameters import zeros
from posenc_jax.encodings.core.running_sums import running_angle
from posenc_jax.encodings.rope import ByAngles, Rotary, check_rotary
from posenc_jax.xla_ops import exact_matmul, outer


class GrapeM(ByAngles):
  """RoPE of learned frequencies.

  GRAPE-M in the planes of RoPE, Zhang et al. 2025, section 3.1, as released. They are
  exp(l / scale), l = scale log base^(-2m/K) at the start. Every layer has its own l, for all heads
  or, with `per_head`, for each (each key/value head where there are fewer). The code norms queries
  and keys after rotating them; `qk_norm` of the model does before.
  """

  paper = 'GRAPE, ICLR 2026, arXiv:2512.07805'
  parameter_summary = 'a frequency a pair of channels a layer'
  limit = Rotary.limit
  position_kind = 'floats'
  per_layer = ('log_f',)
  parameters_depend_on = ('scale',)

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    base: float = 10_000.0,
    per_head: bool = False,
    scale: float = 16.0,
    turn_values: bool = False,
  ):
    """Sets the frequencies to those of RoPE.

    Args:
      base: as for `rope`, at the start.
      per_head: whether each key/value head has frequencies of its own.
      scale: a step of l is a relative step of the frequency, divided by this.
      turn_values: whether values rotate, too, and outputs back by the angles of their queries
        (arXiv:2606.24975).
    """
    super().__init__(dims, rngs, turn_values=turn_values)
    check_rotary(dims.head_dim, base)
    check_above(0, scale=scale)
    self.frequency_scale = scale
    pair = np.arange(dims.head_dim // 2)
    log_f_GM = np.tile(-2 * scale * math.log(base) * pair / dims.head_dim, (dims.kv_heads, 1))
    self.log_f = nnx.Param(jnp.asarray(log_f_GM if per_head else log_f_GM[:1], jnp.float32))

  def frequencies(self):
    """Radians a position: float32 [G|1, K/2]."""
    return jnp.exp(self.log_f[...] / self.frequency_scale)

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    """Angles: float32 [B|1, S, G|1, K/2]."""
    return outer(position_ids.astype(jnp.float32), self.frequencies())


class GrapeMContext(GrapeM):
  """RoPE of learned frequencies, at phases that tokens add up to.

  GRAPE-M with the phase phi_t = sum_(n < t) sigmoid((u . x_n + b) / 16) in the place of t.
  Zhang et al. 2025, contextual, as released: pairs rotate by phi_t exp(l / scale), l as in
  `grape_m`; the code does not scale l, so `scale` is 1 by default. x is the layer's normalized
  input, u starts at 0 and b at softplus^-1(0.001), so that phi_t starts as 0.39 t. (Comments in the
  code say softplus where it has the sigmoid.)
  """

  paper = GrapeM.paper
  parameter_summary = 'frequencies and a phase gate a layer'
  limit = None
  causal_only = True
  needs_inputs = True
  position_kind = None
  per_layer = ('log_f', 'u', 'b')

  def __init__(self, dims: Dims, rngs, *, scale: float = 1.0, **grape_m):
    """`scale`: as for `grape_m`, and so the others."""
    super().__init__(dims, rngs, scale=scale, **grape_m)
    self.u = zeros(dims.model_dim)
    self.b = nnx.Param(jnp.full(1, math.log(math.expm1(1e-3)), jnp.float32))

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    """Angles in (-pi, pi]: float32 [B, S, G|1, K/2]."""
    logits_BS = exact_matmul(x_BSD.astype(jnp.float32), self.u[...]) + self.b[...][None]
    steps_BS = jax.nn.sigmoid(logits_BS / 16)
    before_BS = jnp.where(index_BS > 0, jnp.pad(steps_BS, ((0, 0), (1, 0)))[:, :-1], 0.0)
    turns_BSGM = outer(before_BS, self.frequencies() / (2 * math.pi))
    return running_angle(turns_BSGM, index_BS)
