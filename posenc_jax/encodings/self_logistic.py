"""SELF: trained rotary encodings read at distances of groups that grow along the text."""

import math

import jax.numpy as jnp
import numpy as np

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.bounds import check_above, check_at_least
from posenc_jax.encodings.rerope import TwoRangeRoPE

MOST_GROWING = 2**20  # groups of a table


class SelfLogistic(TwoRangeRoPE):
  """RoPE at distance i - j below window, at window + g(i - window) - g(j) from there on.

  SELF, Dang et al. 2025: `self_extend` whose groups grow. g(t) is the number of groups before that
  of the position t, and group n, counted from 0, has floor(C / (1 + (C - 1) e^(-r n))) tokens,
  C = `capacity` and r = `rate`: one at first, C - 1 from some group on. A model trained with `rope`
  can be evaluated with it. Groups begin at the position 0, so that outputs change when all
  positions are shifted by the same amount: the first tokens of a text are in small groups, whatever
  the query that reads them.

  As released, for a whole text; there all groups begin one token later. The released code for one
  token at a time reads keys at window + g(j), which is another formula: here a token that is
  generated sees what it sees in a whole text.
  """

  paper = 'Dang et al. 2025, arXiv:2505.17296'
  relative = False
  position_kind = 'integers'

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    window: int | None = None,
    capacity: int = 33,
    rate: float = 0.02,
    **rope,
  ):
    """Keeps the hyperparameters.

    Args:
      window: tokens; None: a quarter of the training length.
      capacity: C, one more than the tokens of the largest groups; at least 2.
      rate: r, by which groups grow; the defaults of both are the released code's.
      **rope: the hyperparameters of RoPE, as they were trained.
    """
    window = max(dims.train_length // 4, 1) if window is None else window
    super().__init__(dims, rngs, window=window, **rope)
    check_at_least(2, capacity=capacity)
    check_above(0, rate=rate)
    least = 2 * math.log(capacity - 1) / MOST_GROWING
    if rate < least:
      raise ValueError(f'rate={rate} for capacity={capacity}; allowed: at least {least}')
    self.capacity, self.rate = capacity, rate

  def ends(self) -> np.ndarray:
    """The positions behind the groups that have fewer tokens than C - 1, float64 [groups]."""
    C = self.capacity
    growing = math.ceil(2 * math.log(C - 1) / self.rate)  # C - 1 tokens at the latest from there on
    sizes = np.floor(C / (1 + (C - 1) * np.exp(-self.rate * np.arange(growing + 1))))
    return np.cumsum(sizes[sizes < C - 1])

  def groups_before(self, position):
    """g, as a float."""
    ends, position = self.ends(), position.astype(jnp.float32)
    last = float(ends[-1]) if len(ends) else 0.0
    growing = jnp.searchsorted(jnp.asarray(ends, jnp.float32), position, side='right')
    grown = len(ends) + self._groups_before(position - last, self.capacity - 1)
    return jnp.where(position < last, growing.astype(jnp.float32), grown)

  def far_positions(self, i, j):
    return self.window + self.groups_before(i - self.window), self.groups_before(j)
