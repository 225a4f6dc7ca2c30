"""Products of queries and keys of unit length, times a constant."""

import math

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_above
from posenc_jax.encodings.lssa import unit


class CosScale(Encoding):
  """s_ij = scale q_i . k_j / (|q_i| |k_j|): cosines, times a constant in the place of 1/sqrt(K).

  Li et al. 2025. The larger the scale, the fewer keys have weight. To be chained before an encoding
  that rotates queries and keys, ('cos_scale', 'rope'), as in the released code; their authors train
  with it, and add `infoscale` at evaluation. It is no `model.qk_norm`, which has a learned gain and
  keeps 1/sqrt(K). An attention factor of turns before it would be divided out, and is refused.
  """

  paper = 'Li et al. 2025, arXiv:2501.08570'
  position_kind = None
  needs_unscaled_queries = True
  applies_scale = True  # what attention will divide by is multiplied in before
  nonlinear_in_queries = True

  def __init__(self, dims: Dims, rngs, *, scale: float = 128.0):
    """`scale`: 128 in the released training of GAU on texts, where T5 has 256; 128 and 32 of
    genomes.
    """
    super().__init__(dims, rngs)
    check_above(0, scale=scale)
    self.constant = scale

  def transform_qk(self, q_BTHK, k_BSGK, i, j):
    K = self.dims.head_dim
    q = self.constant * math.sqrt(K) * unit(q_BTHK, K)
    return q.astype(q_BTHK.dtype), unit(k_BSGK, K).astype(k_BSGK.dtype)
