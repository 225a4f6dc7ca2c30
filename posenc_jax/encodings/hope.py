"""Rotary embedding of high frequencies alone."""

import math

import numpy as np

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.bounds import check_at_least
from posenc_jax.encodings.rope import RoPE


class HoPE(RoPE):
  """RoPE whose pairs of fewer than one turn in L tokens, f < 2 pi / L, stand still.

  f is the frequency before `scaling`; pairs that turn have the scaled one.

  High-frequency rotary position encoding, Chen et al. 2024. Others have called other encodings
  HoPE: a hyperbolic one, `hyperbolic_rope`, and one of videos (arXiv:2505.20444). The truncated
  basis of Giraffe (Pal et al. 2023), rope_type 'truncated' of `scaling`, has the same cutoff.
  """

  paper = 'Chen et al. 2024, arXiv:2410.21216'

  def __init__(self, dims: Dims, rngs, *, length: int | None = None, **rope):
    """`length`: L in tokens; None: the training length. `rope`: as for `rope`."""
    super().__init__(dims, rngs, **rope)
    self.length = dims.train_length if length is None else length
    check_at_least(1, length=self.length)

  def spectrum(self, length: int) -> tuple[np.ndarray, float]:
    frequencies, factor = super().spectrum(length)
    turns = self.frequencies() >= 2 * math.pi / self.length
    return np.where(turns, frequencies, 0.0), factor
