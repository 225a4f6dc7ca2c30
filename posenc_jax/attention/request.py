"""One request for attention, checked and completed: what every backend is given."""

import dataclasses
import numbers

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from posenc_jax import target
from posenc_jax.attention.mask import CAUSAL, Mask
from posenc_jax.attention.positions import (
  check_ids,
  check_length,
  check_positions,
  contiguous_positions,
  of_each_token,
)
from posenc_jax.encodings.core.base import Encoding
from posenc_jax.encodings.core.declarations import check_declared
from posenc_jax.errors import shown

# The name, for jax.checkpoint, of what a backend's backward pass reads of its forward pass: where
# it is kept, attention is not computed again.
OUTPUT = 'attention'
DTYPES = (jnp.float32, jnp.bfloat16, jnp.float16)  # of queries, keys, values and inputs


@dataclasses.dataclass(frozen=True)
class AttentionRequest:
  """All that a backend needs.

  Attributes:
    q_BTHK, k_BSGK, v_BSGK: transformed by the encoding; its hook `scale` gives `scale`.
    sink_BTH: float32 logits that join the denominator of softmax, or None.
    i, j: coordinates of the queries and the keys; a backend has None where no pair reads them.
    position_ids, segment_ids: [B|1, S]. Where a token has several positions, or each head its own,
      these are the token's index in its segment. segment_ids rise, and may be None.
    mask: which keys of its segment a query sees.
    mask_ids: what a function in `mask` reads of tokens, int32 [B|1, S], or None.
    seen_BTS: which keys a query may see beside that, bool [B|1, T, S], or None: all.
    bias_BHTS: what is added to scores last, float32 [B|1, H|1, T|1, S|1], or None.
    index_BS: the index of a token in its segment, int32 [B|1, S], or None where no mask reads it.
    softcap: the bound of scores, or None.
    block_sizes: queries and keys of a tile; None: the backend's choice.
    contiguous: whether positions rise by one within a segment: then tables lie along diagonals.
    distances: no visible pair has an i - j below the first or above the second.
    platform: what the request runs on: `target.platform`.
    wants_lse: whether a backend returns (o, log-sum-exp), else o alone: float32 [B, T, H], of each
      row of scores as softmax sees them.
  """

  enc: Encoding
  q_BTHK: jax.Array
  k_BSGK: jax.Array
  v_BSGK: jax.Array
  sink_BTH: jax.Array | None
  i: object
  j: object
  position_ids: jax.Array
  segment_ids: jax.Array | None
  mask: Mask
  mask_ids: jax.Array | None
  seen_BTS: jax.Array | None
  bias_BHTS: jax.Array | None
  index_BS: jax.Array | None
  scale: float
  softcap: float | None
  block_sizes: tuple[int, int] | None
  contiguous: bool
  distances: tuple[int, int]
  platform: str
  wants_lse: bool

  @property
  def offset(self) -> int:
    """Index of the first query among the keys."""
    return self.k_BSGK.shape[1] - self.q_BTHK.shape[1]


