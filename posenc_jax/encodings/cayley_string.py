"""Cayley-STRING: rotary embedding of learned frequencies in a learned basis."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_above, check_at_least, check_divides
from posenc_jax.encodings.core.parameters import zeros
from posenc_jax.encodings.rope import Rotary, check_rotary, rotate
from posenc_jax.xla_ops import exact_einsum


class CayleyString(Encoding):
  """q_i and k_j become R(i) P q_i and R(j) P k_j, R as in RoPE, P = (I - S)(I + S)^-1.

  Schenck et al. 2025, eqs. 9 and 10. S is antisymmetric, so P is orthogonal: a product of q and k
  depends on i - j, and on a basis that both share, in which pairs of channels rotate. S and the
  frequencies of R are learned, K^2 / 2 numbers in all, for every layer and head of its own (a
  key/value head where there are fewer). Here it starts as RoPE, S at 0, and of a frequency its
  logarithm is learned, exp(l / scale), as in `grape_m`. Where a token has several positions, each
  rotates a section of the pairs, at the start as in `axial_rope`; without positions, all of them
  are its index. What An et al. call STRING is another method, `string` here.
  """

  paper = 'Schenck et al. 2025, arXiv:2502.02562'
  parameter_summary = 'a matrix and frequencies a head and layer'
  limit = Rotary.limit
  position_kind = 'floats'
  rotates_qk = True
  per_layer = ('log_f', 'entries')
  parameters_depend_on = ('scale',)

  def __init__(
    self, dims: Dims, rngs, *, axes: int = 1, base: float = 10_000.0, scale: float = 16.0
  ):
    """Sets the frequencies to those of RoPE, and S to 0.

    Args:
      axes: how many positions a token has.
      base: as for `rope`, at the start; for each axis.
      scale: a step of l is a relative step of the frequency, divided by this.
    """
    super().__init__(dims, rngs)
    check_rotary(dims.head_dim, base, 'half')
    check_at_least(1, axes=axes)
    check_above(0, scale=scale)
    K, pairs = dims.head_dim, dims.head_dim // 2
    check_divides(pairs, 'pairs of channels of a head', axes=axes)
    self.positions_per_token, self.frequency_scale = axes, scale
    place_M = np.arange(pairs) % (pairs // axes)  # within the section of an axis
    log_f_M = -scale * np.log(base) * place_M * axes / pairs
    self.log_f = nnx.Param(jnp.asarray(np.tile(log_f_M, (dims.kv_heads, 1)), jnp.float32))
    self.entries = zeros(dims.kv_heads, K * (K - 1) // 2)

  def basis(self):
    """P, float32 [G, K, K]."""
    s_GKK = antisymmetric(self.entries[...], self.dims.head_dim)
    i_GKK = jnp.broadcast_to(jnp.eye(self.dims.head_dim, dtype=jnp.float32), s_GKK.shape)
    return jnp.linalg.solve(i_GKK + s_GKK, i_GKK - s_GKK)  # the two factors commute

  def transform_qk(self, q_BTHK, k_BSGK, i, j):
    p_GKK = self.basis()
    f_GM = jnp.exp(self.log_f[...] / self.frequency_scale)

    def turned(x_BTHK, position):
      z_BTHK = in_basis(x_BTHK, p_GKK)
      angles = angles_of_axes(position, f_GM, self.positions_per_token)
      return rotate(z_BTHK, angles, 'half').astype(x_BTHK.dtype)

    return turned(q_BTHK, i), turned(k_BSGK, j)


def antisymmetric(entries, K: int):
  """The matrices [..., K, K] with these entries [..., K (K - 1) / 2] above the diagonal."""
  upper = jnp.zeros((*entries.shape[:-1], K, K), jnp.float32)
  upper = upper.at[..., *np.triu_indices(K, 1)].set(entries)
  return upper - upper.swapaxes(-1, -2)


def in_basis(x_BTHK, p_GKK):
  """P x, float32; H / G heads in succession share P."""
  x_BTGhK = x_BTHK.astype(jnp.float32).reshape(*x_BTHK.shape[:2], len(p_GKK), -1, x_BTHK.shape[3])
  z_BTGhK = exact_einsum('gcd,btghd->btghc', p_GKK, x_BTGhK)
  return z_BTGhK.reshape(x_BTHK.shape)


def angles_of_axes(position, f_GM, axes: int):
  """Angles [B|1, T, G, M] at [B|1, T] or [B|1, T, axes]; each axis has a section of the pairs."""
  pairs = f_GM.shape[1]
  position_BTn = position.reshape(*position.shape[:2], -1)
  position_BTM = position_BTn[..., np.repeat(np.arange(axes), pairs // axes)]
  return position_BTM[:, :, None] * f_GM[None, None]
