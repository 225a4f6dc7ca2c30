"""Logits that keep the entropy of attention past the training length, by the width of heads."""

import math

import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.bounds import check_at_least
from posenc_jax.encodings.core.temperature import VisibleKeys


class InfoScale(VisibleKeys):
  """q_i max(floor, sqrt((1 - n_i^(-2/K)) / (1 - L^(-2/K)))), n_i keys that i sees (Li et al. 2025).

  Logits grow slowly past L: the factor is 1 at L and never more than its limit, 2.27 for L = 1024
  and K = 64. It is for evaluation, without training. In the released code models that read in both
  directions have no floor, and n_i is the length of the text; T5's decoder has a floor of 1, and
  n_i is i + 1, as here under a causal mask; within windows and packed documents it is as many as
  there are. Beside `cos_scale` the authors report the furthest reach: ('cos_scale', 'rope',
  'infoscale'). What other encodings add to the scores without the query is not multiplied; in the
  released code it is.
  """

  paper = 'Li et al. 2025, arXiv:2501.08570'
  reported_extrapolation = '64 L with `cos_scale`, in both directions (its authors)'

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    length: int | None = None,
    floor: float = 1.0,
    width: int | None = None,
  ):
    """Keeps the hyperparameters.

    Args:
      length: L, where the factor is 1; None: the training length.
      floor: the least factor; 0: the formula alone, which is below 1 before L.
      width: that of a query in the formula; None: K, that of a head. The released code has that of
        all heads together, which makes a difference where there are several.
    """
    super().__init__(dims, rngs)
    self.length = dims.train_length if length is None else length
    self.floor = floor
    self.width = dims.head_dim if width is None else width
    check_at_least(2, length=self.length)
    check_at_least(0, floor=floor)
    check_at_least(1, width=self.width)

  def factor(self, i):
    power = -2 / self.width
    share_BT = jnp.expm1(power * jnp.log(i)) / math.expm1(power * math.log(self.length))
    return jnp.maximum(jnp.sqrt(share_BT), self.floor)[..., None]
