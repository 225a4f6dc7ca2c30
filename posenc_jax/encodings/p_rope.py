"""Rotary embedding without its lowest frequencies."""

import numpy as np

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.bounds import check_between
from posenc_jax.encodings.rope import RoPE


class PRoPE(RoPE):
  """RoPE of which only the fastest floor(p K/2) pairs of channels rotate (Barbero et al. 2024).

  The pairs and their frequencies base^(-2m/K) are those of RoPE over the whole head: unlike `rope`
  with `fraction`, no spectrum is squeezed into fewer channels. p = 1 is RoPE, p = 0 NoPE. With
  `scaling` the pairs that rotate have the scaled frequencies. Hugging Face calls it `proportional`.
  """

  paper = 'Barbero et al. 2024, arXiv:2410.06205'

  def __init__(self, dims: Dims, rngs, *, p: float = 0.75, **rope):
    """Keeps the hyperparameters.

    Args:
      p: the share of pairs that rotate: 0.75 is the paper's best, 0.25 Gemma 4's.
      **rope: as for `rope`.
    """
    super().__init__(dims, rngs, **rope)
    check_between(0, 1, p=p)
    self.p = p

  def spectrum(self, length: int) -> tuple[np.ndarray, float]:
    frequencies, factor = super().spectrum(length)
    turns = np.arange(len(frequencies)) < int(self.p * len(frequencies))
    return np.where(turns, frequencies, 0.0), factor
