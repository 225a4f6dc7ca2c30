"""Any encoding, with all positions of an example moved by one random amount."""

import jax

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.bounds import check_at_least
from posenc_jax.encodings.core.position_wrapper import PositionWrapper


class ShapeOffset(PositionWrapper):
  """Positions t + k, k drawn uniformly from 0 .. `largest` for each example in training.

  SHAPE, Kiyono et al. 2021. One draw a forward for all layers; in evaluation k = 0. So a model
  cannot tell absolute positions apart but reads distances off them. What depends on distances alone
  does not change.
  """

  paper = 'Kiyono et al. 2021, arXiv:2109.05644'
  parameter_summary = "its encoding's (`sinusoidal`, or any)"

  def __init__(
    self, dims: Dims, rngs, *, inner: str | dict = 'sinusoidal', largest: int | None = None
  ):
    """Builds the inner encoding.

    Args:
      inner: a name, or a dict of a name and hyperparameters.
      largest: the largest k; None: the training length.
    """
    super().__init__(dims, rngs, inner)
    self.largest = dims.train_length if largest is None else largest
    check_at_least(0, largest=self.largest)
    need = dims.train_length + self.largest
    if self.max_length is not None and self.max_length < need:
      raise ValueError(
        f'inner={inner!r} ends at {self.max_length}; allowed: {need} positions or more'
      )

  def sample_positions(self, position_ids, batch: int, key):
    if key is None:
      return None
    return position_ids + jax.random.randint(key, (batch, 1), 0, self.largest + 1)
