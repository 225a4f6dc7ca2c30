"""Rotary embedding without its lowest frequencies."""

import numpy as np

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.rope import Rotary, rotate_at


class PRoPE(Rotary):
  """RoPE of which only the fastest floor(p K/2) pairs of channels turn (Barbero et al. 2024).

  The pairs and their frequencies base^(-2m/K) are those of RoPE over the whole head: unlike `rope`
  with `fraction`, no spectrum is squeezed into fewer channels. p = 1 is RoPE, p = 0 NoPE. Hugging
  Face calls it `proportional`.
  """

  paper = 'Barbero et al. 2024, arXiv:2410.06205'
  parameter_summary = 'none'
  reported_extrapolation = None
  rotates_qk = True

  def __init__(
    self, dims: Dims, rngs, *, p: float = 0.75, base: float = 10_000.0, layout: str = 'half'
  ):
    """Keeps the hyperparameters.

    Args:
      p: the share of pairs that turn: 0.75 is the paper's best, 0.25 Gemma 4's.
      base, layout: as for `rope`.
    """
    super().__init__(dims, rngs, base=base, layout=layout)
    if not 0 <= p <= 1:
      raise ValueError(f'p={p} must be from 0 to 1')
    self.p = p

  def frequencies(self) -> np.ndarray:
    """Radians a position, float64 [K/2], fastest first, then zeros."""
    frequencies = super().frequencies()
    turns = np.arange(len(frequencies)) < int(self.p * len(frequencies))
    return np.where(turns, frequencies, 0.0)

  def transform_qk(self, q_BTHK, k_BSGK, i, j):
    frequencies = self.frequencies()
    q_BTHK = rotate_at(q_BTHK, i, frequencies, self.layout)
    return q_BTHK, rotate_at(k_BSGK, j, frequencies, self.layout)
