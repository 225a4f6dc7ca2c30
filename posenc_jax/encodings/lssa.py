"""Softplus in the place of the exponential, on queries and keys of unit length."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from posenc_jax.encodings.core.base import WHOLE_ROWS, Dims, Encoding
from posenc_jax.encodings.core.bounds import check_at_least

SMALL = -15.0  # below it softplus(z) is e^z in float32
# Keys of a row from which nothing is subtracted: the first three rows of the paper.
FIRST = 3
ROUNDING = 1e-5  # of n p, which is 1 for all keys of a row with equal scores


class LSSA(Encoding):
  """Softplus in the place of the exponential, on queries and keys of unit length.

    p_ij = softplus(z_ij) / sum_l softplus(z_il),   z_ij = log K log n_i q_i . k_j / (|q_i| |k_j|)

  Length scaled softplus attention (Gao and Spratling 2025, eqs. 4 and 5). n_i is the number of keys
  that the query i sees. `score` returns log softplus(z), of which softmax makes these weights, so
  that rows need not be whole. To be chained before an encoding that rotates queries and keys, which
  leaves their length as it is, ('lssa', 'rope'); or behind one that adds to z, ('alibi', 'lssa'),
  or that takes q . k anew at several turns, ('rerope', 'lssa'). An attention factor of turns before
  it would be divided out, and is refused. The authors have RoPE beside it.
  """

  paper = 'Gao and Spratling 2025, arXiv:2501.13428'
  position_kind = None
  needs_num_visible = True
  needs_unscaled_queries = True
  applies_scale = True  # z has none: what attention will divide by is multiplied in before
  nonlinear_in_queries = True

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    return num_visible_BS.astype(jnp.float32)

  def of_pairs(self, coordinates):
    """None: n has gone into the queries."""
    return

  def transform_qk(self, q_BTHK, k_BSGK, i, j):
    K = self.dims.head_dim
    factor_BT = math.sqrt(K) * math.log(K) * jnp.log(i)
    q = unit(q_BTHK, K) * factor_BT[..., None, None]
    return q.astype(q_BTHK.dtype), unit(k_BSGK, K).astype(k_BSGK.dtype)

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    is_small_BHTS = s_BHTS < SMALL
    z_BHTS = jnp.where(is_small_BHTS, 0.0, s_BHTS)
    # In place of -|z| and max(z, 0), of which the gradients at 0 would be lost.
    is_positive_BHTS = z_BHTS > 0
    # Not stick_breaking's log_sigmoids: of small numbers a logarithm needs all digits.
    softplus_BHTS = jnp.log1p(jnp.exp(jnp.where(is_positive_BHTS, -z_BHTS, z_BHTS)))
    softplus_BHTS += jnp.where(is_positive_BHTS, z_BHTS, 0.0)
    return jnp.where(is_small_BHTS, s_BHTS, jnp.log(softplus_BHTS))


class LSSAR(LSSA):
  """The weights p of `lssa`, sharpened, so that those below their average are 0.

    p'_ij = relu(n_i p_ij - o_i)^power / sum_l (the same of p_il)

  The re-weighting of Gao and Spratling 2025. n_i p_ij is 1 on average, and o_i is 1: what has less
  weight than that loses it. o_i is 0 in the paper's first three rows, which are here those of at
  most three keys. A row is divided by its largest number before the power, since 0.1^15 is next to
  nothing; and where all scores are equal, which leaves 0 / 0, p stays. To be chained as `lssa` is.
  A row must be whole: `dense` alone takes it.
  """

  reported_extrapolation = 'validation loss nearly constant to 16 L (its authors)'
  limit = WHOLE_ROWS
  normalizer = 'rows'

  def __init__(self, dims: Dims, rngs, *, power: float = 15.0):
    """`power`: of the weights; the paper has 15, which is best from 2 L on, and 3, best at L."""
    super().__init__(dims, rngs)
    check_at_least(1, power=power)
    self.power = float(power)

  def normalize(self, s_BHTS, tile):
    p_BHTS = jax.nn.softmax(s_BHTS, axis=-1)
    n_BT = tile.mask.sum(axis=-1, dtype=jnp.float32)
    n_BHT1, o_BHT1 = (x[:, None, :, None] for x in (n_BT, (n_BT > FIRST).astype(jnp.float32)))
    above_BHTS = jnp.maximum(n_BHT1 * p_BHTS - o_BHT1, 0.0)
    most_BHT1 = lax.stop_gradient(above_BHTS.max(axis=-1, keepdims=True))
    is_known_BHT1 = most_BHT1 > ROUNDING
    sharp_BHTS = (above_BHTS / jnp.where(is_known_BHT1, most_BHT1, 1.0)) ** self.power
    total_BHT1 = jnp.where(is_known_BHT1, sharp_BHTS.sum(axis=-1, keepdims=True), 1.0)
    return jnp.where(is_known_BHT1, sharp_BHTS / total_BHT1, p_BHTS)


def unit(x, width: int):
  """x with every `width` channels in succession of length 1, in float32; zeros stay zeros.

  Where a member of a chain has set several turns of a head side by side, each is one.
  """
  turns = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, width)
  turns *= lax.rsqrt(jnp.maximum((turns * turns).sum(axis=-1, keepdims=True), 1e-24))
  return turns.reshape(x.shape)
