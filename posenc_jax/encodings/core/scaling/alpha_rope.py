"""AlphaRoPE, a rope type of released code: fast frequencies are divided by a power of their index.

Its arguments and results are those of formulas.py.
"""

import math

import numpy as np

from posenc_jax.encodings.core.scaling.formulas import rope_frequencies
from posenc_jax.encodings.core.scaling.yarn import default_attention_factor


def alpha_rope(
  K, base, length, *, factor, original_max_position_embeddings, alpha=None, attention_factor=None
):
  """AlphaRoPE (github.com/ZNLP/AlphaRoPE, 2026): f_m factor^(-(2m / d)^alpha) where 2m <= d.

  f_m / factor where 2m > d: d is the whole part of K ln(L / (2 pi)) / ln(base), the channel whose
  frequency turns once in L positions. `alpha` is 0.6 ln(factor) unless it is given; with 1, which
  the released code calls NTK-YaRN, the exponent is linear. The temperature is YaRN's.
  """
  d = int(K * math.log(original_max_position_embeddings / (2 * math.pi)) / math.log(base))
  if alpha is None:
    alpha = 0.6 * math.log(factor)
  channel = 2 * np.arange(K // 2)
  share = np.where(channel <= d, (channel / max(d, 1)) ** alpha, 1.0)
  frequencies = rope_frequencies(K, base) * factor**-share
  return frequencies, default_attention_factor(factor, attention_factor)
