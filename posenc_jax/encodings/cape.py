"""Any encoding, at real positions that are moved and stretched at random in training."""

import math

import jax
import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.bounds import check_at_least, check_one_of
from posenc_jax.encodings.core.position_wrapper import PositionWrapper


class CAPE(PositionWrapper):
  """In training positions are lambda (t + Delta + epsilon_t), in evaluation t.

    Delta ~ U(-shift, shift),   epsilon_t ~ U(-jitter / 2, jitter / 2),
    ln lambda ~ U(-ln stretch, ln stretch)

  Likhomanenko et al. 2021, as for text; for sound, positions are centered first. Delta and lambda
  are drawn for each example, epsilon for each token, once for all layers; packed documents of an
  example share its Delta and lambda. The inner encoding must take positions that are no integers.
  Where it depends on distances alone, Delta does nothing.

  The inner encoding may have several positions a token, and a model's data may bring them. Then
  Delta and epsilon are drawn for each axis, lambda for all together, as the paper has it for
  images; and beside it a factor mu for each axis, ln mu ~ U(-ln axis_stretch, ln axis_stretch).
  DINOv3 (Simeoni et al. 2025) has that without epsilon, of one draw a batch, whose lambda alone is
  on by default: around `axial_rope` with shift 0, jitter 0, stretch 2 and each='batch'. It counts
  from -1 to 1 along an image, about whose middle it stretches; where distances alone count, that
  is this.
  """

  paper = 'Likhomanenko et al. 2021, arXiv:2106.03143; Simeoni et al. 2025, arXiv:2508.10104'
  parameter_summary = "its encoding's (`sinusoidal`, or any)"
  takes_several = True
  moves_given_positions = True

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    inner: str | dict = 'sinusoidal',
    shift: float = 5.0,
    jitter: float = 1.0,
    stretch: float = 1.03,
    axis_stretch: float = 1.0,
    each: str = 'example',
  ):
    """Builds the inner encoding.

    Args:
      inner: a name, or a dict of a name and hyperparameters.
      shift: the largest Delta in positions.
      jitter: the range of epsilon in positions; beyond 1 tokens may change their order.
      stretch: the largest lambda.
      axis_stretch: the largest mu, of each of several positions a token.
      each: 'example' for one draw an example, 'batch' for one a batch.
    """
    super().__init__(dims, rngs, inner)
    check_at_least(0, shift=shift, jitter=jitter)
    check_at_least(1, stretch=stretch, axis_stretch=axis_stretch)
    check_one_of(('batch', 'example'), each=each)
    if self.position_kind == 'integers':
      raise ValueError(f'inner={inner!r} takes integers; allowed: an encoding that takes floats')
    if axis_stretch > 1 and self.positions_per_token == 1:
      has_one = f'axis_stretch={axis_stretch} with inner={inner!r}, which has one position a token'
      raise ValueError(f'{has_one}; allowed: 1')
    self.shift, self.jitter, self.each = shift, jitter, each
    self.log_stretch, self.log_axis_stretch = math.log(stretch), math.log(axis_stretch)

  def sample_positions(self, position_ids, batch: int, key):
    if key is None:
      return None
    shift_key, jitter_key, stretch_key = jax.random.split(key, 3)
    axes = position_ids.shape[2:]  # () where a token has one position
    draws = 1 if self.each == 'batch' else batch

    def uniform(key, most: float, *shape: int):
      return jax.random.uniform(key, (draws, *shape), minval=-most, maxval=most)

    moved = position_ids.astype(jnp.float32) + uniform(shift_key, self.shift, 1, *axes)
    moved += uniform(jitter_key, self.jitter / 2, position_ids.shape[1], *axes)
    log_stretch = uniform(stretch_key, self.log_stretch, 1, *(1 for _ in axes))
    if self.log_axis_stretch:
      log_stretch += uniform(jax.random.fold_in(stretch_key, 0), self.log_axis_stretch, 1, *axes)
    return jnp.exp(log_stretch) * moved

  def max_sampled_distance(self, tokens: int) -> int:
    most = math.exp(self.log_stretch + self.log_axis_stretch)
    return math.ceil(most * (tokens - 1 + self.jitter))
