"""Any encoding, with all positions of an example moved by one random amount."""

import jax

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.position_wrapper import Around


class ShapeOffset(Around):
  """Positions t + k, k drawn uniformly from 0 .. `largest` for each example in training (SHAPE,
  Kiyono et al. 2021).

  One draw a forward for all layers; in evaluation k = 0. So a model cannot tell absolute positions
  apart but reads distances off them. What depends on distances alone does not change.
  """

  paper = 'Kiyono et al. 2021, arXiv:2109.05644'
  weights, claims = "its encoding's (`sinusoidal`, or any)", None

  def __init__(
    self, dims: Dims, rngs, *, over: str | dict = 'sinusoidal', largest: int | None = None
  ):
    """`over`: a name, or a dict of a name and hyperparameters; `largest`: None: the training
    length.
    """
    super().__init__(dims, rngs, over)
    self.largest = dims.train_length if largest is None else largest
    if self.largest < 0:
      raise ValueError(f'shape_offset: largest={largest} must be at least 0')
    need = dims.train_length + self.largest
    if self.max_length is not None and self.max_length < need:
      raise ValueError(
        f'shape_offset: over={over!r} ends at {self.max_length}; allowed: {need} positions or more'
      )

  def draw(self, positions_BT, batch: int, key):
    if key is None:
      return positions_BT
    return positions_BT + jax.random.randint(key, (batch, 1), 0, self.largest + 1)
