"""Any encoding, at real positions that are moved and stretched at random in training."""

import math

import jax
import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.bounds import check_at_least
from posenc_jax.encodings.core.position_wrapper import PositionWrapper


class CAPE(PositionWrapper):
  """In training positions are lambda (t + Delta + epsilon_t), in evaluation t.

    Delta ~ U(-shift, shift),   epsilon_t ~ U(-jitter / 2, jitter / 2),
    ln lambda ~ U(-ln stretch, ln stretch)

  Likhomanenko et al. 2021, as for text; for sound, positions are centered first. Delta and lambda
  are drawn for each example, epsilon for each token, once for all layers; packed documents of an
  example share its Delta and lambda. The inner encoding must take positions that are no integers.
  Where it depends on distances alone, Delta does nothing.
  """

  paper = 'Likhomanenko et al. 2021, arXiv:2106.03143'
  parameter_summary = "its encoding's (`sinusoidal`, or any)"

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    inner: str | dict = 'sinusoidal',
    shift: float = 5.0,
    jitter: float = 1.0,
    stretch: float = 1.03,
  ):
    """Builds the inner encoding.

    Args:
      inner: a name, or a dict of a name and hyperparameters.
      shift: the largest Delta in positions.
      jitter: the range of epsilon in positions; beyond 1 tokens may change their order.
      stretch: the largest lambda.
    """
    super().__init__(dims, rngs, inner)
    check_at_least(0, shift=shift, jitter=jitter)
    check_at_least(1, stretch=stretch)
    if self.position_kind == 'integers':
      raise ValueError(f'inner={inner!r} takes integers; allowed: an encoding that takes floats')
    self.shift, self.jitter, self.log_stretch = shift, jitter, math.log(stretch)

  def sample_positions(self, position_ids, batch: int, key):
    if key is None:
      return None
    shift_key, jitter_key, stretch_key = jax.random.split(key, 3)

    def uniform(key, width: int, most: float):
      return jax.random.uniform(key, (batch, width), minval=-most, maxval=most)

    moved_BT = position_ids + uniform(shift_key, 1, self.shift)
    moved_BT += uniform(jitter_key, position_ids.shape[1], self.jitter / 2)
    return jnp.exp(uniform(stretch_key, 1, self.log_stretch)) * moved_BT

  def max_sampled_distance(self, tokens: int) -> int:
    return math.ceil(math.exp(self.log_stretch) * (tokens - 1 + self.jitter))
