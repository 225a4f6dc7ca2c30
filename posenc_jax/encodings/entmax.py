"""Alpha-entmax in the place of softmax."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from posenc_jax.encodings.core.base import WHOLE_ROWS, Dims, Encoding

BISECTIONS = 30  # halvings of an interval of length 1: float32 knows of 24


class Entmax(Encoding):
  """Weights of which many are exactly 0, p_i = alpha-entmax(s_i) (Peters et al. 2019).

    p_ij = [(alpha - 1) s_ij - tau_i]_+ ^ (1 / (alpha - 1)),   tau_i such that sum_j p_ij = 1

  alpha = 2 is sparsemax (Martins and Astudillo 2016); towards 1 it becomes softmax. tau_i is exact
  for alpha = 1.5, from the sorted scores of a row, and else found by bisection. To be chained with
  an encoding of positions: ('alibi', 'entmax'). ASEntmax (Vasylenko et al. 2025) is a chain of
  `heads` of `nape` and `asentmax_temperature`, and of this. A row must be whole: `dense` alone
  takes it.
  """

  paper = 'Peters et al. 2019, arXiv:1905.05702; Martins and Astudillo 2016, arXiv:1602.02068'
  limit = WHOLE_ROWS
  position_kind = None
  normalizer = 'rows'

  def __init__(self, dims: Dims, rngs, *, alpha: float = 1.5):
    """`alpha`: from 1.001 to 2; more gives more zeros."""
    super().__init__(dims, rngs)
    if not 1.001 <= alpha <= 2:  # nearer to 1, which is softmax, float32 loses the weights
      raise ValueError(f'alpha={alpha}; allowed: from 1.001 to 2 (1 is softmax)')
    self.alpha = float(alpha)

  def normalize(self, s_BHTS, tile):
    return entmax(s_BHTS, self.alpha)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def entmax(s, alpha: float):
  """alpha-entmax of float32 scores over the last axis."""
  # No threshold is more than 1 below the largest z: what is has no weight, whatever the rounding of
  # the threshold, and is raised to -1 so that squares of masked scores stay finite.
  z = jnp.maximum((alpha - 1) * (s - s.max(axis=-1, keepdims=True)), -1.0)
  threshold = _sorted_threshold(z) if alpha == 1.5 else _bisected_threshold(z, alpha)
  p = jnp.where(z > -1, jnp.maximum(z - threshold, 0.0) ** (1 / (alpha - 1)), 0.0)
  return p / p.sum(axis=-1, keepdims=True)


def _forward(s, alpha):
  p = entmax(s, alpha)
  return p, p


def _backward(alpha, p, d):
  """The Jacobian is diag(g) - g g^T / sum(g), g = p^(2 - alpha) where p > 0 and else 0."""
  has_weight = p > 0
  g = jnp.where(has_weight, jnp.where(has_weight, p, 1.0) ** (2 - alpha), 0.0)
  mean = (g * d).sum(axis=-1, keepdims=True) / g.sum(axis=-1, keepdims=True)
  return (g * (d - mean),)


entmax.defvjp(_forward, _backward)


def _sorted_threshold(z):
  """tau of sum_j [z_j - tau]_+^2 = 1: [..., 1].

  The k largest scores alone give tau_k = mean_k - sqrt((1 - k variance_k) / k); k is the number of
  those above their own threshold. k variance_k is added up of what each score adds to it, since
  mean squares less squared means lose their digits where one score is far above many others. A
  step of Newton's from there leaves the rounding of tau itself.
  """
  z = -jnp.sort(-z, axis=-1)
  k = jnp.arange(1, z.shape[-1] + 1, dtype=z.dtype).reshape((1,) * (z.ndim - 1) + (-1,))
  mean = jnp.cumsum(z, axis=-1) / k
  before = jnp.concatenate([z[..., :1], mean[..., :-1]], axis=-1)
  spread = jnp.cumsum((z - before) ** 2 * ((k - 1) / k), axis=-1)  # k variance_k
  thresholds = mean - jnp.sqrt(jnp.maximum(1 - spread, 0.0) / k)
  support = (thresholds <= z).sum(axis=-1, keepdims=True)
  tau = jnp.take_along_axis(thresholds, support - 1, axis=-1)
  above = jnp.maximum(z - tau, 0.0)
  excess = (above * above).sum(axis=-1, keepdims=True) - 1
  return tau + excess / (2 * above.sum(axis=-1, keepdims=True))


def _bisected_threshold(z, alpha: float):
  """tau of sum_j [z_j - tau]_+^(1 / (alpha - 1)) = 1, for z with maximum 0: [..., 1].

  The sum falls with tau. It is at least 1 at -1, where the largest score alone gives that, and at
  most 1 at -n^(1 - alpha), where none of the n scores gives more than 1/n.
  """
  highest = -(z.shape[-1] ** (1 - alpha))

  def halve(_, bounds):
    low, high = bounds
    middle = (low + high) / 2
    total = (jnp.maximum(z - middle, 0.0) ** (1 / (alpha - 1))).sum(axis=-1, keepdims=True)
    return jnp.where(total >= 1, middle, low), jnp.where(total >= 1, high, middle)

  row = jnp.zeros_like(z[..., :1])
  low, high = lax.fori_loop(0, BISECTIONS, halve, (row - 1, row + highest))
  return (low + high) / 2
