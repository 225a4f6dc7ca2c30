"""Polar coordinates: content in the magnitudes, position in the phases."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from posenc_jax.encodings.core import parameters
from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_above, check_one_of
from posenc_jax.encodings.rope import Rotary
from posenc_jax.xla_ops import outer

PHASES = ('zero', 'uniform')


class PoPE(Encoding):
  """s_ij = sum_n softplus(q_in) softplus(k_jn) cos((j - i) f_n + d_hn) / sqrt(K).

  f_n = base^(-n/K), n = 0 .. K - 1, Gopalakrishnan et al. 2025. One frequency a channel, twice as
  many as RoPE; as cosines and sines side by side queries and keys become twice as wide. The phases
  d are learned, start at 0 (or from U(-2 pi, 0), see `phases`), and are shared by all layers, as in
  x-transformers. After each step of the optimizer they are clipped to [-2 pi, 0]. Released codes
  clip the value that is read, so that a phase beyond a bound gets no gradient.
  """

  paper = 'Gopalakrishnan et al. 2025, arXiv:2509.10534'
  parameter_summary = 'a phase a channel'
  reported_extrapolation = 'better than RoPE, zero-shot (its authors)'
  limit = Rotary.limit
  position_kind = 'floats'
  rotates_qk = True
  needs_unscaled_queries = True
  nonlinear_in_queries = True
  qk_width_factor = 2

  def __init__(self, dims: Dims, rngs, *, base: float = 10_000.0, phases: str = 'zero'):
    """`base`: as for `rope`. `phases`: start at 0 ('zero') or from U(-2 pi, 0) ('uniform')."""
    super().__init__(dims, rngs)
    check_above(1, base=base)
    check_one_of(PHASES, phases=phases)
    self.base = base
    shape = dims.heads, dims.head_dim
    if phases == 'zero':
      self.phases = parameters.zeros(*shape)
    else:
      self.phases = parameters.uniform(rngs, shape, -2 * math.pi, 0.0)

  def constrain_parameters(self):
    return parameters.clipped(super().constrain_parameters(), phases=(-2 * math.pi, 0.0))

  def transform_qk(self, q_BTHK, k_BSGK, i, j):
    K = self.dims.head_dim
    frequencies = jnp.asarray(self.base ** (-np.arange(K) / K), jnp.float32)

    def polar(x, angles_BTHK):
      size = jax.nn.softplus(x.astype(jnp.float32))
      waves = [size * jnp.cos(angles_BTHK), size * jnp.sin(angles_BTHK)]
      return jnp.concatenate(waves, axis=-1).astype(x.dtype)

    def angles(positions):
      return outer(positions, frequencies)[:, :, None]

    phases = self.phases[...][None, None]
    return polar(q_BTHK, angles(i) - phases), polar(k_BSGK, angles(j))
