"""Scores that are less where they are positive and far."""

import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_at_least, check_between


class UltraViCo(Encoding):
  """s'_ij = alpha s_ij where |i - j| > window and s_ij >= 0; else s'_ij = s_ij.

  Zhao et al. 2025. Of longer inputs than a model was trained on, far keys take the weight that it
  has learned to give to near ones; this gives some of it back, without training. To be chained
  behind an encoding of positions, ('rope', 'ultravico') or ('axial_rope', 'ultravico'): s is all of
  the score before it. i and j count tokens, whatever their positions, of which those of a video
  have several. It was made for video models that see both ways, so that half of L lies on either
  side; alpha is the released code's for 3 L. The method has two parts more that are about frames,
  and are not here: a smaller factor, beta, near multiples of the period after which a model repeats
  itself, and keys beyond L that are hidden from queries of the first frame.
  """

  paper = 'Zhao et al. 2025, arXiv:2511.20123'
  position_kind = None
  reported_extrapolation = (
    "videos of 4 L: imaging quality 40.5% above others' best (all of the method)"
  )

  def __init__(self, dims: Dims, rngs, *, window: int | None = None, alpha: float = 0.9):
    """Keeps the hyperparameters.

    Args:
      window: the distance in tokens up to which scores stay; None: half the training length.
      alpha: the factor of scores of 0 and more that are farther.
    """
    super().__init__(dims, rngs)
    self.window = dims.train_length // 2 if window is None else window
    check_at_least(0, window=self.window)
    check_between(0, 1, alpha=alpha)
    self.alpha = alpha

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    is_far_TS = jnp.abs(tile.index_distance) > self.window
    return jnp.where(is_far_TS[None, None] & (s_BHTS >= 0), self.alpha * s_BHTS, s_BHTS)
