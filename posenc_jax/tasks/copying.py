"""Tasks that say a string again: as it was, backwards, sorted, in another order, or without its
blanks; and one that says what its repetition lacks.
"""

import dataclasses

import numpy as np

from posenc_jax.tasks.base import Example, Task, join_segments, letter_names, min_string_length

MIN_STRINGS = 26  # of a length: with fewer, a split may have none of some lengths


@dataclasses.dataclass(kw_only=True, eq=False)
class Copy(Task):
  """The answer is a random string, said again.

  Example: a b c > [a] [b] [c] [.]
  Chance: 1/`symbols` a symbol, and its n-th power for the whole string; the end is certain. Without
    any order, naming a symbol of the string that was not yet said is right in s + (1 - s)/`symbols`
    of n symbols, where s = (1 + 1/2 + ... + 1/n)/n: with `symbols` = 16 in 0.27 of 15, 0.21 of 23
    and 0.18 of 31. With `unique` in s. With `distinct` that number stands for `symbols`: so all are
    right with `distinct` = 1, where only the number of symbols is to be found.
  Source: Kazemnejad et al. 2023, "The Impact of Positional Encoding on Length Generalization in
    Transformers"; Zhou et al. 2023, "What Algorithms can Transformers Learn?" (`unique`)

  A string of n symbols makes 2 n + 2 tokens. `distinct` limits the different symbols within one
  string (0: no limit); `times` says how often the string is repeated. With `unique`, no symbol
  stands in a string twice, so that what is due stands behind the symbol last said; Zhou et al. find
  that such strings are copied at greater lengths, and not those in which symbols come again.

  Kazemnejad et al. train to 20 symbols and test on longer strings, to 40, of 100 different symbols,
  with variants of (`distinct`, `times`): (1, 1) is one symbol repeated; also (1, 2) and (0, 2), of
  which the latter has a separator between the copies there and none here. Beyond the training
  length, models usually stop too early.

  With `blanks`, up to so many of them stand between the string and '>', where the length has room
  for them beside a shortest string; their number is drawn evenly. So a symbol and its copy lie
  farther apart than the string is long, and models can be trained on more distances than on
  numbers of symbols. A model that was trained with some is asked without them by 0; None: there are
  none, nor are they in the vocabulary.
  """

  symbols: int = 26
  distinct: int = 0
  times: int = 1
  blanks: int | None = None
  unique: bool = False

  ends = True

  def __post_init__(self):
    self.require_at_least(2, 'symbols')
    self.require_at_least(0, 'distinct')
    self.require_at_least(1, 'times')
    if self.blanks is not None:
      self.require_at_least(0, 'blanks')
    if self.distinct > self.symbols:
      raise ValueError(f'distinct={self.distinct!r}; allowed: 0 to symbols={self.symbols}')
    if self.distinct == 1:
      self.require_at_least(MIN_STRINGS, 'symbols')
    self.require_flag('unique')
    if self.unique:
      if self.distinct:
        raise ValueError(f'distinct={self.distinct!r}; allowed: 0 with unique=True')
      self.require_at_least(6, 'symbols')  # fewer have too few strings
    self.unit = 1 + self.times
    self.token_names = [*letter_names(self.symbols), '>', *(['.'] if self.ends else [])]
    self.blank = len(self.token_names)
    if self.blanks is not None:
      self.token_names.append('_')
    fewest = min_string_length(self.symbols, self.unique)
    self.shortest = self.unit * fewest + 1 + self.ends
    self.longest = self.unit * self.symbols + 1 + self.ends if self.unique else None

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    most = min(self.blanks or 0, length - self.shortest)
    num_blanks = int(rng.integers(most + 1)) if self.blanks else 0
    n = (length - num_blanks - 1 - self.ends) // self.unit
    if self.distinct:
      string = rng.choice(rng.permutation(self.symbols)[: self.distinct], n)
    elif self.unique:
      string = rng.permutation(self.symbols)[:n]
    else:
      string = rng.integers(self.symbols, size=n)
    answer = np.tile(self.answer(string), self.times)
    question = [self.blank] * num_blanks + [self.symbols]
    segments = [(string, 0), (question, 0), (answer, self.symbols)]
    if self.ends:
      segments.append(([self.symbols + 1], 1))
    return join_segments(*segments)

  def identity(self, example: Example) -> bytes:
    """The bytes of the tokens but for blanks: one string is one instance, however far its copy."""
    return example.tokens_T[example.tokens_T != self.blank].tobytes()

  def answer(self, string: np.ndarray) -> np.ndarray:
    """The string that is to be said."""
    return string


