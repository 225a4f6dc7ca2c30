"""Rotary embedding of positions in a plane, in directions that are learned."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.rope import ByAngles, check_rotary
from posenc_jax.xla_ops import outer


class RoPEMixed(ByAngles):
  """Pair m of head h rotates by x f_hm + y g_hm, where (x, y) is a token's place (Heo et al. 2024).

  f and g are learned, for every layer and head of its own (a key/value head where there are
  fewer). They start as released: vectors (f, g) of the lengths base^(-4m/K), m < K/4, in a random
  direction of each head, and the same at a right angle to it. Without positions, both coordinates
  of a token are its index.
  """

  paper = 'Heo et al. 2024, arXiv:2403.13298'
  parameter_summary = 'two frequencies a pair of channels, head and layer'
  limit = 'angles are float32: with all positions a million further, outputs move by some 0.08'
  position_kind = 'floats'
  positions_per_token = 2
  per_layer = ('frequencies',)

  def __init__(self, dims: Dims, rngs, *, base: float = 10.0, turn_values: bool = False):
    """Draws the directions.

    Args:
      base: (f, g) has the length base^(-4m/K) at the start.
      turn_values: whether values rotate, too, and outputs back, see `ByAngles`.
    """
    super().__init__(dims, rngs, turn_values=turn_values)
    check_rotary(dims.head_dim, base, 'half')
    if dims.head_dim % 4:
      raise ValueError(f'head_dim={dims.head_dim}; allowed: multiples of 4')
    lengths_M = jnp.asarray(base ** (-4 * np.arange(dims.head_dim // 4) / dims.head_dim))
    direction_G1 = 2 * math.pi * jax.random.uniform(rngs.params(), (dims.kv_heads, 1))

    def along(axis):
      waves = axis(direction_G1), axis(direction_G1 + math.pi / 2)
      return jnp.concatenate([lengths_M[None] * wave for wave in waves], axis=1)

    both_2GM = jnp.stack([along(jnp.cos), along(jnp.sin)])
    self.frequencies = nnx.Param(both_2GM.astype(jnp.float32))

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    """Angles: float32 [B|1, S, G, K/2]."""
    places = position_ids.astype(jnp.float32)
    each = (outer(places[..., n], self.frequencies[n]) for n in range(2))
    return sum(each)