def build_request(
  q_BTHK,
  k_BSGK,
  v_BSGK,
  enc: Encoding,
  *,
  x=None,
  position_ids=None,
  segment_ids=None,
  mask: Mask = CAUSAL,
  mask_ids=None,
  seen_BTS=None,
  bias_BHTS=None,
  softcap: float | None = None,
  block_sizes: tuple[int, int] | None = None,
  max_position_distance: int | None = None,
  outer_hooks_applied: bool = False,
  wants_lse: bool = False,
) -> AttentionRequest:
  """Checks the arguments of `attend` and runs the hooks that act once a call.

  Raises ValueError with one line, and LengthError for contiguous positions beyond a table.
  """
  name = type(enc).__name__
  check_declared(enc, name)
  _check_shapes(q_BTHK, k_BSGK, v_BSGK, enc, x, position_ids, segment_ids)
  _check_pairs(q_BTHK, k_BSGK, enc, mask, mask_ids, seen_BTS, bias_BHTS)
  _check_sizes(block_sizes, max_position_distance)
  T, S = q_BTHK.shape[1], k_BSGK.shape[1]
  mask = mask.cut(S)
  if enc.causal_only and mask.looks_ahead:
    raise ValueError(f'{name} is defined for causal attention only')
  if enc.needs_inputs and x is None:
    raise ValueError(f'{name} reads content: attention needs x, the normalized input of the layer')
  if softcap is not None:
    check_softcap(enc, softcap)
    softcap = float(softcap)
  if wants_lse and enc.normalizer != 'softmax':
    allowed = f'False, for {name} is not normalized by softmax'
    raise ValueError(f'return_logsumexp=True; allowed: {allowed}')
  if not outer_hooks_applied:
    _refuse_lost_hooks(enc)
  if segment_ids is not None:
    segment_ids = _numbered(segment_ids)
  index_BS, contiguous = contiguous_positions(S, segment_ids), position_ids is None
  if mask.function is not None:
    both_ids = () if mask_ids is None else (mask_ids[:, S - T :], mask_ids)
    mask.check_function(index_BS[:, S - T :], index_BS, *both_ids)
  if enc.needs_visible and (mask.function is not None or seen_BTS is not None):
    raise ValueError(f'mask; allowed: None, for {name} reads how many keys a query sees')
  if contiguous:
    if not enc.takes_carried_positions:
      check_length(enc, S, segment_ids)
    position_ids = of_each_token(enc, index_BS)
    distances = (1 - min(mask.prefix or 1, S) if mask.is_causal else 1 - S, S - 1)
  else:
    if max_position_distance is None:
      max_position_distance = largest_difference(enc, position_ids)
    distances = _distance_range(enc, max_position_distance)
    position_ids = _as_data(position_ids)
  j = _coordinates(enc, x, position_ids, segment_ids, mask, index_BS)
  i = jax.tree.map(lambda c: c[:, S - T :], j)
  if position_ids.ndim == 3:  # no term depends on them
    contiguous, position_ids = True, index_BS
  scale = enc.scale(q_BTHK.shape[-1])
  q_BTHK, k_BSGK = enc.transform_qk(q_BTHK, k_BSGK, i, j)
  sink_BTH = None
  if enc.has('sink'):
    sink_BTH = jnp.broadcast_to(enc.sink(q_BTHK, i).astype(jnp.float32), q_BTHK.shape[:3])
  return AttentionRequest(
    enc=enc,
    q_BTHK=q_BTHK,
    k_BSGK=k_BSGK,
    v_BSGK=enc.transform_values(v_BSGK, j),
    sink_BTH=sink_BTH,
    i=i,
    j=j,
    position_ids=position_ids,
    segment_ids=segment_ids,
    mask=mask,
    mask_ids=None if mask_ids is None else mask_ids.astype(jnp.int32),
    seen_BTS=seen_BTS,
    bias_BHTS=None if bias_BHTS is None else bias_BHTS.astype(jnp.float32),
    index_BS=index_BS if mask.reads_index else None,
    scale=scale,
    softcap=softcap,
    block_sizes=block_sizes,
    contiguous=contiguous,
    distances=distances,
    platform=target.platform(),
    wants_lse=wants_lse,
  )


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
  seen_BTS=None,
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
  if seen_BTS is not None and seen_BTS.dtype != bool:
    allowed = 'bool, True where a query sees a key; what is added to scores is `bias`'
    raise ValueError(f'mask has dtype {seen_BTS.dtype}; allowed: {allowed}')


def _check_shapes(q_BTHK, k_BSGK, v_BSGK, enc, x, position_ids, segment_ids) -> None:
  """Raises ValueError that names the array, its shape and the one that was expected."""
  for name, array in (('q', q_BTHK), ('k', k_BSGK), ('v', v_BSGK)):
    if array.ndim != 4:
      layout = '[batch, tokens, heads, width]'
      raise ValueError(f'{name} has shape {array.shape}; allowed: four axes, {layout}')
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
    raise ValueError(f'{problem}; allowed: attention within one sequence, none across two')
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


def _check_pairs(q_BTHK, k_BSGK, enc, mask: Mask, mask_ids, seen_BTS, bias_BHTS) -> None:
  """Raises ValueError for an array that belongs to pairs and does not fit the queries and keys."""
  (B, T, H, _), S = q_BTHK.shape, k_BSGK.shape[1]
  if mask_ids is not None:
    _check_integers('mask_ids', mask_ids, (B, S))
    if mask.function is None:
      raise ValueError('mask_ids; allowed: None, unless `mask` is a function, which reads them')
  if seen_BTS is not None and seen_BTS.shape not in ((B, T, S), (1, T, S)):
    shapes = ' or '.join(str((batch, T, S)) for batch in dict.fromkeys((B, 1)))
    allowed = f'{shapes}: all heads see the same keys'
    raise ValueError(f'mask has shape {seen_BTS.shape}; allowed: {allowed}')
  if bias_BHTS is not None:
    sizes = B, H * enc.heads_per_query, T, S
    shape = bias_BHTS.shape
    if len(shape) != 4 or any(n not in (1, size) for n, size in zip(shape, sizes, strict=True)):
      raise ValueError(f'bias has shape {shape}; allowed: {sizes}, or 1 in the place of any')


