"""A task as a corpus: the same trainer, with batches of examples whose answers alone count."""

import dataclasses

import numpy as np

from posenc_jax.data.batches import Batch
from posenc_jax.errors import UserError
from posenc_jax.tasks import Example, Task


@dataclasses.dataclass(frozen=True, eq=False)
class TaskCorpus:
  """One split of a task.

  Attributes:
    protocol: the task's name, without options.
    shortest: tokens of the shortest examples to train on.
  """

  name: str
  split: str
  protocol: str
  task: Task
  shortest: int
  sha256, unit = None, 'bits/answer'

  @property
  def vocab(self) -> int:
    """Symbols, the last of which is BOS."""
    return self.task.vocab

  def batches(self, length: int, size: int, seed: int) -> 'TaskBatches':
    return TaskBatches(self, length, size, seed)

  def bytes_per_token(self, batch: Batch) -> float:
    """1: a task has no bytes, and what is logged as bits a byte is in bits an answer."""
    del batch
    return 1.0

  def examples(self, count: int, length: int) -> list[Example]:
    """The first so many examples of seed 0 that have `length` tokens, or as many as the format
    allows. UserError.
    """
    try:
      return [self.task.example(self.split, 0, index, length, length) for index in range(count)]
    except ValueError as error:
      raise UserError(f'config.eval.lengths: {self.name!r} with {error}') from error


class TaskBatches:
  """`batches[step]` are examples step * size and on; their lengths are drawn evenly from `shortest`
  to `length`.

  Each starts at position 0 and is filled up on the right, where nothing is scored.
  """

  def __init__(self, corpus: TaskCorpus, length: int, size: int, seed: int):
    """Raises `UserError` for lengths that the task does not have, or for numbers that are not
    allowed.
    """
    if size < 1 or not 0 <= seed < 2**32:
      raise UserError(f'{size=}, {seed=}; allowed: 1 or more, 0 to 2**32 - 1')
    self._corpus, self._length, self._size, self._seed = corpus, length, size, seed
    try:
      self._example(0)
    except ValueError as error:
      raise UserError(f'config.train.length: {corpus.name!r} with {error}') from error

  def _example(self, index: int) -> Example:
    c = self._corpus
    return c.task.example(c.split, self._seed, index, c.shortest, self._length)

  def __getitem__(self, step: int) -> Batch:
    if step < 0:
      raise IndexError(f'{step=}; allowed: 0 or more')
    return fill_up(
      map(self._example, range(step * self._size, (step + 1) * self._size)),
      self._size,
      self._length,
    )


def fill_up(examples, size: int, length: int) -> Batch:
  """At most `size` examples of at most `length` tokens as one batch [size, length]; nothing else in
  it is scored.
  """
  tokens_BT, scored_BT = np.zeros((size, length), np.int32), np.zeros((size, length), bool)
  for row, example in enumerate(examples):
    tokens_BT[row, : len(example.tokens_T)] = example.tokens_T
    scored_BT[row, : len(example.tokens_T)] = example.answers_T
  return Batch(tokens_BT, scored_BT)
