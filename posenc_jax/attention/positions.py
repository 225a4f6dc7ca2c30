"""Positions of tokens: contiguous ones, those that an encoding makes for a model, and whether it
takes those that it is given.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from posenc_jax.encodings.core.base import Encoding, LengthError, check_numbers_of_positions


def contiguous_positions(S: int, segment_ids: jax.Array | np.ndarray | None = None) -> jax.Array:
  """0, 1, 2, ... within each segment: int32 [B|1, S].

  `segment_ids`: [B|1, S], where a run of equal ids is a segment; None: each row is one.
  """
  index_S = jnp.arange(S, dtype=jnp.int32)[None]
  if segment_ids is None:
    return index_S
  differs = segment_ids[:, 1:] != segment_ids[:, :-1]
  starts = jnp.pad(differs, ((0, 0), (1, 0)), constant_values=True)
  return index_S - lax.cummax(jnp.where(starts, index_S, 0), axis=1)


def positions_in_order(enc: Encoding, S: int, segment_ids=None):
  """`contiguous_positions` as an encoding takes them: the same number for each of a token's
  positions, where it has several.
  """
  return of_each_token(enc, contiguous_positions(S, segment_ids))


def positions_of_model(enc: Encoding, tokens_BS, key, segment_ids=None) -> tuple:
  """The positions of a model's tokens as its encoding has them: read off them, sampled or in order.

  `key` is as for `Encoding.sample_positions`.

  Returns:
    (those at the input, [B|1, S] or [B|1, S, n]; as arguments of `attend`, {} for those in order).
  """
  B, S = tokens_BS.shape
  in_order = positions_in_order(enc.at_input, S, segment_ids)
  if enc.has('positions_of_tokens'):
    at_input, position_ids = enc.positions_of_tokens(tokens_BS, in_order)
    return at_input, {'position_ids': position_ids, 'max_position_distance': S - 1}
  sampled = enc.sample_positions(in_order, B, key) if enc.has('sample_positions') else None
  if sampled is None:
    return in_order, {}
  return sampled, {'position_ids': sampled, 'max_position_distance': enc.max_sampled_distance(S)}


def of_each_token(enc: Encoding, index_BS):
  n = enc.positions_per_token
  return index_BS if n == 1 else jnp.broadcast_to(index_BS[..., None], (*index_BS.shape, n))


def check_positions(enc: Encoding, position_ids, B: int, S: int) -> None:
  """Raises ValueError, one line, for positions that an encoding does not take."""
  each = () if enc.positions_per_token == 1 else (enc.positions_per_token,)
  if enc.position_kind is None:
    each = position_ids.shape[2:3]
  elif enc.takes_positions_per_head and position_ids.ndim == 3:
    each = (enc.dims.kv_heads,)
  check_ids('position_ids', position_ids, (B, S, *each))
  dtype = position_ids.dtype
  if enc.position_kind == 'integers' and not jnp.issubdtype(dtype, jnp.integer):
    part = next((part for part in enc.parts() if part.position_kind == 'integers'), enc)
    allowed = f'integers, for {type(part).__name__} takes no other'
    raise ValueError(f'position_ids has dtype {dtype}; allowed: {allowed}')
  check_numbers_of_positions(position_ids)


def check_ids(name: str, ids, shape: tuple[int, ...]) -> None:
  if ids.shape not in (shape, (1, *shape[1:])):
    raise ValueError(f'{name} has shape {ids.shape}; allowed: {shape} or {(1, *shape[1:])}')


def check_length(enc: Encoding, tokens: int, segment_ids=None) -> None:
  """Raises LengthError for contiguous positions beyond the encoding's table. The lengths of
  segments are data, and not looked at.
  """
  end = enc.max_length
  if segment_ids is None and end is not None and end < tokens:
    name = type(enc).__name__
    raise LengthError(f'{tokens} positions, but those of {name} end at {end}')
