"""The reference: all scores at once, as one tile."""

import jax
import jax.numpy as jnp
from jax import lax

from posenc_jax.attention.request import AttentionRequest
from posenc_jax.attention.tiled.carry import RowCarry
from posenc_jax.attention.tiled.distance_readers import GatherDistance
from posenc_jax.attention.tiled.distance_tables import read_terms
from posenc_jax.attention.tiled.pairs import Pairs
from posenc_jax.attention.tiled.schedule import ids_of
from posenc_jax.attention.tiled.tile import ScoreTile, tile_attention, without_zeros
from posenc_jax.encodings.core.base import LOWEST_SEEN
from posenc_jax.xla_ops import zeros


def refuse(request: AttentionRequest) -> str | None:
  """None: this backend takes every request."""
  del request


def run(request: AttentionRequest):
  """o_BTHK in float32, with log-sum-exp where the request wants it. Tables are looked up pair by
  pair, which checks those of `blockwise` too.
  """
  enc, offset = request.enc, request.offset
  B, T, H, _ = request.q_BTHK.shape
  index_S = jnp.arange(request.k_BSGK.shape[1])
  index_distance_TS = index_S[offset:, None] - index_S[None]
  key_ids = ids_of(request)
  query_ids = jax.tree.map(lambda x: x[:, offset:], key_ids)
  pairs = Pairs.of_ids(request.mask, index_distance_TS, query_ids, key_ids, request.seen_BTS)
  lowest, highest = request.distances
  reader = GatherDistance.of_range(pairs.distance, lowest, highest, enc.max_relative_distance)
  terms = reader.terms_of_tile(read_terms(enc, jnp.arange(lowest, highest + 1)))
  first = tuple(zeros((B, H, T, *shape), jnp.float32, request.q_BTHK) for shape in enc.scans_keys)
  carry = RowCarry(first, is_rightmost=True)
  tile = ScoreTile(request.i, request.j, *pairs, terms, reader, carry)
  heads_first = (x.swapaxes(1, 2) for x in (request.q_BTHK, request.k_BSGK, request.v_BSGK))
  sink_BHT = maxima_BHT = None
  if request.sink_BTH is not None:
    sink_BHT = request.sink_BTH.swapaxes(1, 2)
    maxima_BHT = jnp.maximum(lax.stop_gradient(sink_BHT), LOWEST_SEEN)
  o_BHTK, denominator_BHT, relative_to_BHT = tile_attention(
    enc,
    *heads_first,
    tile,
    request.scale,
    request.softcap,
    max_BHT=maxima_BHT,
    bias_BHTS=request.bias_BHTS,
  )
  if sink_BHT is not None:
    denominator_BHT += jnp.exp(sink_BHT - relative_to_BHT)
  denominator_BHT = without_zeros(denominator_BHT)
  if enc.normalizer == 'softmax':
    o_BHTK /= denominator_BHT[..., None]
  if request.wants_lse:
    lse_BHT = relative_to_BHT + jnp.log(denominator_BHT)
    return o_BHTK.swapaxes(1, 2), lse_BHT.swapaxes(1, 2)
  return o_BHTK.swapaxes(1, 2)
