"""The base class of tasks: an example is a pure function of (split, seed, index), and the tokens
before an answer decide that answer.
"""

import hashlib
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# The hash of an instance falls into one of four quarters; each quarter belongs to one split.
SPLIT_QUARTERS = {'test': (0,), 'validation': (1,), 'train': (2, 3)}
MAX_DRAWS = 2000  # draws until an instance falls into the wanted split; one in 2 to 4 does
MIN_INSTANCES = 256  # the shortest examples are drawn from at least this many instances
MAX_CODES = 2**53  # different codes of several symbols: a code is drawn as one number


class Example(NamedTuple):
  """One sequence of tokens, without the BOS before it.

  Attributes:
    tokens_T: the tokens, int32.
    choices_T: int32; at an answer, the number of symbols that the format allows there (1 for an
      answer that the format alone decides, such as an end symbol); 0 at all other tokens.
    depth: the share of the filler that stands before the hidden item, in per cent; None for tasks
      that hide nothing at a chosen depth.
    positions_T: the position of each token, 0 or more, [T] or [T, n]; None: the task says nothing
      of positions. BOS and padding have position 0.
  """

  tokens_T: np.ndarray
  choices_T: np.ndarray
  depth: int | None = None
  positions_T: np.ndarray | None = None

  @property
  def answers_T(self) -> np.ndarray:
    """True where a token is an answer, bool; only answers are trained on and scored."""
    return self.choices_T > 0


class CarriedPositions(NamedTuple):
  """What kind of positions examples carry: 'integers' or 'floats', and how many a token."""

  kind: str = 'integers'
  per_token: int = 1


