"""A static bias adapted by the scores it is added to."""

import jax
import jax.numpy as jnp

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_at_least
from posenc_jax.encodings.core.parameters import uniform
from posenc_jax.encodings.core.registry import make_from_spec
from posenc_jax.xla_ops import exact_einsum


class AdaptedBias(Encoding):
  """The bias of another encoding, `inner`, for what adapts it by scores; one set a layer."""

  taps = 1  # keys that the weights see: the key itself, or its neighbors, too
  mixes_heads = True

  def __init__(
    self,
    dims: Dims,
    rngs,
    *,
    inner: str | dict = 'alibi',
    hidden: int = 32,
    negative_slope: float = 0.01,
  ):
    """Builds the encoding that is adapted, and the weights.

    Args:
      inner: an encoding that does nothing but add a bias: a name, or a dict of a name and
        hyperparameters.
      hidden: units between the two layers of weights.
      negative_slope: of the LeakyReLU, below 0.
    """
    super().__init__(dims, rngs)
    self.inner = make_from_spec(inner, dims, rngs)
    if not self.inner.adds_only_bias:
      allowed = 'alibi, kerple_log, fire and the like'
      raise ValueError(f'inner={inner!r} is no bias alone; allowed: {allowed}')
    check_at_least(1, hidden=hidden)
    self.negative_slope = negative_slope
    self.relative = self.inner.relative
    self.position_kind = self.inner.position_kind
    self.max_relative_distance = self.inner.max_relative_distance
    self.causal_only = type(self).causal_only or self.inner.causal_only
    self.max_length = self.inner.max_length
    self.applies_scale = bool(self.inner.bias_in_scale) or self.inner.applies_scale
    self.limit = '; '.join(filter(None, (type(self).limit, self.inner.limit))) or None
    self.switched_off = () if self.inner.has('bias') else ('tables',)
    self.per_layer = ('w_in', 'b_in', 'w_out', *(f'inner.{name}' for name in self.inner.per_layer))
    heads, taps = dims.heads, () if self.taps == 1 else (self.taps,)
    of_inputs, of_hidden = (self.taps * 2 * heads) ** -0.5, (self.taps * hidden) ** -0.5
    self.w_in = uniform(rngs, (*taps, hidden, 2 * heads), -of_inputs, of_inputs)
    self.b_in = uniform(rngs, (hidden,), -of_inputs, of_inputs)
    self.w_out = uniform(rngs, (*taps, heads, hidden), -of_hidden, of_hidden)

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    return self.inner.coordinates(x_BSD, position_ids, num_visible_BS, index_BS)

  def elements_per_pair(self, sequences, i):
    hidden, inputs = self.w_in.shape[-2:]
    own = max(self.taps * hidden, inputs) * sequences
    return max(own, self.inner.elements_per_pair(sequences, i))

  def tables(self, r_R):
    return self.inner.distance_terms(r_R)['bias']

  def inner_bias(self, s_BHTS, tile):
    """The bias of each pair, which queries and keys do not change, in the shape of the scores."""
    if self.inner.has('bias'):
      return jnp.broadcast_to(tile.tables, s_BHTS.shape)
    bias_BHTS = self.inner.score(jnp.zeros_like(s_BHTS), None, None, tile)
    return jnp.broadcast_to(bias_BHTS, s_BHTS.shape)


class DAPE(AdaptedBias):
  """s = a + b + f([a; b]), a_ij = q_i . k_j / sqrt(K), b the bias of another encoding (version 1).

  Zheng et al. 2024. f is an MLP 2H -> hidden -> H with LeakyReLU, applied to each pair over all
  heads: every layer has its own. Weights start from U(-1/sqrt(fan-in), 1/sqrt(fan-in)) as the
  linear layers of the released code do. Its bias after the last layer is left out: alike for all
  keys, it changes no softmax. The code's own FIRE has a LeakyReLU inside when it is adapted and a
  ReLU when not; here it is FIRE either way. There KERPLE's numbers are a layer's own; here, as
  without DAPE, all layers share them.
  """

  paper = 'Zheng et al. 2024, arXiv:2405.14722'
  parameter_summary = 'an MLP a layer'
  bias_in_scale = False
  exact_products = True

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    B, H, T, S = s_BHTS.shape
    b_BHTS = self.inner_bias(s_BHTS, tile)
    both_BCN = jnp.concatenate([s_BHTS, b_BHTS], axis=1).reshape(B, 2 * H, T * S)
    # Far out a bias is large: with fewer digits it would tell no near keys apart.
    hidden_BFN = exact_einsum('fc,bcn->bfn', self.w_in[...], both_BCN)
    hidden_BFN += self.b_in[...][None, :, None]
    hidden_BFN = jax.nn.leaky_relu(hidden_BFN, self.negative_slope)
    change_BHN = exact_einsum('hf,bfn->bhn', self.w_out[...], hidden_BFN)
    return s_BHTS + b_BHTS + change_BHN.reshape(B, H, T, S)
