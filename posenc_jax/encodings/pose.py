"""Any encoding, at positions with one gap."""

import jax
import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims, LengthError
from posenc_jax.encodings.core.position_wrapper import PositionWrapper


class PoSE(PositionWrapper):
  """In training a window is two chunks, and positions of the second skip ahead.

    t for t < l,   t + u for t >= l,   l ~ U{1, ..., (T + 1) // 2},   u ~ U{0, ..., longest - T}

  Zhu et al. 2023, eqs. 3 and 4. One draw an example for all layers; l is the released code's. In
  evaluation no position is moved. So fine-tuning at T tokens meets every distance below `longest`:
  it goes with a trained model and `inner`, its encoding extended by `longest` / T (the paper's:
  linear). The paper's chunks also skip text; here text goes on (v_i = 0 of its appendix A). Packed
  documents of an example share its l and u.
  """

  paper = 'Zhu et al. 2023, arXiv:2309.10400'
  parameter_summary = "its encoding's (`rope`, or any)"
  reported_extrapolation = 'better to 16 L, fine-tuned at L (its authors)'

  def __init__(self, dims: Dims, rngs, *, inner: str | dict = 'rope', longest: int | None = None):
    """Builds the inner encoding.

    Args:
      inner: a name, or a dict of a name and hyperparameters.
      longest: positions; None: 8 times the training length.
    """
    super().__init__(dims, rngs, inner)
    self.longest = 8 * dims.train_length if longest is None else longest
    self.check_longest(self.longest)

  def sample_positions(self, position_ids, batch: int, key):
    if key is None:
      return None
    T = position_ids.shape[1]
    if self.longest < T:
      raise LengthError(f'{type(self).__name__}: {T} tokens, but longest={self.longest}')
    length_key, skip_key = jax.random.split(key)
    first_B1 = jax.random.randint(length_key, (batch, 1), 1, (T + 1) // 2 + 1)
    skip_B1 = jax.random.randint(skip_key, (batch, 1), 0, self.longest - T + 1)
    return position_ids + jnp.where(position_ids >= first_B1, skip_B1, 0)

  def max_sampled_distance(self, tokens: int) -> int:
    return max(tokens, self.longest) - 1
