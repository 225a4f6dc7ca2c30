"""Training batches as a pure function of (corpus, length, size, seed, step), so that no state has
to be saved or restored.
"""

import bisect
import functools
import hashlib
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from posenc_jax.data.tokenizers import BYTES
from posenc_jax.errors import UserError


class Batch(NamedTuple):
  """What a step reads.

  Attributes:
    tokens_BT: the tokens, int32, without the BOS before them.
    scored_BT: True where the loss counts a token, bool; None: all of them.
    position_ids: the position of each token, [B, T] or [B, T, n]; None: 0, 1, 2, ... as inputs.
  """

  tokens_BT: np.ndarray
  scored_BT: np.ndarray | None = None
  position_ids: np.ndarray | None = None


class Batches:
  """`batches[step]` holds windows of T = `length` tokens, each within one document.

  An epoch cuts each document of n >= T tokens into ceil(n / T) windows and shuffles all windows.
  The cuts lie T tokens apart and are shifted by a phase drawn for (seed, epoch, document), from 0
  to the surplus ceil(n / T) T - n; the first and the last window are then pushed back inside the
  document. So an epoch reads every token at least once, and reads the surplus, which lies within 2
  T of the document's ends, twice. Shorter documents are skipped. A batch may cross epochs.

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
    longest = int(corpus.counts.max())
    if length > longest:
      document = f'the longest document of {corpus.name!r} ({corpus.split})'
      raise UserError(
        f'config.train.length={length}: {document} has {longest} tokens; allowed: at most that'
      )
    self._corpus, self._length, self._seed = corpus, length, seed
    self._windows = np.where(corpus.counts >= length, -(-corpus.counts // length), 0).tolist()
    self._ends = list(itertools.accumulate(self._windows))
    self.windows_per_epoch = self._ends[-1]
    windows = grain.MapDataset.range(self.windows_per_epoch).seed(seed).shuffle().repeat()

    def batched(of_documents):
      cut = functools.partial(self._window, of_documents)
      return windows.map_with_index(cut).batch(size, batch_fn=np.stack)

    self._batches, self._bytes = batched(corpus.tokens), batched(corpus.token_bytes)

  def __getitem__(self, step: int) -> Batch:
    if step < 0:
      raise IndexError(f'{step=}; allowed: 0 or more')
    return Batch(self._batches[step].astype(np.int32))

  def bytes_per_token(self, step: int) -> float:
    """The mean number of bytes that a token of `batches[step]` stands for."""
    return 1.0 if self._corpus.tokenizer is BYTES else float(self._bytes[step].mean())

  def _window(self, of_documents: Sequence[np.ndarray], index: int, window: int) -> np.ndarray:
    """Returns what `of_documents` has of a window, such as its tokens [T]; the draw number `index`
    says which epoch it is in.
    """
    document = bisect.bisect_right(self._ends, window)
    window_in_document = window - (self._ends[document] - self._windows[document])
    tokens = of_documents[document]
    surplus = self._windows[document] * self._length - len(tokens)
    epoch = index // self.windows_per_epoch
    digest = hashlib.blake2b(b'%d %d %d' % (self._seed, epoch, document), digest_size=8).digest()
    phase = int.from_bytes(digest, 'big') % (surplus + 1)
    start = min(max(window_in_document * self._length - phase, 0), len(tokens) - self._length)
    return tokens[start : start + self._length]
