"""A task as a corpus: the same trainer, with batches of examples in which only answers count."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from posenc_jax.data.batches import Batch
from posenc_jax.errors import UserError
from posenc_jax.tasks import CarriedPositions, Example, Task


@dataclasses.dataclass(frozen=True, eq=False)
class TaskCorpus:
  """One split of a task.

  Attributes:
    protocol: the task's name, without options.
    shortest: tokens of the shortest examples to train on.
    tokenizer_sha256, listing: None, since a task has no learned tokenizer and no folder.
    unit: the unit of the logged loss.
  """

  name: str
  split: str
  protocol: str
  task: Task
  shortest: int
  tokenizer_sha256 = None
  listing = None
  unit = 'bits/answer'

  @property
  def vocab(self) -> int:
    """The number of symbols; the last one is BOS."""
    return self.task.vocab

  @property
  def carried_positions(self) -> CarriedPositions | None:
    """The kind of positions that its batches carry, or None."""
    return self.task.carried_positions

  def largest_position(self, length: int) -> int | None:
    """A bound on the positions in batches of this length; None where they carry none."""
    return None if self.carried_positions is None else self.task.largest_position(length)

  def left_out(self, length: int) -> None:
    """None: examples are made for the length."""
    return None

  def batches(self, length: int, size: int, seed: int) -> 'TaskBatches':
    """The training batches of `size` examples of at most `length` tokens."""
    return TaskBatches(self, length, size, seed)

  def recalled(self, batch: Batch) -> None:
    """None: answers are all that is scored."""
    return None

  def examples(self, count: int, length: int) -> list[Example]:
    """The first `count` examples of seed 0, each of `length` tokens or the next fewer that the
    format allows. Raises `UserError`.
    """
    try:
      return [self.task.example(self.split, 0, index, length, length) for index in range(count)]
    except ValueError as error:
      raise UserError(f'config.eval.lengths: {self.name!r} with {error}') from error


class TaskBatches:
  """`batches[step]` holds the examples step * size and on, of lengths drawn evenly from the
  corpus's `shortest` to `length`.

  Each example is a row of its own; the padding on its right is not scored and has position 0 where
  examples carry positions. None comes again, so that `windows_per_epoch` is None.
  """

  windows_per_epoch = None

  def __init__(self, corpus: TaskCorpus, length: int, size: int, seed: int):
    """Raises `UserError`, as a step may, for lengths that the task does not have and for numbers
    that are not allowed.
    """
    if size < 1 or not 0 <= seed < 2**32:
      raise UserError(f'{size=}, {seed=}; allowed: 1 or more, 0 to 2**32 - 1')
    self._corpus, self._length, self._size, self._seed = corpus, length, size, seed
    self._example(0)

  def _example(self, index: int) -> Example:
    task, shortest = self._corpus.task, self._corpus.shortest
    try:
      return task.example(self._corpus.split, self._seed, index, shortest, self._length)
    except ValueError as error:
      raise UserError(f'config.train.length: {self._corpus.name!r} with {error}') from error

  def __getitem__(self, step: int) -> Batch:
    if step < 0:
      raise IndexError(f'{step=}; allowed: 0 or more')
    indices = range(step * self._size, (step + 1) * self._size)
    return pad_examples(map(self._example, indices), self._size, self._length)

  def bytes_per_token(self, step: int) -> float:
    """1, since a task has no bytes: bits a byte are then bits an answer."""
    return 1.0


def pad_examples(examples: Iterable[Example], size: int, length: int) -> Batch:
  """Puts at most `size` examples of at most `length` tokens into one batch [size, length] that
  scores their answers and nothing else.
  """
  examples = list(examples)
  tokens_BT = np.zeros((size, length), np.int32)
  scored_BT = np.zeros((size, length), bool)
  position_ids = None
  carried = examples[0].positions_T
  if carried is not None:
    position_ids = np.zeros((size, length, *carried.shape[1:]), carried.dtype)
  for row, example in enumerate(examples):
    tokens_BT[row, : len(example.tokens_T)] = example.tokens_T
    scored_BT[row, : len(example.tokens_T)] = example.answers_T
    if carried is not None:
      position_ids[row, : len(example.tokens_T)] = example.positions_T
  return Batch(tokens_BT, scored_BT, position_ids)
