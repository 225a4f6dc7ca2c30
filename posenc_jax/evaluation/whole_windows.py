"""Nats of the whole windows of documents, which several protocols score."""

import itertools
from collections.abc import Sequence

import numpy as np

from posenc_jax.evaluation import windows
from posenc_jax.evaluation.controls import Inputs
from posenc_jax.evaluation.windows import TokenFunction

MOST_KEPT = 2**23  # tokens of all documents; their nats take 64 MiB for each control


class WholeWindows:
  """What one model says of documents, cut from their starts into windows: each protocol that asks
  for those of a length after another one gets the same nats, and the model reads them once.

  Attributes:
    keeps: whether documents are few enough for that.
  """

  def __init__(self, documents: Sequence[np.ndarray], batch_tokens: int, takes_last: bool):
    """`documents`: tokens_T each. `batch_tokens`, `takes_last`: as for `windows.sliding`."""
    self._documents, self._batch_tokens, self._takes_last = documents, batch_tokens, takes_last
    self.keeps = sum(map(len, documents)) <= MOST_KEPT
    self._length, self._kept = None, {}

  def nats(
    self, nll: TokenFunction, length: int, inputs: Inputs, indices: Sequence[int]
  ) -> list[np.ndarray]:
    """Float64 nats [W, T] of the W windows, perhaps none, of each of these documents, under the
    control that `inputs` are of. They are kept until another length is asked for.
    """
    if length != self._length:
      self._length, self._kept = length, {}
    kept = self._kept.setdefault(inputs, {}) if self.keeps else {}
    new = [i for i in indices if i not in kept]
    texts = [self._documents[i] for i in new]
    ends = np.cumsum([0, *(len(text) // length for text in texts)])
    nats_WT = np.zeros((0, length))
    if ends[-1]:
      tokens_WT, size = windows.whole_windows(texts, length), self._batch_tokens
      if inputs.length == length:
        nats_WT = windows.by_position(nll, tokens_WT, size)
      else:
        asked = nll, tokens_WT, inputs.length, size, self._takes_last
        nats_WT = windows.truncated_by_position(*asked)
    for i, (start, end) in zip(new, itertools.pairwise(ends), strict=True):
      kept[i] = nats_WT[start:end]
    return [kept[i] for i in indices]

  def nats_with_rests(
    self, nll: TokenFunction, length: int, indices: Sequence[int]
  ) -> list[np.ndarray]:
    """Float64 nats_T of all tokens of each of these documents, of which a last window is cut where
    the document ends: as of `windows.sliding` with the stride `length`.
    """
    whole = self.nats(nll, length, Inputs(length), indices)
    texts = [self._documents[i] for i in indices]
    rests = [text[nats_WT.size :] for text, nats_WT in zip(texts, whole, strict=True)]
    of_rests = windows.score_windows(nll, filter(len, rests), length, self._batch_tokens)
    return [
      np.append(nats_WT, next(of_rests)) if len(rest) else nats_WT.ravel()
      for nats_WT, rest in zip(whole, rests, strict=True)
    ]
