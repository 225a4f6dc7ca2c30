"""One tile of the score matrix: what an encoding sees of it, and the only place that knows softmax.

Arrays are heads first here, so that products need no copies.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from posenc_jax.attention.tiled.carry import RowCarry
from posenc_jax.attention.tiled.distance_readers import (
  ConstantDistance,
  GatherDistance,
  ToeplitzDistance,
)
from posenc_jax.attention.tiled.pairs import Pairs
from posenc_jax.attention.tiled.schedule import TileSchedule
from posenc_jax.encodings.core.base import LOWEST_SEEN, MASKED
from posenc_jax.xla_ops import materialize_on_cpu, per_kv_head, scaled_dot, weighted_sum


@dataclasses.dataclass(frozen=True)
class ScoreTile:
  """T' queries and S' keys, as `score` of an encoding sees them.

  Attributes:
    i, j: coordinates of the queries and the keys: pytrees of [B|1, T', ...] and [B|1, S', ...].
    index_distance: i - j by index, int32 [T', S'].
    distance: i - j by position, [B|1, T', S'] in the dtype of positions, 0 where masked; by index
      where a token has several positions, or each head its own.
    mask: which keys a query sees, bool [B|1, T', S'].
    terms: the encoding's distance terms cut to the tile, by hook: scalars as [B|1, H|1, T', S'],
      ready to add; vectors as the rows that query_dot, key_dot and sum_by_distance take.
    reader: reads vectors by distance.
    carry: what `score` carries along the keys.
  """

  i: Any
  j: Any
  index_distance: jax.Array
  distance: jax.Array
  mask: jax.Array
  terms: dict
  reader: ToeplitzDistance | ConstantDistance | GatherDistance
  carry: RowCarry

  @property
  def tables(self) -> Any:
    """What the encoding's hook `tables` returned, cut to the tile like the other terms."""
    return self.terms['tables']

  def add_score_terms(self, s_BHTS, q_BHTK, k_BGSK):
    """The scores with the declared terms of the encoding added."""
    if 'relative_keys' in self.terms:
      s_BHTS += self.query_dot(q_BHTK, self.terms['relative_keys'])
    if 'relative_queries' in self.terms:
      k_BHSK = jnp.repeat(k_BGSK, q_BHTK.shape[1] // k_BGSK.shape[1], axis=1)
      s_BHTS += self.reader.key_dot(k_BHSK, self.terms['relative_queries'])
    if 'bias' in self.terms:
      s_BHTS += self.terms['bias']
    return s_BHTS

  def query_dot(self, q_BHTK: jax.Array, rows: jax.Array) -> jax.Array:
    """q_i . table[i - j]: [B, H, T', S']."""
    return self.reader.query_dot(q_BHTK, rows)

  def difference(self, x_BTH: jax.Array, y_BSH: jax.Array) -> jax.Array:
    """x_i - y_j for every pair and head: [B|1, H, T', S']."""
    # Else each pair would read both with a stride of H.
    x_BHT = materialize_on_cpu(x_BTH.swapaxes(1, 2))
    y_BHS = materialize_on_cpu(y_BSH.swapaxes(1, 2))
    return x_BHT[..., None] - y_BHS[:, :, None]

  def suffix_sum(self, x_BHTS: jax.Array, inclusive: bool = True) -> jax.Array:
    """Sum of x over visible keys j .. i (j + 1 .. i if not inclusive), also in tiles to the right.

    Has the shape of x, in float32. One value of `scans_keys`, of shape ().
    """
    x_BHTS = jnp.where(self.mask[:, None], x_BHTS, 0.0).astype(jnp.float32)
    return self.carry.suffix_sum(x_BHTS, inclusive)

  def scan_keys(self, step: Callable) -> Any:
    """The result of step(carried) -> (result, total), one value of `scans_keys`.

    `carried` is the total of the tile to the right, zeros in the rightmost: float32 [B, H, T', ...]
    with the declared shape, for what a query gathers on its way leftwards over its keys.
    """
    return self.carry.scan_keys(step)

  def cond_saturated(self, bound: float, near: Callable, far: Callable) -> Any:
    """near(), which takes one suffix_sum; or far() where that sum is at least `bound` for all.

    The sums carried from tiles to the right tell, so that sums of what is not negative need not be
    taken everywhere; where nothing is known, near(). Both must agree there.
    """
    return self.carry.cond_saturated(bound, near, far)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _mask_scores(s_BHTS, mask, materialize: bool):
  """MASKED where nothing is visible; computed once, if `materialize`, for all that read it.

  Its gradient is computed once: all gradients of scores come from it. It is 0 at masked pairs
  already, as their weights are.
  """
  s_BHTS = jnp.where(mask[:, None], s_BHTS, MASKED)
  return materialize_on_cpu(s_BHTS) if materialize else s_BHTS


_mask_scores.defvjp(
  lambda s, mask, materialize: (_mask_scores(s, mask, materialize), None),
  lambda materialize, _, d: (materialize_on_cpu(d), None),
)


@jax.custom_vjp
def _weights(s_BHTS, lse_BHT):
  """exp(s - lse), computed once."""
  return materialize_on_cpu(jnp.exp(s_BHTS - lse_BHT[..., None]))


def _weights_forward(s, lse):
  p = _weights(s, lse)
  return p, p


_weights.defvjp(_weights_forward, lambda p, d: (d * p, None))


def tile_attention(
  enc,
  q_BHTK,
  k_BGSK,
  v_BGSK,
  tile: ScoreTile,
  scale: float,
  softcap: float | None = None,
  lse_BHT=None,
  max_BHT=None,
  bias_BHTS=None,
):
  """Attention of one tile, not normalized.

  Args:
    scale: the factor of q . k.
    softcap: c of c tanh(s / c), or None.
    lse_BHT: the log-sum-exp of the rows if it is known: exponentials are taken relative to it.
    max_BHT: else the rows' maxima so far, at least LOWEST_SEEN: exponentials are taken relative to
      the larger of these and the maxima of this tile; None: there are none.
    bias_BHTS: what is added to scores last, [B|1, H|1, T'|1, S'|1]; None: nothing.

  Returns:
    o_BHTK = p @ v and the encoding's relative values, the sums of p, and what p is relative to,
    [B, H, T'], all float32.
  """
  s_BHTS = None
  if not enc.recomputes_scores:
    s_BHTS = per_kv_head(lambda q, k: scaled_dot(q, k, scale), q_BHTK, k_BGSK)
  s_BHTS = tile.add_score_terms(s_BHTS, q_BHTK, k_BGSK)
  if enc.has('score'):
    s_BHTS = enc.score(s_BHTS, q_BHTK, k_BGSK, tile)
    _check_pairs(enc, 'score', s_BHTS, (*q_BHTK.shape[:3], k_BGSK.shape[2]))
  if (carried := len(tile.carry.totals)) != (declared := len(enc.scans_keys)):
    problem = f'{type(enc).__name__}: score carries {carried} of {declared} values along the keys'
    raise ValueError(f'{problem}; allowed: all, one for each shape in `scans_keys`')
  if softcap is not None:
    capped_BHTS = softcap * jnp.tanh(s_BHTS / softcap)
    if enc.has('score'):  # which may have hidden keys, and the cap would show them again
      capped_BHTS = jnp.where(s_BHTS > LOWEST_SEEN, capped_BHTS, s_BHTS)
    s_BHTS = capped_BHTS
  if bias_BHTS is not None:
    s_BHTS += bias_BHTS
  s_BHTS = _mask_scores(s_BHTS, tile.mask, lse_BHT is None)
  relative_to_BHT = lse_BHT
  if enc.normalizer != 'softmax':
    relative_to_BHT = jnp.zeros(s_BHTS.shape[:-1], s_BHTS.dtype)
  elif lse_BHT is None:
    at_least = LOWEST_SEEN if max_BHT is None else max_BHT
    relative_to_BHT = jnp.maximum(lax.stop_gradient(s_BHTS.max(axis=-1)), at_least)
  if enc.has('normalize'):
    is_seen_BHTS = s_BHTS > LOWEST_SEEN
    p_BHTS = enc.normalize(jnp.where(is_seen_BHTS, s_BHTS, MASKED), tile)
    _check_pairs(enc, 'normalize', p_BHTS, s_BHTS.shape)
    p_BHTS = jnp.where(is_seen_BHTS, p_BHTS, 0.0)  # equal ones, where a query sees no key
  else:
    p_BHTS = _weights(s_BHTS, relative_to_BHT)
  o_BHTK = per_kv_head(weighted_sum, p_BHTS, v_BGSK)
  if 'relative_values' in tile.terms:
    o_BHTK += tile.reader.sum_by_distance(p_BHTS, tile.terms['relative_values'])
  return o_BHTK, p_BHTS.sum(axis=-1), relative_to_BHT


def without_zeros(denominator):
  """Denominators of rows, with 1 for those of rows without any weight, whose outputs are 0."""
  return jnp.where(denominator > 0, denominator, 1.0)


def _check_pairs(enc, hook: str, x_BHTS, allowed: tuple[int, ...]) -> None:
  """Raises ValueError, one line, where a hook gives something else than a float32 for each pair."""
  shape, dtype = jnp.shape(x_BHTS), jnp.result_type(x_BHTS)
  name = type(enc).__name__
  if shape != allowed:
    raise ValueError(f'{name}: {hook} has shape {shape}; allowed: that of the scores, {allowed}')
  if dtype != jnp.float32:  # sums of rows would have no more digits than the numbers
    how = 'float32, such as .astype(jnp.float32)'
    raise ValueError(f'{name}: {hook} has dtype {dtype}; allowed: {how}')


def attend_pairs(
  schedule: TileSchedule, pairs: Pairs, arrays, terms, reader, carry, lse=None, maxima=None
):
  """What `tile_attention` returns for the pairs of a tile, and the carry for the tile on its left.

  Args:
    arrays: 'whole', the encoding; 'row' and 'column' of the tile, as `cut_into_tiles` cuts them.
    terms, reader, carry: as a `ScoreTile` has them.
    lse, maxima: as `tile_attention` takes them.
  """
  row, column = arrays['row'], arrays['column']
  tile = ScoreTile(row['i'], column['j'], *pairs, terms, reader, carry)
  qkv = row['q'], column['k'], column['v']
  o, denominator, relative_to = tile_attention(
    arrays['whole'], *qkv, tile, schedule.scale, schedule.softcap, lse, maxima
  )
  return o, denominator, relative_to, tuple(carry.totals)
