"""Rotary embedding with its lowest frequencies clipped."""

import numpy as np

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.bounds import check_between
from posenc_jax.encodings.rope import RoPE


class ClippedRoPE(RoPE):
  """RoPE whose n lowest frequencies are multiplied by (1 + cos t) / 2, t from 0 to pi.

  Li et al. 2026, who call it CoPE; `cope` here is Golovneva et al.'s. The highest of the n keeps
  its frequency, and the lowest, if there are two or more, becomes 0. With `hard` all n become 0,
  and what is left is `p_rope`. Frequencies are clipped after `scaling`, as in the released code.
  """

  paper = 'Li et al. 2026, arXiv:2602.05258'

  def __init__(self, dims: Dims, rngs, *, clipped: int | None = None, hard: bool = False, **rope):
    """Keeps the hyperparameters.

    Args:
      clipped: n; None: 20 of 64 frequencies, as published.
      hard: whether all n frequencies become 0.
      **rope: as for `rope`.
    """
    super().__init__(dims, rngs, **rope)
    frequencies = self.width // 2
    self.clipped = round(frequencies * 20 / 64) if clipped is None else clipped
    check_between(0, frequencies, clipped=self.clipped)
    self.hard = hard

  def spectrum(self, length: int) -> tuple[np.ndarray, float]:
    frequencies, factor = super().spectrum(length)
    taper = (1 + np.cos(np.linspace(0, np.pi, self.clipped))) / 2
    kept = np.ones(len(frequencies) - self.clipped)
    return frequencies * np.concatenate([kept, 0 * taper if self.hard else taper]), factor
