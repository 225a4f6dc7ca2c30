"""A learned function of the distance as a fraction of the context."""

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.xla_ops import hold


class FIRE(Encoding):
  """s_ij = q_i . k_j / sqrt(K) + f(psi(|i - j|) / (psi(max(|L0 mu|, i)) + 1e-6))_h (Li et al.
  2023).

    psi(x) = log(|c x| + 1),   f: an MLP 1 -> hidden -> H with ReLU

  i is the 0-based position of the query. c starts at 0.1, mu at 1, the MLP from U(-1/sqrt(fan-in),
  1/sqrt(fan-in)) as linear layers of the reference code do; every layer has its own set and the
  1e-6 is there, as in that code (its option of one set for all layers, FIRE-S, is
  `model.share_encoding='all'`). Its bias after the last layer is not: alike for all keys, it
  changes no softmax. |i - j| for later keys is ours.
  """

  paper = 'Li et al. 2023, arXiv:2310.04418'
  weights, claims = 'an MLP and two numbers a layer', None
  bias_in_scale = False
  relative = False
  per_layer = ('c', 'mu', 'w_in', 'b_in', 'w_out')

  def __init__(self, dims: Dims, rngs, *, hidden: int = 32, threshold: float = 512.0):
    """`hidden`: width of the MLP; `threshold`: L0, the least context that a distance is a fraction
    of, at the start.
    """
    super().__init__(dims, rngs)
    if hidden < 1:
      raise ValueError(f'fire: hidden={hidden} must be at least 1')
    if threshold <= 0:
      raise ValueError(f'fire: threshold={threshold} must be greater than 0')
    self.threshold = threshold
    self.c, self.mu = nnx.Param(jnp.float32(0.1)), nnx.Param(jnp.float32(1.0))
    draw = lambda shape, most: nnx.Param(
      jax.random.uniform(rngs.params(), shape, jnp.float32, -most, most)
    )
    self.w_in, self.b_in = draw((hidden,), 1.0), draw((hidden,), 1.0)
    self.w_out = draw((hidden, dims.heads), hidden**-0.5)

  def score(self, s_BHTS, q_BTHK, k_BSHK, block):
    psi = lambda x: jnp.log1p(jnp.abs(self.c[...] * x))
    context_BT = jnp.maximum(jnp.abs(self.threshold * self.mu[...]), block.i)
    x_BTS = psi(block.r.astype(jnp.float32)) / (psi(context_BT) + 1e-6)[..., None]
    hidden_FN = units(x_BTS.ravel(), self.w_in[...], self.b_in[...])
    bias_HBTS = (self.w_out[...].T @ hidden_FN).reshape(-1, *x_BTS.shape)
    return s_BHTS + bias_HBTS.swapaxes(0, 1)


@jax.custom_vjp
def units(x_N, w_F, b_F):
  """relu(w x + b), [F, N]. Its own gradient: products of matrices, where autodiff takes sums over
  pairs of F x N.
  """
  return jax.nn.relu(w_F[:, None] * x_N[None] + b_F[:, None])


def _units_backward(residuals, d_FN):
  x_N, w_F, hidden_FN = residuals
  d_FN = hold(jnp.where(hidden_FN > 0, d_FN, 0))
  d_lines_F2 = d_FN @ jnp.stack([x_N, jnp.ones_like(x_N)], axis=1)
  return w_F @ d_FN, d_lines_F2[:, 0], d_lines_F2[:, 1]


def _units_forward(x_N, w_F, b_F):
  hidden_FN = units(x_N, w_F, b_F)
  return hidden_FN, (x_N, w_F, hidden_FN)


units.defvjp(_units_forward, _units_backward)
