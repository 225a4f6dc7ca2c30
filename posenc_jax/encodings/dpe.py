"""DPE: trained rotary encodings read at distances of groups, of a size for each frequency."""

import jax.numpy as jnp
import numpy as np

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.registry import MAX_INTEGER
from posenc_jax.encodings.rerope import TwoRangeRoPE
from posenc_jax.encodings.rope import Rotary, rotate
from posenc_jax.errors import shown


class DPE(TwoRangeRoPE):
  """RoPE at distance i - j below window, at i // s - j // s + window - window / s from there on.

  Dimension-wise positional embeddings manipulation, Lu et al. 2025: `self_extend` with a group size
  s for each of several equal shares of the pairs of channels, in the order of their frequencies. A
  model trained with `rope` can be evaluated with it. With one share it is `self_extend`, but where
  s does not divide `window`: as released, the quotient is not rounded there.

  The authors find the sizes for each model, by tasks that read one share alone, and leave channels
  as they are that are not among the largest of a head by the norms of q and k. That choice, which
  needs a calibration on text and is off by default in the released code, is left out.
  """

  paper = 'Lu et al. 2025, arXiv:2504.18857'
  reported_extrapolation = '128k tokens by Llama 3 8B of 8k, untrained (its authors)'
  limit = (
    'where a group size does not divide `window`, pairs at the distance `window` are read at one '
    f'that differs from it by less than 1; {Rotary.limit}'
  )
  relative = False
  position_kind = 'integers'

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    window: int | None = None,
    groups: tuple = (2, 8, 2, 8, 32, 32, 32, 4),
    **rope,
  ):
    """Keeps the hyperparameters.

    Args:
      window: tokens; None: an eighth of the training length, the share of Llama 3.
      groups: the sizes s, that of the fastest pairs first; by default those of Llama 3 8B for 16
        times its training length. Where they are more than pairs, some are read by none.
      **rope: the hyperparameters of RoPE, as they were trained.
    """
    window = max(dims.train_length // 8, 1) if window is None else window
    super().__init__(dims, rngs, window=window, **rope)
    if not groups or not all(type(s) is int and 0 < s <= MAX_INTEGER for s in groups):
      allowed = f'whole numbers from 1 to {MAX_INTEGER}, at least one'
      raise ValueError(f'groups={shown(groups)}; allowed: {allowed}')
    self.groups = tuple(groups)

  def far_positions(self, i, j):
    """Positions of each pair of channels: float32 [B|1, T, width / 2]."""
    pairs = self.width // 2
    size_M = np.take(self.groups, np.arange(pairs) * len(self.groups) // pairs)
    size_11M = jnp.asarray(size_M, jnp.float32)[None, None]
    i, j = (self._groups_before(x[..., None], size_11M) for x in (i, j))
    return i + self.window - self.window / size_11M, j

  def turn(self, x_BTHK, position_BT, length: int):
    if position_BT.ndim == 2:
      return super().turn(x_BTHK, position_BT, length)
    frequencies, factor = self.spectrum(length)
    angles_BTM = position_BT * jnp.asarray(frequencies, jnp.float32)[None, None]
    return rotate(x_BTHK, angles_BTM, self.layout, factor)
