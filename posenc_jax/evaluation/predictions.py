"""Predicts answers: whether the likeliest token is the right one, and its nats, at each answer of
examples, given everything that stands before it.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from posenc_jax import data
from posenc_jax.tasks import Example

# tokens_BT, and the positions that they carry if they do -> (right_BT, nats_BT), or of the last
# tokens alone
Predict = Callable[..., tuple[np.ndarray, np.ndarray]]


class Prediction(NamedTuple):
  """The model's predictions at the A answers of an example: whether each is right, bool, and the
  nats of the answer, float64.
  """

  example: Example
  right_A: np.ndarray
  nats_A: np.ndarray


def predict_answers(
  predict: Predict, examples: Iterable[Example], length: int, batch_tokens: int
) -> Iterator[Prediction]:
  """Yields the prediction of each example, in `windows_of` at most `length` tokens; all calls have
  one shape.
  """
  examples = list(examples)
  windows_of_examples = [windows_of(example, length) for example in examples]
  windows = [window for some in windows_of_examples for window in some]
  predicted = _predict_windows(predict, windows, length, batch_tokens)
  for example, some in zip(examples, windows_of_examples, strict=True):
    right_A, nats_A = zip(*itertools.islice(predicted, len(some)), strict=True)
    yield Prediction(example, np.concatenate(right_A), np.concatenate(nats_A))


def _predict_windows(
  predict: Predict, windows: list[Example], length: int, batch_tokens: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Yields (right_A, nats_A) of each window of at most `length` tokens; see `Prediction`."""
  size = max(1, batch_tokens // length)
  for start in range(0, len(windows), size):
    chosen = windows[start : start + size]
    batch = data.pad_examples(chosen, size, length)
    positions = () if batch.position_ids is None else (batch.position_ids,)
    right_BT, nats_BT = map(np.asarray, predict(batch.tokens_BT, *positions))
    for row, window in enumerate(chosen):
      places = np.flatnonzero(window.answers_T) - (length - right_BT.shape[1])
      yield right_BT[row, places], nats_BT[row, places].astype(np.float64)


def windows_of(example: Example, length: int) -> list[Example]:
  """Cuts an example into windows of at most `length` tokens, half of that apart and counted from
  its end; an example that is no longer is its only window.

  Each answer belongs to the first window that has it, so it has at least length / 2 tokens of the
  example before it, or all. The last window is the last `length` tokens of the example. Windows
  without an answer are left out.
  """
  stride, total = max(1, length // 2), len(example.tokens_T)
  windows = []
  for end in range(total, min(total, length) - stride, -stride):
    start = max(0, end - length)
    scored_from = end - stride if start else 0
    choices_T = example.choices_T[start:end].copy()
    choices_T[: scored_from - start] = 0
    if choices_T.any():
      positions_T = example.positions_T
      cut = None if positions_T is None else positions_T[start:end]
      windows.append(Example(example.tokens_T[start:end], choices_T, example.depth, cut))
  return windows[::-1]
