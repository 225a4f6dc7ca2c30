"""Rotary embedding whose rotations are sheared and decay: blocks of a Jordan form."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_above
from posenc_jax.encodings.core.parameters import zeros
from posenc_jax.encodings.core.scaling.formulas import rope_frequencies
from posenc_jax.encodings.hyperbolic_rope import HyperbolicRoPE, tokens_passed
from posenc_jax.encodings.rope import check_rotary, rotate_at
from posenc_jax.encodings.wall import fading_products

LEAST_DECAY = 1e-4  # of the logarithm of a product, a token


class JordanRoPE(Encoding):
  """s_ij = sum_m e^(-gamma_m (i - j)) q^(m) . [[R, s_m R], [0, R]] k^(m) / sqrt(K).

    R rotates by (i - j) w_m,   w_m = base^(-2m/K),   m < K/4
    s_m = eta_m (tau(i) - tau(j)),   tau(t) = t / (1 + |t| / L)

  Jordan-RoPE, arXiv:2605.04217, of order 2. x^(m) are the channels 4m to 4m + 3, two pairs, and w
  the faster half of RoPE's frequencies. gamma = softplus(a) + 1e-4 and eta = 0.1 tanh(b) are
  learned, for every layer, head (a key/value head where there are fewer) and m. b starts at 0, so
  that at first nothing is sheared; a as released at some -18, where softplus(a) is 1e-8 and
  gradients of a are next to nothing. tau, with L the training length, keeps shears bounded but
  makes them absolute: far out hardly anything is sheared. With `bounded` False tau(t) is t, and
  scores depend on i - j alone.

  The released code multiplies queries by e^(-gamma i) and keys by e^(gamma j), whose exponents it
  cuts off at 30. Here `fading_products` of `wall`, which cuts off nothing, makes the products of q
  and k, and those of first pairs of q and second pairs of k, which shears multiply. Scores are
  float32 whatever the dtype of q is.
  """

  paper = 'Jordan-RoPE, arXiv:2605.04217'
  parameter_summary = 'a decay and a shear a block, head and layer'
  limit = (
    f'{HyperbolicRoPE.limit}; '
    'angles are float32: with all positions a million further, outputs move by some 0.02'
  )
  bias_in_scale = True
  causal_only = True
  rotates_qk = True
  reads_qk = True
  recomputes_scores = True
  per_layer = ('a', 'b')

  def __init__(
    self, dims: Dims, rngs, *, bounded: bool = True, base: float = 10_000.0, start: float = 1e-8
  ):
    """Sets the decays and the shears at the start.

    Args:
      bounded: whether tau is bounded; if not, attention does not change where all positions shift.
      base: w_m is base^(-2m/K).
      start: softplus(a) at the start; where a is to be learned, one that is not so small.
    """
    super().__init__(dims, rngs)
    check_rotary(dims.head_dim, base, 'interleaved')
    check_above(0, start=start)
    if dims.head_dim % 4:
      raise ValueError(f'head_dim={dims.head_dim}; allowed: multiples of 4')
    self.bounded, self.base, self.relative = bounded, base, not bounded
    shape = dims.kv_heads, dims.head_dim // 4
    self.a = nnx.Param(jnp.full(shape, start + np.log(-np.expm1(-start)), jnp.float32))
    self.b = zeros(*shape)

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    """(position, tokens passed in the row): float32 [B|1, S] each."""
    return position_ids.astype(jnp.float32), tokens_passed(position_ids, index_BS)

  def transform_qk(self, q_BTHK, k_BSGK, i, j):
    K = self.dims.head_dim
    frequencies = np.repeat(rope_frequencies(K, self.base)[: K // 4], 2)
    turn = lambda x_BTHK, place: rotate_at(x_BTHK, -place[0], frequencies, 'interleaved')
    return turn(q_BTHK, i), turn(k_BSGK, j)

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    of_heads = lambda x_GM: jnp.repeat(x_GM, self.dims.heads // self.dims.kv_heads, axis=0)
    gamma_HM = of_heads(jax.nn.softplus(self.a[...]) + LEAST_DECAY)
    eta_HM = of_heads(0.1 * jnp.tanh(self.b[...]))
    i, j = (passed_BS[:, None, :, None] for _, passed_BS in (tile.i, tile.j))

    def products(q_BHTN, k_BGSN):
      rates_HN = jnp.repeat(gamma_HM, q_BHTN.shape[-1] // gamma_HM.shape[1], axis=1)

      def decay(i, j):
        distance = i - j
        rates = rates_HN.reshape(1, len(rates_HN), *[1] * (distance.ndim - 3), -1)
        # Only for pairs that are masked, and padding, is the exponent more than 0.
        return jnp.exp(jnp.minimum(-distance * rates, 1.0))

      return fading_products(q_BHTN, k_BGSN, i, j, decay, tile)

    q_BHTK = self.scale(q_BHTK.shape[-1]) * q_BHTK.astype(jnp.float32)
    pairs = lambda x_BHTK, which: x_BHTK.reshape(*x_BHTK.shape[:-1], -1, 2, 2)[..., which, :]
    joined = lambda x_BHTM2: x_BHTM2.reshape(*x_BHTM2.shape[:-2], -1)
    sheared_q = joined(eta_HM[None, :, None, :, None] * pairs(q_BHTK, 0))
    sheared_BHTS = products(sheared_q, joined(pairs(k_BGSK, 1)))
    shears = tile.difference(*(self.tau(place_BS)[..., None] for place_BS, _ in (tile.i, tile.j)))
    return products(q_BHTK, k_BGSK) + shears * sheared_BHTS

  def tau(self, t):
    """What shears are proportional to, of positions."""
    return t / (1 + jnp.abs(t) / self.dims.train_length) if self.bounded else t
