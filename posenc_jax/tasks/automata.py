"""Tasks that a machine with few states solves: parity, modular arithmetic, flip-flop."""

import dataclasses

import numpy as np

from posenc_jax.tasks.base import Example, Task, join_segments, min_string_length, numbered_names


class Parity(Task):
  """The answer is 1 if the number of ones is odd, else 0.

  Example: 0 1 1 1 > [1]
  Chance: 1/2.
  Source: Deletang et al. 2022, "Neural Networks and the Chomsky Hierarchy"

  Deletang et al. train on 1 to 40 bits and test on more. Seeds either learn it or do not, so print
  every one.
  """

  token_names = ('0', '1', '>')
  shortest = min_string_length(2) + 2

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    bits = rng.integers(2, size=length - 2)
    return join_segments((bits, 0), ([2], 0), (bits.sum() % 2, 2))


@dataclasses.dataclass(kw_only=True, eq=False)
class ModularArithmetic(Task):
  """The answer is the value of a sum of products, modulo `modulus`.

  Example: 3 + 4 * 2 - 1 = [0]
  Chance: 1/`modulus`.
  Source: Deletang et al. 2022, "Neural Networks and the Chomsky Hierarchy"

  Operators are drawn evenly; `*` binds first. Deletang et al. train on 1 to 40 tokens and test on
  more, modulo 5.
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
  Chance: 1/2 a read.
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
