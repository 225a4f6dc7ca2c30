"""Rotary encodings read at other distances than those of tokens; ReRoPE and its leaky form."""

import functools
import itertools

import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.bounds import check_at_least
from posenc_jax.encodings.rope import RoPE
from posenc_jax.xla_ops import per_kv_head, scaled_dot_if_any


class ReindexedRoPE(RoPE):
  """RoPE at positions of query and key that depend on the range into which their pair falls."""

  takes_positions_per_head = False  # ranges are of distances between tokens
  bias_in_scale = True
  causal_only = True
  recomputes_scores = True

  def positions(self, i, j):
    """Positions of queries and keys for each of the `qk_width_factor` ranges, the nearest first."""
    raise NotImplementedError

  def is_beyond(self, tile):
    """For each range but the nearest, the pairs in it and in farther ones: bool [B|1, T', S']."""
    raise NotImplementedError

  def _groups_before(self, position, size: int):
    """How many whole groups of so many tokens come before a position, as a float."""
    # Half a token is added so that no quotient lies at an integer, where it might round down.
    return jnp.floor((position + 0.5) / size)

  def transform_qk(self, q_BTHK, k_BSGK, i, j):
    """The rotations of all ranges side by side."""
    S = k_BSGK.shape[1]
    of_queries, of_keys = zip(*self.positions(i, j), strict=True)
    q = [self.turn(q_BTHK, positions, S) for positions in of_queries]
    k = [self.turn(k_BSGK, positions, S) for positions in of_keys]
    return jnp.concatenate(q, axis=-1), jnp.concatenate(k, axis=-1)

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    K, s_BHTS = self.dims.head_dim, None
    beyond = [tile.mask, *self.is_beyond(tile), jnp.zeros_like(tile.mask)]
    for n, (is_here_BTS, is_farther_BTS) in enumerate(itertools.pairwise(beyond)):
      # Tiles with pairs of several ranges are few.
      is_read_BTS = tile.mask & (is_here_BTS ^ is_farther_BTS)
      product = functools.partial(scaled_dot_if_any, is_read_BTS)
      of_range = slice(n * K, (n + 1) * K)
      here_BHTS = per_kv_head(product, q_BHTK[..., of_range], k_BGSK[..., of_range])
      s_BHTS = jnp.where(is_here_BTS[:, None], here_BHTS, s_BHTS) if n else here_BHTS
    return self.scale(K) * s_BHTS


class TwoRangeRoPE(ReindexedRoPE):
  """RoPE below the distance `window`; from there on RoPE at other positions of query and key."""

  qk_width_factor = 2

  def __init__(self, dims: Dims, rngs, *, window: int, **rope):
    """`window`: the distance in tokens below which RoPE is as trained; it hides nothing,
    unlike attention.window. `rope`: the hyperparameters of RoPE, as they were trained.
    """
    super().__init__(dims, rngs, **rope)
    check_at_least(1, window=window)
    self.window = window

  def far_positions(self, i, j):
    """Positions of queries and keys that give distances of `window` and more."""
    raise NotImplementedError

  def positions(self, i, j):
    return (i, j), self.far_positions(i, j)

  def is_beyond(self, tile):
    return (tile.distance >= self.window,)


class ReRoPE(TwoRangeRoPE):
  """RoPE at distance min(i - j, window) (Su 2023).

  It can be trained with, and a model trained with `rope` can be evaluated with it. Its author also
  multiplies queries by max(1, ln(i + 1) / ln L): that is an encoding of its own, `logn`, and what
  he reports is of both in a chain, with a window of L / 4 (`rerope_logn` of configs/pretrained.py).
  LM-Infinite (Han et al. 2023, arXiv:2308.16137) is this with window L, attention.window=L, and
  attention.sink_tokens for its first tokens.
  """

  paper = 'Su 2023, github.com/bojone/rerope'
  reported_extrapolation = 'better to 4 L, untrained (its author, 13B)'

  def __init__(self, dims: Dims, rngs, *, window: int | None = None, **rope):
    """`window`: the distance in tokens below which RoPE is as trained; None: half the training
    length.
    """
    window = max(dims.train_length // 2, 1) if window is None else window
    super().__init__(dims, rngs, window=window, **rope)

  def far_positions(self, i, j):
    return jnp.full_like(i, self.window), jnp.zeros_like(j)


class LeakyReRoPE(TwoRangeRoPE):
  """RoPE at distance i - j below window, at window + (i - j - window) / leak from there on.

  Su 2023, whose code multiplies queries as beside ReRoPE (`logn`). A model trained with `rope` can
  be evaluated with it. leak 1 is RoPE.
  """

  paper = ReRoPE.paper

  def __init__(self, dims: Dims, rngs, *, window: int | None = None, leak: float = 16.0, **rope):
    """`window`: the distance in tokens below which RoPE is as trained; None: half the training
    length. `leak`: by how much the distances beyond it are divided.
    """
    window = max(dims.train_length // 2, 1) if window is None else window
    super().__init__(dims, rngs, window=window, **rope)
    check_at_least(1, leak=leak)
    self.leak = leak

  def far_positions(self, i, j):
    return i / self.leak + self.window * (1 - 1 / self.leak), j / self.leak
