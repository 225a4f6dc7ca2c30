"""A learned function of the distance as a fraction of the context."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_above, check_at_least
from posenc_jax.encodings.core.parameters import uniform
from posenc_jax.xla_ops import materialize_on_cpu, with_gradient


class FIRE(Encoding):
  """s_ij = q_i . k_j / sqrt(K) + f(psi(|i - j|) / (psi(max(|L0 mu|, i)) + 1e-6))_h.

    psi(x) = log(|c x| + 1),   f: an MLP 1 -> hidden -> H with ReLU

  Li et al. 2023. i is the 0-based position of the query. c starts at 0.1, mu at 1, the MLP from
  U(-1/sqrt(fan-in), 1/sqrt(fan-in)) as linear layers of the reference code do. Every layer has its
  own set and the 1e-6 is there, as in that code; its option of one set for all layers, FIRE-S, is
  `model.share_encoding='all'`. Its bias after the last layer is left out: alike for all keys, it
  changes no softmax. |i - j| for later keys is ours: to the right of a query it may be more than i,
  so without a causal mask L0 should be no less than the longest input, or the MLP is asked for
  fractions above 1.
  """

  paper = 'Li et al. 2023, arXiv:2310.04418'
  parameter_summary = 'an MLP and two numbers a layer'
  position_kind = 'floats'
  bias_in_scale = False
  relative = False
  adds_only_bias = True  # of the query's position too, so not a bias by distance
  per_layer = ('c', 'mu', 'w_in', 'b_in', 'w_out')

  def __init__(self, dims: Dims, rngs, *, hidden: int = 32, threshold: float = 512.0):
    """Builds the MLP and the two numbers.

    Args:
      hidden: width of the MLP.
      threshold: L0, the least context that a distance is a fraction of, at the start.
    """
    super().__init__(dims, rngs)
    check_at_least(1, hidden=hidden)
    check_above(0, threshold=threshold)
    self.threshold = threshold
    self.c, self.mu = nnx.Param(jnp.float32(0.1)), nnx.Param(jnp.float32(1.0))
    self.w_in = uniform(rngs, (hidden,), -1.0, 1.0)
    self.b_in = uniform(rngs, (hidden,), -1.0, 1.0)
    self.w_out = uniform(rngs, (hidden, dims.heads), -(hidden**-0.5), hidden**-0.5)

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    context_BT = jnp.maximum(jnp.abs(self.threshold * self.mu[...]), tile.i)
    x_BTS = self._psi(tile.distance.astype(jnp.float32))
    x_BTS /= (self._psi(context_BT) + 1e-6)[..., None]
    hidden_FN = relu_of_lines(x_BTS.ravel(), self.w_in[...], self.b_in[...])
    bias_HBTS = (self.w_out[...].T @ hidden_FN).reshape(-1, *x_BTS.shape)
    return s_BHTS + bias_HBTS.swapaxes(0, 1)

  def elements_per_pair(self, sequences, i):
    return self.w_in.shape[0] * (1 if i.shape[0] == 1 else sequences)

  def _psi(self, x):
    return jnp.log1p(jnp.abs(self.c[...] * x))


def _sums_as_product(d_FN, x_N):
  d_lines_F2 = d_FN @ jnp.stack([x_N, jnp.ones_like(x_N)], axis=1)
  return d_lines_F2[:, 0], d_lines_F2[:, 1]


def _sums_of_lines(d_FN, x_N):
  """The same where a pair of numbers would fill a whole register."""
  return (d_FN * x_N[None]).sum(axis=1), d_FN.sum(axis=1)


def _relu_of_lines_forward(x_N, w_F, b_F):
  hidden_FN = relu_of_lines(x_N, w_F, b_F)
  return hidden_FN, (x_N, w_F, hidden_FN)


def _relu_of_lines_backward(residuals, d_FN):
  x_N, w_F, hidden_FN = residuals
  d_FN = materialize_on_cpu(jnp.where(hidden_FN > 0, d_FN, 0))
  d_w_F, d_b_F = lax.platform_dependent(d_FN, x_N, cpu=_sums_as_product, default=_sums_of_lines)
  return w_F @ d_FN, d_w_F, d_b_F


@with_gradient(_relu_of_lines_forward, _relu_of_lines_backward)
def relu_of_lines(x_N, w_F, b_F):
  """relu(w x + b): [F, N]. Its gradient is products of matrices, where autodiff takes sums over
  F x N numbers.
  """
  return jax.nn.relu(w_F[:, None] * x_N[None] + b_F[:, None])
