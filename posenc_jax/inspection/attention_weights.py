"""Statistics of the attention weights of a model's heads, without any matrix of weights.

The sum of weights times values is what attention computes, in O(T) memory on every backend. So
values that are 1 for the first key and 0 for all others give the weight on the first key, values
that are positions give the mean position, and values of 1 give the sum of the weights.

What is measured are the weights p_ij that values are multiplied by, whatever an encoding does to
values or outputs besides (`kv_shift`, `vo_rope`, `shaw`, `xsa`). Where a sink joins the denominator
(`sink`, `softmax_plus_one`), or weights are no softmax (`stick_breaking`, `urpe`), the weights of a
query do not sum to 1: the weight on the first key is then as it is, and distances are means by
weight, the sum of p_ij (i - j) over that of p_ij; of weights with signs (`cog`) such a mean says
little. The first key, BOS, is left out of distances: a head that does nothing weighs it, and would
seem to look the farther the longer the window is. Distances are counted by index, whatever
positions an encoding sees.
"""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from posenc_jax.attention import attend
from posenc_jax.encodings import Encoding
from posenc_jax.encodings.core.weights_only import WeightsOnly
from posenc_jax.inspection.recorder import recorded_scores
from posenc_jax.model import decoder
from posenc_jax.model.token_nll import token_hidden

OF_ANY_WIDTH = ('dense', 'blockwise', 'diagonals', 'ring')  # backends that take any values


def weights_of_heads(layer, x_BTD, enc: Encoding, options: dict) -> jax.Array:
  """The attention weights of each head of a layer, float32 [B, H, T, T], the queries first.

  `LM.hidden` takes this function as `observe`, for looking at short texts: memory grows with the
  square of T.
  """
  return jnp.moveaxis(_weighted(layer, x_BTD, enc, options, jnp.eye(x_BTD.shape[1])), 1, 2)


def scores_of_heads(layer, x_BTD, enc: Encoding, options: dict) -> jax.Array:
  """The attention scores of each head of a layer, float32 [B, H, T, T], before a soft-cap and the
  mask. They are what softmax takes or, of encodings whose weights are no softmax, logarithms of
  weights (`relu`), and what `normalize` makes weights of. Those of hidden keys are NaN.

  `LM.hidden` takes this function as `observe`; memory is that of `weights_of_heads`.
  """
  q_BTHK, k_BTGK, _ = heads_of_layer(layer, x_BTD, enc, options)
  others = {name: x for name, x in options.items() if name not in ('state', 'block_sizes')}
  return recorded_scores(enc, q_BTHK, k_BTGK, x=layer.block_input(x_BTD, 'attention'), **others)


def heads_of_layer(
  layer, x_BTD, enc: Encoding, options: dict
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Queries, keys and values of a layer as `attend` takes them, before the encoding rotates them:
  [B, T, H, K] and twice [B, T, G, K]. `LM.hidden` takes this function as `observe`.

  Of an encoding that acts before attention (`tape`), queries and keys are rotated already, and
  values are wider by `added_value_channels`. Of one that makes several heads of each (`rope_pp`)
  heads are those before it, of which weights and scores have more.
  """
  heads = layer.project_heads(layer.block_input(x_BTD, 'attention'), enc)
  return enc.enter_attention(*heads, options.get('state'))


def head_sums(layer, x_BTD, enc: Encoding, options: dict):
  """Sums over the T queries of each head of a layer, float32 [B, H, 3].

  They are those of the weight on the first key, of the weights on all others, and of these times
  distances, each divided by T. `LM.hidden` takes this function as `observe`.
  """
  index_T = jnp.arange(x_BTD.shape[1], dtype=jnp.float32)
  values_TC = jnp.stack([index_T == 0, index_T > 0, index_T], axis=-1)
  sums_BTHC = _weighted(layer, x_BTD, enc, options, values_TC)
  first_BTH, others_BTH, index_BTH = jnp.moveaxis(sums_BTHC, -1, 0)
  distance_BTH = index_T[None, :, None] * others_BTH - index_BTH
  return jnp.stack([first_BTH, others_BTH, distance_BTH], axis=-1).mean(axis=1)


def _weighted(layer, x_BTD, enc: Encoding, options: dict, values_TC):
  """Sums of weights times values that are the same in every head, [B, T, H, C].

  In the place of a kernel that is named the fastest backend computes them, for kernels do not take
  values of any width.
  """
  y_BTD, options = layer.block_input(x_BTD, 'attention'), dict(options)
  if options.get('backend') not in OF_ANY_WIDTH:
    options |= {'backend': 'auto', 'block_sizes': None}
  q_BTHK, k_BTGK, _ = heads_of_layer(layer, x_BTD, enc, options)
  options.pop('state', None)
  values_BTGC = jnp.broadcast_to(values_TC[None, :, None], (*k_BTGK.shape[:3], values_TC.shape[1]))
  weights = WeightsOnly(enc)
  return attend(q_BTHK, k_BTGK, values_BTGC, weights, x=y_BTD, outer_hooks_applied=True, **options)


def weight_sums(model, tokens_BT, **options):
  """`head_sums` of all layers, float32 [B, N, H, 3]; queries and keys are BOS and T - 1 tokens."""
  _, sums_NBHC = token_hidden(model, tokens_BT, observe=head_sums, **options)
  return jnp.moveaxis(sums_NBHC, 0, 1)


def count_heads(config: ConfigDict, vocab: int) -> int:
  """How many heads of a layer have weights: those of queries, times what the encoding makes of one.
  Nothing is computed.
  """
  return config.model.heads * decoder.shapes(config, vocab).encodings.heads_out_per_head


def sink_rate(sums_WNHC: np.ndarray, epsilon: float) -> float:
  """The share of (window, layer, head) whose weight on the first token, in the mean over all
  queries, is more than `epsilon` (Gu et al. 2024, arXiv:2410.10781, Sink_1; 0.3 over 64 tokens).

  The first token is BOS. Their mean over heads is that of one window, too. NaN where a weight is no
  number.
  """
  if not np.isfinite(sums_WNHC).all():
    return float('nan')
  return float(np.mean(sums_WNHC[..., 0] > epsilon))


def mean_distances(sums_WNHC: np.ndarray) -> np.ndarray:
  """The mean distance in tokens from a query to the key that it weighs, [N, H]: by weight, over all
  queries of all windows, and all keys but the first. 0 is the query's own token. NaN of a head that
  weighs no key but the first.
  """
  _, others_NH, distance_NH = np.moveaxis(sums_WNHC.mean(axis=0), -1, 0)
  return distance_NH / np.where(others_NH == 0, np.nan, others_NH)
