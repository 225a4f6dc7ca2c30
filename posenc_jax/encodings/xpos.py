"""Rotary embedding with a decay."""

import jax.numpy as jnp
import numpy as np

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.rope import LAYOUTS, rotate

LARGEST = 80.0  # exponent of a factor in float32


class XPos(Encoding):
  """RoPE whose pair m of channels is multiplied by z_m^((i - j) / scale_base), z_m = (2m/K + gamma)
  / (1 + gamma).

  Sun et al. 2022, section 3.2. The released code gives queries z^((i - c) / scale_base), keys z^((c
  - j) / scale_base) with c in the middle of the sequence, which overflows beyond some 70,000
  positions. Here c is the first query of each block of scores: `score` takes the products again,
  and the plain ones are never computed. The positions of one block's queries must lie within 32,000
  of its first (packed documents may be no longer): a row beyond is NaN. The paper evaluates with
  blockwise causal attention, which is a mask and not part of this.
  """

  paper = 'Sun et al. 2022, arXiv:2212.10554'
  weights, claims = 'none', None
  bias_in_scale = True
  causal_only = True

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    base: float = 10_000.0,
    gamma: float = 0.4,
    scale_base: float = 512.0,
    layout: str = 'interleaved',
  ):
    """`scale_base`: positions after which pair m has decayed to z_m; `layout` as for `rope`, by
    default the code's.
    """
    super().__init__(dims, rngs)
    if dims.head_dim % 2:
      raise ValueError(f'xpos: head_dim={dims.head_dim} must be even')
    if base <= 1:
      raise ValueError(f'xpos: base={base} must be greater than 1')
    if gamma <= 0 or scale_base <= 0:
      raise ValueError(f'xpos: gamma={gamma} and scale_base={scale_base} must be greater than 0')
    if layout not in LAYOUTS:
      raise ValueError(f'xpos: layout={layout!r} must be one of {", ".join(LAYOUTS)}')
    self.base, self.gamma, self.scale_base, self.layout = base, gamma, scale_base, layout

  def decays(self) -> np.ndarray:
    """z_m, float64 [K/2]."""
    return (2 * np.arange(self.dims.head_dim // 2) / self.dims.head_dim + self.gamma) / (
      1 + self.gamma
    )

  def locate(self, x_BSD, positions_BS):
    """(position, 1), [B|1, S] each: what pads a block has 0 in both."""
    return positions_BS.astype(jnp.float32), jnp.ones(positions_BS.shape, jnp.float32)

  def transform(self, q_BTHK, k_BSGK, i, j):
    K = self.dims.head_dim
    frequencies = jnp.asarray(self.base ** (-2 * np.arange(K // 2) / K), jnp.float32)
    turn = lambda x, position: rotate(x, jnp.multiply.outer(position, frequencies), self.layout)
    return turn(q_BTHK, i[0]), turn(k_BSGK, j[0])

  def score(self, s_BHTS, q_BTHK, k_BSHK, block):
    (i, is_token), (j, _) = block.i, block.j
    log_z = np.log(self.decays()) / self.scale_base
    by_channel = jnp.asarray(
      np.repeat(log_z, 2) if self.layout == 'interleaved' else np.tile(log_z, 2), jnp.float32
    )
    ahead_BT, behind_BS = jnp.where(is_token > 0, i - i[:, :1], 0), i[:, :1] - j

    def decay(x, distance):
      # more only where masked, or NaN below
      exponent = jnp.minimum(jnp.multiply.outer(distance, by_channel), LARGEST)
      return (x.astype(jnp.float32) * jnp.exp(exponent)[:, :, None]).astype(x.dtype)

    products = jnp.einsum(
      'bthk,bshk->bhts',
      decay(q_BTHK, ahead_BT),
      decay(k_BSHK, behind_BS),
      preferred_element_type=jnp.float32,
    )
    lost_BT = jnp.abs(ahead_BT) > LARGEST / -log_z[0]
    return jnp.where(lost_BT[:, None, :, None], jnp.nan, self.scale(self.dims.head_dim) * products)
