"""The oracle: the whole score matrix as one block."""

import jax.numpy as jnp

from posenc_jax.attention.request import Call
from posenc_jax.attention.tiled.carry import Sums
from posenc_jax.attention.tiled.relative import Lookup
from posenc_jax.attention.tiled.tile import Block, block_attention, visible


def refuse(call: Call) -> str | None:
  """Takes everything."""
  del call


def run(call: Call):
  """o_BTHK in float32. Tables are looked up pair by pair, so this also checks the diagonals of
  `blockwise`.
  """
  index_S = jnp.arange(call.k_BSGK.shape[1])
  order_TS = index_S[call.offset :, None] - index_S[None]
  mask_BTS = visible(order_TS, call.causal, call.window)[None]
  if call.segments_BS is not None:
    mask_BTS &= call.segments_BS[:, call.offset :, None] == call.segments_BS[:, None]
  r_BTS = jnp.where(
    mask_BTS, call.positions_BS[:, call.offset :, None] - call.positions_BS[:, None], 0
  )
  lowest, highest = call.distances
  lookup = Lookup.of(r_BTS, lowest, highest)
  tables = lookup.read(call.enc.tables(jnp.arange(lowest, highest + 1)))
  block = Block(call.i, call.j, order_TS, r_BTS, mask_BTS, tables, lookup, Sums())
  heads_major = (x.swapaxes(1, 2) for x in (call.q_BTHK, call.k_BSGK, call.v_BSGK))
  o_BHTK, sums_BHT, _ = block_attention(call.enc, *heads_major, block, call.scale)
  if call.enc.normalizer == 'softmax':
    o_BHTK /= sums_BHT[..., None]
  return o_BHTK.swapaxes(1, 2)
