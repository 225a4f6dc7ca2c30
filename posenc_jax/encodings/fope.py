"""Rotary embedding whose waves are mixtures of frequencies."""

import math

import jax.numpy as jnp
import numpy as np

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_at_least
from posenc_jax.encodings.core.scaling.formulas import rope_frequencies
from posenc_jax.encodings.rope import check_rotary, turn_pairs
from posenc_jax.xla_ops import exact_einsum, outer


class FoPE(Encoding):
  """RoPE with the mixtures cos(t f) C and sin(t f) S as cosines and sines of pairs.

    cos_m(t) = sum_n C_nm cos(t f_n),   sin_m(t) = sum_n S_nm sin(t f_n),   n < F, m < M

  Hua et al. 2024, as released. f_n are the F frequencies of RoPE that make at least one turn in L
  tokens. The first M = min(F, K // 4) pairs of channels get these mixtures; all others get cosine 1
  and sine 1, so that they do not depend on the position. C and S are random and not trained, one of
  each for each of the G key/value heads: entries N(0, 2 gain^2 / (M (F + G))), plus 1 where
  n = m ceil(F / M), the diagonal where F <= K // 4. All layers have the same C and S; in the code
  each layer draws its own. Mixtures are no rotations: scores depend on i and j, not on i - j alone.

  Intern-S1-Pro (2026, arXiv:2603.25040) has mixtures of all F pairs, drawn once for all layers:
  `square`, with base 5e6, gain 0.5 and length 262144. As trained (InternLM's XTuner) its other
  pairs have sine 1, too; vLLM's code has sine 0 there: `still`.
  """

  paper = 'Hua et al. 2024, arXiv:2412.17739'
  parameter_summary = 'none: fixed mixtures'
  limit = 'angles are float32: a million positions out, waves are off by some 0.02'
  relative = False
  position_kind = 'floats'
  rotates_qk = True

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    base: float = 10_000.0,
    gain: float = 0.3,
    seed: int = 0,
    length: int | None = None,
    square: bool = False,
    per_head: bool = True,
    still: bool = False,
  ):
    """Keeps the hyperparameters.

    Args:
      base: as for `rope`.
      gain: spread of the mixtures: 0.3 at 60M parameters, 0.4 at 180M, 0.6 at 1.2B.
      seed: of the mixtures, also of all runs: vary encoding.seed with seed.
      length: L in tokens; None: the training length.
      square: whether M is F, so that every frequency has a pair, in the place of min(F, K // 4).
      per_head: whether each key/value head has its C and S, or all share one, whose entries are
        N(0, 2 gain^2 / (M + F)).
      still: whether pairs without a mixture have sine 0 and are left as they are, in the place of
        sine 1, which turns them by 45 degrees and makes them larger by sqrt(2).
    """
    super().__init__(dims, rngs)
    check_rotary(dims.head_dim, base, 'half')
    check_at_least(4, head_dim=dims.head_dim)
    check_at_least(0, gain=gain, seed=seed)
    self.base, self.gain, self.seed = base, gain, seed
    self.square, self.per_head, self.still = square, per_head, still
    self.length = dims.train_length if length is None else length
    check_at_least(1, length=self.length)

  def frequencies(self) -> np.ndarray:
    """Radians a position, float64 [F], fastest first."""
    frequencies = rope_frequencies(self.dims.head_dim, self.base)
    return frequencies[frequencies >= 2 * math.pi / self.length]

  def mixtures(self) -> np.ndarray:
    """C and S: float64 [2, G|1, F, M]."""
    F, G = len(self.frequencies()), self.dims.kv_heads if self.per_head else 1
    M = F if self.square else min(F, self.dims.head_dim // 4)
    # Xavier's, of tensors [G, F, M] by torch's count of what goes in and out, or of matrices [F, M]
    fans = (F + G) * max(M, 1) if self.per_head else F + max(M, 1)
    spread = self.gain * math.sqrt(2 / fans)
    diagonal = np.arange(F)[:, None] == np.arange(M) * math.ceil(F / max(M, 1))
    return diagonal + spread * np.random.default_rng(self.seed).standard_normal((2, G, F, M))

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    """Cosines and sines: float32 [B|1, S, G, K/2] each."""
    frequencies = jnp.asarray(self.frequencies(), jnp.float32)
    angles_BSF = outer(position_ids.astype(jnp.float32), frequencies)
    mixtures = jnp.asarray(self.mixtures(), jnp.float32)
    rest = self.dims.head_dim // 2 - mixtures.shape[-1]

    def wave(waves_BSF, mixture_GFM, beyond):
      mixed_BSGM = exact_einsum('bsf,gfm->bsgm', waves_BSF, mixture_GFM)
      return jnp.pad(mixed_BSGM, ((0, 0), (0, 0), (0, 0), (0, rest)), constant_values=beyond)

    sines = wave(jnp.sin(angles_BSF), mixtures[1], 0.0 if self.still else 1.0)
    return wave(jnp.cos(angles_BSF), mixtures[0], 1.0), sines

  def transform_qk(self, q_BTHK, k_BSGK, i, j):
    return turn_pairs(q_BTHK, *i, 'half'), turn_pairs(k_BSGK, *j, 'half')
