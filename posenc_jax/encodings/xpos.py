"""Rotary embedding with a decay."""

import jax.numpy as jnp
import numpy as np

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_above
from posenc_jax.encodings.core.scaling.formulas import rope_frequencies
from posenc_jax.encodings.rope import Rotary, check_rotary, rotate_at
from posenc_jax.xla_ops import per_kv_head, scaled_dot

LARGEST = 80.0  # exponent of a factor in float32
LEAST_SPAN = 1024  # positions: more than the rows of a tile that any backend takes by itself


class XPos(Encoding):
  """RoPE whose pair m of channels is multiplied by z_m^((i - j) / scale_base).

  z_m = (2m/K + gamma) / (1 + gamma), Sun et al. 2022, section 3.2. The released code gives queries
  z^((i - c) / scale_base), keys z^((c - j) / scale_base) with c in the middle of the sequence,
  which overflows beyond some 70,000 positions. Here c is the first query of each tile of scores,
  and `score` makes the products itself. The positions of one tile's queries must lie within `span`
  of its first, 32,000 by default: a row beyond is NaN, and so is one that sees a key further beyond
  the first query, as where positions decrease. Packed documents may be no longer, nor may any row
  on `dense`, to which it is one tile.

  The paper evaluates with blockwise causal attention, which is a mask and not part of this: queries
  see their own block of c tokens and the one before. `attend` takes it,

    mask=lambda i, j: i // c - j // c <= 1

  and a model's config has none. With c = L / 2 all distances are below L.
  """

  paper = 'Sun et al. 2022, arXiv:2212.10554'
  parameter_summary = 'none'
  limit = (
    'positions of packed documents must lie within 32,000 of one another, by default, and on '
    '`dense`, to which a row is one tile, so must those of all queries; the mask of blocks under '
    'which the paper evaluates is an argument of `attend` alone, as its file says; '
    f'{Rotary.limit}'
  )
  position_kind = 'floats'
  bias_in_scale = True
  causal_only = True
  rotates_qk = True
  recomputes_scores = True

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
    """Keeps the hyperparameters.

    Args:
      base, layout: as for `rope`; the layout is by default the released code's.
      gamma: the larger it is, the less pairs decay.
      scale_base: positions after which pair m has decayed to z_m.
    """
    super().__init__(dims, rngs)
    check_rotary(dims.head_dim, base, layout)
    check_above(0, gamma=gamma, scale_base=scale_base)
    self.base, self.gamma, self.scale_base, self.layout = base, gamma, scale_base, layout
    if self.span() < LEAST_SPAN:
      allowed = f'factors that stay finite over {LEAST_SPAN} positions, here {self.span():.0f}'
      raise ValueError(f'gamma={gamma} with scale_base={scale_base}; allowed: {allowed}')

  def decays(self) -> np.ndarray:
    """z_m, float64 [K/2]."""
    K = self.dims.head_dim
    return (2 * np.arange(K // 2) / K + self.gamma) / (1 + self.gamma)

  def span(self) -> float:
    """How far apart positions may be for the largest factor to stay finite."""
    return LARGEST * self.scale_base / max(-float(np.log(self.decays()[0])), 1e-9)

  def transform_qk(self, q_BTHK, k_BSGK, i, j):
    frequencies = rope_frequencies(self.dims.head_dim, self.base)
    q_BTHK = rotate_at(q_BTHK, i, frequencies, self.layout)
    return q_BTHK, rotate_at(k_BSGK, j, frequencies, self.layout)

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    log_z = np.log(self.decays()) / self.scale_base
    by_channel = np.repeat(log_z, 2) if self.layout == 'interleaved' else np.tile(log_z, 2)
    by_channel = jnp.asarray(by_channel, jnp.float32)
    first_B1 = tile.i[:, :1]
    ahead_BT, behind_BS = tile.i - first_B1, first_B1 - tile.j

    def decay(x_BHTK, distance_BT):
      # A larger exponent occurs only where pairs are masked, or NaN below.
      exponent_BTK = jnp.minimum(jnp.multiply.outer(distance_BT, by_channel), LARGEST)
      decayed_BHTK = x_BHTK.astype(jnp.float32) * jnp.exp(exponent_BTK)[:, None]
      # float16 ends at exp(11), far inside `span`.
      return decayed_BHTK if x_BHTK.dtype == jnp.float16 else decayed_BHTK.astype(x_BHTK.dtype)

    q_BHTK, k_BGSK = decay(q_BHTK, ahead_BT), decay(k_BGSK, behind_BS)
    products_BHTS = per_kv_head(scaled_dot, q_BHTK, k_BGSK)
    is_far_BT, is_far_BS = jnp.abs(ahead_BT) > self.span(), -behind_BS > self.span()
    is_lost_BTS = tile.mask & (is_far_BT[:, :, None] | is_far_BS[:, None])
    s_BHTS = self.scale(self.dims.head_dim) * products_BHTS
    return jnp.where(is_lost_BTS[:, None], jnp.nan, s_BHTS)
