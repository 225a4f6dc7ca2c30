"""Self-Extend: trained rotary encodings read at distances of groups."""

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.bounds import check_at_least
from posenc_jax.encodings.rerope import TwoRangeRoPE
from posenc_jax.encodings.rope import Rotary


class SelfExtend(TwoRangeRoPE):
  """RoPE at distance i - j below window, at i // group - j // group + window - window // group on.

  Jin et al. 2024. A model trained with `rope` can be evaluated with it: up to
  (L - window) group + group (window // group) tokens, L the training length, it reads no distance
  of L or more. Groups begin at multiples of `group`, so that outputs change when all positions are
  shifted by the same amount. Where `group` does not divide `window`, pairs at the distance `window`
  are read at window or at window + 1, by where they stand; published codes differ there.
  """

  paper = 'Jin et al. 2024, arXiv:2401.01325'
  reported_extrapolation = 'reach: (L - window) group + window (its authors)'
  limit = (
    'where `group` does not divide `window`, pairs at the distance `window` are read at it or at '
    f'one more; {Rotary.limit}'
  )
  relative = False
  position_kind = 'integers'

  def __init__(self, dims: Dims, rngs, *, window: int | None = None, group: int = 8, **rope):
    """`window`: tokens before a query that it reads at their true distance; None: a quarter of the
    training length. `group`: tokens farther away that share a position.
    """
    window = max(dims.train_length // 4, 1) if window is None else window
    super().__init__(dims, rngs, window=window, **rope)
    check_at_least(1, group=group)
    self.group = group

  def far_positions(self, i, j):
    i, j = (self._groups_before(x, self.group) for x in (i, j))
    return i + self.window - self.window // self.group, j
