"""Evaluation protocols: pure functions over `nll(tokens_BT) -> nats_BT`, which scores every token of every window.

A window begins anew: the model sees BOS and then the window's tokens, nothing before them, and no window crosses a
document's end. All calls of one `length` have one shape, [max(1, batch_tokens // length), length]: one compile. What
fills it up, short windows to the right and missing windows below, is masked out here and, the model being causal,
changes no score.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

Nll = Callable[[np.ndarray], np.ndarray]


def blocks(nll: Nll, documents: Iterable[np.ndarray], length: int, batch_tokens: int) -> tuple[float, int]:
  """Cuts each document into windows of `length` tokens, the last one as short as it comes, and scores every token once.

  Args:
    documents: integer tokens_T each.
  Returns:
    (sum of nats, number of tokens). Mean context is about length / 2.
  """
  windows = (doc[start : start + length] for doc in documents for start in range(0, len(doc), length))
  nats, tokens = 0.0, 0
  for nats_T in window_nats(nll, windows, length, batch_tokens):
    nats += float(nats_T.sum())
    tokens += len(nats_T)
  return nats, tokens


def last_k(
  nll: Nll, documents: Sequence[np.ndarray], targets: Sequence[tuple[int, int]], length: int, k: int, batch_tokens: int
) -> list[float]:
  """Sum of nats of each target's k tokens, given the `length - k` tokens before them.

  Args:
    targets: (document, end) as `choose_targets` gives them: tokens [end - k, end) of that document. They do not depend
      on `length`, so that all lengths score the same tokens.
  Raises:
    ValueError: k > length, or a target has less than `length` tokens up to its end.
  """
  if k > length:
    raise ValueError(f'k={k}; allowed: at most length={length}')
  for document, end in targets:
    if end < length:
      raise ValueError(f'target ending at token {end} of document {document}; allowed: at least length={length}')
  windows = (documents[document][end - length : end] for document, end in targets)
  return [float(nats_T[-k:].sum()) for nats_T in window_nats(nll, windows, length, batch_tokens)]


def choose_targets(sizes: Sequence[int], longest: int, spans: int) -> list[tuple[int, int]]:
  """(document, end) of `spans` targets a document, evenly spread over the ends that have `longest` tokens up to them.

  The outermost are half a step from either bound: one span lies in the middle, not in a document's formal last words.

  Args:
    sizes: tokens of each document, at least `longest`.
  """
  half_steps = [(2 * span + 1) / (2 * spans) for span in range(spans)]
  return [(index, longest + int((size - longest) * at)) for index, size in enumerate(sizes) for at in half_steps]


def window_nats(nll: Nll, windows: Iterable[np.ndarray], length: int, batch_tokens: int) -> Iterator[np.ndarray]:
  """float64 nats_T of each window's own tokens, in order; windows have 1..length tokens."""
  size = max(1, batch_tokens // length)
  batch = []

  def scores():
    tokens_BT = np.zeros((size, length), np.int32)
    for row, window in zip(tokens_BT, batch, strict=False):
      row[: len(window)] = window
    nats_BT = np.asarray(nll(tokens_BT), np.float64)
    for nats_T, window in zip(nats_BT, batch, strict=False):
      yield nats_T[: len(window)]

  for window in windows:
    batch.append(window)
    if len(batch) == size:
      yield from scores()
      batch.clear()
  if batch:
    yield from scores()
