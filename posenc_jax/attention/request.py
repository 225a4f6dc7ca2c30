"""One request for attention, checked and completed: what every backend is given."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from posenc_jax import target
from posenc_jax.attention.arguments import (
  check_hooks_applied,
  check_pairs,
  check_shapes,
  check_sizes,
  check_softcap,
  check_terms_are_read,
)
from posenc_jax.attention.mask import CAUSAL, Mask
from posenc_jax.attention.positions import check_length, contiguous_positions, of_each_token
from posenc_jax.distributed.mesh import devices_of_batch, seeds_of_device
from posenc_jax.encodings.core.base import Encoding, in_32_bits, is_readable
from posenc_jax.encodings.core.declarations import check_declared

# The name, for jax.checkpoint, of what a backend's backward pass reads of its forward pass: where
# it is kept, attention is not computed again.
CHECKPOINT_NAME = 'attention'
MOST_DISTANCE = 2**26  # of tables, which have a row for each distance on both sides


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
    array_mask_BTS: which keys a query may see beside that, bool [B|1, T, S], or None: all.
    bias_BHTS: what is added to scores last, float32 [B|1, H|1, T|1, S|1], or None.
    index_BS: the index of a token in its segment, int32 [B|1, S], or None where no mask reads it.
    softcap: the bound of scores, or None.
    block_sizes: queries and keys of a tile; None: the backend's choice.
    distances_by_index: whether positions are as far apart as indices within a segment: then tables
      lie along diagonals.
    distance_range: the lowest and the highest i - j that tables by distance hold. By index no
      visible pair has another; by positions, terms of another are constant from the encoding's
      `max_relative_distance` on, else NaN, and without terms the range is (0, 0).
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
  array_mask_BTS: jax.Array | None
  bias_BHTS: jax.Array | None
  index_BS: jax.Array | None
  scale: float
  softcap: float | None
  block_sizes: tuple[int, int] | None
  distances_by_index: bool
  distance_range: tuple[int, int]
  platform: str
  wants_lse: bool

  @property
  def offset(self) -> int:
    """Index of the first query among the keys."""
    return self.k_BSGK.shape[1] - self.q_BTHK.shape[1]

  @property
  def max_elements_per_pair(self) -> float:
    """How many numbers of each pair of a query and a key the largest array has, on one device."""
    B, _, H, _ = self.q_BTHK.shape
    # Of a program that is exported for any batch B is a symbol, which nothing can be compared with.
    sequences = (B if isinstance(B, int) else 1) / devices_of_batch()
    return seeds_of_device() * max(sequences * H, self.enc.elements_per_pair(sequences, self.i))


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
  array_mask_BTS=None,
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
  check_terms_are_read(enc)
  check_shapes(q_BTHK, k_BSGK, v_BSGK, enc, x, position_ids, segment_ids)
  check_pairs(q_BTHK, k_BSGK, enc, mask, mask_ids, array_mask_BTS, bias_BHTS)
  check_sizes(block_sizes, max_position_distance)
  T, S = q_BTHK.shape[1], k_BSGK.shape[1]
  mask = mask.cut(S)
  if enc.causal_only and mask.looks_ahead:
    part = next((type(part).__name__ for part in enc.parts() if part.causal_only), name)
    where = '' if part == name else f' (in {name})'
    raise ValueError(f'{part}{where} is defined for causal attention only')
  if enc.needs_inputs and x is None:
    raise ValueError(f'{name} reads content: attention needs x, the normalized input of the layer')
  if softcap is not None:
    check_softcap(enc, softcap)
    softcap = float(softcap)
  if wants_lse and enc.normalizer != 'softmax':
    allowed = f'False, for {name} is not normalized by softmax'
    raise ValueError(f'return_logsumexp=True; allowed: {allowed}')
  if not outer_hooks_applied:
    check_hooks_applied(enc)
  if segment_ids is not None:
    segment_ids = _numbered(segment_ids)
  index_BS, distances_by_index = contiguous_positions(S, segment_ids), position_ids is None
  if mask.function is not None:
    both_ids = () if mask_ids is None else (mask_ids[:, S - T :], mask_ids)
    mask.check_function(index_BS[:, S - T :], index_BS, *both_ids)
  if enc.needs_num_visible and mask.function is not None:
    allowed = 'a bool array, or of padding `segment_ids` in its place'
    raise ValueError(f'mask; allowed: {allowed}, for {name} reads how many keys a query sees')
  if distances_by_index:
    if not enc.takes_carried_positions:
      check_length(enc, S, segment_ids)
    position_ids = of_each_token(enc, index_BS)
    distance_range = (1 - min(mask.prefix or 1, S) if mask.is_causal else 1 - S, S - 1)
  else:
    if max_position_distance is None:
      max_position_distance = known_max_position_distance(enc, position_ids)
    distance_range = _distance_range(enc, max_position_distance)
    # Tiles know positions as data: no backend gives them a gradient.
    position_ids = lax.stop_gradient(in_32_bits(position_ids, is_checked=True))
  num_visible_BS = None
  if enc.needs_num_visible:
    num_visible_BS = _count_visible(mask, index_BS, segment_ids, array_mask_BTS)
  j = _coordinates(enc, x, position_ids, num_visible_BS, index_BS)
  i = jax.tree.map(lambda c: c[:, S - T :], j)
  if position_ids.ndim == 3:  # no term depends on them
    distances_by_index, position_ids = True, index_BS
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
    array_mask_BTS=array_mask_BTS,
    bias_BHTS=None if bias_BHTS is None else bias_BHTS.astype(jnp.float32),
    index_BS=index_BS if mask.reads_index else None,
    scale=scale,
    softcap=softcap,
    block_sizes=block_sizes,
    distances_by_index=distances_by_index,
    distance_range=distance_range,
    platform=target.platform(),
    wants_lse=wants_lse,
  )


def _numbered(segment_ids):
  """The runs of equal ids by their number, so that no two have the same: int32 [B|1, S]."""
  starts = segment_ids[:, 1:] != segment_ids[:, :-1]
  return jnp.cumsum(jnp.pad(starts, ((0, 0), (1, 0))), axis=1, dtype=jnp.int32)


def _count_visible(mask: Mask, index_BS, segment_ids, array_mask_BTS):
  """How many keys each token sees as a query: int32 [B|1, S]. A segment is a run of equal ids.

  `array_mask_BTS` tells of the last T tokens; a query without any key counts as with one.
  """
  S = index_BS.shape[1]
  backwards = None if segment_ids is None else segment_ids[:, ::-1]
  to_the_end_BS = contiguous_positions(S, backwards)[:, ::-1]
  num_visible_BS = mask.count_visible(index_BS, index_BS + to_the_end_BS + 1)
  if array_mask_BTS is None:
    return num_visible_BS
  offset = S - array_mask_BTS.shape[1]
  index_S = jnp.arange(S)
  distance_TS = index_S[offset:, None] - index_S[None]
  visible_BTS = array_mask_BTS & mask.visible(distance_TS, index_BS[:, offset:], index_BS)
  if segment_ids is not None:
    visible_BTS &= segment_ids[:, offset:, None] == segment_ids[:, None]
  num_visible_BT = jnp.maximum(visible_BTS.sum(axis=2), 1)
  before = jnp.broadcast_to(num_visible_BS[:, :offset], (num_visible_BT.shape[0], offset))
  return jnp.concatenate([before, num_visible_BT], axis=1)


def _coordinates(enc: Encoding, x, position_ids, num_visible_BS, index_BS):
  """The coordinates of the keys. Raises ValueError where they are no floats, or not float32 where
  pairs read them, which take differences.
  """
  j = enc.coordinates(x, position_ids, num_visible_BS, index_BS)
  is_float = lambda c: jnp.issubdtype(c.dtype, jnp.floating)  # gradients of all are added up
  wrong = [c.dtype for c in jax.tree.leaves(j) if not is_float(c)]
  wrong += [c.dtype for c in jax.tree.leaves(enc.of_pairs(j)) if c.dtype != jnp.float32]
  if wrong:
    problem = f'{type(enc).__name__}: coordinates have dtype {wrong[0]}'
    raise ValueError(f'{problem}; allowed: float32')
  return j


def known_max_position_distance(enc: Encoding, position_ids) -> int | None:
  """The largest difference of two positions of a sequence, where an encoding's terms by distance
  need it and positions are constants of the program; else None.
  """
  is_known = position_ids is not None and is_readable(position_ids)
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
  if min(ends) > MOST_DISTANCE:
    allowed = (
      f'up to {MOST_DISTANCE}, for {type(enc).__name__} has a row for each distance: count them in '
      'a coarser unit, or take an encoding without terms by distance, such as rope'
    )
    raise ValueError(
      f'positions, or max_position_distance, are up to {min(ends)} apart; allowed: {allowed}'
    )
  return -min(ends), min(ends)
