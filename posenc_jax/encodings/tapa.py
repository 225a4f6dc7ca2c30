"""Attention whose phase grows with the distance as tokens choose."""

import math

import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_above, check_between
from posenc_jax.xla_ops import exactly, per_kv_head, scaled_dot


class TAPA(Encoding):
  """s_ij = a_ij cos(2 pi |i - j|^alpha b_ij): a and b are products of parts of q_i and k_j.

    a = q . k / sqrt(n) over the first n = fraction K channels, b the same over the other channels

  Token-aware phase attention, Wang et al. 2025, eq. 12 (`fraction` is its theta). There is no
  released code. Nothing is trained beside queries and keys. The authors trained at a fifth of the
  learning rate that they had for RoPE.
  """

  paper = 'Wang et al. 2025, arXiv:2509.12635'
  reported_extrapolation = 'perplexity 12.22 at L, 17.96 at 2 L; RoPE 12.21, 5878 (its authors)'
  limit = 'in bfloat16 phases are off by some 0.015 |i - j|^alpha, as queries and keys are rounded'
  bias_in_scale = True
  reads_qk = True
  recomputes_scores = True
  nonlinear_in_queries = True

  def __init__(self, dims: Dims, rngs, *, alpha: float = 0.1, fraction: float = 0.5):
    """Keeps the hyperparameters.

    Args:
      alpha: the power of the distance.
      fraction: the share of a head's channels that make the amplitude; the others make the phase.
    """
    super().__init__(dims, rngs)
    check_between(0, 1, fraction=fraction)
    self.alpha, self.width = alpha, round(fraction * dims.head_dim)
    check_above(0, alpha=alpha)
    if not 0 < self.width < dims.head_dim:
      both = 'what leaves channels to both parts'
      raise ValueError(f'fraction={fraction} of head_dim={dims.head_dim}; allowed: {both}')

  def tables(self, r_R):
    return jnp.abs(r_R).astype(jnp.float32)[:, None] ** self.alpha

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    n, K = self.width, self.dims.head_dim
    amplitude_BHTS = per_kv_head(scaled_dot, q_BHTK[..., :n], k_BGSK[..., :n])
    phase_BHTS = per_kv_head(exactly(scaled_dot), q_BHTK[..., n:], k_BGSK[..., n:])
    turn = 2 * math.pi * (K - n) ** -0.5
    scale = self.scale(K) * (K / n) ** 0.5
    return scale * amplitude_BHTS * jnp.cos(turn * tile.tables * phase_BHTS)
