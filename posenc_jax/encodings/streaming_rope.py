"""StreamingLLM: trained rotary encodings read at positions within a cache of sinks and a window."""

import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.bounds import check_at_least
from posenc_jax.encodings.rerope import TwoRangeRoPE
from posenc_jax.encodings.rope import Rotary


class StreamingRoPE(TwoRangeRoPE):
  """RoPE at the places that tokens have in a cache of the first tokens and the last `window`.

  Xiao et al. 2023. Within the window that is the distance i - j. A first token j, which stands
  before the window, is as far as it is in the cache: min(i, window + sink_tokens - 1) - j. The mask
  that hides all between is no part of an encoding: `attention.window` and `attention.sink_tokens`
  with the same numbers. A model trained with `rope` can be evaluated with it.

  Positions have to begin at 0, as they do by default in each document: the place in the cache is
  counted from there, so that further out first tokens would be read as later than the query.
  """

  paper = 'Xiao et al. 2023, arXiv:2309.17453'
  reported_extrapolation = 'stable to 4 million tokens, with its mask (its authors)'
  limit = (
    'positions have to begin at 0; it does not hide what lies between first tokens and window: '
    'attention.window does; ' + Rotary.limit
  )
  relative = False

  def __init__(self, dims: Dims, rngs, *, window: int | None = None, sink_tokens: int = 4, **rope):
    """Keeps the hyperparameters.

    Args:
      window: tokens; None: what the training length leaves beside the first tokens.
      sink_tokens: how many first tokens are kept.
      **rope: the hyperparameters of RoPE, as they were trained.
    """
    window = max(dims.train_length - sink_tokens, 1) if window is None else window
    super().__init__(dims, rngs, window=window, **rope)
    check_at_least(1, sink_tokens=sink_tokens)
    self.sink_tokens = sink_tokens

  def far_positions(self, i, j):
    return jnp.minimum(i, self.window + self.sink_tokens - 1), j
