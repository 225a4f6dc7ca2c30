"""One request for attention, checked and completed: what every backend is given."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from posenc_jax.encodings.core.base import Encoding, LengthError


@dataclasses.dataclass(frozen=True)
class Call:
  """q, k are transformed; i, j are their coordinates; positions and segments are int32 [B|1, S]."""

  enc: Encoding
  q_BTHK: jax.Array
  k_BSGK: jax.Array
  v_BSGK: jax.Array
  i: object
  j: object
  positions_BS: jax.Array
  segments_BS: jax.Array | None
  causal: bool
  window: int | None
  scale: float
  block: tuple[int, int] | None
  contiguous: bool  # positions rise by one within a segment: tables lie along diagonals
  distances: tuple[int, int]  # lowest and highest i - j that a visible pair can have
  platform: str  # what it runs on, as jax.default_backend() says it

  @property
  def offset(self) -> int:
    """Index of the first query among the keys."""
    return self.k_BSGK.shape[1] - self.q_BTHK.shape[1]

  @property
  def has_vectors(self) -> bool:
    """Whether a table holds a vector a distance: content meets it in products, pair by pair."""
    tables = jax.eval_shape(self.enc.tables, jax.ShapeDtypeStruct((1,), jnp.int32))
    return any(table.ndim == 3 for table in jax.tree.leaves(tables))


def prepare(
  q_BTHK, k_BSGK, v_BSGK, enc, x, positions, causal, window, segments, block, max_distance
) -> Call:
  """Checks the arguments of `attend` and runs the hooks that act once a call. Raises ValueError
  with one line.
  """
  (B, T, H, _), (_, S, G, _) = q_BTHK.shape, k_BSGK.shape
  if T > S:
    raise ValueError(f'{T} queries for {S} keys: the queries are the last T of the keys')
  if H % G or v_BSGK.shape[:3] != (B, S, G):
    raise ValueError(
      f'q {q_BTHK.shape}, k {k_BSGK.shape}, v {v_BSGK.shape}: heads must be a multiple of key/value heads'
    )
  if window is not None and window < 1:
    raise ValueError(f'window={window} must be at least 1: a token sees itself')
  if enc.causal_only and not causal:
    raise ValueError(f'{type(enc).__name__} is defined for causal attention only')
  contiguous = positions is None
  if contiguous:
    positions = contiguous_positions(S, segments)
    if enc.max_length is not None and segments is None and enc.max_length < S:
      raise LengthError(
        f'{S} positions, but the table of {type(enc).__name__} ends at {enc.max_length}'
      )
    distances = (0 if causal else 1 - S, S - 1)
  else:
    distances = _distance_range(enc, positions, max_distance)
  j = enc.locate(x, positions)
  i = jax.tree.map(lambda c: c[:, S - T :], j)
  scale = enc.scale(q_BTHK.shape[-1])
  q_BTHK, k_BSGK = enc.transform(q_BTHK, k_BSGK, i, j)
  arrays = (q_BTHK, k_BSGK, v_BSGK, i, j, positions, segments)
  return Call(
    enc, *arrays, causal, window, scale, block, contiguous, distances, jax.default_backend()
  )


def contiguous_positions(S: int, segments_BS=None):
  """0, 1, 2, ... within each segment: int32 [B|1, S]."""
  index_S = jnp.arange(S)[None]
  if segments_BS is None:
    return index_S
  starts = jnp.pad(
    segments_BS[:, 1:] != segments_BS[:, :-1], ((0, 0), (1, 0)), constant_values=True
  )
  return index_S - lax.cummax(jnp.where(starts, index_S, 0), axis=1)


def _distance_range(enc, positions_BS, max_distance: int | None) -> tuple[int, int]:
  """Distances for which tables are needed under explicit positions: a static range, since it is the
  tables' length.
  """
  has_tables = jax.tree.leaves(jax.eval_shape(enc.tables, jax.ShapeDtypeStruct((1,), jnp.int32)))
  if not has_tables:
    return 0, 0
  if max_distance is None:
    if isinstance(positions_BS, jax.core.Tracer):
      raise ValueError(
        f'{type(enc).__name__} has per-distance tables: traced positions need a static max_distance'
      )
    positions_BS = np.asarray(positions_BS)
    max_distance = int((positions_BS.max(axis=1) - positions_BS.min(axis=1)).max())
  return -max_distance, max_distance
