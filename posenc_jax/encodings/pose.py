"""Any encoding, at positions with one gap."""

import jax
import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.position_wrapper import Around


class PoSE(Around):
  """In training a window is two chunks, and positions of the second skip ahead (Zhu et al. 2023,
  eqs. 3 and 4):

    t for t < l,   t + u for t >= l,   l ~ U{1, ..., (T + 1) // 2},   u ~ U{0, ..., longest - T}

  One draw an example for all layers; l is the released code's. In evaluation no position is moved.
  So fine-tuning at T tokens meets every distance below `longest`: it goes with a trained model and
  `over`, its encoding extended by `longest` / T (the paper's: linear). The paper's chunks also skip
  text; here text goes on (v_i = 0 of its appendix A). Packed documents of an example share its l
  and u.
  """

  paper = 'Zhu et al. 2023, arXiv:2309.10400'
  weights, claims = (
    "its encoding's (`rope`, or any)",
    'better to 16 L, fine-tuned at L (its authors)',
  )

  def __init__(self, dims: Dims, rngs, *, over: str | dict = 'rope', longest: int | None = None):
    """`over`: a name, or a dict of a name and hyperparameters; `longest`: None: 8 times the
    training length.
    """
    super().__init__(dims, rngs, over)
    self.longest = 8 * dims.train_length if longest is None else longest
    if self.longest < dims.train_length:
      raise ValueError(
        f'pose: longest={longest} must be at least the training length {dims.train_length}'
      )
    if self.max_length is not None and self.max_length < self.longest:
      raise ValueError(
        f'pose: over={over!r} ends at {self.max_length}, before longest={self.longest}'
      )

  def draw(self, positions_BT, batch: int, key):
    if key is None:
      return positions_BT
    T = positions_BT.shape[1]
    if self.longest < T:
      raise ValueError(f'pose: {T} tokens, but longest={self.longest}')
    of_length, of_skip = jax.random.split(key)
    first_B1 = jax.random.randint(of_length, (batch, 1), 1, (T + 1) // 2 + 1)
    skip_B1 = jax.random.randint(of_skip, (batch, 1), 0, self.longest - T + 1)
    return positions_BT + jnp.where(positions_BT >= first_B1, skip_B1, 0)

  def farthest(self, tokens: int) -> int:
    return max(tokens, self.longest) - 1
