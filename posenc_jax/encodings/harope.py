"""Rotary embedding behind a learned change of the channels of each head."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax.encodings.cayley_string import angles_of_axes, antisymmetric, in_basis
from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_at_least, check_divides
from posenc_jax.encodings.core.parameters import zeros
from posenc_jax.encodings.liere import expm1_skew
from posenc_jax.encodings.rope import Rotary, check_rotary, rotate
from posenc_jax.xla_ops import exact_matmul

LEAST = 1e-6  # of the stretches, so that they have an inverse


class HARoPE(Encoding):
  """q_i and k_j become R(i) M q_i and R(j) M^-T k_j, M = U diag(s) V^T a matrix of each head.

  Head-wise adaptive RoPE, Li et al. 2025, as released, which was made for images. R is as in RoPE;
  U and V are exponentials of antisymmetric matrices and s = softplus(sigma) + 1e-6, K^2 learned
  numbers in all, for every layer and head of its own (a key/value head where there are fewer). At
  distance 0 a product is q . k whatever M is; elsewhere M says which channels rotate together, and
  how much of a product rotates at which frequency. It starts as RoPE, but for the 1e-6: U and V are
  I, and s is 1. `cayley_string` has an orthogonal M, and learned frequencies.

  Where a token has several positions, each rotates a section of the pairs by RoPE's frequencies, as
  `axial_rope` does by default; without positions, all of them are its index.
  """

  paper = 'Li et al. 2025, arXiv:2510.10489'
  parameter_summary = 'a matrix a head and layer'
  limit = Rotary.limit
  position_kind = 'floats'
  rotates_qk = True
  per_layer = ('entries', 'sigma')

  def __init__(self, dims: Dims, rngs, *, axes: int = 1, base: float = 10_000.0):
    """Sets M to the identity.

    Args:
      axes: how many positions a token has; the released model of images has 2.
      base: as for `rope`, for each axis.
    """
    super().__init__(dims, rngs)
    check_rotary(dims.head_dim, base, 'half')
    check_at_least(1, axes=axes)
    K, G = dims.head_dim, dims.kv_heads
    check_divides(K // 2, 'pairs of channels of a head', axes=axes)
    self.positions_per_token, self.base = axes, base
    self.entries = zeros(2, G, K * (K - 1) // 2)  # of the matrices whose exponentials are U and V
    self.sigma = nnx.Param(jnp.full((G, K), math.log(math.e - 1), jnp.float32))

  def matrices(self):
    """M and its inverse, transposed: float32 [G, K, K] each."""
    K = self.dims.head_dim
    one_KK = jnp.eye(K, dtype=jnp.float32)
    u_GKK, v_GKK = one_KK[None, None] + expm1_skew(antisymmetric(self.entries[...], K))
    s_G1K = jax.nn.softplus(self.sigma[...])[:, None] + LEAST
    v_GKK = v_GKK.swapaxes(-1, -2)
    made = (exact_matmul(u_GKK * stretch, v_GKK) for stretch in (s_G1K, 1 / s_G1K))
    return tuple(made)

  def transform_qk(self, q_BTHK, k_BSGK, i, j):
    axes, pairs = self.positions_per_token, self.dims.head_dim // 2
    n = pairs // axes
    f_1M = jnp.asarray(np.tile(self.base ** (-np.arange(n) / n), axes)[None], jnp.float32)

    def turned(x_BTHK, m_GKK, position):
      angles = angles_of_axes(position, f_1M, axes)
      return rotate(in_basis(x_BTHK, m_GKK), angles, 'half').astype(x_BTHK.dtype)

    of_queries, of_keys = self.matrices()
    return turned(q_BTHK, of_queries, i), turned(k_BSGK, of_keys, j)
