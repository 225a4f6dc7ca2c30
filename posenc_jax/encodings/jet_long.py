"""Jet-Long: trained rotary encodings read at distances of groups that grow with the call."""

import math

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.bounds import check_at_least
from posenc_jax.encodings.rerope import TwoRangeRoPE
from posenc_jax.encodings.rope import Rotary


class JetLong(TwoRangeRoPE):
  """RoPE at distance i - j below window, at i // G - j // G from there on, G = ceil(S / length).

  Tang et al. 2026, as released. S is the number of keys of the call, as it is for a `scaling` that
  depends on the length, or `context`: all pairs of a call have the same groups. Up to `length` keys
  this is `rope`, and a model trained with `rope` can be evaluated with it: at the positions 0 to
  S - 1 no distance is ever above what was trained. Where positions are given that go further than
  there are keys, some may be: the release counts positions, up to the last one. Unlike in
  Self-Extend nothing is added to distances of groups: past the window they begin anew at about
  window / G. The window counts distances from 0 on, so it is one more than the released w_0, the
  last distance that is read as it is. Groups begin at multiples of G, so that outputs change when
  all positions are shifted by the same amount.
  """

  paper = 'Tang et al. 2026, arXiv:2607.07740'
  reported_extrapolation = (
    'RULER up to 4 L: 2 to 4.8 points above the best other method (its authors, Qwen3)'
  )
  limit = (
    'without `context`, a packed document is read by groups for all keys of the call; '
    + Rotary.limit
  )
  relative = False
  reads_window_alone = False  # without `context`
  position_kind = 'integers'

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    window: int | None = None,
    length: int | None = None,
    context: int | None = None,
    **rope,
  ):
    """Keeps the hyperparameters.

    Args:
      window: tokens; None: one more than a sixteenth of the training length, which is the released
        share. At most `length`.
      length: tokens that the model was made for; None: the training length.
      context: S, the tokens that it is made to read, where positions end; None: as many as there
        are keys in a call.
      **rope: the hyperparameters of RoPE, as they were trained.
    """
    window = dims.train_length // 16 + 1 if window is None else window
    super().__init__(dims, rngs, window=window, **rope)
    self.length = dims.train_length if length is None else length
    check_at_least(1, length=self.length, context=context)
    if window > self.length:
      raise ValueError(f'window={window}; allowed: at most length={self.length}')
    self.context = self.max_length = context

  def far_positions(self, i, j):
    group = math.ceil((self.context or j.shape[1]) / self.length)
    return self._groups_before(i, group), self._groups_before(j, group)
