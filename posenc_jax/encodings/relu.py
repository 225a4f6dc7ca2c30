"""ReLU attention: scores are weights, those below 0 none."""

import jax.numpy as jnp

from posenc_jax.encodings.core.base import MASKED, Dims, Encoding
from posenc_jax.encodings.core.bounds import check_above, check_at_least, check_unread

# At most this is no score: its reciprocal, which is the gradient of its logarithm, stays finite.
LEAST = 1e-30


class ReLU(Encoding):
  """p_ij = relu(s_ij) / n_i^alpha, not normalized (Wortsman et al. 2023, section 3).

  The paper divides by the length of the sequence, which in its vision transformers is the number of
  keys that every query sees. Here n_i is the number of keys that the query i sees, or the same
  `length` for all: a causal model that divided by the length of a call would give a token other
  weights when more tokens follow. A score of at most 0 has no weight and no gradient, and a row of
  such scores is 0. `score` returns logarithms of weights. To be chained behind an encoding of
  positions: ('rope', 'relu').
  """

  paper = 'Wortsman et al. 2023, arXiv:2309.08586'
  position_kind = None
  normalizer = 'none'

  def __init__(self, dims: Dims, rngs, *, alpha: float = 1.0, length: int | None = None):
    """Sets what weights are divided by.

    Args:
      alpha: the power; the paper finds the best near 1. 0: weights are divided by nothing.
      length: n of all queries; None: as many keys as a query sees.
    """
    super().__init__(dims, rngs)
    check_at_least(0, alpha=alpha)
    check_above(0, length=length)
    if alpha == 0:
      check_unread('alpha is greater than 0', length=length)
      length = 1  # n^0, whatever n is
    self.alpha, self.length = alpha, length
    self.needs_num_visible = length is None

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    """n of each token."""
    if self.length is None:
      return num_visible_BS.astype(jnp.float32)
    return jnp.full_like(index_BS, self.length, jnp.float32)

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    has_weight_BHTS = s_BHTS > LEAST
    log_BHTS = jnp.log(jnp.where(has_weight_BHTS, s_BHTS, 1.0))
    return jnp.where(
      has_weight_BHTS, log_BHTS - self.alpha * jnp.log(tile.i)[:, None, :, None], MASKED
    )
