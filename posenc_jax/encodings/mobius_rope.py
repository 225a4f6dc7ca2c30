"""Rotary embedding of which some heads have turned half way round at the training length."""

import math

import jax.numpy as jnp
import numpy as np

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.bounds import check_at_least, check_between, check_unread
from posenc_jax.encodings.rope import Rotary, rotate


class MobiusRoPE(Rotary):
  """RoPE of which some heads rotate by the frequencies pi (2m + 1) / N, m < K/2, for N tokens.

  Bae 2026: Möbius RoPE, an anti-periodic encoding. N positions on, every pair of these heads has
  turned by an odd multiple of pi, so that q and k meet with the opposite sign, and the pairs
  together by no other distance as much: with q = k of equal pairs the product at the distance d is
  sin(pi d K / N) / (K sin(pi d / N)) of that at 0. The other heads are `rope`. It is made to find
  what is in the context, for every seed, not to go past N.

  The formula and the quarter of the heads were read in summaries of the paper, none of them the
  author's; there is no released code. That the heads are the first ones, and whole groups of those
  that share keys, is ours.
  """

  paper = 'Bae 2026, arXiv:2607.21405'
  limit = 'angles are float32: with all positions a million further, outputs move by some 0.02'
  rotates_qk = True

  def __init__(
    self, dims: Dims, rngs, *, mobius_heads: int | None = None, length: int | None = None, **rotary
  ):
    """Keeps the hyperparameters.

    Args:
      mobius_heads: how many heads rotate by these frequencies, the first ones; None: those of a
        quarter of the key/value heads, rounded down but for the first.
      length: N in tokens; None: the training length.
      **rotary: the hyperparameters of Rotary; `base` is of the other heads.
    """
    super().__init__(dims, rngs, **rotary)
    group = dims.heads // dims.kv_heads
    quarter = group * max(1, dims.kv_heads // 4)
    self.mobius_heads = quarter if mobius_heads is None else mobius_heads
    check_between(0, dims.heads, mobius_heads=self.mobius_heads)
    if self.mobius_heads % group:
      allowed = f'multiples of {group}, which share keys'
      raise ValueError(f'mobius_heads={self.mobius_heads}; allowed: {allowed}')
    if self.mobius_heads == 0:
      check_unread('there are mobius_heads', length=length)
    self.length = dims.train_length if length is None else length
    check_at_least(1, length=self.length)

  def frequencies_by_head(self) -> np.ndarray:
    """Radians a position of each head of keys, float64 [G, width / 2]."""
    pairs, G = self.width // 2, self.dims.kv_heads
    odd_M = math.pi * (2 * np.arange(pairs) + 1) / self.length
    is_mobius_G = np.arange(G) * (self.dims.heads // G) < self.mobius_heads
    return np.where(is_mobius_G[:, None], odd_M[None], self.frequencies()[None])

  def turn(self, x_BTHK, position_BT):
    """x as at these positions, [B|1, T] or [B|1, T, G]."""
    frequencies_GM = jnp.asarray(self.frequencies_by_head(), jnp.float32)
    position_BTG = position_BT if position_BT.ndim == 3 else position_BT[:, :, None]
    angles_BTGM = position_BTG[..., None] * frequencies_GM[None, None]
    return rotate(x_BTHK, angles_BTGM, self.layout)

  def transform_qk(self, q_BTHK, k_BSGK, i, j):
    return self.turn(q_BTHK, i), self.turn(k_BSGK, j)
