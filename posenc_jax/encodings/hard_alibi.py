"""Heads that see a few tokens beside heads without positions."""

import jax.numpy as jnp

from posenc_jax.encodings.core.base import MASKED, Dims, Encoding
from posenc_jax.encodings.core.registry import MAX_INTEGER
from posenc_jax.errors import shown

FOREVER = 2**31 - 1  # tokens


class HardALiBi(Encoding):
  """s_ij = q_i . k_j / sqrt(K) where |i - j| < w_h, and j has no weight elsewhere.

  Jelassi et al. 2024: w = 1, 2, .. m in the first m heads, and the others are NoPE; theirs are 8 of
  16. They have a causal mask. Without it a head sees w_h - 1 tokens on either side, which is ours.
  Keys are hidden by the distance of positions, whatever mask attention has besides: so are sink
  tokens that are farther away. Where all heads have a window, time grows with the largest of them.
  """

  paper = 'Jelassi et al. 2024, arXiv:2402.01032'
  parameter_summary = 'none'
  reported_extrapolation = 'copies up to 1000 tokens, trained on up to 50 (its authors)'
  bias_in_scale = False
  hides_keys = True

  def __init__(self, dims: Dims, rngs, *, windows: tuple | None = None):
    """`windows`: w of each of the first heads, itself included; None: 1, 2, .. half of the heads,
    rounded down.
    """
    super().__init__(dims, rngs)
    self.windows = tuple(range(1, dims.heads // 2 + 1) if windows is None else windows)
    is_whole = all(type(w) is int and 0 < w <= MAX_INTEGER for w in self.windows)
    if not is_whole or len(self.windows) > dims.heads:
      allowed = f'up to {dims.heads} whole numbers from 1 to {MAX_INTEGER}, one a head'
      raise ValueError(f'windows={shown(windows)}; allowed: {allowed}')
    self.max_relative_distance = max(self.windows, default=1)
    if len(self.windows) == dims.heads and type(self).bias is HardALiBi.bias:
      self.hides_from = self.max_relative_distance

  def bias(self, r_R):
    windows_H = [*self.windows, *[FOREVER] * (self.dims.heads - len(self.windows))]
    is_seen_RH = jnp.abs(r_R)[:, None] < jnp.array(windows_H)[None]
    return jnp.where(is_seen_RH, jnp.float32(0), MASKED)
