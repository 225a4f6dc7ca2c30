"""Training batches as a pure function of (corpus, length, size, seed, step), so that no state has
to be saved or restored.
"""

import functools
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from posenc_jax.data.tokenizers import BYTES, Cut
from posenc_jax.errors import UserError

BETWEEN = b'\n\n'  # what stands between two documents that are concatenated


class Batch(NamedTuple):
  """What a step reads.

  Attributes:
    tokens_BT: the tokens, int32, without the BOS before them.
    scored_BT: True where the loss counts a token, bool; None: all of them.
    position_ids: the position of each token, [B, T] or [B, T, n]; None: 0, 1, 2, ... as inputs.
    segments_BT: the number of each token's document in its row, int32, rising; None: a row is one.
  """

  tokens_BT: np.ndarray
  scored_BT: np.ndarray | None = None
  position_ids: np.ndarray | None = None
  segments_BT: np.ndarray | None = None

  def documents(self) -> list[list[np.ndarray]]:
    """The tokens [t] of each document, for each row."""
    if self.segments_BT is None:
      return [[tokens_T] for tokens_T in self.tokens_BT]
    rows = zip(self.tokens_BT, self.segments_BT, strict=True)
    return [np.split(tokens_T, np.flatnonzero(np.diff(ids_T)) + 1) for tokens_T, ids_T in rows]


class _Joined:
  """All documents of a split as one, of which no more is read than what is asked for."""

  def __init__(self, documents: Sequence[np.ndarray], counts: np.ndarray, between: np.ndarray):
    """`counts`: how long each document is; `between`: what stands between two of them."""
    self._documents, self._between = documents, between
    self._starts = np.concatenate([[0], np.cumsum(counts + len(between))])

  def __len__(self) -> int:
    return int(self._starts[-1]) - len(self._between)

  def __getitem__(self, window: slice) -> np.ndarray:
    first = int(np.searchsorted(self._starts, window.start, 'right')) - 1
    last = int(np.searchsorted(self._starts, window.stop, 'left'))
    pieces = []
    for n in range(first, last):
      end = int(self._starts[n + 1]) - len(self._between)  # of the document
      for start, piece in ((int(self._starts[n]), self._documents[n]), (end, self._between)):
        pieces.append(piece[max(window.start - start, 0) : max(window.stop - start, 0)])
    return np.concatenate(pieces)


class _Numbers:
  """The number of the document that each token is of, where documents of `counts` are joined."""

  def __init__(self, counts: np.ndarray):
    self._ends = np.cumsum(counts)

  def __len__(self) -> int:
    return int(self._ends[-1])

  def __getitem__(self, window: slice) -> np.ndarray:
    return np.searchsorted(self._ends, np.arange(window.start, window.stop), 'right')


class Batches:
  """`batches[step]` holds windows of T = `length` tokens, each within one document.

  Where the corpus joins documents (`packing`), all of a split are one in its order, which loses
  nothing at any T. Where they are kept apart, batches say which tokens are of one document.

  An epoch cuts each document of n >= T tokens into ceil(n / T) windows and shuffles all windows.
  The cuts lie T tokens apart and are shifted by a phase drawn for (seed, epoch, document), from 0
  to the surplus ceil(n / T) T - n; the first and the last window are then pushed back inside the
  document. So an epoch reads every token at least once, and reads the surplus, which lies within 2
  T of the document's ends, twice. A split that is one document of 2 T tokens or more, such as one
  that is joined, has as many windows as every phase below T needs: else its surplus, by chance 0,
  would decide for the whole training where it is cut. Its last window may then come twice. Shorter
  documents are skipped. A batch may cross epochs.

  Attributes:
    windows_per_epoch: the number of windows in an epoch.
  """

  def __init__(self, corpus, length: int, size: int, seed: int):
    """Raises `UserError` where no document of the `Corpus` has `length` tokens, and for numbers
    that are not allowed.
    """
    import grain  # it imports jax, which preparing data does without

    if length < 1 or size < 1 or not 0 <= seed < 2**32:
      raise UserError(f'{length=}, {size=}, {seed=}; allowed: 1 or more, 1 or more, 0 to 2**32 - 1')
    tokens, token_bytes, numbers = corpus.tokens, corpus.token_bytes, None
    counts, what = corpus.counts, 'the longest document of'
    if corpus.packing != 'none':
      texts = [BETWEEN] * (corpus.packing == 'concatenated')
      none = np.zeros(0, np.uint8)
      cut = next(corpus.tokenizer.cut(texts), Cut(none, none))
      tokens = [_Joined(tokens, counts, cut.tokens_T)]
      token_bytes = [_Joined(token_bytes, counts, cut.bytes_T)]
      numbers = [_Numbers(counts)] if corpus.packing == 'separate' else None
      counts, what = np.array([len(tokens[0])]), 'all of'
    if length > (longest := int(counts.max())):
      problem = f'{what} {corpus.name!r} ({corpus.split}) has {longest} tokens'
      raise UserError(f'config.train.length={length}: {problem}; allowed: at most that')
    self._corpus, self._length, self._seed = corpus, length, seed
    more = length - 1 if len(counts) == 1 and counts[0] >= 2 * length else 0
    self._windows = np.where(counts >= length, -(-(counts + more) // length), 0)
    self._ends = np.cumsum(self._windows)
    self.windows_per_epoch = int(self._ends[-1])
    # given, since what Grain would derive depends on where in the pipeline it shuffles
    order = int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])
    windows = grain.MapDataset.range(self.windows_per_epoch).shuffle(seed=order).repeat()

    def batched(of_documents):
      cut = functools.partial(self._window, of_documents)
      return windows.map_with_index(cut).batch(size, batch_fn=np.stack)

    self._batches, self._bytes = batched(tokens), batched(token_bytes)
    self._numbers = numbers and batched(numbers)

  def __getitem__(self, step: int) -> Batch:
    if step < 0:
      raise IndexError(f'{step=}; allowed: 0 or more')
    segments_BT = None
    if self._numbers is not None:
      numbers_BT = self._numbers[step]
      segments_BT = (numbers_BT - numbers_BT[:, :1]).astype(np.int32)
    return Batch(self._batches[step].astype(np.int32), segments_BT=segments_BT)

  def bytes_per_token(self, step: int) -> float:
    """The mean number of bytes that a token of `batches[step]` stands for."""
    return 1.0 if self._corpus.tokenizer is BYTES else float(self._bytes[step].mean())

  def _window(self, of_documents: Sequence[np.ndarray], index: int, window: int) -> np.ndarray:
    """Returns what `of_documents` has of a window, such as its tokens [T]; the draw number `index`
    says which epoch it is in.
    """
    document = int(np.searchsorted(self._ends, window, 'right'))
    windows = int(self._windows[document])
    window_in_document = window - (int(self._ends[document]) - windows)
    tokens = of_documents[document]
    surplus = windows * self._length - len(tokens)
    epoch = index // self.windows_per_epoch
    digest = hashlib.blake2b(b'%d %d %d' % (self._seed, epoch, document), digest_size=8).digest()
    phase = int.from_bytes(digest, 'big') % (min(surplus, self._length - 1) + 1)
    start = min(max(window_in_document * self._length - phase, 0), len(tokens) - self._length)
    return tokens[start : start + self._length]
