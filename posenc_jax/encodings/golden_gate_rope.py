"""Rotary embedding of positions of several axes, in fixed directions that are spread evenly."""

import math
import statistics

import jax.numpy as jnp
import numpy as np

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.bounds import check_above, check_at_least, check_between
from posenc_jax.encodings.rope import ByAngles, check_rotary
from posenc_jax.xla_ops import outer


class AlongDirections(ByAngles):
  """Pairs of channels rotate by the sum over axes of a token's position times a frequency."""

  position_kind = 'floats'

  def frequencies(self) -> np.ndarray:
    """Radians a position along each axis, float64 [axes, G|1, K/2]."""
    raise NotImplementedError

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    """Angles: float32 [B|1, S, G|1, K/2]."""
    places, frequencies = position_ids.astype(jnp.float32), self.frequencies()
    along = lambda axis: jnp.asarray(frequencies[axis], jnp.float32)
    return sum(outer(places[..., axis], along(axis)) for axis in range(len(frequencies)))


class GoldenGateRoPE(AlongDirections):
  """Pair m of head h rotates by w_m u_n . x, x a token's `axes` positions, n = h K/2 + m.

  Xiong 2025, as released. The lengths w_m are spaced evenly by their logarithms, both ends
  included; the first round(still K/2) are 0. In a plane the unit vector u_n has the angle
  n pi / golden ratio, so that any few in succession point in all directions, of either sign; heads
  have others (key/value heads where there are fewer). With more axes u_n are the points of a
  quasi-random sequence on the sphere. `rope_mixed` learns its directions and frequencies,
  `axial_rope` has those of the axes alone. Without positions, all coordinates of a token are its
  index.
  """

  paper = 'Xiong 2025, jerryxio.ng/posts/nd-rope'
  limit = 'angles are float32: with all positions a million further, outputs move by some 0.15'

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    axes: int = 2,
    slowest: float = 0.03,
    fastest: float = 3.0,
    still: float = 0.0,
    layout: str = 'half',
  ):
    """Keeps the hyperparameters.

    Args:
      axes: how many positions a token has, at least 2.
      slowest, fastest: radians a position of the first w_m that is not 0, and of the last. The
        release counts from -1 to 1 along an image; 0.2 and 20 there are some 0.03 and 3 a patch,
        where there are 14.
      still: the share of pairs that do not rotate.
      layout: as for `rope`.
    """
    super().__init__(dims, rngs, layout=layout)
    check_rotary(dims.head_dim, math.inf)
    check_at_least(2, axes=axes)
    check_above(0, slowest=slowest)
    check_at_least(slowest, fastest=fastest)
    check_between(0, 1, still=still)
    self.positions_per_token = axes
    self.slowest, self.fastest, self.still = slowest, fastest, still

  def frequencies(self):
    G, pairs, axes = self.dims.kv_heads, self.dims.head_dim // 2, self.positions_per_token
    still = round(self.still * pairs)
    turning = np.geomspace(self.slowest, self.fastest, pairs - still)
    w_M = np.concatenate([np.zeros(still), turning])
    u_nG = directions(G * pairs, axes)
    return w_M * u_nG.reshape(axes, G, pairs)


def directions(number: int, axes: int) -> np.ndarray:
  """So many unit vectors, of which any in succession are spread evenly: float64 [axes, number]."""
  if axes == 2:
    angles = np.arange(number) * math.pi * (math.sqrt(5) - 1) / 2
    return np.stack([np.cos(angles), np.sin(angles)])
  ratio = 2.0  # of x^(axes + 1) = x + 1, which is the golden one where axes is 1
  for _ in range(10):
    ratio = (1 + ratio) ** (1 / (axes + 1))
  steps = ratio ** -np.arange(1.0, axes + 1)
  shares = np.multiply.outer(steps, np.arange(1, number + 1)) % 1
  normal = np.vectorize(statistics.NormalDist().inv_cdf)(shares)  # of which directions are uniform
  return normal / np.linalg.norm(normal, axis=0)
