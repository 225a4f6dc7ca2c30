"""Rotary embedding of positions of several coordinates, in directions that are learned."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.bounds import check_between
from posenc_jax.encodings.rope import ByAngles, check_rotary
from posenc_jax.xla_ops import outer


class RoPEMixed(ByAngles):
  """Pair m of head h rotates by x f_hm + y g_hm, where (x, y) is a token's place (Heo et al. 2024).

  f and g are learned, for every layer and head of its own (a key/value head where there are
  fewer). They start as released: vectors (f, g) of the lengths base^(-4m/K), m < K/4, in a random
  direction of each head, and the same at a right angle to it. With `axes` 3 a place has three
  coordinates, such as time, row and column, and a pair three frequencies, as in Mochi 1 (Genmo
  2024), a model of videos, but for the order of channels; there all layers have one table
  (`model.share_encoding='all'`). How those start is not said there; here the pairs are shared among
  three directions at right angles, random for each head, n pairs of lengths base^(-m/n), m < n, to
  each. Without positions, all coordinates of a token are its index.
  """

  paper = 'Heo et al. 2024, arXiv:2403.13298'
  parameter_summary = 'a frequency an axis, pair, head and layer'
  limit = 'angles are float32: with all positions a million further, outputs move by some 0.08'
  position_kind = 'floats'
  per_layer = ('frequencies',)

  def __init__(
    self, dims: Dims, rngs, *, base: float = 10.0, axes: int = 2, turn_values: bool = False
  ):
    """Draws the directions.

    Args:
      base: (f, g) has the length base^(-4m/K) at the start; with `axes` 3, base^(-m/n).
      axes: how many coordinates a place has, 2 or 3.
      turn_values: whether values rotate, too, and outputs back by the angles of their queries.
    """
    super().__init__(dims, rngs, turn_values=turn_values)
    check_rotary(dims.head_dim, base)
    check_between(2, 3, axes=axes)
    if axes == 2 and dims.head_dim % 4:
      raise ValueError(f'head_dim={dims.head_dim}; allowed: multiples of 4')
    self.positions_per_token = axes
    sections = [len(part) for part in np.array_split(np.arange(dims.head_dim // 2), axes)]
    lengths_M = jnp.asarray(np.concatenate([base ** (-np.arange(n) / n) for n in sections]))
    directions_AGn = _right_angles(rngs.params(), dims.kv_heads, axes)
    directions_AGM = jnp.repeat(directions_AGn, np.array(sections), axis=2)
    self.frequencies = nnx.Param((lengths_M[None, None] * directions_AGM).astype(jnp.float32))

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    """Angles: float32 [B|1, S, G, K/2]."""
    places = position_ids.astype(jnp.float32)
    each = (outer(places[..., n], self.frequencies[n]) for n in range(self.positions_per_token))
    return sum(each)


def _right_angles(key, heads: int, axes: int):
  """Vectors of length 1 at right angles, as many as axes, in a random direction of each head.

  [axes, heads, axes], of which the last counts vectors.
  """
  if axes == 2:
    angle_G1 = 2 * math.pi * jax.random.uniform(key, (heads, 1))
    angle_G2 = jnp.concatenate([angle_G1, angle_G1 + math.pi / 2], axis=1)
    return jnp.stack([jnp.cos(angle_G2), jnp.sin(angle_G2)])
  first_G3, other_G3 = jax.random.normal(key, (2, heads, 3))
  second_G3 = jnp.cross(first_G3, other_G3)
  vectors = first_G3, second_G3, jnp.cross(first_G3, second_G3)
  units = [x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in vectors]
  return jnp.stack(units, axis=-1).swapaxes(0, 1)
