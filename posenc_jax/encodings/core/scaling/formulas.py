"""Context extension of RoPE: the formulas of rope types. Others are in modules beside.

Each takes the number of rotated channels K, the base, the number of keys of the call and the fields
of its type; L is `original_max_position_embeddings`. It returns frequencies, float64 [K / 2] in
radians a position, fastest first, and the attention factor, by which the rotated channels of
queries and of keys are multiplied: scores get its square.
"""

import math

import numpy as np


def rope_frequencies(K: int, base: float) -> np.ndarray:
  """RoPE's own frequencies, base^(-2m/K)."""
  return base ** (-2 * np.arange(K // 2) / K)


def ramp(x, low, high):
  """0 up to low, 1 from high, linear between."""
  return np.clip((x - low) / (high - low), 0.0, 1.0)


def linear(K, base, length, *, factor):
  """Position interpolation (Chen et al. 2023, arXiv:2306.15595): the same as positions / factor."""
  return rope_frequencies(K, base) / factor, 1.0


def ntk(K, base, length, *, factor):
  """NTK-aware (bloc97): a base that divides the lowest frequency by factor, not the highest."""
  if K < 4:
    raise ValueError(f'scaling by another base needs 4 rotated channels or more, not {K}')
  return rope_frequencies(K, base * factor ** (K / (K - 2))), 1.0


def ntk_mixed(K, base, length, *, factor, exponent=0.75):
  """NTK-RoPE-mixed (Su 2023, kexue.fm/archives/9706): f_m exp(-a (m + 1)^exponent).

  a = ln(factor) / (K / 2)^exponent, so that the lowest frequency is divided by factor, and the
  higher ones by less. The exponent of the post's experiments is 0.625, that of the released code
  0.75; 1 is the post's NTK-RoPE-fixed.
  """
  if exponent > 1:
    raise ValueError(f'scaling.exponent={exponent!r}; allowed: at most 1')
  share = (np.arange(1, K // 2 + 1) / (K // 2)) ** exponent
  return rope_frequencies(K, base) * factor**-share, 1.0


def dynamic(K, base, length, *, factor, original_max_position_embeddings):
  """NTK-aware by factor * length / L - (factor - 1) where length > L.

  It grows with the call, at a factor of 1 too.
  """
  beyond = max(length / original_max_position_embeddings, 1.0)
  return ntk(K, base, length, factor=factor * beyond - (factor - 1))


def dynamic_steps(K, base, length, *, original_max_position_embeddings):
  """Dynamic NTK of Qwen 1's code: NTK-aware by 2^ceil(log2(length / L) + 1) - 1 where length > L.

  It is 3 up to twice L and 7 up to four times: frequencies change only where the length has
  doubled.
  """
  beyond = math.log2(max(length / original_max_position_embeddings, 1.0))
  return ntk(K, base, length, factor=2.0 ** math.ceil(beyond + 1) - 1)


def theta_scale(K, base, length, *, factor, original_max_position_embeddings):
  """A base (SGLang's models/grok.py) with which what turns once in L positions does in factor L.

  It is base^(ln(factor L / 2 pi) / ln(L / 2 pi)).
  """
  turn = original_max_position_embeddings / (2 * math.pi)
  if turn <= 1:
    raise ValueError('theta_scale needs an original length of 7 or more')
  return rope_frequencies(K, base) ** (math.log(factor * turn) / math.log(turn)), 1.0


def longrope(
  K,
  base,
  length,
  *,
  short_factor,
  long_factor,
  original_max_position_embeddings,
  factor=None,
  attention_factor=None,
):
  """LongRoPE (Ding et al. 2024, arXiv:2402.13753): a divisor for each frequency.

  They are short_factor or, where length > L, long_factor. The attention factor is sqrt(1 + ln
  factor / ln L) at every length, unless it is given. Two lists are the form of Phi-3 and Hugging
  Face; the paper's search also finds how many first positions to leave as they are: not in it.
  """
  L = original_max_position_embeddings
  if factor is None and attention_factor is None:
    need = 'the extended length / the original one'
    raise ValueError(f'scaling.factor of longrope is missing: {need}')
  if attention_factor is None:
    attention_factor = math.sqrt(1 + math.log(factor) / math.log(L))
  divisors = np.array(long_factor if length > L else short_factor, np.float64)
  return rope_frequencies(K, base) / divisors, attention_factor


def llama3(
  K, base, length, *, factor, low_freq_factor, high_freq_factor, original_max_position_embeddings
):
  """Llama 3.1, as released in code: f (a + (1 - a) / factor), a by the turns in L positions.

  a = clip((L f / (2 pi) - low_freq_factor) / (high_freq_factor - low_freq_factor), 0, 1): a is 0
  for slow frequencies, which are divided by factor, and 1 for fast ones, which are kept.
  """
  f = rope_frequencies(K, base)
  turns = original_max_position_embeddings * f / (2 * math.pi)
  kept = ramp(turns, low_freq_factor, high_freq_factor)
  return f * (kept + (1 - kept) / factor), 1.0


def proportional(K, base, length, *, partial_rotary_factor, factor=1.0):
  """p-RoPE (Barbero et al. 2024, arXiv:2410.06205): the fastest pairs rotate, by f_m / factor.

  They are the first floor(partial_rotary_factor K / 2) pairs; the others do not rotate.
  """
  turning = np.arange(K // 2) < int(partial_rotary_factor * K // 2)
  return rope_frequencies(K, base) * turning / factor, 1.0


def power(K, base, length, *, exponent):
  """Giraffe's power basis (Pal et al. 2023, arXiv:2308.10882): f_m (1 - 2m / K)^exponent.

  Slow pairs rotate more slowly still. The basis may be used in training, too. The released code
  suggests 0.5 for the exponent.
  """
  return rope_frequencies(K, base) * (1 - 2 * np.arange(K // 2) / K) ** exponent, 1.0


def truncated(K, base, length, *, original_max_position_embeddings):
  """Giraffe's truncated basis (Pal et al. 2023): f_m, or 1/16 of a turn in L, or 0.

  A pair that makes less than one turn in L positions, but at least 1/8, is set to 1/16 of a turn;
  one that makes less than 1/8 does not rotate. These fractions are those of the released code. The
  basis may be used in training, too.
  """
  f, turn = rope_frequencies(K, base), 2 * math.pi / original_max_position_embeddings
  return np.where(f >= turn, f, np.where(f >= turn / 8, turn / 16, 0.0)), 1.0


def riflex(K, base, length, *, k, test_length):
  """RIFLEx (Zhao et al. 2025, arXiv:2502.15894): pair k, from 1, makes 0.9 turns in test_length.

  It is for videos that are longer than those of training, on the axis of time alone. k is the pair
  whose turn is about as long as the time after which a model repeats itself (HunyuanVideo: 4, 50
  frames). The paper's eq. 8 has one turn, the released code 0.9. The authors use it only where
  test_length is beyond a turn of pair k: up to there the pair would turn faster than in training.
  """
  if type(k) is not int or k > K // 2:
    raise ValueError(f'scaling.k={k!r}; allowed: whole numbers from 1 to {K // 2}')
  frequencies = rope_frequencies(K, base)
  frequencies[k - 1] = 0.9 * 2 * math.pi / test_length
  return frequencies, 1.0
