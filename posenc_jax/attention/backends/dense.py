"""The reference: whole rows of scores, all at once, as one tile.

Where that would be too many, queries come block after block, and the backward pass computes each
block again: then memory is O(T), as a row has S numbers a head.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax

from posenc_jax import target
from posenc_jax.attention.request import AttentionRequest
from posenc_jax.attention.tiled.carry import RowCarry
from posenc_jax.attention.tiled.distance_readers import GatherDistance
from posenc_jax.attention.tiled.distance_tables import read_terms
from posenc_jax.attention.tiled.pairs import Pairs
from posenc_jax.attention.tiled.schedule import (
  cast_like,
  cut_as_last,
  first_tokens,
  ids_of,
  join_tiles,
)
from posenc_jax.attention.tiled.tile import ScoreTile, tile_attention, without_zeros
from posenc_jax.encodings.core.base import LOWEST_SEEN
from posenc_jax.xla_ops import zeros

# Numbers of pairs on a device up to which all queries come at once; the backward pass keeps several
# arrays of so many, 512 MiB each: scores of 4,096 x 4,096 tokens and eight heads.
MOST_AT_ONCE = 2**27
BLOCK = 2**25  # those of a block where there are more


def refuse(request: AttentionRequest) -> str | None:
  """None: this backend takes every request."""
  del request


def run(request: AttentionRequest):
  """o_BTHK in float32, with log-sum-exp where the request wants it. Tables are looked up pair by
  pair, which checks those of `blockwise` too.
  """
  lowest, highest = request.distance_range
  tables = read_terms(request.enc, jnp.arange(lowest, highest + 1))
  query_ids = jax.tree.map(lambda x: x[:, request.offset :], ids_of(request))
  T, rows = request.q_BTHK.shape[1], _queries_at_once(request)
  if rows == T:
    index_T = jnp.arange(request.k_BSGK.shape[1])[request.offset :]
    all_at_once = _attend(request, tables, index_T, query_ids)
    return jax.tree.map(lambda x: x.swapaxes(1, 2), all_at_once)
  queries = {name: getattr(request, name) for name in ('q_BTHK', 'i', 'sink_BTH', 'array_mask_BTS')}
  if has_bias := request.bias_BHTS is not None and request.bias_BHTS.shape[2] > 1:
    queries['bias_BHTS'] = request.bias_BHTS.swapaxes(1, 2)
  of_keys = {'k_BSGK': request.k_BSGK, 'v_BSGK': request.v_BSGK}
  # in which gradients of the blocks are added up
  in_float32 = jax.tree.map(lambda x: x.astype(jnp.float32), of_keys)

  @functools.partial(jax.checkpoint, prevent_cse=False)  # nothing of a loop is merged with another
  def attend_block(block):
    first, queries, query_ids = block
    if has_bias:
      queries = queries | {'bias_BHTS': queries['bias_BHTS'].swapaxes(1, 2)}
    changed = dataclasses.replace(request, **queries, **cast_like(in_float32, of_keys))
    return _attend(changed, tables, first + jnp.arange(rows), query_ids)

  queries, query_ids = cut_as_last((queries, query_ids), rows)
  first = jnp.arange(request.offset, request.offset + T, rows)
  return first_tokens(join_tiles(lax.map(attend_block, (first, queries, query_ids))), T)


def _queries_at_once(request: AttentionRequest) -> int:
  """How many queries a block has: all of them where that is little, where weights are made of the
  scores of all, and on a mesh that cuts sequences, where each device has its own.
  """
  T = request.q_BTHK.shape[1]
  of_a_query = request.max_elements_per_pair * request.k_BSGK.shape[1]
  is_cut = target.sequence_shards() > 1
  if T * of_a_query <= MOST_AT_ONCE or request.enc.needs_all_queries or is_cut:
    return T
  blocks = -(-T // max(1, int(BLOCK / of_a_query)))
  return -(-T // blocks)


def _attend(request: AttentionRequest, tables, index_T, query_ids):
  """What `run` returns, heads first, of queries with these indices among the keys and these ids."""
  enc = request.enc
  B, T, H, _ = request.q_BTHK.shape
  index_distance_TS = index_T[:, None] - jnp.arange(request.k_BSGK.shape[1])[None]
  key_ids = ids_of(request)
  pairs = Pairs.of_ids(request.mask, index_distance_TS, query_ids, key_ids, request.array_mask_BTS)
  reader = GatherDistance.of_range(
    pairs.distance, *request.distance_range, enc.max_relative_distance
  )
  terms = reader.terms_of_tile(tables)
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
    return o_BHTK, relative_to_BHT + jnp.log(denominator_BHT)
  return o_BHTK