class Task:
  """A task draws examples of any length. A subclass is a dataclass whose keyword-only fields are
  the task's options; its `draw` makes one example.

  Attributes:
    token_names: the printed names of the tokens 0, 1, ...; BOS comes after them and has no name.
    shortest, longest: tokens of the shortest and longest examples; `longest` None: no limit.
    unit: the step between possible lengths: an example has at most the tokens asked for, and more
      than those minus `unit`. A training draws lengths evenly in tokens, so that a largest size for
      which its longest length has just room comes up to `unit` times more rarely than others do.
    ends: True where the last answer is an end symbol.
    depths: those that examples take in turn, in per cent; (): they hide nothing at a chosen depth.
    carried_positions: the kind of positions that its examples carry; None: they carry none.
  """

  token_names: Sequence[str]
  shortest: int
  longest: int | None = None
  unit = 1
  ends = False
  depths: Sequence[int] = ()
  carried_positions: CarriedPositions | None = None

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    """Draws an example of at most `length` tokens. `index` serves what must be spread evenly over
    examples, such as depths.
    """
    raise NotImplementedError

  def identity(self, example: Example) -> bytes:
    """The bytes whose hash chooses the split: no two splits ever share them."""
    return example.tokens_T.tobytes()

  def largest_position(self, length: int) -> int:
    """A bound on the positions that examples of at most `length` tokens carry."""
    raise NotImplementedError

  @property
  def vocab(self) -> int:
    """The number of symbols, counting BOS, which is the last."""
    return len(self.token_names) + 1

  def require_at_least(self, bound: int, *options: str) -> None:
    """Raises ValueError for the first of these options that is no integer of `bound` or more."""
    for name in options:
      value = getattr(self, name)
      if type(value) is not int:
        raise ValueError(f'{name}={value!r}; allowed: a whole number, {bound} or more')
      if value < bound:
        raise ValueError(f'{name}={value!r}; allowed: {bound} or more')

  def require_number(self, name: str, least: float, most: float) -> None:
    """Raises ValueError unless the option is a number from `least` to `most`."""
    value = getattr(self, name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
      raise ValueError(f'{name}={value!r}; allowed: {least} to {most}')

  def require_flag(self, *options: str) -> None:
    """Raises ValueError for the first of these options that is neither True nor False."""
    for name in options:
      if not isinstance(value := getattr(self, name), bool):
        raise ValueError(f'{name}={value!r}; allowed: True, False')

  def require_one_of(self, name: str, allowed: Sequence[str]) -> None:
    """Raises ValueError unless the option is one of those allowed."""
    if (value := getattr(self, name)) not in allowed:
      raise ValueError(f'{name}={value!r}; allowed: {", ".join(allowed)}')

  def require_codes(self, least: int, symbols: str, size: str) -> None:
    """Raises ValueError unless the option `symbols` has enough symbols for `least` codes of as many
    symbols each as the option `size` says, and the codes are at most MAX_CODES.
    """
    self.require_at_least(1, size, symbols)
    count, length = getattr(self, symbols), getattr(self, size)
    if length > 64 or count**length > MAX_CODES:
      raise ValueError(
        f'{size}={length!r}; allowed: codes of {symbols}={count} that number at most {MAX_CODES}'
      )
    near = max(1, round(least ** (1 / length)) - 1)  # not above what is sought
    self.require_at_least(next(n for n in itertools.count(near) if n**length >= least), symbols)

  def require_length(self, length: int) -> None:
    """Raises ValueError where no example has this length."""
    if length < self.shortest or length > (self.longest or length):
      upper = f'to {self.longest}' if self.longest else 'or more'
      raise ValueError(f'{length} tokens; allowed: {self.shortest} {upper}')

  def example(self, split: str, seed: int, index: int, shortest: int, longest: int) -> Example:
    """Makes example number `index` of a split and a seed. Its length is drawn evenly from
    `shortest` to `longest`.

    The hash of an instance's `identity` decides its split, whatever the seed and the length: so no
    instance of one split is ever drawn for another. Raises ValueError for lengths that the task
    does not have.
    """
    self.require_length(shortest)
    self.require_length(longest)
    split_number = list(SPLIT_QUARTERS).index(split)
    rng = np.random.Generator(np.random.PCG64((seed, split_number, index)))
    length = int(rng.integers(shortest, longest + 1))
    for _ in range(MAX_DRAWS):
      example = self.draw(rng, length, index)
      if self.split_of(example) == split:
        return example
    raise ValueError(
      f'{length} tokens: none of {MAX_DRAWS} instances is of the {split} split; '
      f'allowed: another length'
    )

  def split_of(self, example: Example) -> str:
    """The name of the split that the example belongs to."""
    quarter = hashlib.blake2b(self.identity(example), digest_size=1).digest()[0] % 4
    return next(split for split, quarters in SPLIT_QUARTERS.items() if quarter in quarters)

  def show(self, example: Example) -> str:
    """The example as text, with its answers in brackets."""
    names = [self.token_names[token] for token in example.tokens_T]
    return ' '.join(
      f'[{name}]' if is_answer else name
      for name, is_answer in zip(names, example.answers_T, strict=True)
    )


class Chance(NamedTuple):
  """The scores of guessing: the share of examples with all answers right, the share of answers
  right, and the mean nats of an answer.
  """

  exact_match: float
  token_accuracy: float
  symbol_nats: float


def chance(examples: Sequence[Example]) -> Chance:
  """The scores of guessing evenly among the `choices` of each answer."""
  hits = [1 / example.choices_T[example.answers_T] for example in examples]
  exact = np.mean([np.prod(of_example) for of_example in hits])
  of_answers = np.concatenate(hits)
  return Chance(float(exact), float(of_answers.mean()), float(-np.log(of_answers).mean()))


def join_segments(*segments: tuple[Sequence[int], int], depth: int | None = None) -> Example:
  """Puts (tokens, choices) segments one after another; `choices` holds for every token of its
  segment and is 0 where the tokens are no answers.
  """
  tokens_T = np.concatenate([np.asarray(tokens, np.int32).reshape(-1) for tokens, _ in segments])
  choices_T = np.concatenate(
    [np.full(np.size(tokens), choices, np.int32) for tokens, choices in segments]
  )
  return Example(tokens_T, choices_T, depth)


def draw_codes(rng: np.random.Generator, symbols: int, size: int, count: int) -> np.ndarray:
  """Draws `count` different codes of `size` symbols each from 0 to `symbols` - 1: [count, size]."""
  if size == 1:
    return rng.permutation(symbols)[:count, None]
  numbers = rng.choice(symbols**size, count, replace=False)
  return numbers[:, None] // symbols ** np.arange(size)[::-1] % symbols


def letter_names(count: int) -> list[str]:
  """Names for `count` symbols: 'a' to 'z', then 's26', 's27', ..."""
  return [chr(ord('a') + i) if i < 26 else f's{i}' for i in range(count)]


def numbered_names(prefix: str, count: int) -> list[str]:
  """Names for `count` symbols: the prefix followed by 0, 1, 2, ..."""
  return [f'{prefix}{i}' for i in range(count)]


def min_string_length(symbols: int, unique: bool = False) -> int:
  """The length from which strings over `symbols` symbols (2 or more; 6 or more if no symbol may
  stand in a string twice) number MIN_INSTANCES.
  """
  number = math.perm if unique else pow
  return next(n for n in itertools.count(1) if number(symbols, n) >= MIN_INSTANCES)
