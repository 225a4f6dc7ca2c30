"""Self-Extend: trained rotary encodings read at distances of groups."""

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.bounds import check_at_least
from posenc_jax.encodings.rerope import TwoRangeRoPE
from posenc_jax.encodings.rope import Rotary


class SelfExtend(TwoRangeRoPE):
  """RoPE at distance i - j below window, at i // group - j // group + window - window // group on.

  Jin et al. 2024. A run of `rope` has the same parameters. It sees no distance that it was not
  trained on up to (L - window) group + window tokens. Groups are of positions, not of distances:
  shifted positions change what is seen. Where `group` does not divide `window`, the distance
  `window` is seen as itself or as one more, by where the pair stands; published codes differ there.
  """

  paper = 'Jin et al. 2024, arXiv:2401.01325'
  reported_extrapolation = 'reach: (L - window) group + window (its authors)'
  limit = (
    'where `group` does not divide `window`, the distance `window` is seen as itself or as one '
    f'more; {Rotary.limit}'
  )
  relative = False
  position_kind = 'integers'

  def __init__(self, dims: Dims, rngs, *, window: int | None = None, group: int = 8, **rope):
    """`window`: tokens; None: a quarter of the training length. `rope`: as for TwoRangeRoPE."""
    window = max(dims.train_length // 4, 1) if window is None else window
    super().__init__(dims, rngs, window=window, **rope)
    check_at_least(1, group=group)
    self.group = group

  def far_positions(self, i, j):
    i, j = (self._groups_before(x, self.group) for x in (i, j))
    return i + self.window - self.window // self.group, j
