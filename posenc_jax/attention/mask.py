"""Which keys a query sees."""

import dataclasses
import numbers
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from posenc_jax.errors import MAX_REASON, one_line, shown


@dataclasses.dataclass(frozen=True)
class Mask:
  """Query i sees key j of its own segment if all lines hold.

    j <= i, or j < prefix, or not is_causal
    |i - j| < window and i // chunk == j // chunk, or j < sink_tokens
    function(i, j)

  All is counted by index, from the start of each segment.

  Attributes:
    window, chunk: None: without.
    function: bool [B|1, T, S], elementwise, of int32 arrays [B|1, T, 1] and [B|1, 1, S]: of i and
      j, and where tokens have `mask_ids` of those of queries and keys behind them; None: without.
      Masks with the same function are equal, and those of two functions are not.

  Raises ValueError, one line, for what is out of range.
  """

  is_causal: bool = True
  window: int | None = None
  chunk: int | None = None
  sink_tokens: int = 0
  prefix: int = 0
  function: Callable | None = None

  def __post_init__(self):
    if not isinstance(self.is_causal, bool | np.bool_):
      said = shown(self.is_causal)
      raise ValueError(f'is_causal={said}; allowed: True or False, static under jax.jit')
    for name in ('window', 'chunk', 'sink_tokens', 'prefix'):
      size = getattr(self, name)
      is_whole = isinstance(size, numbers.Integral) and not isinstance(size, bool)
      if not is_whole and (size is not None or name in ('sink_tokens', 'prefix')):
        raise ValueError(f'{name}={size!r}; allowed: a whole number, static under jax.jit')
    for name in ('window', 'chunk'):
      size = getattr(self, name)
      if size is not None and size < 1:
        raise ValueError(f'{name}={size}; allowed: at least 1, for a token sees itself')
    for name in ('sink_tokens', 'prefix'):
      if getattr(self, name) < 0:
        raise ValueError(f'{name}={getattr(self, name)}; allowed: at least 0')
    if self.prefix and not self.is_causal:
      raise ValueError(f'prefix={self.prefix}; allowed: 0, for without a causal mask all see all')
    if self.function is not None and not callable(self.function):
      raise ValueError(f'mask={shown(self.function)}; allowed: a function, a bool array, or None')

  def cut(self, S: int) -> 'Mask':
    """The same mask for at most S keys and queries: without a size that changes nothing there,
    for which backends would refuse it, and with none above S, so that no sum of them overflows.
    """
    cut = lambda size: None if size is None or size >= S else int(size)
    window, chunk = cut(self.window), cut(self.chunk)
    is_limited = window is not None or chunk is not None
    sink_tokens = min(int(self.sink_tokens), S) if is_limited else 0
    prefix = min(int(self.prefix), S) if self.prefix > 1 else 0
    return Mask(self.is_causal, window, chunk, sink_tokens, prefix, self.function)

  @property
  def looks_ahead(self) -> bool:
    """Whether any query sees a key to its right."""
    return not self.is_causal or self.prefix > 1

  @property
  def reads_index(self) -> bool:
    """Whether the place of a token in its segment counts, beside the distance of two."""
    counts = self.chunk is not None or self.sink_tokens > 0 or self.prefix > 0
    return counts or self.function is not None

  @property
  def reach(self) -> int | None:
    """A query sees no key at this distance or farther, but for sink tokens."""
    return min((size for size in (self.window, self.chunk) if size is not None), default=None)

  def visible(self, distance_TS, i_BT=None, j_BS=None, i_ids_BT=None, j_ids_BS=None):
    """Which keys of its segment a query sees: bool [B|1, T, S].

    Args:
      distance_TS: i - j by index.
      i_BT, j_BS: the index of queries and keys in their segments, if `reads_index`.
      i_ids_BT, j_ids_BS: their `mask_ids`, or None.
    """
    in_order = distance_TS >= 0 if self.is_causal else jnp.ones_like(distance_TS, bool)
    is_near = None if self.window is None else jnp.abs(distance_TS) < self.window
    if not self.reads_index:
      return (in_order if is_near is None else in_order & is_near)[None]
    in_order = in_order[None] | (j_BS < self.prefix)[:, None]
    is_near = jnp.ones_like(in_order) if is_near is None else is_near[None]
    if self.chunk is not None:
      is_near &= (i_BT // self.chunk)[:, :, None] == (j_BS // self.chunk)[:, None]
    visible = in_order & (is_near | (j_BS < self.sink_tokens)[:, None])
    if self.function is not None:
      visible &= self.function(*_function_arguments(i_BT, j_BS, i_ids_BT, j_ids_BS))
    return visible

  def check_function(self, i_BT, j_BS, i_ids_BT=None, j_ids_BS=None) -> None:
    """Raises ValueError, one line, for a function that gives no truth value for each pair, and for
    one that reads a traced array, which a pass over tiles could not.

    Args:
      i_BT, j_BS: the index of queries and keys in their segments.
      i_ids_BT, j_ids_BS: their `mask_ids`, or None.
    """
    arrays = _function_arguments(i_BT, j_BS, i_ids_BT, j_ids_BS)
    allowed = 'a function of two int32 arrays [1 or B, T, 1] and [1 or B, 1, S], elementwise'
    if i_ids_BT is not None:
      allowed = f'{allowed}, and of two more, the mask_ids'
    try:
      program, found = jax.make_jaxpr(self.function, return_shape=True)(*arrays)
      shape, dtype = found.shape, found.dtype
      of_pairs = jnp.broadcast_shapes(*(x.shape for x in arrays))
      fits = len(shape) == 3 and jnp.broadcast_shapes(shape, of_pairs) == of_pairs
    except (AttributeError, TypeError, ValueError) as error:
      raise ValueError(f'mask: {one_line(error, MAX_REASON)}; allowed: {allowed}') from error
    if any(isinstance(x, jax.core.Tracer) for x in program.consts):
      instead = 'mask_ids, of which it is given those of the query and the key, a bool array'
      raise ValueError(f'mask reads a traced array; allowed: {instead}, or {allowed}')
    if dtype != jnp.bool or not fits:
      raise ValueError(f'mask gives {dtype} {shape}; allowed: bool of pairs, by {allowed}')

  def count_visible(self, i_BT, length_BT):
    """How many keys a query sees, itself included: int32 [B|1, T].

    Args:
      i_BT: the index of queries in their segments.
      length_BT: the lengths of the segments.
    """
    last = length_BT - 1
    if self.is_causal:
      last = jnp.maximum(i_BT, jnp.minimum(self.prefix - 1, last))
    low, high = 0, last
    if self.window is not None:
      low, high = i_BT - self.window + 1, jnp.minimum(high, i_BT + self.window - 1)
    if self.chunk is not None:
      start = i_BT // self.chunk * self.chunk
      low, high = jnp.maximum(low, start), jnp.minimum(high, start + self.chunk - 1)
    low = jnp.maximum(low, 0)
    sinks_end = jnp.minimum(self.sink_tokens, last + 1)
    on_the_left = jnp.minimum(sinks_end, low)
    on_the_right = jnp.maximum(sinks_end - (high + 1), 0)
    return high - low + 1 + on_the_left + on_the_right


def _function_arguments(i_BT, j_BS, i_ids_BT, j_ids_BS) -> tuple:
  """What a function of pairs is given."""
  pairs = i_BT[:, :, None], j_BS[:, None]
  return pairs if i_ids_BT is None else (*pairs, i_ids_BT[:, :, None], j_ids_BS[:, None])


CAUSAL = Mask()
