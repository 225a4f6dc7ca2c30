"""Tasks that a machine with few states solves: parity, neighbors that differ, a walk on a cycle,
modular arithmetic, flip-flop, and the word problem of a group.
"""

import dataclasses
import functools
import string

import numpy as np

from posenc_jax.tasks.base import Example, Task, join_segments, min_string_length, numbered_names

# Groups by the permutations that generate them, each the images of the points a, b, c, ...
GROUPS = {
  's3': ('bac', 'bca'),
  'a4': ('bcad', 'badc'),
  's4': ('bacd', 'bcda'),
  'a5': ('bcade', 'bcdea'),
  's5': ('bacde', 'bcdea'),
  'a4z5': ('bcadefghi', 'badcefghi', 'abcdfghie'),
  'z60': ('bcaefgdijklh',),
}


@dataclasses.dataclass(kw_only=True, eq=False)
class Parity(Task):
  """The answer is 1 if the number of ones is odd, else 0.

  Example: 0 1 1 1 > [1]
  Chance: 1/2; with `scratchpad` 1/2 a bit, and its n-th power for all n.
  Source: Deletang et al. 2022, "Neural Networks and the Chomsky Hierarchy"; Anil et al. 2022,
    "Exploring Length Generalization in Large Language Models" (`scratchpad`)

  With `scratchpad`, the answer is the parity of the first bit, of the first two, and so on to all:
  0 1 1 1 > [0] [1] [0] [1]. So each step changes the one before by one bit, which must be found.
  Deletang et al. train on 1 to 40 bits (here on 8 or more) and test on more. Seeds either learn it
  or do not, so print every one.
  """

  scratchpad: bool = False

  token_names = ('0', '1', '>')

  def __post_init__(self):
    self.require_flag('scratchpad')
    self.unit = 2 if self.scratchpad else 1
    self.shortest = self.unit * min_string_length(2) + 3 - self.unit

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    bits = rng.integers(2, size=(length - 1) // 2 if self.scratchpad else length - 2)
    parities = bits.cumsum() % 2
    return join_segments((bits, 0), ([2], 0), (parities if self.scratchpad else parities[-1], 2))


class EvenPairs(Task):
  """The answer is 0 if the number of neighbors that differ is even, else 1.

  Example: 0 1 1 0 1 > [1]
  Chance: 1/2. Whether the first bit and the last one differ says it, too: a rule that reads these
    two alone is right always.
  Source: Deletang et al. 2022, "Neural Networks and the Chomsky Hierarchy"

  Deletang et al. train on 1 to 40 bits (here on 8 or more) and test on more.
  """

  token_names = ('0', '1', '>')
  shortest = min_string_length(2) + 2

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    bits = rng.integers(2, size=length - 2)
    num_unequal = np.count_nonzero(bits[1:] != bits[:-1])
    return join_segments((bits, 0), ([2], 0), (num_unequal % 2, 2))


@dataclasses.dataclass(kw_only=True, eq=False)
class CycleNavigation(Task):
  """The answer is where a walk on a cycle of `states` places ends that begins at place 0 and goes a
  place forward (+), back (-) or none (.) with each move.

  Example: + - . - - > [3]
  Chance: 1/`states`.
  Source: Deletang et al. 2022, "Neural Networks and the Chomsky Hierarchy"

  Deletang et al. train on 1 to 40 moves (here on 6 or more) and test on more, with 5 places.
  """

  states: int = 5

  def __post_init__(self):
    self.require_at_least(3, 'states')
    self.token_names = [*numbered_names('', self.states), '.', '+', '-', '>']
    self.shortest = min_string_length(3) + 2

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    moves = rng.integers(3, size=length - 2)
    steps = np.array([0, 1, -1])[moves]
    question = [*(self.states + moves), self.states + 3]
    return join_segments((question, 0), (steps.sum() % self.states, self.states))


@dataclasses.dataclass(kw_only=True, eq=False)
class ModularArithmetic(Task):
  """The answer is the value of a sum of products, modulo `modulus`.

  Example: 3 + 4 * 2 - 1 = [0]
  Chance: 1/`modulus`.
  Source: Deletang et al. 2022, "Neural Networks and the Chomsky Hierarchy"

  Operators are drawn evenly; `*` binds first. Deletang et al. train on 1 to 40 tokens (here on 9
  or more) and test on more, modulo 5.
  """

  modulus: int = 5

  unit = 2

  def __post_init__(self):
    self.require_at_least(2, 'modulus')
    self.token_names = [*numbered_names('', self.modulus), '+', '-', '*', '=']
    self.shortest = 11

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    m, n = self.modulus, (length - 1) // 2
    numbers, operators = rng.integers(m, size=n), rng.integers(3, size=n - 1)
    total, term = 0, int(numbers[0])
    for operator, number in zip(operators.tolist(), numbers[1:].tolist(), strict=True):
      if operator == 2:
        term = term * number % m
      else:
        total += term
        term = number if operator == 0 else -number
    tokens = np.empty(2 * n - 1, np.int32)
    tokens[::2], tokens[1::2] = numbers, m + operators
    return join_segments((tokens, 0), ([m + 3], 0), ((total + term) % m, m))


@dataclasses.dataclass(kw_only=True, eq=False)
class FlipFlop(Task):
  """The answer to every read (r) is the bit last written (w), whatever was ignored (i) since.

  Example: w 1 i 0 i 0 r [1] w 0 r [0]
  Chance: 1/2 a read. The bit right before a read, whatever its instruction, is right in
    1 - `ignore`/2: in 0.95 with `ignore` = 0.1, 0.6 at the default.
  Source: Liu et al. 2023, "Exposing Attention Glitches with Flip-Flop Language Modeling"

  Instructions are drawn one by one: i with probability `ignore`, else w or r; the first is w and
  the last is r. Liu et al. use 512 tokens, with `ignore` 0.8 in training, 0.98 (sparse) and 0.1
  (dense) in tests. Errors are rare: measuring them takes 100,000 reads or more.
  """

  ignore: float = 0.8

  unit = 2

  def __post_init__(self):
    if not isinstance(self.ignore, int | float) or not 0 <= self.ignore < 1:
      raise ValueError(f'ignore={self.ignore!r}; allowed: 0 or more, less than 1')
    self.token_names = ['0', '1', 'w', 'r', 'i']
    self.shortest = 24

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    n = length // 2
    rest = (1 - self.ignore) / 2
    instructions = 2 + rng.choice(3, n, p=(rest, rest, self.ignore))
    instructions[0], instructions[-1] = 2, 3
    bits = rng.integers(2, size=n)
    last_writes = np.maximum.accumulate(np.where(instructions == 2, np.arange(n), 0))
    reads = instructions == 3
    bits[reads] = bits[last_writes[reads]]
    tokens = np.stack([instructions, bits], 1)
    choices = np.stack([np.zeros(n, int), np.where(reads, 2, 0)], 1)
    return Example(tokens.reshape(-1).astype(np.int32), choices.reshape(-1).astype(np.int32))


@functools.cache
def elements_of(group: str) -> tuple[str, ...]:
  """All elements of one of GROUPS, in the order of their letters."""
  generators = GROUPS[group]
  elements = frontier = {string.ascii_lowercase[: len(generators[0])]}
  while frontier:
    frontier = {after(x, g) for x in frontier for g in generators} - elements
    elements = elements | frontier
  return tuple(sorted(elements))


def after(first: str, second: str) -> str:
  """The permutation that `second` makes of the result of `first`."""
  return ''.join(second[string.ascii_lowercase.index(image)] for image in first)


@dataclasses.dataclass(kw_only=True, eq=False)
class WordProblem(Task):
  """The answer is the product of the elements of a group that stand before it, one after another.

  Example: bac bca acb = [bca]
  Chance: 1/the number of elements: 1/120 with `group` = 's5'; with `swaps` twice that, since the
    length decides whether a product is even.
  Source: Merrill et al. 2024, "The Illusion of State in State-Space Models"; Yang et al. 2025,
    "PaTH Attention"

  An element is a permutation, printed as the images of a, b, c, ...; the first of the word is
  applied first, so that bac bca = cba. Words over 's3', 's4', 'a4', 'z60' and 'a4z5', which are
  solvable, take less depth of a circuit than words over 'a5' and 's5', which transformers of a
  fixed depth are conjectured not to have for every length. With `swaps`, elements exchange two
  points each, as in the paper on PaTH, which proves that one layer of it follows them; 's3', 's4'
  and 's5' have swaps. Merrill et al. ask for the product after every element, and give none of
  these products back; here, one answer stands at the end.
  """

  group: str = 's5'
  swaps: bool = False

  def __post_init__(self):
    self.require_one_of('group', tuple(GROUPS))
    self.require_flag('swaps')
    if self.swaps and not self.group.startswith('s'):
      raise ValueError("swaps=True; allowed: with group='s3', 's4' or 's5'")
    elements = elements_of(self.group)
    self.token_names = [*elements, '=']
    self.moves = [
      number
      for number, element in enumerate(elements)
      if not self.swaps or sum(map(str.__ne__, element, string.ascii_lowercase)) == 2
    ]
    self.shortest = min_string_length(len(self.moves)) + 2

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    elements = elements_of(self.group)
    word = rng.choice(self.moves, length - 2)
    product = functools.reduce(after, (elements[number] for number in word))
    choices = len(elements) // 2 if self.swaps else len(elements)
    return join_segments((word, 0), ([len(elements)], 0), (elements.index(product), choices))
