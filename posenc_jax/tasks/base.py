"""What every task is: sequences with answers that the tokens before them decide, a pure function of
(seed, index).
"""

import hashlib
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# quarters of all instances, by their hash
SHARES = {'test': (0,), 'validation': (1,), 'train': (2, 3)}
DRAWS = 2000  # until an instance of the split is found; 1 of 2 to 4 is
ENOUGH = 256  # instances that the shortest examples are drawn from, or more


class Example(NamedTuple):
  """One sequence, without the BOS before it.

  Attributes:
    tokens_T: int32.
    choices_T: int32, how many symbols can stand at an answer by the format alone (1: it is known,
      as an end is); 0 where nothing is asked for.
    depth: per cent of the filler before what is asked for; None where a task has no such place.
  """

  tokens_T: np.ndarray
  choices_T: np.ndarray
  depth: int | None = None

  @property
  def answers_T(self) -> np.ndarray:
    """bool: the tokens that are answers; only these are trained on and scored."""
    return self.choices_T > 0


class Task:
  """Draws examples of any length. Subclasses say how, in `draw`; their options are keyword
  arguments.

  Attributes:
    source: the paper.
    symbols: names of the tokens 0, 1, ...; BOS, which comes after them, is not among them.
    shortest, longest: tokens of the shortest and longest examples; None: there is no longest.
    unit: an example has at most the tokens asked for, and more than those minus `unit`.
    ends: the last answer is an end symbol.
    in_digits: answers are decimal digits, none likelier than another.
  """

  source: str
  symbols: Sequence[str]
  shortest: int
  longest: int | None = None
  unit = 1
  ends = False
  in_digits = False

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    """An example of at most `length` tokens; `index` is for what has to come evenly."""
    raise NotImplementedError

  def identity(self, example: Example) -> bytes:
    """What decides the split of an example: what must not be seen in training and in a test."""
    return example.tokens_T.tobytes()

  @property
  def vocab(self) -> int:
    """Symbols of the task and BOS, which is the last."""
    return len(self.symbols) + 1

  def check_length(self, length: int) -> None:
    """Raises ValueError where no example has this length."""
    if length < self.shortest or length > (self.longest or length):
      allowed = (
        f'{self.shortest} or more' if self.longest is None else f'{self.shortest} to {self.longest}'
      )
      raise ValueError(f'{length} tokens; allowed: {allowed}')

  def example(self, split: str, seed: int, index: int, shortest: int, longest: int) -> Example:
    """Example `index` of a split and seed, its length asked for drawn evenly from `shortest` to
    `longest`.

    An instance belongs to the split that the hash of its `identity` says, whatever seed and length:
    so nothing of one split is ever drawn for another. Raises ValueError for lengths that the task
    does not have.
    """
    self.check_length(shortest)
    self.check_length(longest)
    rng = np.random.Generator(np.random.PCG64((seed, list(SHARES).index(split), index)))
    length = int(rng.integers(shortest, longest + 1))
    for _ in range(DRAWS):
      example = self.draw(rng, length, index)
      if self.split_of(example) == split:
        return example
    raise ValueError(
      f'{length} tokens: none of {DRAWS} instances is of the {split} split; allowed: another length'
    )

  def split_of(self, example: Example) -> str:
    quarter = hashlib.blake2b(self.identity(example), digest_size=1).digest()[0] % 4
    return next(split for split, quarters in SHARES.items() if quarter in quarters)

  def show(self, example: Example) -> str:
    """The example in words, answers in brackets."""
    words = (
      (self.symbols[token], answer)
      for token, answer in zip(example.tokens_T, example.answers_T, strict=True)
    )
    return ' '.join(f'[{word}]' if answer else word for word, answer in words)


def chance(examples: Sequence[Example]) -> tuple[float, float]:
  """What guessing evenly among the `choices` of each answer scores: (exact match, share of answers
  right).
  """
  hits = [1 / example.choices_T[example.answers_T] for example in examples]
  return float(np.mean([np.prod(of_one) for of_one in hits])), float(np.mean(np.concatenate(hits)))


def assemble(*parts: tuple[Sequence[int], int], depth: int | None = None) -> Example:
  """An example from (tokens, choices) of its parts, in order."""
  tokens_T = np.concatenate([np.asarray(tokens, np.int32).reshape(-1) for tokens, _ in parts])
  choices_T = np.concatenate(
    [np.full(np.size(tokens), choices, np.int32) for tokens, choices in parts]
  )
  return Example(tokens_T, choices_T, depth)


def letters(count: int) -> list[str]:
  """'a' to 'z', then 's26', 's27', ..."""
  return [chr(ord('a') + i) if i < 26 else f's{i}' for i in range(count)]


def numbered(prefix: str, count: int) -> list[str]:
  return [f'{prefix}{i}' for i in range(count)]


def at_least(bound: int, **options: int) -> None:
  """Raises ValueError for the first option below the bound."""
  for name, value in options.items():
    if type(value) is not int or value < bound:
      raise ValueError(f'{name}={value!r}; allowed: {bound} or more')


def enough_places(symbols: int) -> int:
  """The least number of places that `symbols` >= 2 symbols fill in ENOUGH ways."""
  return math.ceil(math.log(ENOUGH) / math.log(symbols))
