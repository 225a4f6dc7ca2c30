"""Rotary embedding whose wavelengths are whole numbers of tokens."""

import math

import numpy as np

from posenc_jax.encodings.rope import RoPE


class ResonanceRoPE(RoPE):
  """RoPE with frequencies 2 pi / round(2 pi / f): a pair is back where it began after whole tokens.

  Wang et al. 2024. So pairs of wavelengths below the training length rotate to no angle past it
  that they did not have in training. Wavelengths are rounded after `scaling`: with yarn that is the
  paper's Resonance YaRN.
  """

  paper = 'Wang et al. 2024, arXiv:2403.00071'
  limit = 'angles are float32: with all positions a million further, outputs move by some 0.02'

  def spectrum(self, length: int) -> tuple[np.ndarray, float]:
    frequencies, factor = super().spectrum(length)
    with np.errstate(divide='ignore'):  # a pair that stands still has no wavelength
      return 2 * math.pi / np.round(2 * math.pi / frequencies), factor
