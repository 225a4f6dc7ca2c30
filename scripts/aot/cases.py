"""What attention is compiled for beside an encoding: masks, ids and shapes, each under a name."""

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Case:
  """One way in which `attend` is called. No size is one of tiles: what lies across them is met.

  Attributes:
    words: what is asked for.
    mask: mask(T) is the fields of a `Mask`, where T keys are asked for.
    function: `mask` of `attend`, where it is a function, and `mask_ids` are given where it has four
      arguments.
    softcap: the bound of scores, or None.
    packed: whether rows hold several segments, of lengths that are data.
    positions: 'integers' or 'floats', given as data; None: contiguous ones.
    groups: how many heads share one of keys and values.
    cut: cut(T) is how many keys there are, where T are asked for.
    queries: queries(T) is how many queries there are for T keys.
    values: values(K) is how wide values are, of heads K wide.
  """

  words: str
  mask: Callable = lambda T: {}
  function: Callable | None = None
  softcap: float | None = None
  packed: bool = False
  positions: str | None = None
  groups: int = 1
  cut: Callable = lambda T: T
  queries: Callable = lambda T: T
  values: Callable = lambda K: K


def window_of(T: int) -> int:
  """A window of some tiles and a part of one."""
  return T // 4 + 3


def no_multiple_of_tiles(T: int) -> int:
  """A length of which no tile is a divisor."""
  return T - T // 16 - 5


def every_fourth(i, j):
  return (i - j) % 4 == 0


def prefix_of_row(i, j, length, _):
  return (j < length) | (j <= i)


CASES = {
  'causal': Case('a causal mask'),
  'window': Case('a window', lambda T: {'window': window_of(T)}),
  'window_sinks': Case(
    'a window and sink tokens', lambda T: {'window': window_of(T), 'sink_tokens': 4}
  ),
  'chunk': Case('chunks', lambda T: {'chunk': window_of(T)}),
  'window_chunk_sinks': Case(
    'a window within chunks, and sink tokens',
    lambda T: {'window': T // 8 + 1, 'chunk': window_of(T), 'sink_tokens': 4},
  ),
  'prefix': Case('a prefix that is read in both directions', lambda T: {'prefix': window_of(T)}),
  'non_causal': Case('no causal mask', lambda T: {'is_causal': False}),
  'non_causal_window': Case(
    'a window on both sides', lambda T: {'is_causal': False, 'window': window_of(T)}
  ),
  'function': Case('a function of places', function=every_fourth),
  'function_of_tokens': Case(
    'a prefix in each row, by a function', lambda T: {'is_causal': False}, function=prefix_of_row
  ),
  'packed': Case('packed segments', packed=True),
  'packed_window_sinks': Case(
    'packed segments, a window and sink tokens',
    lambda T: {'window': window_of(T), 'sink_tokens': 4},
    packed=True,
  ),
  'grouped': Case('two heads for one of keys and values', groups=2),
  'ragged': Case('a length that is no multiple of a tile', cut=no_multiple_of_tiles),
  'positions': Case('positions given as integers', positions='integers'),
  'float_positions': Case('positions given as floats', positions='floats'),
  'last_queries': Case('the last half of the queries alone', queries=lambda T: T // 2),
  'softcap': Case('a soft-cap', softcap=30.0),
  'narrow_values': Case('values half as wide as keys', values=lambda K: K // 2),
  'ragged_packed_window_grouped': Case(
    'four of these at once',
    lambda T: {'window': window_of(T)},
    packed=True,
    groups=2,
    cut=no_multiple_of_tiles,
  ),
}
