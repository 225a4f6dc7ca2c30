"""Rotary embedding of which every head reads positions at a scale of its own."""

import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.bounds import check_above, check_at_least
from posenc_jax.encodings.rope import RoPE
from posenc_jax.errors import shown


class MsPoE(RoPE):
  """RoPE at the positions t / c_h, c_h = least + (greatest - least) order_h / H in head h.

  Ms-PoE, Zhang et al. 2024, for the evaluation of a model trained with `rope`. Ratios are those of
  the release: no head has the greatest.

  The release measures `order` in each layer at the end of a prompt: heads come by the share of keys
  whose weight, without positions, is over three times the mean, most first. A token would then see
  what follows it, so here `order` is given; in a pattern each layer may have its own, or be `rope`,
  as the release leaves the first two. It also takes the heads in that order for the places of heads
  in it, which is the inverse permutation: in the paper the most position-aware head has place 0.

  The release rotates a key that several heads of queries share by the ratio of the first of them:
  in the others a score depends on more than i - j. Here such a key is rotated by all their ratios,
  side by side, and a query is zero but beside its own, which is exact at H / G times the width.
  """

  paper = 'Zhang et al. 2024, arXiv:2403.04797'
  limit = 'angles are float32: with all positions a million further, outputs move by some 0.02'

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    least_ratio: float = 1.2,
    greatest_ratio: float = 1.8,
    order: tuple | None = None,
    **rope,
  ):
    """Keeps the hyperparameters.

    Args:
      least_ratio, greatest_ratio: between which the ratios c_h lie, the greatest left out.
      order: the place of each head among the ratios, from 0; None: 0, 1, 2, ...
      **rope: the hyperparameters of RoPE, as they were trained.
    """
    super().__init__(dims, rngs, **rope)
    check_above(0, least_ratio=least_ratio)
    check_at_least(least_ratio, greatest_ratio=greatest_ratio)
    self.order = tuple(range(dims.heads) if order is None else order)
    if any(type(n) is not int for n in self.order) or sorted(self.order) != [*range(dims.heads)]:
      raise ValueError(f'order={shown(order)}; allowed: each of 0 to {dims.heads - 1} once')
    step = (greatest_ratio - least_ratio) / dims.heads
    self.ratios = tuple(least_ratio + step * n for n in self.order)
    self.qk_width_factor = dims.heads // dims.kv_heads

  def transform_qk(self, q_BTHK, k_BSGK, i, j):
    (B, T, H, K), (S, G), n = q_BTHK.shape, k_BSGK.shape[1:3], self.qk_width_factor
    q_BTHK = self.turn(q_BTHK, self._positions(i).reshape(-1, T, H), S)
    is_own = jnp.eye(n, dtype=q_BTHK.dtype)[None, None, None, :, :, None]
    q_BTGnnK = q_BTHK.reshape(B, T, G, n, 1, K) * is_own
    keys = [self.turn(k_BSGK, self._positions(j)[..., m], S) for m in range(n)]
    return q_BTGnnK.reshape(B, T, H, n * K), jnp.concatenate(keys, axis=-1)

  def _positions(self, position):
    """Where each head reads positions [B|1, T] or [B|1, T, G]: [B|1, T, G, H / G]."""
    ratios_11Gn = jnp.array(self.ratios, jnp.float32).reshape(1, 1, self.dims.kv_heads, -1)
    return position.reshape(*position.shape[:2], -1, 1) / ratios_11Gn
