"""Self-Extend: trained rotary encodings read at distances of groups."""

import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.rerope import Reindexed


class SelfExtend(Reindexed):
  """RoPE at distance i - j below window, and at i // group - j // group + window - window // group
  from there on.

  Jin et al. 2024. A run of `rope` has the same parameters. It sees no distance that it was not
  trained on up to (L - window) group + window tokens. `window`: None for a quarter of the training
  length L; the rest is RoPE's, as it was trained. Groups are of positions, not of distances:
  shifted positions change what is seen.
  """

  paper = 'Jin et al. 2024, arXiv:2401.01325'
  weights = 'none'
  claims = 'reach: (L - window) group + window (its authors)'
  relative = False

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    window: int | None = None,
    group: int = 8,
    base: float = 10_000.0,
    layout: str = 'half',
    fraction: float = 1.0,
    scaling: dict | None = None,
  ):
    window = max(dims.train_length // 4, 1) if window is None else window
    super().__init__(
      dims, rngs, window, base=base, layout=layout, fraction=fraction, scaling=scaling
    )
    if group < 1:
      raise ValueError(f'self_extend: group={group} must be at least 1')
    self.group = group

  def far(self, i, j):
    # half a token: no quotient is at an integer
    number = lambda position: jnp.floor((position + 0.5) / self.group)
    return number(i) + self.window - self.window // self.group, number(j)
