"""How windows of text are scored by the protocols of evaluation: pure functions over
`nll(tokens_BT) -> nats_BT`, which scores every token of every window.

The model sees BOS and then the tokens of a window, nothing before them; no window crosses the end
of a document. All calls of one `length` have one shape, [max(1, batch_tokens // length), length],
and so are compiled once. Short windows are padded on the right and missing windows below; the
padding is cut off here and changes no score, since the model is causal. But encodings that read how
long a call is, or sample positions, get `length` in short windows, too. Protocols return the nats
of single tokens, so that whoever adds them up divides once.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import numpy as np

# tokens_BT -> a number for each token
TokenFunction = Callable[[np.ndarray], jax.Array | np.ndarray]


def sliding(
  nll: TokenFunction,
  documents: Sequence[np.ndarray],
  length: int,
  stride: int,
  batch_tokens: int,
  takes_last: bool = False,
) -> Iterator[np.ndarray]:
  """Yields float64 nats_T of each document. Windows begin at 0, stride, 2 stride, ...; each scores
  the tokens that the window before did not reach, so every token is scored once.

  A token has at least `length - stride` tokens before it, or all that its document has: as many as
  fit with stride 1, about length / 2 on average with stride `length` (`non_overlapping`). The last
  window is cut where its document ends. (Baevski and Auli 2019, arXiv:1809.10853; Press et al.
  2021.)

  Args:
    documents: integer tokens_T each.
    takes_last: whether `nll` takes `last` as `token_nll` does. Then it is asked for the tokens that
      are scored, which saves logits and is one more program to compile; it may return all.
  Raises:
    ValueError: for a stride that is not 1 to `length`.
  """
  if not 1 <= stride <= length:
    raise ValueError(f'stride={stride}; allowed: 1 to length={length}')
  starts = [range(0, max(1, len(doc) - length + stride), stride) for doc in documents]
  known = length - stride  # tokens that the window before has scored

  def windows_from(first):
    for doc, doc_starts in zip(documents, starts, strict=True):
      yield from (doc[start : start + length] for start in doc_starts[first:])

  if takes_last and known:
    of_first = score_windows(nll, (doc[:length] for doc in documents), length, batch_tokens)
    nll_of_last = functools.partial(nll, last=stride)
    of_later = score_windows(nll_of_last, windows_from(1), length, batch_tokens, skipped=known)
    for doc_starts in starts:
      later = itertools.islice(of_later, len(doc_starts) - 1)
      yield np.concatenate([next(of_first), *later])
    return
  nats = score_windows(nll, windows_from(0), length, batch_tokens)
  for doc_starts in starts:
    yield np.concatenate([next(nats)[known if start else 0 :] for start in doc_starts])


def last_k(
  nll: TokenFunction, windows: Iterable[np.ndarray], length: int, k: int, batch_tokens: int
) -> Iterator[np.ndarray]:
  """Yields float64 nats_T of the last k tokens of each window [length], given the `length - k`
  tokens before them.

  The windows of `target_windows` end at the same targets at every length, so that all lengths score
  the same tokens. `nll` may return the last k numbers of each window alone. Raises ValueError for
  k > length.
  """
  if k > length:
    raise ValueError(f'k={k}; allowed: at most length={length}')
  return (nats_T[-k:] for nats_T in score_windows(nll, windows, length, batch_tokens))


def by_position(nll: TokenFunction, tokens_WT: np.ndarray, batch_tokens: int) -> np.ndarray:
  """Returns float64 nats_WT of windows from `whole_windows`; `log_bins` bins their positions."""
  return np.stack(list(score_windows(nll, tokens_WT, tokens_WT.shape[1], batch_tokens)))


def receptive_field(
  norms: TokenFunction, windows: Iterable[np.ndarray], length: int, batch_tokens: int
) -> Iterator[np.ndarray]:
  """Yields float64 share_R of each window: the share of distance r in the gradient norms of its R =
  length - 1 inputs without BOS. Shares add up to 1; distance 0 is the token before the target.

  It shows how far back the tokens lie that decide the prediction of the last token (Chi et al.
  2023, Sandwich).

  Args:
    norms: (tokens_BT) -> norms_BT, see `model_functions.gradient_norms`.
    windows: tokens [length] each.
  """
  for norms_T in score_windows(norms, windows, length, batch_tokens):
    share_R = norms_T[:0:-1]
    yield share_R / share_R.sum()


def spread_evenly(count: int, chosen: int) -> list[int]:
  """The numbers in the middle of each of `chosen` equal parts of 0 .. count - 1; all numbers where
  `chosen` is `count`.
  """
  return [(2 * part + 1) * count // (2 * chosen) for part in range(chosen)]


def choose_targets(
  sizes: Sequence[int], context: int, spans: int, apart: int
) -> list[tuple[int, int]]:
  """Chooses targets (document, end) in each document of `sizes` tokens, spread evenly over the ends
  that have `context` tokens up to them.

  The outermost targets lie half a step inside the bounds, so that a single target lies in the
  middle and not in the document's formal last words. A document has `spans` targets, or as many as
  fit `apart` tokens from each other, and at least one.
  """
  targets = []
  for index, size in enumerate(sizes):
    surplus = size - context
    fitting = max(1, min(spans, surplus // apart))
    targets += [(index, context + offset) for offset in spread_evenly(surplus, fitting)]
  return targets


def excerpt(tokens_T: np.ndarray, tokens: int) -> np.ndarray:
  """The middle `tokens` tokens of a document, or all of a shorter one; 0: all.

  The first words of documents are formulas that a model knows by heart: scores at the first
  positions of windows that begin there would say that.
  """
  if not 0 < tokens < len(tokens_T):
    return tokens_T
  start = (len(tokens_T) - tokens) // 2
  return tokens_T[start : start + tokens]


def target_windows(
  documents: Sequence[np.ndarray],
  targets: Iterable[tuple[int, int]],
  length: int,
  near: int | None = None,
  others: Sequence[int] = (),
) -> Iterator[np.ndarray]:
  """Yields the `length` tokens up to the end of each target.

  Args:
    targets: (document, end), as `choose_targets` returns them.
    near: None, or the number of tokens at the end of each window that stay. Those before them are
      replaced by as many from the middle of another document, so that nothing far away has to do
      with the target.
    others: for each document the index of that other one, see `next_of_other_folder`.
  Raises:
    ValueError: a target has fewer than `length` tokens up to its end, or the other document too few
      for its far tokens.
  """
  far = 0 if near is None else max(length - near, 0)
  for document, end in targets:
    if end < length:
      raise ValueError(
        f'target ending at token {end} of document {document}; allowed: at least length={length}'
      )
    window_T = documents[document][end - length : end]
    if far:
      other_T = documents[others[document]]
      if len(other_T) < far:
        raise ValueError(
          f'{far} far tokens of another document of {len(other_T)}; allowed: at most that many'
        )
      start = (len(other_T) - far) // 2
      window_T = np.concatenate([other_T[start : start + far], window_T[far:]])
    yield window_T


def next_of_other_folder(folders: Sequence[str]) -> list[int]:
  """For each document the index of the next one that lies in another folder, after the last one the
  first.

  Files of one project share names and style: far text out of the same one would keep part of what
  the true far text gives. There are two folders or more.
  """
  count = len(folders)
  return [
    next(at % count for at in range(i + 1, i + count) if folders[at % count] != folder)
    for i, folder in enumerate(folders)
  ]


def truncated_by_position(
  nll: TokenFunction,
  tokens_WT: np.ndarray,
  context: int,
  batch_tokens: int,
  takes_last: bool = False,
) -> np.ndarray:
  """Returns what `by_position` does, without the context that lies farther back than `context`
  tokens: each window is scored by `sliding` windows of `context` tokens, half of that apart.

  So the first `context` tokens have all that stands before them in their window, and every later
  one has at least context / 2 and less than `context` tokens.
  """
  stride = max(1, context // 2)
  return np.stack(list(sliding(nll, tokens_WT, context, stride, batch_tokens, takes_last)))


def whole_windows(documents: Iterable[np.ndarray], length: int) -> np.ndarray:
  """Returns tokens_WT: each document, cut from its start into whole windows of T = `length` tokens.

  The rest at a document's end is left out, and so are shorter documents: all positions are met in
  the same windows, so that no change of the text's kind looks like one of position. Raises
  ValueError where there is no whole window.
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


