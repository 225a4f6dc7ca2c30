"""Kernelized relative biases: a logarithm or a power of the distance, learned for each head."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_one_of
from posenc_jax.encodings.core.parameters import clipped

POSITIVITY = ('projection', 'softplus')
LEAST = 1e-2  # the lower bound of both parameters, as in the released code


class Kerple(Encoding):
  """The base of both kernels: two positive numbers a head, p and a, alike in all layers.

  The paper's eq. 1 has the bias inside 1/sqrt(K), the released code adds it after: so here, but for
  `bias_in_scale`. As in the code p starts from U(0, 2) and a from U(0, 1), and with `positivity`
  'projection' neither is ever below 0.01. The code takes distances in the compute dtype, which
  rounds them in bfloat16; here they are float32.
  """

  paper = 'Chi et al. 2022, arXiv:2205.09921'
  parameter_summary = 'two numbers a head'
  reported_extrapolation = 'better to 32 L (its authors, 162M)'
  bias_in_scale = False
  most_p = math.inf  # the upper bound of p
  parameters_depend_on = ('positivity',)

  def __init__(
    self, dims: Dims, rngs, *, positivity: str = 'projection', bias_in_scale: bool = False
  ):
    """Draws p and a.

    Args:
      positivity: 'projection' (as in the code: back into bounds after a step) or 'softplus' of a
        free parameter; a p with an upper bound is then that bound times a sigmoid.
      bias_in_scale: the bias is inside the scale, as in the paper's eq. 1.
    """
    super().__init__(dims, rngs)
    check_one_of(POSITIVITY, positivity=positivity)
    self.positivity, self.bias_in_scale = positivity, bias_in_scale
    self.p = self._draw(rngs, 2.0, self.most_p)
    self.a = self._draw(rngs, 1.0, math.inf)

  def _draw(self, rngs, high: float, most: float) -> nnx.Param:
    start = jax.random.uniform(rngs.params(), (self.dims.heads,), jnp.float32, 0.0, high)
    return nnx.Param(self._free(jnp.maximum(start, LEAST), most))

  def _free(self, x, most: float):
    """The free parameter of a bounded number."""
    if self.positivity == 'projection':
      return x
    return jnp.log(jnp.expm1(x)) if most == math.inf else jnp.log(x / (most - x))

  def _bounded(self, x, most: float):
    """The bounded number of a free parameter."""
    if self.positivity == 'projection':
      return x
    return jax.nn.softplus(x) if most == math.inf else most * jax.nn.sigmoid(x)

  def constrain_parameters(self):
    own = super().constrain_parameters()
    if self.positivity == 'softplus':
      return own
    return clipped(own, p=(LEAST, self.most_p), a=(LEAST, math.inf))

  def bias(self, r_R):
    p_1H = self._bounded(self.p[...], self.most_p)[None]
    a_1H = self._bounded(self.a[...], math.inf)[None]
    return self.kernel(jnp.abs(r_R).astype(jnp.float32)[:, None], p_1H, a_1H)

  def kernel(self, distance_R1, p_1H, a_1H):
    """[R, 1], [1, H], [1, H] -> [R, H]."""
    raise NotImplementedError


class KerpleLog(Kerple):
  """A bias by the logarithm of the distance, learned for each head (Chi et al. 2022).

  s_ij = q_i . k_j / sqrt(K) - p_h log(1 + a_h |i - j|),   p, a > 0
  """

  def kernel(self, distance_R1, p_1H, a_1H):
    return -p_1H * jnp.log1p(distance_R1 * a_1H)


class KerplePower(Kerple):
  """A bias by a power of the distance, learned for each head (Chi et al. 2022).

    s_ij = q_i . k_j / sqrt(K) - a_h |i - j|^p_h,   a > 0, 0 < p <= 2

  ALiBi where p is 1 and a its slopes.
  """

  most_p = 2.0

  def kernel(self, distance_R1, p_1H, a_1H):
    return -a_1H * distance_R1**p_1H
