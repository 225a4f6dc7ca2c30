"""ReRoPE and its leaky form: trained rotary encodings read at distances that they know."""

import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.rope import RoPE
from posenc_jax.xla_ops import dot


class Reindexed(RoPE):
  """RoPE at distances below `window`; from there on RoPE at other positions of the query and the
  key.
  """

  bias_in_scale = True
  causal_only = True

  def __init__(self, dims: Dims, rngs, window: int, **rope):
    super().__init__(dims, rngs, **rope)
    if window < 1:
      raise ValueError(f'{type(self).__name__}: window={window} must be at least 1')
    self.window = window

  def far(self, i, j):
    """Positions of queries and keys that give distances of `window` and more."""
    raise NotImplementedError

  def transform(self, q_BTHK, k_BSGK, i, j):
    """Both rotations side by side: widths double."""
    S, (far_i, far_j) = k_BSGK.shape[1], self.far(i, j)
    both = lambda x, *positions: jnp.concatenate(
      [self.turn(x, position, S) for position in positions], axis=-1
    )
    return both(q_BTHK, i, far_i), both(k_BSGK, j, far_j)

  def score(self, s_BHTS, q_BTHK, k_BSHK, block):
    K = self.dims.head_dim
    product = lambda part: dot(q_BTHK[..., part].swapaxes(1, 2), k_BSHK[..., part].swapaxes(1, 2))
    near, far = product(slice(K)), product(slice(K, None))
    return self.scale(K) * jnp.where((block.r < self.window)[:, None], near, far)


class ReRoPE(Reindexed):
  """RoPE at distance min(i - j, window), as trained or for a trained run of `rope`, which has the
  same parameters.

  Su 2023. `window`: None for half the training length. The rest is RoPE's, as it was trained. Its
  author multiplies queries by max(1, ln(i + 1) / ln L) besides: that is an encoding of its own.
  """

  paper = 'Su 2023, github.com/bojone/rerope'
  weights = 'none'
  claims = 'better to 4 L, untrained (its author, 13B)'

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    window: int | None = None,
    base: float = 10_000.0,
    layout: str = 'half',
    fraction: float = 1.0,
    scaling: dict | None = None,
  ):
    window = max(dims.train_length // 2, 1) if window is None else window
    super().__init__(
      dims, rngs, window, base=base, layout=layout, fraction=fraction, scaling=scaling
    )

  def far(self, i, j):
    return jnp.full_like(i, self.window), jnp.zeros_like(j)


class LeakyReRoPE(Reindexed):
  """RoPE at distance i - j below window, and at window + (i - j - window) / leak from there on.

  Su 2023. A run of `rope` has the same parameters. `window` and the rest as for `rerope`; leak 1 is
  RoPE.
  """

  paper = ReRoPE.paper
  weights, claims = 'none', None

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    window: int | None = None,
    leak: float = 16.0,
    base: float = 10_000.0,
    layout: str = 'half',
    fraction: float = 1.0,
    scaling: dict | None = None,
  ):
    window = max(dims.train_length // 2, 1) if window is None else window
    super().__init__(
      dims, rngs, window, base=base, layout=layout, fraction=fraction, scaling=scaling
    )
    if leak < 1:
      raise ValueError(f'leaky_rerope: leak={leak} must be at least 1')
    self.leak = leak

  def far(self, i, j):
    return i / self.leak + self.window * (1 - 1 / self.leak), j / self.leak
