"""YaRN, a rope type: frequencies of many turns in the original length L stay, slow ones do not.

Slow frequencies are divided by the factor, with a ramp between (Peng et al. 2023,
arXiv:2309.00071). The paper's ramp is linear in the number of turns, that of all released code in
the index of the frequency: they differ up to threefold. Arguments and results are those of
formulas.py.
"""

import math

import numpy as np

from posenc_jax.encodings.core.scaling.formulas import ramp, rope_frequencies


def default_attention_factor(factor, attention_factor=None, mscale=1.0, mscale_all_dim=0.0):
  """The attention factor: the paper's 0.1 ln(factor) + 1, a ratio of two such, or what is given.

  DeepSeek takes the ratio.
  """
  if attention_factor is not None:
    return attention_factor
  log_factor = math.log(factor)
  return (0.1 * mscale * log_factor + 1) / (0.1 * mscale_all_dim * log_factor + 1)


def ramp_ends(K, base, L, beta_fast, beta_slow, truncate=True):
  """The indices of the frequencies of beta_fast and beta_slow turns in L positions.

  With `truncate` they are the whole ones before and after.
  """
  low, high = (
    K * math.log(L / (turns * 2 * math.pi)) / (2 * math.log(base))
    for turns in (beta_fast, beta_slow)
  )
  if truncate:
    low, high = math.floor(low), math.ceil(high)
  return max(low, 0), min(high, K - 1)


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
  """YaRN (Peng et al. 2023, arXiv:2309.00071) as released: f_m (1 - a_m + a_m / factor).

  a_m = clip((m - low) / (high - low), 0, 1), where low and high are
  K ln(L / (2 pi n)) / (2 ln base) for n = beta_fast and n = beta_slow: the indices m at which a
  frequency makes n turns in L positions. Frequencies of more turns than beta_fast are kept, those
  of fewer than beta_slow are divided by factor. `truncate` rounds low down and high up; low is at
  least 0 and high at most K - 1.

  The attention factor is 0.1 ln(factor) + 1 unless it is given or, with both `mscale` and
  `mscale_all_dim`, (0.1 mscale ln(factor) + 1) / (0.1 mscale_all_dim ln(factor) + 1), as in
  DeepSeek, which multiplies its softmax scale besides: that is not part of a rope type.
  """
  L = original_max_position_embeddings
  low, high = ramp_ends(K, base, L, beta_fast, beta_slow, truncate)
  divided = ramp(np.arange(K // 2), low, high + 0.001 * (low == high))
  mscales = (mscale, mscale_all_dim) if mscale and mscale_all_dim else ()
  frequencies = rope_frequencies(K, base) * (1 - divided + divided / factor)
  return frequencies, default_attention_factor(factor, attention_factor, *mscales)


def yarn_log(
  K,
  base,
  length,
  *,
  factor,
  original_max_position_embeddings,
  beta_fast=32.0,
  beta_slow=1.0,
  extrapolation_factor=1.0,
):
  """YaRN by logarithms (SGLang's models/grok.py): f_m factor^-r, r YaRN's ramp; no temperature.

  These are the frequencies of MrRoPE-Uni. With an `extrapolation_factor` c below 1 the exponent is
  -(1 - c (1 - r)): at 0 all frequencies are divided by factor.
  """
  if extrapolation_factor > 1:
    raise ValueError(f'scaling.extrapolation_factor={extrapolation_factor!r}; allowed: at most 1')
  low, high = ramp_ends(K, base, original_max_position_embeddings, beta_fast, beta_slow)
  divided = ramp(np.arange(K // 2), low - 0.001 * (low == high), high)
  return rope_frequencies(K, base) * factor ** (extrapolation_factor * (1 - divided) - 1), 1.0


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
  """YaRN as its paper writes it: alpha is beta_slow, beta is beta_fast."""
  f = rope_frequencies(K, base)
  turns = original_max_position_embeddings * f / (2 * math.pi)
  kept = ramp(turns, beta_slow, beta_fast)
  return f * (kept + (1 - kept) / factor), default_attention_factor(factor, attention_factor)


def dynamic_yarn(
  K, base, length, *, original_max_position_embeddings, beta_fast=32.0, beta_slow=1.0, truncate=True
):
  """Dynamic YaRN (Peng et al. 2023): `yarn` of the factor length / L where length > L.

  Frequencies and the attention factor grow with the call, and up to L it is RoPE.
  """
  return yarn(
    K,
    base,
    length,
    factor=max(length / original_max_position_embeddings, 1.0),
    original_max_position_embeddings=original_max_position_embeddings,
    beta_fast=beta_fast,
    beta_slow=beta_slow,
    truncate=truncate,
  )
