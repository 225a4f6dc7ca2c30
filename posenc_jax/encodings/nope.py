"""No position encoding: the causal mask alone tells order."""

from posenc_jax.encodings.core.base import Encoding


class NoPE(Encoding):
  """Nothing: the causal mask is the only source of order (Haviv et al. 2022; Kazemnejad et al.
  2023).
  """

  paper = 'Haviv et al. 2022, arXiv:2203.16634; Kazemnejad et al. 2023, arXiv:2305.19466'
  reported_extrapolation = 'L 1024: to 1400, not to 1600 (1.3B, Kazemnejad et al.)'
  position_kind = None
  reads_window_alone = True
