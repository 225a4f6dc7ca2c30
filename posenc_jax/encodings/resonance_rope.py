"""Rotary embedding whose wavelengths are whole numbers of tokens."""

import math

import numpy as np

from posenc_jax.encodings.rope import RoPE


class ResonanceRoPE(RoPE):
  """RoPE with frequencies 2 pi / round(2 pi / f): each turns back to where it began after whole
  tokens.

  Wang et al. 2024. So a position past the training length has features that were seen
  in training, for every wavelength below it. Wavelengths are rounded after `scaling`: with yarn
  that is the paper's Resonance YaRN.
  """

  paper = 'Wang et al. 2024, arXiv:2403.00071'
  parameter_summary = 'none'
  reported_extrapolation = None

  def spectrum(self, length: int) -> tuple[np.ndarray, float]:
    frequencies, factor = super().spectrum(length)
    return 2 * math.pi / np.round(2 * math.pi / frequencies), factor
