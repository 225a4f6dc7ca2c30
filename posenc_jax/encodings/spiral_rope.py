"""Rotary embedding of positions in a plane, along directions that share their frequencies."""

import math

import numpy as np

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.bounds import check_above, check_even
from posenc_jax.encodings.golden_gate_rope import AlongDirections
from posenc_jax.encodings.rope import check_rotary


class SpiralRoPE(AlongDirections):
  """Pairs of direction k rotate by (x cos(k pi / D) + y sin(k pi / D)) f_n, (x, y) a token's place.

    f_n = scale base^(-4n/K),   n < K/4

  Liu et al. 2026, eq. 13; x counts rows and y columns. Each of the D directions has K / (2 D) pairs
  in succession. A direction and the one at a right angle to it, k + D/2, share a set of
  frequencies; f_0 and f_1 are in the first of the D/2 sets, f_2 and f_3 in the second, and so on,
  round and round. With two directions this is `axial_rope` of the same base. `golden_gate_rope` has
  a direction for each pair, `rope_mixed` learns them. The release reads positions beyond the edge
  of an image as at the edge. Without positions, both coordinates of a token are its index.
  """

  paper = 'Liu et al. 2026, arXiv:2602.03227'
  limit = 'angles are float32: with all positions a million further, outputs move by some 0.01'
  positions_per_token = 2

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    directions: int | None = None,
    base: float = 10_000.0,
    scale: float = 1.0,
    layout: str = 'half',
  ):
    """Keeps the hyperparameters.

    Args:
      directions: D, even; 4 D has to divide K. None: 4, as the released DeiT has, or 2.
      base: f_n falls from `scale` to scale base^(4/K - 1).
      scale: radians a position of f_0; the paper has 1.5 in vision transformers.
      layout: as for `rope`.
    """
    super().__init__(dims, rngs, layout=layout)
    K = dims.head_dim
    check_rotary(K, base)
    check_even(2, directions=directions)
    check_above(0, scale=scale)
    if K % (channels := 4 * (directions or 2)):
      raise ValueError(f'head_dim={K}; allowed: multiples of {channels}, 4 a direction')
    if directions is None:
      directions = 2 if K % 16 else 4
    self.directions, self.base, self.fastest = directions, base, scale

  def frequencies(self):
    D, n = self.directions, np.arange(self.dims.head_dim // 4)
    dealt = n.reshape(-1, D // 2, 2).swapaxes(0, 1).reshape(D // 2, -1)
    f_DM = np.tile(self.fastest * self.base ** (-dealt / len(n)), (2, 1))
    phi_D1 = np.arange(D)[:, None] * math.pi / D
    return np.stack([f_DM * np.cos(phi_D1), f_DM * np.sin(phi_D1)]).reshape(2, 1, -1)
