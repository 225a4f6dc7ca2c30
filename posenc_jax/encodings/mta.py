"""The key-query convolution of multi-token attention."""

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.encodings.core.base import ALL_ROWS, LOWEST_SEEN, MASKED, Dims, Encoding
from posenc_jax.encodings.core.bounds import check_at_least
from posenc_jax.xla_ops import exact_einsum


class MTA(Encoding):
  """p_i = softmax(s'_i), s'_ij = sum_ab w_ab s_(i-a)(j+b), a = 0 .. c_q - 1, |b| <= (c_k - 1) / 2.

    with `weights`:   p'_ij = sum_ab w'_ab p_(i-a)(j+b)   in the place of p_ij

  Golovneva et al. 2025, eq. 5: scores s of keys that a query does not see count as 0, and have no
  weight after a convolution either. A head has kernels w and w' of its own in every layer, which
  start as the identity. As in the released code a document reads nothing of the one before. The
  paper has this in every fourth layer, which is a pattern here. Its released models have `weights`,
  and a mix of heads before the softmax, a convolution over heads, and a gate and a norm of outputs,
  which are not in it. To be chained with an encoding of positions: ('rope', 'mta'); s is
  what all members made of it. All queries must be there: decoding keeps them and makes all rows
  anew for each token. All scores must be there at once: `dense` alone takes it.
  """

  paper = 'Golovneva et al. 2025, arXiv:2504.00927'
  parameter_summary = 'one or two kernels a head a layer'
  limit = ALL_ROWS
  position_kind = None
  causal_only = True
  needs_all_queries = True
  normalizer = 'rows'
  adapts_scores = True
  per_layer = ('kernels', 'kernels_of_weights')

  def __init__(
    self, dims: Dims, rngs, *, query_width: int = 6, key_width: int = 11, weights: bool = False
  ):
    """Makes the kernels.

    Args:
      query_width: c_q, of the query itself and those before it.
      key_width: c_k, an odd number, of the key itself in the middle of its neighbors.
      weights: whether weights are mixed likewise; then they may be below 0, and sum to any number.
    """
    super().__init__(dims, rngs)
    check_at_least(1, query_width=query_width, key_width=key_width)
    if key_width % 2 == 0:
      allowed = 'odd numbers, which have the key itself in the middle'
      raise ValueError(f'key_width={key_width}; allowed: {allowed}')
    identity = jnp.zeros((dims.heads, query_width, key_width), jnp.float32)
    identity = identity.at[:, 0, key_width // 2].set(1.0)
    self.kernels = nnx.Param(identity)
    self.kernels_of_weights = nnx.Param(identity) if weights else None

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    """How many tokens of its document stand before each."""
    return index_BS.astype(jnp.float32)

  def normalize(self, s_BHTS, tile):
    is_seen_BHTS = s_BHTS > LOWEST_SEEN
    new_BHTS = _convolved(s_BHTS, is_seen_BHTS, self.kernels[...], tile)
    p_BHTS = jax.nn.softmax(jnp.where(is_seen_BHTS, new_BHTS, MASKED), axis=-1)
    if self.kernels_of_weights is None:
      return p_BHTS
    return _convolved(p_BHTS, is_seen_BHTS, self.kernels_of_weights[...], tile)


def _convolved(s_BHTS, is_seen_BHTS, kernels_HQC, tile):
  """sum_ab w_ab s_(i-a)(j+b), where what a query does not see counts as 0."""
  (_, Q, C), (_, _, T, S) = kernels_HQC.shape, s_BHTS.shape
  s_BHTS = jnp.where(is_seen_BHTS, s_BHTS, 0.0)
  # Products of matrices: their gradients are some, too. Then each row goes to the queries after it.
  # All digits count: behind a bias, scores far out are large.
  padded = jnp.pad(s_BHTS, ((0, 0), (0, 0), (0, 0), (C // 2, C // 2)))
  near_BHCTS = jnp.stack([padded[..., b : b + S] for b in range(C)], axis=2)
  parts_BHQTS = exact_einsum('hqc,bhcts->bhqts', kernels_HQC, near_BHCTS)
  new_BHTS = parts_BHQTS[:, :, 0]
  for a in range(1, min(Q, T)):
    earlier_BHTS = jnp.pad(parts_BHQTS[:, :, a, : T - a], ((0, 0), (0, 0), (a, 0), (0, 0)))
    new_BHTS += jnp.where((tile.i >= a)[:, None, :, None], earlier_BHTS, 0.0)
  return new_BHTS
