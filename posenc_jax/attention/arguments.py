"""Which arguments attention takes: their types, shapes and sizes, and what an encoding asks of its
caller. Each refusal is a ValueError of one line.
"""

import numbers

import jax
import jax.numpy as jnp
import numpy as np

from posenc_jax.attention.mask import Mask
from posenc_jax.attention.positions import check_ids, check_positions
from posenc_jax.encodings.core.base import AROUND_ATTENTION, SCORE_TERMS, Encoding
from posenc_jax.errors import shown

DTYPES = (jnp.float32, jnp.bfloat16, jnp.float16)  # of queries, keys, values and inputs


def check_encoding(enc) -> None:
  """Raises ValueError for what is not an encoding."""
  if not isinstance(enc, Encoding):
    raise ValueError(f'enc={shown(enc)}; allowed: an encoding, such as posenc_jax.make returns')


def check_arrays(
  q_BTHK,
  k_BSGK,
  v_BSGK,
  enc,
  x,
  position_ids,
  segment_ids,
  mask_ids=None,
  array_mask_BTS=None,
  bias_BHTS=None,
) -> None:
  """Raises ValueError, one line, for an argument that is not an array of numbers of its
  kind, and for one that is not an encoding.
  """
  check_encoding(enc)
  arrays = {'q': q_BTHK, 'k': k_BSGK, 'v': v_BSGK, 'x': x}
  arrays |= {'position_ids': position_ids, 'segment_ids': segment_ids}
  arrays |= {'mask_ids': mask_ids, 'bias': bias_BHTS}
  for name, array in arrays.items():
    if array is None and name not in 'qkv':
      continue
    if not isinstance(array, jax.Array | np.ndarray):
      raise ValueError(f'{name} is a {type(array).__name__}; allowed: an array of jax or numpy')
    if name in ('q', 'k', 'v', 'x', 'bias') and array.dtype not in DTYPES:
      allowed = 'float32, bfloat16 or float16, for sums are float32'
      raise ValueError(f'{name} has dtype {array.dtype}; allowed: {allowed}')
  if array_mask_BTS is not None and array_mask_BTS.dtype != bool:
    allowed = 'bool, True where a query sees a key; what is added to scores is `bias`'
    raise ValueError(f'mask has dtype {array_mask_BTS.dtype}; allowed: {allowed}')


def check_shapes(q_BTHK, k_BSGK, v_BSGK, enc, x, position_ids, segment_ids) -> None:
  """Raises ValueError that names the array, its shape and the one that was expected."""
  for name, array in (('q', q_BTHK), ('k', k_BSGK), ('v', v_BSGK)):
    if array.ndim != 4:
      layout = '[batch, tokens, heads, width]'
      raise ValueError(f'{name} has shape {array.shape}; allowed: four axes, {layout}')
  if 0 in q_BTHK.shape[:2]:
    raise ValueError(f'q has shape {q_BTHK.shape}; allowed: at least one sequence and one token')
  (B, T, H, K), (_, S, G, _) = q_BTHK.shape, k_BSGK.shape
  d = enc.dims
  if (d.heads, d.head_dim) != (H, K):
    said = f'[batch, tokens, {d.heads} heads, {d.head_dim} channels] of the encoding'
    raise ValueError(f'q has shape {q_BTHK.shape}; allowed: {said}')
  if k_BSGK.shape != (B, S, d.kv_heads, K):
    said = (B, 'S', d.kv_heads, K)
    raise ValueError(f'k has shape {k_BSGK.shape}; allowed: {said}'.replace("'", ''))
  if T > S:
    problem = f'{T} queries for {S} keys: the queries are the last T of the keys'
    raise ValueError(
      f'{problem}; allowed: as many keys or more; for another sequence see docs/attend.md'
    )
  if T < S and enc.needs_all_queries:
    allowed = f'as many queries as keys, for {type(enc).__name__} reads the scores of all'
    raise ValueError(f'{T} queries for {S} keys; allowed: {allowed}')
  if v_BSGK.shape[:3] != (B, S, G):
    raise ValueError(f'v has shape {v_BSGK.shape}; allowed: {(B, S, G)} and any width')
  if enc.has('relative_values') and v_BSGK.shape[3] != K:
    why = f'for {type(enc).__name__} adds its own values'
    raise ValueError(f'v has shape {v_BSGK.shape}; allowed: {(B, S, G, K)}, {why}')
  if x is not None and x.shape != (B, S, d.model_dim):
    raise ValueError(f'x has shape {x.shape}; allowed: {(B, S, d.model_dim)}, for all keys')
  if position_ids is not None:
    if enc.takes_carried_positions:
      allowed = f'None, for those of the data {type(enc).__name__} reads at the input alone'
      raise ValueError(f'position_ids has shape {position_ids.shape}; allowed: {allowed}')
    check_positions(enc, position_ids, B, S)
  if segment_ids is not None:
    _check_integers('segment_ids', segment_ids, (B, S))


