"""Kernelized relative biases."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.encodings.core.base import Dims, Encoding

POSITIVITY = ('projection', 'softplus')
LEAST = 1e-2  # of both parameters, as in the released code


class Kerple(Encoding):
  """Two positive numbers a head, p and a, for all layers alike: what both kernels share.

  The paper's eq. 1 has the bias inside 1/sqrt(K), the released code adds it after: so here, but for
  `in_scale`. As in the code p starts from U(0, 2) and a from U(0, 1), and neither is ever below
  0.01. The code takes distances in the compute dtype, which rounds them in bfloat16; here they are
  float32.
  """

  paper = 'Chi et al. 2022, arXiv:2205.09921'
  bias_in_scale = False
  name = ''  # as errors say it
  most_p = math.inf

  def __init__(self, dims: Dims, rngs, *, positivity: str = 'projection', in_scale: bool = False):
    """`positivity`: 'projection' (the code: back into bounds after a step) or 'softplus' of a free
    parameter.

    A p with an upper bound is then that bound times a sigmoid. `in_scale`: the bias as in the
    paper's eq. 1.
    """
    super().__init__(dims, rngs)
    if positivity not in POSITIVITY:
      raise ValueError(
        f'{self.name}: positivity={positivity!r} must be one of {", ".join(POSITIVITY)}'
      )
    self.positivity, self.bias_in_scale = positivity, in_scale
    draw = lambda high: jax.random.uniform(rngs.params(), (dims.heads,), jnp.float32, 0.0, high)
    start = lambda high, most: nnx.Param(self._free(jnp.maximum(draw(high), LEAST), most))
    self.p, self.a = start(2.0, self.most_p), start(1.0, math.inf)

  def _free(self, x, most: float):
    if self.positivity == 'projection':
      return x
    return jnp.log(jnp.expm1(x)) if most == math.inf else jnp.log(x / (most - x))

  def _bounded(self, x, most: float):
    if self.positivity == 'projection':
      return x
    return jax.nn.softplus(x) if most == math.inf else most * jax.nn.sigmoid(x)

  def project(self):
    if self.positivity == 'softplus':
      return self
    most = {'p': self.most_p, 'a': math.inf}
    return jax.tree_util.tree_map_with_path(
      lambda path, x: jnp.clip(x, LEAST, most[path[0].name]), self
    )

  def tables(self, r_R):
    p_1H, a_1H = (
      self._bounded(self.p[...], self.most_p)[None],
      self._bounded(self.a[...], math.inf)[None],
    )
    bias_RH = self.bias(jnp.abs(r_R).astype(jnp.float32)[:, None], p_1H, a_1H)
    return self.scale(self.dims.head_dim) * bias_RH if self.bias_in_scale else bias_RH

  def score(self, s_BHTS, q_BTHK, k_BSHK, block):
    return s_BHTS + block.tables


class KerpleLog(Kerple):
  """s_ij = q_i . k_j / sqrt(K) - p_h log(1 + a_h |i - j|), p, a > 0, in all layers alike (Chi et
  al. 2022).
  """

  name = 'kerple_log'
  weights = 'two numbers a head'
  claims = 'better to 32 L (its authors, 162M)'

  def bias(self, distance_R1, p_1H, a_1H):
    """[R, 1], [1, H], [1, H] -> [R, H]."""
    return -p_1H * jnp.log1p(distance_R1 * a_1H)


class KerplePower(Kerple):
  """s_ij = q_i . k_j / sqrt(K) - a_h |i - j|^p_h, a > 0, 0 < p <= 2, in all layers alike (Chi et
  al. 2022).

  ALiBi where p is 1 and a its slopes.
  """

  name = 'kerple_power'
  weights = 'two numbers a head'
  claims = 'better to 32 L (its authors, 162M)'
  most_p = 2.0

  def bias(self, distance_R1, p_1H, a_1H):
    """[R, 1], [1, H], [1, H] -> [R, H]."""
    return -a_1H * distance_R1**p_1H
