"""Logits that keep the entropy of attention past the training length, by the width of heads."""

import math

import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims
from posenc_jax.encodings.core.bounds import check_at_least
from posenc_jax.encodings.core.temperature import VisibleKeys


class InfoScale(VisibleKeys):
  """q_i sqrt((1 - n_i^(-2/K)) / (1 - L^(-2/K))), n_i keys that i sees: logits grow slowly past L.

  Li et al. 2025, as released. It is 1 at L, below it for all fewer keys (0 where a token sees
  itself alone, which changes nothing without a sink) and never more than its limit, 2.27 for
  L = 1024 and K = 64.
  The authors apply it at evaluation, without training, to a model that reads in both directions:
  there n_i is the length of the text. Under a causal mask n_i is i + 1, within windows and packed
  documents as many as there are. Beside `cos_scale` they report the furthest reach: ('cos_scale',
  'rope', 'infoscale'). What other encodings add to the scores without the query is not multiplied.
  """

  paper = 'Li et al. 2025, arXiv:2501.08570'
  reported_extrapolation = '64 L with `cos_scale`, in both directions (its authors)'

  def __init__(self, dims: Dims, rngs, *, length: int | None = None):
    """`length`: L, where the factor is 1; None: the training length."""
    super().__init__(dims, rngs)
    self.length = dims.train_length if length is None else length
    check_at_least(2, length=self.length)

  def factor(self, i):
    power = -2 / self.dims.head_dim
    share_BT = jnp.expm1(power * jnp.log(i)) / math.expm1(power * math.log(self.length))
    return jnp.sqrt(share_BT)[..., None]
