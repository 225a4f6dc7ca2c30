"""Products of queries and keys of which each channel fades at a rate that tokens choose."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from posenc_jax.encodings.core.base import Dims, Encoding
from posenc_jax.encodings.core.bounds import check_above
from posenc_jax.encodings.core.parameters import normal
from posenc_jax.encodings.core.running_sums import ENDS_OF_SUMS, running_sum
from posenc_jax.xla_ops import exact_einsum, scaled_dot

CHUNK = 16  # keys that are referred to one of them


class Wall(Encoding):
  """s_ij = sum_n q_in k_jn exp(P_in - P_jn) / sqrt(K), P_t = sum_(l <= t) log sigmoid(W x_l + b).

  Wall attention, Pai et al. 2026. x is the layer's normalized input; every layer has a gate for
  every channel of every query head. A token is not forgotten by itself: the sum is over j+1..i. As
  in the released code b starts at 8, where hardly anything is forgotten, and W from N(0, 0.02^2).
  Its scalar gate and its sinks are a chain: ('wall', {'name': 'fox', 'start': 8.0}, 'sink').

  With `bound` = c the logarithm g of each gate becomes c (e^(g / c) - 1), which is above -c, so
  that no channel decays by more than e^-c at a token. The authors' package does this, with
  c = 0.86, before its kernels, which then cut nothing off; the layer of flash-linear-attention,
  which trains, does not.

  exp(P_i) and exp(-P_j) alone would under- and overflow. So a query is multiplied by exp(P_i - P_r)
  and a key by exp(P_r - P_j), where r is a token from j to i: both factors are at most 1, and one
  is 0 in float32 only where their product is. Where no such r serves all pairs, exp(P_i - P_j) is
  computed for each pair. The released kernels do so too, but between near tokens they cut exponents
  off. Scores are float32 whatever the dtype of q is.
  """

  paper = 'Pai et al. 2026, blog.tilderesearch.com/blog/wall-attn'
  parameter_summary = 'a gate a channel of every head a layer'
  reported_extrapolation = 'generalizes from 4,000 to over 200,000 tokens (its authors)'
  limit = ENDS_OF_SUMS
  position_kind = None
  bias_in_scale = True
  causal_only = True
  needs_inputs = True
  reads_qk = True
  recomputes_scores = True
  per_layer = ('w_g', 'b_g')

  def __init__(self, dims: Dims, rngs, *, start: float = 8.0, bound: float | None = None):
    """Draws the gates.

    Args:
      start: where b starts; larger gates forget less.
      bound: c, no channel decays by more than e^-c at a token; None: no bound.
    """
    super().__init__(dims, rngs)
    check_above(0, bound=bound)
    self.bound = bound
    shape = dims.heads, dims.head_dim
    self.w_g = normal(rngs, (dims.model_dim, *shape), 0.02)
    self.b_g = nnx.Param(jnp.full(shape, start, jnp.float32))

  def coordinates(self, x_BSD, position_ids, num_visible_BS, index_BS):
    """P as (whole, rest), float32 [B, S, H, K] each: see `running_sum`."""
    # exact, since sums add errors up
    logits_BSHK = exact_einsum('bsd,dhk->bshk', x_BSD.astype(jnp.float32), self.w_g[...])
    log_gates_BSHK = jax.nn.log_sigmoid(logits_BSHK + self.b_g[...][None, None])
    if self.bound is not None:
      log_gates_BSHK = self.bound * jnp.expm1(log_gates_BSHK / self.bound)
    return running_sum(log_gates_BSHK)

  def score(self, s_BHTS, q_BHTK, k_BGSK, tile):
    i, j = jax.tree.map(lambda x: x.swapaxes(1, 2), (tile.i, tile.j))
    return fading_products(
      self.scale(q_BHTK.shape[-1]) * q_BHTK.astype(jnp.float32), k_BGSK, i, j, _decay, tile
    )


def fading_products(q_BHTK, k_BGSK, i, j, decay, tile):
  """sum_n q_in k_jn decay(i, j)_n of a causal tile: float32 [B, H, T', S'].

  Refers all to the last key, where no query of the tile comes before it. Else the keys are visited
  chunk by chunk, each referred to its own last one, and for queries among them each pair is
  multiplied channel by channel.

  Args:
    q_BHTK: float32.
    i, j: what `decay` reads of tokens: pytrees of [B|1, H|1, T', ...] and [B|1, H|1, S', ...].
    decay: (i, j) -> factors of the channels, with decay(i, j) = decay(i, l) decay(l, j), at most 1
      where i is the later token and finite elsewhere.
  """
  (B, H, T, _), (_, G, S, _) = q_BHTK.shape, k_BGSK.shape
  k_BHSK = jnp.repeat(k_BGSK.astype(jnp.float32), H // G, axis=1)
  width, height = min(CHUNK, S), min(CHUNK, T)
  padding = -S % width

  def products(k_BHSK, j):
    origin = jax.tree.map(lambda x: lax.stop_gradient(x[:, :, -1:]), j)
    return scaled_dot(q_BHTK * decay(i, origin), k_BHSK * decay(origin, j))

  @jax.checkpoint
  def of_chunk(keys):
    k_BHSK, j, start = keys
    near = lambda x: lax.dynamic_slice_in_dim(x, start, height, axis=2)[:, :, :, None]
    of_pairs = decay(jax.tree.map(near, i), jax.tree.map(lambda x: x[:, :, None], j))
    near_BHTS = (near(q_BHTK) * k_BHSK[:, :, None] * of_pairs).sum(axis=-1)
    return lax.dynamic_update_slice_in_dim(products(k_BHSK, j), near_BHTS, start, axis=2)

  def chunks(x_BHSK):
    # Padding is before all keys and has faded as little as can be: each chunk ends with a key.
    x_BHSK = jnp.pad(x_BHSK, ((0, 0), (0, 0), (padding, 0), (0, 0)))
    return jnp.moveaxis(x_BHSK.reshape(*x_BHSK.shape[:2], -1, width, x_BHSK.shape[-1]), 2, 0)

  def by_chunks():
    k_NBHSK, j_N = jax.tree.map(chunks, (k_BHSK, j))
    own_N = width * jnp.arange(len(k_NBHSK)) - padding - tile.index_distance[0, 0]
    s_NBHTS = lax.map(of_chunk, (k_NBHSK, j_N, jnp.clip(own_N, 0, T - height)))
    return jnp.moveaxis(s_NBHTS, 0, -2).reshape(B, H, T, -1)[..., padding:]

  is_past = tile.index_distance[0, -1] >= 0
  return lax.cond(is_past, lambda: products(k_BHSK, j), by_chunks)


def _decay(i, j):
  """exp(P_i - P_j). Only for pairs that are masked, and padding, is the exponent more than 0."""
  return jnp.exp(jnp.minimum((i[0] - j[0]) + (i[1] - j[1]), 1.0))
