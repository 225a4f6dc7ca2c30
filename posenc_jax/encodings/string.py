"""STRING: trained rotary encodings read at distances that were trained often."""

import numpy as np

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.bounds import check_above
from posenc_jax.encodings.rerope import TwoRangeRoPE


class String(TwoRangeRoPE):
  """RoPE at distance r = i - j below window, at r - window + local from there on (An et al. 2024).

  A model trained with `rope` can be evaluated with it. Large distances, which few pairs of a
  training row have, are read as smaller ones that many pairs have: among L tokens none is read as
  more than max(window, L - window + local) - 1. The released code also multiplies queries and keys
  by 0.1 ln 2 + 1 (`attention_factor`, 1 by default here), and in a pass over a whole row, but not
  token by token, it counts pairs at the distance `window` twice. STRING of Schenck et al. 2025
  (arXiv:2502.02562) is another method: `cayley_string`.
  """

  paper = 'An et al. 2024, arXiv:2410.18745'

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    window: int | None = None,
    local: int | None = None,
    attention_factor: float = 1.0,
    **rope,
  ):
    """Keeps the hyperparameters.

    Args:
      window: tokens; None: a third of the training length.
      local: the distance that the first one beyond the window is read at, in tokens; None: 128, or
        half of the window if that is less.
      attention_factor: multiplies the channels of queries and keys that rotate.
      **rope: as for TwoRangeRoPE.
    """
    window = max(dims.train_length // 3, 1) if window is None else window
    super().__init__(dims, rngs, window=window, **rope)
    self.local = min(128, window // 2) if local is None else local
    if not 0 <= self.local <= window:
      raise ValueError(f'local={local}; allowed: from 0 to window={window}')
    check_above(0, attention_factor=attention_factor)
    self.attention_factor = attention_factor

  def spectrum(self, length: int) -> tuple[np.ndarray, float]:
    frequencies, factor = super().spectrum(length)
    return frequencies, factor * self.attention_factor

  def far_positions(self, i, j):
    return i - self.window + self.local, j