def _check_sizes(block_sizes, max_position_distance) -> None:
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


def _refuse_lost_hooks(enc: Encoding) -> None:
  """Raises ValueError for an encoding that acts outside attention, where the caller has not said
  that this was applied.
  """
  name = type(enc).__name__
  how = 'then call attend(..., outer_hooks_applied=True)'
  if enc.has('positions_of_tokens'):
    call = 'enc.positions_of_tokens(tokens, position_ids)'
    raise ValueError(f'{name} reads positions off tokens: pass the second of {call}, {how}')
  if enc.has('add_to_input'):
    call = 'enc.add_to_input(x, position_ids)'
    raise ValueError(f'{name} acts on the input of the first layer: apply {call} there, {how}')
  if enc.has('initial_state'):
    call = 'its hooks enter_attention and leave_attention'
    raise ValueError(f'{name} carries a state from layer to layer: apply {call}, {how}')
  if enc.has('sample_positions'):
    call = 'enc.sample_positions(position_ids, batch, key)'
    raise ValueError(f'{name} samples positions for all layers: pass those of {call}, {how}')


def _numbered(segment_ids):
  """The runs of equal ids by their number, so that no two have the same: int32 [B|1, S]."""
  starts = segment_ids[:, 1:] != segment_ids[:, :-1]
  return jnp.cumsum(jnp.pad(starts, ((0, 0), (1, 0))), axis=1, dtype=jnp.int32)


def _count_visible(mask: Mask, index_BS, segment_ids):
  """How many keys each token sees as a query: int32 [B|1, S]. A segment is a run of equal ids."""
  backwards = None if segment_ids is None else segment_ids[:, ::-1]
  to_the_end_BS = contiguous_positions(index_BS.shape[1], backwards)[:, ::-1]
  return mask.count_visible(index_BS, index_BS + to_the_end_BS + 1)


def _as_data(position_ids):
  """Positions in 32 bits. Distances are exact whatever the dtype, and may be below 0. Tiles know
  positions as data: no backend gives them a gradient.
  """
  is_whole = jnp.issubdtype(position_ids.dtype, jnp.integer)
  return lax.stop_gradient(position_ids.astype(jnp.int32 if is_whole else jnp.float32))


def _coordinates(enc: Encoding, x, position_ids, segment_ids, mask: Mask, index_BS):
  """The coordinates of the keys. Raises ValueError where they are not floats, or of other than 32
  bits where pairs read them, which know each other by their differences.
  """
  visible_BS = _count_visible(mask, index_BS, segment_ids) if enc.needs_visible else None
  j = enc.coordinates(x, position_ids, visible_BS, index_BS)
  is_float = lambda c: jnp.issubdtype(c.dtype, jnp.floating)  # gradients of all are added up
  wrong = [c.dtype for c in jax.tree.leaves(j) if not is_float(c)]
  wrong += [c.dtype for c in jax.tree.leaves(enc.of_pairs(j)) if c.dtype != jnp.float32]
  if wrong:
    problem = f'{type(enc).__name__}: coordinates have dtype {wrong[0]}'
    raise ValueError(f'{problem}; allowed: float32')
  return j


def largest_difference(enc: Encoding, position_ids) -> int | None:
  """The largest difference of two positions of a sequence, where an encoding's terms by distance
  need it and positions are constants of the program; else None.
  """
  is_known = position_ids is not None and not isinstance(position_ids, jax.core.Tracer)
  if not (is_known and enc.has_terms and position_ids.ndim == 2):
    return None
  position_ids = np.asarray(position_ids, float)
  return int((position_ids.max(axis=1) - position_ids.min(axis=1)).max())


def _distance_range(enc, max_position_distance: int | None) -> tuple[int, int]:
  """The distances that tables hold under explicit positions: static, since it is their length."""
  if not enc.has_terms:
    return 0, 0
  ends = [n for n in (max_position_distance, enc.max_relative_distance) if n is not None]
  if not ends:
    need = 'traced positions need a static max_position_distance'
    raise ValueError(f'{type(enc).__name__} has terms by distance: {need}')
  return -min(ends), min(ends)