class Reverse(Copy):
  """The answer is a random string, said backwards.

  Example: a b c > [c] [b] [a] [.]

  Sizes, options, chance and source are those of `copy`.
  """

  def answer(self, string: np.ndarray) -> np.ndarray:
    return string[::-1]


class Palindrome(Reverse):
  """The answer is a random string, said backwards, without an end symbol.

  Example: a b c > [c] [b] [a]
  Chance: 1/`symbols` a symbol, and its n-th power for the whole string. Without any order, as in
    `copy`.
  Source: Kimi Team 2025, "Kimi Linear"

  It is `reverse` but for the end, which counts as an answer there; sizes and options are those of
  `copy`. The paper has 256 to 2,048 tokens.
  """

  ends = False


class Sort(Copy):
  """The answer is a random string with its symbols sorted.

  Example: c a c b > [a] [b] [c] [c] [.]
  Chance: 1/`symbols` a symbol; the end is certain. Saying the last symbol again is right in 1 - d/n
    of n symbols, of which d = `symbols` (1 - (1 - 1/`symbols`)^n) differ: 0.23 at 32 tokens, 0.41
    at 64, 0.62 at 128, 0.80 at 256. With `unique`, the next symbol of the alphabet is right in
    n/`symbols`: in all where all symbols stand in the string.

  Sizes, options and source are those of `copy`. Kazemnejad et al. train on up to 8 numbers, each
  one symbol of 50 or of several digits, and test on 9 to 16.
  """

  def answer(self, string: np.ndarray) -> np.ndarray:
    return np.sort(string)


class OddsFirst(Copy):
  """The answer is every second symbol of a random string, then the others.

  Example: a b c d e > [b] [d] [a] [c] [e] [.]
  Source: Deletang et al. 2022, "Neural Networks and the Chomsky Hierarchy"

  Sizes, options and chance are those of `copy`. Deletang et al. train on 1 to 40 symbols of 2 (here
  on 8 or more) and test on more.
  """

  def answer(self, string: np.ndarray) -> np.ndarray:
    return np.concatenate([string[1::2], string[::2]])


@dataclasses.dataclass(kw_only=True, eq=False)
class MissingDuplicate(Task):
  """A random string stands twice, with '?' in the place of one symbol; the answer is that symbol.

  Example: a b b a a b ? a > [b]
  Chance: 1/`symbols`. Without looking at places, the symbol that stands an odd number of times says
    it: a rule that counts is right always.
  Source: Deletang et al. 2022, "Neural Networks and the Chomsky Hierarchy"

  A string of n symbols makes 2 n + 2 tokens. Deletang et al. train on 1 to 40 tokens of 2 symbols
  (here on 16 or more) and test on more.
  """

  symbols: int = 2

  unit = 2

  def __post_init__(self):
    self.require_at_least(2, 'symbols')
    self.token_names = [*letter_names(self.symbols), '?', '>']
    self.shortest = 2 * min_string_length(self.symbols) + 2

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    string = rng.integers(self.symbols, size=(length - 2) // 2)
    twice = np.tile(string, 2)
    place = rng.integers(len(twice))
    missing = twice[place]
    twice[place] = self.symbols
    return join_segments((twice, 0), ([self.symbols + 1], 0), (missing, self.symbols))

  def identity(self, example: Example) -> bytes:
    """The bytes of the string: it is one instance, whichever of its symbols is missing."""
    first, second = np.split(example.tokens_T[:-2], 2)
    return np.minimum(first, second).tobytes()  # '?' comes after all symbols


@dataclasses.dataclass(kw_only=True, eq=False)
class SelectiveCopy(Task):
  """The answer is the symbols that stand among blanks, in their order.

  Example: _ b _ _ a c > [b] [a] [c]
  Chance: 1/`symbols` a symbol, and its `items`-th power for all of them. Without any order, naming
    an item that was not yet said is right as in `copy`: in 0.381 at the defaults.
  Source: Golovneva et al. 2024, "Contextual Position Encoding"; Gu and Dao 2023, "Mamba"

  There are `items` symbols; blanks fill the sequence up to the length asked for. Golovneva et al.
  use 128 items, train with 128 blanks and test with 64 (dense) and 256 (sparse).
  """

  symbols: int = 16
  items: int = 8

  def __post_init__(self):
    self.require_at_least(2, 'symbols')
    self.require_at_least(min_string_length(self.symbols), 'items')
    self.token_names = [*letter_names(self.symbols), '_', '>']
    self.shortest = 2 * self.items + 1

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    num_places = length - 1 - self.items
    context = np.full(num_places, self.symbols)
    string = rng.integers(self.symbols, size=self.items)
    context[np.sort(rng.permutation(num_places)[: self.items])] = string
    return join_segments((context, 0), ([self.symbols + 1], 0), (string, self.symbols))
