"""Evaluation protocols: pure functions over `nll(tokens_BT) -> nats_BT`, which scores every token
of every window.

A window begins anew: the model sees BOS and then the window's tokens, nothing before them, and no
window crosses a document's end. All calls of one `length` have one shape, [max(1, batch_tokens //
length), length]: one compile. What fills it up, short windows to the right and missing windows
below, is masked out here and, the model being causal, changes no score. What comes out is nats of
single tokens: who adds them up divides once.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

Nll = Callable[[np.ndarray], np.ndarray]


def sliding(
  nll: Nll, documents: Sequence[np.ndarray], length: int, stride: int, batch_tokens: int
) -> Iterator[np.ndarray]:
  """Windows begin at 0, stride, 2 stride, ...; each scores what the one before did not reach, so
  every token once.

  A token has at least `length - stride` tokens before it, or all that its document has: with stride
  1, always as many as fit; with stride `length`, `non_overlapping`, about length / 2 on average. The last
  window is cut where its document ends. (Baevski and Auli 2019, arXiv:1809.10853; Press et al.
  2021.)

  Args:
    documents: integer tokens_T each.
  Yields:
    float64 nats_T of each document.
  Raises:
    ValueError: a stride that is not 1 to `length`.
  """
  if not 1 <= stride <= length:
    raise ValueError(f'stride={stride}; allowed: 1 to length={length}')
  starts = [range(0, max(1, len(doc) - length + stride), stride) for doc in documents]
  windows = (
    doc[start : start + length]
    for doc, of_doc in zip(documents, starts, strict=True)
    for start in of_doc
  )
  nats = per_window(nll, windows, length, batch_tokens)
  for of_doc in starts:
    yield np.concatenate([next(nats)[length - stride if start else 0 :] for start in of_doc])


def last_k(
  nll: Nll, windows: Iterable[np.ndarray], length: int, k: int, batch_tokens: int
) -> Iterator[np.ndarray]:
  """float64 nats_K of the last k tokens of each window [length], given the `length - k` tokens
  before them.

  Windows are those of `target_windows`: they end at the same targets at every length, so that all
  lengths score the same tokens. Raises ValueError for k > length.
  """
  if k > length:
    raise ValueError(f'k={k}; allowed: at most length={length}')
  return (nats_T[length - k :] for nats_T in per_window(nll, windows, length, batch_tokens))


def by_position(nll: Nll, tokens_NT: np.ndarray, batch_tokens: int) -> np.ndarray:
  """float64 nats_NT by position in the window, of windows as `whole_windows` cuts them; `log_bins`
  are its bins.
  """
  return np.stack(list(per_window(nll, tokens_NT, tokens_NT.shape[1], batch_tokens)))


def receptive_field(
  norms: Nll, windows: Iterable[np.ndarray], length: int, batch_tokens: int
) -> Iterator[np.ndarray]:
  """How far back the tokens lie that the prediction of a window's last token hangs on (Chi et al.
  2023, Sandwich).

  Args:
    norms: (tokens_BT) -> norms_BT of the gradient of the last token's nats with respect to each
      input's embedding. Inputs are BOS and the first T - 1 tokens.
    windows: tokens [length] each.
  Yields:
    float64 share_R of each window: of the norms of its R = length - 1 inputs but BOS, that at
      distance r, their sum
    being 1. Distance 0 is the token before the target.
  """
  for norms_T in per_window(norms, windows, length, batch_tokens):
    share_R = norms_T[:0:-1]
    yield share_R / share_R.sum()


def choose_targets(sizes: Sequence[int], longest: int, spans: int) -> list[tuple[int, int]]:
  """(document, end) of `spans` targets a document, evenly spread over the ends that have `longest`
  tokens up to them.

  The outermost are half a step from either bound: one span lies in the middle, not in a document's
    formal last words.

  Args:
    sizes: tokens of each document, at least `longest`.
  """
  half_steps = [(2 * span + 1) / (2 * spans) for span in range(spans)]
  return [
    (index, longest + int((size - longest) * at))
    for index, size in enumerate(sizes)
    for at in half_steps
  ]


def target_windows(
  documents: Sequence[np.ndarray],
  targets: Iterable[tuple[int, int]],
  length: int,
  near: int | None = None,
) -> Iterator[np.ndarray]:
  """The `length` tokens up to each target's end.

  Args:
    targets: (document, end) as `choose_targets` gives them.
    near: None, or how many tokens at the end of each window stay. Those before them are replaced by
      as many from the middle of the next document (of the last one: the first), so that nothing far
      has to do with the target.
  Raises:
    ValueError: a target has less than `length` tokens up to its end, or there is no other document.
  """
  if near is not None and len(documents) < 2:
    raise ValueError('far tokens of another document: there is one document; allowed: 2 or more')
  for document, end in targets:
    if end < length:
      raise ValueError(
        f'target ending at token {end} of document {document}; allowed: at least length={length}'
      )
    window_T = documents[document][end - length : end]
    far = 0 if near is None else max(length - near, 0)
    if far:
      other_T = documents[(document + 1) % len(documents)]
      start = max(len(other_T) - far, 0) // 2
      window_T = np.concatenate([other_T[start : start + far], window_T[far:]])
      if len(window_T) < length:
        raise ValueError(
          f'{far} far tokens of another document of {len(other_T)}; allowed: at most that many'
        )
    yield window_T


def whole_windows(documents: Iterable[np.ndarray], length: int) -> np.ndarray:
  """tokens_NT: the whole windows of T = `length` tokens that each document is cut into, from its
  start.

  What is left over at its end is not used, nor a shorter document: each position is met in the same
    windows, so that
  no change of the text's kind shows as one of position. Raises ValueError where there is no whole
  window.
  """
  windows = [
    doc[start : start + length]
    for doc in documents
    for start in range(0, len(doc) - length + 1, length)
  ]
  if not windows:
    raise ValueError(
      f'no document has length={length} tokens; allowed: at most those of the longest'
    )
  return np.stack(windows)


def log_bins(stop: int) -> list[tuple[int, int]]:
  """(first, last + 1) of bins over 0 .. stop - 1, two an octave: they begin at 0, 1, 2, 3, 4, 6, 8,
  12, 16, ...

  Bins do not depend on `stop`, except that it cuts the last one.
  """
  firsts = [0, *sorted(m << n for n in range(stop.bit_length()) for m in (1, 3) if m << n < stop)]
  return list(zip(firsts, [*firsts[1:], stop], strict=True))


def per_window(
  function: Nll, windows: Iterable[np.ndarray], length: int, batch_tokens: int
) -> Iterator[np.ndarray]:
  """What `function` says of each window's own tokens, in order, in float64 [T]; windows have up to
  `length` tokens.
  """
  size = max(1, batch_tokens // length)
  batch = []

  def results():
    tokens_BT = np.zeros((size, length), np.int32)
    for row, window in zip(tokens_BT, batch, strict=False):
      row[: len(window)] = window
    results_BT = np.asarray(function(tokens_BT), np.float64)
    for result_T, window in zip(results_BT, batch, strict=False):
      yield result_T[: len(window)]

  for window in windows:
    batch.append(window)
    if len(batch) == size:
      yield from results()
      batch.clear()
  if batch:
    yield from results()
