"""Heads that mix their scores and their weights."""

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.encodings.core.base import WHOLE_ROWS, Dims, Encoding
from posenc_jax.xla_ops import exact_einsum


class TalkingHeads(Encoding):
  """s'_h = sum_g a_gh s_g before softmax, p'_h = sum_g b_gh p_g after it (Shazeer et al. 2020).

  Head h has the values of its own and weights p' of all, which may be below 0. a and b are H x H,
  and every layer has its own. Here they start as the identity, with which this does nothing; the
  released code draws them. The paper may have another number of heads for scores than for queries
  and for values; here it is H. In a chain it mixes what members before it leave; those behind it
  add to mixed scores, as biases do in the released code: ('talking_heads', 't5'), ('rope',
  'talking_heads'). Without the second mix it acts in tiles, and with it rows must be whole: `dense`
  alone takes them.
  """

  paper = 'Shazeer et al. 2020, arXiv:2003.02436'
  parameter_summary = 'two matrices of heads by heads a layer, or one'
  limit = WHOLE_ROWS
  position_kind = None
  normalizer = 'rows'
  mixes_heads = True
  exact_products = True
  per_layer = ('of_scores', 'of_weights')

  def __init__(self, dims: Dims, rngs, *, scores: bool = True, weights: bool = True):
    """Makes the matrices.

    Args:
      scores: whether scores are mixed.
      weights: whether weights are mixed.
    """
    super().__init__(dims, rngs)
    if not (scores or weights):
      raise ValueError('scores=False and weights=False; allowed: at least one of them True')
    if scores:
      self.of_scores = nnx.Param(jnp.eye(dims.heads, dtype=jnp.float32))
    if weights:
      self.of_weights = nnx.Param(jnp.eye(dims.heads, dtype=jnp.float32))
    else:
      self.normalizer, self.limit = 'softmax', None
    mixed = {'score': scores, 'normalize': weights}
    self.switched_off = tuple(hook for hook, is_mixed in mixed.items() if not is_mixed)

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    return mix(s_BHTS, self.of_scores[...])

  def normalize(self, s_BHTS, tile):
    return mix(jax.nn.softmax(s_BHTS, axis=-1), self.of_weights[...])


def mix(x_BHTS, w_HH):
  """sum_g w_gh x_g: [B, H, T, S]. All digits count: behind a bias, scores far out are large."""
  B, H, T, S = x_BHTS.shape
  return exact_einsum('gh,bgn->bhn', w_HH, x_BHTS.reshape(B, H, T * S)).reshape(x_BHTS.shape)
