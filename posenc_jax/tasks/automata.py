"""Tasks of few states: parity, modular arithmetic, flip-flop."""

import numpy as np

from posenc_jax.tasks.base import Example, Task, assemble, at_least, enough_places, numbered


class Parity(Task):
  """Says whether the number of ones is odd: 0 1 1 1 > [1]

  Chance is 1/2. Deletang et al. train on 1 to 40 bits and test on more. Seeds are bimodal: print
  every one.
  """

  source = 'Deletang et al. 2022, "Neural Networks and the Chomsky Hierarchy"'

  def __init__(self):
    self.symbols = ['0', '1', '>']
    self.shortest = enough_places(2) + 2

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    bits = rng.integers(2, size=length - 2)
    return assemble((bits, 0), ([2], 0), (bits.sum() % 2, 2))


class ModularArithmetic(Task):
  """Says the value of a sum of products, modulo `modulus`: 3 + 4 * 2 - 1 = [0]

  Operators are drawn evenly; `*` binds first. Chance is 1/`modulus`. Deletang et al. train on 1 to
  40 tokens and test on more, modulo 5.
  """

  source = 'Deletang et al. 2022, "Neural Networks and the Chomsky Hierarchy"'
  unit = 2

  def __init__(self, *, modulus: int = 5):
    at_least(2, modulus=modulus)
    self.modulus = modulus
    self.symbols = [*numbered('', modulus), '+', '-', '*', '=']
    self.shortest = 11

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    m, n = self.modulus, (length - 1) // 2
    numbers, operators = rng.integers(m, size=n), rng.integers(3, size=n - 1)
    total, term = 0, int(numbers[0])
    for operator, number in zip(operators.tolist(), numbers[1:].tolist(), strict=True):
      if operator == 2:
        term = term * number % m
      else:
        total, term = total + term, number if operator == 0 else -number
    tokens = np.empty(2 * n - 1, np.int32)
    tokens[::2], tokens[1::2] = numbers, m + operators
    return assemble((tokens, 0), ([m + 3], 0), ((total + term) % m, m))


class FlipFlop(Task):
  """Says at every read (r) the bit last written (w), whatever was ignored (i): w 1 i 0 i 0 r [1] w
  0 r [0]

  Instructions are drawn one by one, `ignore` of them i and half of the rest each w and r; the first
  is w, the last r. Chance is 1/2 a read. Liu et al.: 512 tokens, `ignore` 0.8 in training, 0.98
  (sparse) and 0.1 (dense) in tests; errors are rare, so that it takes 100,000 reads or more to
  measure them.
  """

  source = 'Liu et al. 2023, "Exposing Attention Glitches with Flip-Flop Language Modeling"'
  unit = 2

  def __init__(self, *, ignore: float = 0.8):
    if not isinstance(ignore, int | float) or not 0 <= ignore < 1:
      raise ValueError(f'ignore={ignore!r}; allowed: 0 or more, less than 1')
    self.ignore = ignore
    self.symbols = ['0', '1', 'w', 'r', 'i']
    self.shortest = 24

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    n = length // 2
    rest = (1 - self.ignore) / 2
    instructions = 2 + rng.choice(3, n, p=(rest, rest, self.ignore))
    instructions[0], instructions[-1] = 2, 3
    bits = rng.integers(2, size=n)
    writes = np.maximum.accumulate(np.where(instructions == 2, np.arange(n), 0))
    reads = instructions == 3
    bits[reads] = bits[writes[reads]]
    choices = np.stack([np.zeros(n, int), np.where(reads, 2, 0)], 1)
    return Example(
      np.stack([instructions, bits], 1).reshape(-1).astype(np.int32),
      choices.reshape(-1).astype(np.int32),
    )
