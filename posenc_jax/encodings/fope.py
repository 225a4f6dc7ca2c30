"""Rotary embedding whose waves are mixtures of frequencies."""

import math

import jax.numpy as jnp
import numpy as np
from jax import lax

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_at_least
from posenc_jax.encodings.core.rope_scaling import rope_frequencies
from posenc_jax.encodings.rope import check_rotary, turn_pairs


class FoPE(Encoding):
  """RoPE whose cosines and sines are cos(t f) C and sin(t f) S: Fourier series of the position.

  Hua et al. 2024, as released. f are RoPE's frequencies that make a turn in L tokens, D of them; C
  and S [D, D'], D' = min(D, K/4), are fixed and random, a pair of them for each key/value head:
  N(0, 2 gain^2 / (D' (D + G))), and 1 more in row c m of column m, c = D / D' rounded up,
  which is the diagonal where D <= K/4. The other pairs of channels get the
  cosine 1 and the sine 1, so that they do not depend on position. All layers have the same C and S,
  those of the code each their own.
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
  ):
    """Keeps the hyperparameters.

    Args:
      base: as for `rope`.
      gain: spread of the mixtures: 0.3 at 60M parameters, 0.4 at 180M, 0.6 at 1.2B.
      seed: of the mixtures.
      length: L in tokens; None: the training length.
    """
    super().__init__(dims, rngs)
    check_rotary(dims.head_dim, base, 'half')
    check_at_least(4, head_dim=dims.head_dim)
    check_at_least(0, gain=gain, seed=seed)
    self.base, self.gain, self.seed = base, gain, seed
    self.length = dims.train_length if length is None else length
    check_at_least(1, length=self.length)

  def frequencies(self) -> np.ndarray:
    """Radians a position, float64 [D], fastest first."""
    frequencies = rope_frequencies(self.dims.head_dim, self.base)
    return frequencies[frequencies >= 2 * math.pi / self.length]

  def mixtures(self) -> np.ndarray:
    """C and S: float64 [2, G, D, D']."""
    D, G = len(self.frequencies()), self.dims.kv_heads
    mixed = min(D, self.dims.head_dim // 4)
    spread = self.gain * math.sqrt(2 / ((D + G) * max(mixed, 1)))
    diagonal = np.arange(D)[:, None] == np.arange(mixed) * math.ceil(D / max(mixed, 1))
    return diagonal + spread * np.random.default_rng(self.seed).standard_normal((2, G, D, mixed))

  def coordinates(self, x_BSD, position_ids, visible_BS, index_BS):
    """Cosines and sines: float32 [B|1, S, G, K/2] each."""
    frequencies = jnp.asarray(self.frequencies(), jnp.float32)
    angles_BSD = jnp.multiply.outer(position_ids.astype(jnp.float32), frequencies)
    mixtures = jnp.asarray(self.mixtures(), jnp.float32)
    rest = self.dims.head_dim // 2 - mixtures.shape[-1]

    def wave(waves_BSD, mixture_GDM):
      exact = lax.Precision.HIGHEST  # as all angles, whatever the precision that is set
      mixed_BSGM = jnp.einsum('bsd,gdm->bsgm', waves_BSD, mixture_GDM, precision=exact)
      return jnp.pad(mixed_BSGM, ((0, 0), (0, 0), (0, 0), (0, rest)), constant_values=1.0)

    return wave(jnp.cos(angles_BSD), mixtures[0]), wave(jnp.sin(angles_BSD), mixtures[1])

  def transform_qk(self, q_BTHK, k_BSGK, i, j):
    return turn_pairs(q_BTHK, *i, 'half'), turn_pairs(k_BSGK, *j, 'half')
