"""Counting since the last reset, and which symbol stands most often."""

import dataclasses

import numpy as np

from posenc_jax.tasks.base import (
  MAX_DRAWS,
  Example,
  Task,
  join_segments,
  letter_names,
  min_string_length,
)

MAX_SYMBOLS = 1000  # among many symbols, one that stands most often is rare in short strings


@dataclasses.dataclass(kw_only=True, eq=False)
class Counting(Task):
  """The answer is how often a variable was increased since its last reset.

  Example: a++ a=0 pass a++ pass a++ a? [2]
  Chance: 1/(`highest` + 1). Without counting, the likeliest count at the distance of the last reset
    is right in about 0.17 with `highest` = 10 (chance: 0.091), whatever the length.
  Source: Golovneva et al. 2024, "Contextual Position Encoding"

  The count is drawn evenly from 0 to `highest`, and so are the places of its instructions. The
  other places hold `pass` (a share `passes` of them), instructions of other variables and, before
  the last reset, instructions of any variable. With one variable all that stand behind that reset
  hold `pass`.

  Golovneva et al. use 1, 3 and 5 variables and counts to 10, and test in longer contexts. They draw
  otherwise: in their released code, each of 3 to 512 instructions is a reset with weight 1, `pass`
  with weight 50 and an increase with weight 7 (so 86 % are `pass`), only a variable that was reset
  is increased, never beyond 10, and it is as likely to be asked for as any other of these. So small
  counts are frequent there, and numbers here are none of theirs.
  """

  variables: int = 1
  highest: int = 10
  passes: float = 0.5

  def __post_init__(self):
    self.require_at_least(1, 'variables', 'highest')
    self.require_number('passes', 0, 1)
    values = [str(value) for value in range(self.highest + 1)]
    instructions = [
      f'{name}{suffix}' for suffix in ('=0', '++', '?') for name in letter_names(self.variables)
    ]
    self.token_names = [*values, 'pass', *instructions]
    self.shortest = max(self.highest, 4) + 8

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    n = self.variables
    pass_token = self.highest + 1
    reset = pass_token + 1  # the first of n tokens a=0, b=0, ...
    increase = reset + n  # the first of n tokens a++, b++, ...
    question = increase + n  # the first of n tokens a?, b?, ...
    asked = int(rng.integers(n))
    count = int(rng.integers(self.highest + 1))
    places = np.sort(rng.permutation(length - 2)[: count + 1])
    variables = rng.integers(n, size=length - 2)
    others = (asked + rng.integers(1, n, size=length - 2)) % n if n > 1 else variables
    after_reset = np.arange(length - 2) > places[0]
    kinds = rng.integers(2, size=length - 2)
    tokens = reset + n * kinds + np.where(after_reset, others, variables)
    tokens[(rng.random(length - 2) < self.passes) | (after_reset & (n == 1))] = pass_token
    tokens[places] = increase + asked
    tokens[places[0]] = reset + asked
    return join_segments((tokens, 0), ([question + asked], 0), (count, self.highest + 1))


@dataclasses.dataclass(kw_only=True, eq=False)
class Mode(Task):
  """The answer is the symbol that stands most often.

  Example: a b d b c b a > [b]
  Chance: 1/`symbols`. Without counting, the symbol at any place is right in 0.33 at 64 tokens and
    0.29 at 256; with `symbols` = 2 in 0.56 and 0.53.
  Source: after Zhou et al. 2023, "What Algorithms can Transformers Learn?"

  Symbols are drawn evenly, and strings anew until no two symbols stand most often. With `symbols` =
  2 the task is majority. How Zhou et al. draw symbols was not compared.
  """

  symbols: int = 4

  def __post_init__(self):
    self.require_at_least(2, 'symbols')
    if self.symbols > MAX_SYMBOLS:
      raise ValueError(f'symbols={self.symbols}; allowed: 2 to {MAX_SYMBOLS}')
    self.token_names = [*letter_names(self.symbols), '>']
    self.shortest = max(min_string_length(self.symbols), 8) + 2

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    for _ in range(MAX_DRAWS):
      string = rng.integers(self.symbols, size=length - 2)
      *_, second, most = np.sort(counts := np.bincount(string, minlength=self.symbols))
      if second < most:
        break
    else:
      raise ValueError(f'{length} tokens: no symbol stands most often; allowed: more tokens')
    return join_segments((string, 0), ([self.symbols], 0), (counts.argmax(), self.symbols))