def by_octave(distances: np.ndarray) -> dict[int, np.ndarray]:
  """Returns {1, 2, 4, 8, ...: where distances lie from there to the next, bool}, of those that
  occur; 0 is a bin of its own, and negative distances are in none.
  """
  octaves = np.where(distances > 0, 2 ** np.log2(np.maximum(distances, 1)).astype(int), distances)
  return {int(octave): octaves == octave for octave in np.unique(octaves) if octave >= 0}


def log_bins(stop: int) -> list[tuple[int, int]]:
  """Returns (first, last + 1) of bins over 0 .. stop - 1, two an octave. They begin at 0, 1, 2, 3,
  4, 6, 8, 12, 16, ... whatever `stop` is, which only cuts the last bin.
  """
  firsts = [0, *sorted(m << n for n in range(stop.bit_length()) for m in (1, 3) if m << n < stop)]
  return list(zip(firsts, [*firsts[1:], stop], strict=True))


def score_windows(
  function: TokenFunction,
  windows: Iterable[np.ndarray],
  length: int,
  batch_tokens: int,
  skipped: int = 0,
) -> Iterator[np.ndarray]:
  """Yields float64 [T - skipped] of each window of T <= `length` tokens: the function's numbers for
  its tokens but the first `skipped`, of which it need return none. Calls the function on batches of
  whole windows.
  """
  for tokens_BT, batch in fill_batches(windows, length, batch_tokens):
    results_BT = np.asarray(function(tokens_BT), np.float64)
    for result_T, window in zip(results_BT, batch, strict=False):
      yield result_T[skipped - length :][: len(window) - skipped]


def sums_of_windows(
  function: Callable, windows: Iterable[np.ndarray], length: int, batch_tokens: int
) -> np.ndarray:
  """Returns float64 sums_WNHC of W windows, given `attention_weights.weight_sums` as
  `function(tokens_BT)`.
  """
  batches = fill_batches(windows, length, batch_tokens)
  return np.concatenate(
    [np.asarray(function(tokens_BT), np.float64)[: len(batch)] for tokens_BT, batch in batches]
  )


def fill_batches(
  windows: Iterable[np.ndarray], length: int, batch_tokens: int
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
  """Yields (tokens_BT, the windows in it) for all windows of T <= `length` tokens: all batches have
  one shape, and zeros stand where windows are short or missing.
  """
  size, windows = max(1, batch_tokens // length), iter(windows)
  while batch := list(itertools.islice(windows, size)):
    tokens_BT = np.zeros((size, length), np.int32)
    for row_T, window in zip(tokens_BT, batch, strict=False):
      row_T[: len(window)] = window
    yield tokens_BT, batch
