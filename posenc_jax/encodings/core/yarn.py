"""YaRN: frequencies that turn often in the original length L stay, slow ones are divided, a ramp
between.

Peng et al. 2023, arXiv:2309.00071. The paper's ramp is linear in the number of turns, that of all
released code in the index of the frequency: they differ up to threefold. Arguments and results are
those of rope_types.py.
"""

import math

import numpy as np

from posenc_jax.encodings.core.rope_scaling import plain, ramp


def temperature(factor, attention_factor=None, mscale=1.0, mscale_all_dim=0.0):
  """The paper's 0.1 ln(factor) + 1, or a ratio of two such (DeepSeek), or what is given."""
  if attention_factor is not None:
    return attention_factor
  grown = lambda by: 0.1 * by * math.log(factor) + 1
  return grown(mscale) / grown(mscale_all_dim)


def yarn(
  K,
  base,
  length,
  *,
  factor,
  original_max_position_embeddings,
  beta_fast=32.0,
  beta_slow=1.0,
  attention_factor=None,
  mscale=None,
  mscale_all_dim=None,
  truncate=True,
):
  """As released: all that turn beta_fast times stay, all that turn beta_slow times are divided.

  `truncate` widens the ramp to whole indices. `mscale` and `mscale_all_dim` count only together;
  DeepSeek multiplies its softmax scale besides, which is not part of a rope type.
  """
  turning = lambda turns: (
    K * math.log(original_max_position_embeddings / (turns * 2 * math.pi)) / (2 * math.log(base))
  )
  low, high = turning(beta_fast), turning(beta_slow)
  if truncate:
    low, high = math.floor(low), math.ceil(high)
  low, high = max(low, 0), min(high, K - 1)
  divided = ramp(np.arange(K // 2), low, high + 0.001 * (low == high))
  mscales = (mscale, mscale_all_dim) if mscale and mscale_all_dim else ()
  return plain(K, base) * (1 - divided + divided / factor), temperature(
    factor, attention_factor, *mscales
  )


def yarn_paper(
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
  """As the paper writes it: alpha is beta_slow, beta is beta_fast."""
  f = plain(K, base)
  kept = ramp(original_max_position_embeddings * f / (2 * math.pi), beta_slow, beta_fast)
  return f * (kept + (1 - kept) / factor), temperature(factor, attention_factor)