def _check_integers(name: str, ids, shape: tuple[int, int]) -> None:
  check_ids(name, ids, shape)
  if not jnp.issubdtype(ids.dtype, jnp.integer):
    raise ValueError(f'{name} has dtype {ids.dtype}; allowed: integers')


def check_pairs(q_BTHK, k_BSGK, enc, mask: Mask, mask_ids, array_mask_BTS, bias_BHTS) -> None:
  """Raises ValueError for an array that belongs to pairs and does not fit the queries and keys."""
  (B, T, H, _), S = q_BTHK.shape, k_BSGK.shape[1]
  if mask_ids is not None:
    _check_integers('mask_ids', mask_ids, (B, S))
    if mask.function is None:
      raise ValueError('mask_ids; allowed: None, unless `mask` is a function, which reads them')
  if array_mask_BTS is not None and array_mask_BTS.shape not in ((B, T, S), (1, T, S)):
    shapes = ' or '.join(str((batch, T, S)) for batch in dict.fromkeys((B, 1)))
    allowed = f'{shapes}: all heads see the same keys'
    raise ValueError(f'mask has shape {array_mask_BTS.shape}; allowed: {allowed}')
  if bias_BHTS is not None:
    sizes = B, H * enc.heads_out_per_head, T, S
    shape = bias_BHTS.shape
    if len(shape) != 4 or any(n not in (1, size) for n, size in zip(shape, sizes, strict=True)):
      raise ValueError(f'bias has shape {shape}; allowed: {sizes}, or 1 in the place of any')


def check_sizes(block_sizes, max_position_distance) -> None:
  """Raises ValueError for an invalid size."""
  is_size = lambda n, least: isinstance(n, numbers.Integral) and n >= least
  if block_sizes is not None:
    is_pair = isinstance(block_sizes, tuple | list) and len(block_sizes) == 2
    if not is_pair or not all(is_size(n, 1) for n in block_sizes):
      allowed = 'two whole numbers of at least 1, or None'
      raise ValueError(f'block_sizes={block_sizes}; allowed: {allowed}')
  if max_position_distance is not None and not is_size(max_position_distance, 0):
    said = f'max_position_distance={max_position_distance}'
    raise ValueError(f'{said}; allowed: a whole number of at least 0, or None')


def check_softcap(enc: Encoding, softcap: float) -> None:
  """Raises ValueError for an invalid soft-cap, or an encoding whose scores cannot be capped."""
  is_number = isinstance(softcap, numbers.Real) and not isinstance(softcap, bool)
  if not is_number or not 0 < softcap < float('inf'):
    raise ValueError(f'softcap={shown(softcap)}; allowed: a finite number more than 0, or None')
  if enc.normalizer != 'softmax':
    name = type(enc).__name__
    allowed = f'no soft-cap, for {name} is not normalized by softmax'
    raise ValueError(f'softcap={softcap}; allowed: {allowed}')
  if enc.hides_keys:
    allowed = f'no soft-cap, which would show the keys that {type(enc).__name__} hides'
    raise ValueError(f'softcap={softcap}; allowed: {allowed}')


def check_terms_are_read(enc: Encoding) -> None:
  """Raises ValueError for an encoding with terms that are added to scores which it is not given."""
  for part in enc.parts():
    for term in filter(part.has, SCORE_TERMS if part.recomputes_scores else ()):
      problem = f'{type(part).__name__}: defines {term}, and recomputes_scores=True'
      allowed = f'no {term}, for `score` is given no scores to add it to'
      raise ValueError(f'{problem}; allowed: {allowed}')


def check_hooks_applied(enc: Encoding) -> None:
  """Raises ValueError for an encoding that acts outside attention, where the caller has not said
  that this was applied; it names all that is to be called, in the order of a model.
  """
  asked, at = [], 'position_ids'
  if enc.has('positions_of_tokens'):
    call = 'enc.positions_of_tokens(tokens, position_ids)'
    asked.append(f'reads positions off tokens: pass the second of {call}')
    at = 'the first'
  if enc.has('sample_positions'):
    call = 'enc.sample_positions(position_ids, batch, key)'
    if enc.takes_carried_positions:
      asked.append(f'samples positions for the input: take those of {call} (None: as they are)')
    else:
      asked.append(f'samples positions for all layers: pass those of {call} (None: as they are)')
    at = 'those'
  if enc.has('add_to_input'):
    call = f'enc.add_to_input(x, {at})'
    asked.append(f'acts on the input of the first layer: apply {call} there')
  if around := ', '.join(filter(enc.has, AROUND_ATTENTION)):
    asked.append(f'acts around attention: apply its {around}')
  if asked:
    how = 'then call attend(..., outer_hooks_applied=True)'
    raise ValueError(f'{type(enc).__name__} {"; it ".join(asked)}, {how}')
