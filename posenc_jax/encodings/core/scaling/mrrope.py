"""MrRoPE (Tian et al. 2026), two rope types that divide frequencies as digits of a mixed radix.

Where YaRN keeps a frequency or divides it, and its temperature, are as in yarn.py; between, a
frequency is divided by the product of a radix for each pair of channels before it. Arguments and
results are those of formulas.py.
"""

import numpy as np

from posenc_jax.encodings.core.scaling.formulas import rope_frequencies
from posenc_jax.encodings.core.scaling.yarn import default_attention_factor, ramp_ends


def mrrope_uni(
  K,
  base,
  length,
  *,
  factor,
  original_max_position_embeddings,
  beta_fast=32.0,
  beta_slow=1.0,
  attention_factor=None,
):
  """MrRoPE-Uni (Tian et al. 2026, arXiv:2601.22181): f_m factor^(-q/n), a radix for all.

  q = clip(m - low, 0, n) and n = high - low, the ends of YaRN's ramp, at whole indices.
  """
  q, n = _steps(K, base, original_max_position_embeddings, beta_fast, beta_slow)
  frequencies = rope_frequencies(K, base) * factor ** (-q / n)
  return frequencies, default_attention_factor(factor, attention_factor)


def mrrope_pro(
  K,
  base,
  length,
  *,
  factor,
  original_max_position_embeddings,
  beta_fast=32.0,
  beta_slow=1.0,
  attention_factor=None,
):
  """MrRoPE-Pro (Tian et al. 2026): f_m factor^(-q(q + 1) / (n(n + 1))), radices that grow.

  q and n are those of MrRoPE-Uni. Fast pairs between keep more of their frequency than there.
  """
  q, n = _steps(K, base, original_max_position_embeddings, beta_fast, beta_slow)
  frequencies = rope_frequencies(K, base) * factor ** (-q * (q + 1) / (n * (n + 1)))
  return frequencies, default_attention_factor(factor, attention_factor)


def _steps(K, base, L, beta_fast, beta_slow):
  """(q of each pair of channels, n); all from low + 1 on is divided where there is no ramp."""
  low, high = ramp_ends(K, base, L, beta_fast, beta_slow)
  n = max(high - low, 1)
  return np.clip(np.arange(K // 2) - low, 0, n), n
