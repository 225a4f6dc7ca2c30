"""Kernelised relative biases."""

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.encodings.base import Dims, Encoding

POSITIVITY = ('projection', 'softplus')
LEAST = 1e-2  # of both parameters, as in the released code


class KerpleLog(Encoding):
  """s_ij = q_i . k_j / sqrt(K) - p_h log(1 + a_h |i - j|), p, a > 0, in all layers alike (Chi et al. 2022).

  The paper's eq. 1 has the bias inside 1/sqrt(K), the released code adds it after: so here. As in the code p starts
  from U(0, 2) and a from U(0, 1), and neither is ever below 0.01. The code takes distances in the compute dtype, which
  rounds them in bfloat16; here they are float32.
  """

  paper = 'Chi et al. 2022, arXiv:2205.09921'
  bias_in_scale = False

  def __init__(self, dims: Dims, rngs, *, positivity: str = 'projection'):
    """`positivity`: 'projection' (the code: back to 0.01 after a step) or 'softplus' of a free parameter."""
    super().__init__(dims, rngs)
    if positivity not in POSITIVITY:
      raise ValueError(f'kerple_log: positivity={positivity!r} must be one of {", ".join(POSITIVITY)}')
    self.positivity = positivity
    inverse = (lambda x: jnp.log(jnp.expm1(x))) if positivity == 'softplus' else (lambda x: x)
    draw = lambda high: jax.random.uniform(rngs.params(), (dims.heads,), jnp.float32, 0.0, high)
    start = lambda high: nnx.Param(inverse(jnp.maximum(draw(high), LEAST)))
    self.p, self.a = start(2.0), start(1.0)

  def project(self):
    if self.positivity == 'softplus':
      return self
    return jax.tree.map(lambda x: jnp.maximum(x, LEAST), self)

  def tables(self, r_R):
    positive = jax.nn.softplus if self.positivity == 'softplus' else (lambda x: x)
    p_H, a_H = positive(self.p[...]), positive(self.a[...])
    return -p_H[None] * jnp.log1p(jnp.multiply.outer(jnp.abs(r_R).astype(jnp.float32), a_H))

  def score(self, s_BHTS, q_BTHK, k_BSHK, block):
    return s_BHTS + block.tables
