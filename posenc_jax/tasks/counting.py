"""Counting since the last reset."""

import dataclasses

import numpy as np

from posenc_jax.tasks.base import Example, Task, join_segments, letter_names


@dataclasses.dataclass(kw_only=True, eq=False)
class Counting(Task):
  """The answer is how often a variable was increased since its last reset.

  Example: a++ a=0 pass a++ pass a++ a? [2]
  Chance: 1/(`highest` + 1). Without counting, the likeliest count at the distance of the last reset
    is right in about 0.17 with `highest` = 10 (chance: 0.091), whatever the length.
  Source: Golovneva et al. 2024, "Contextual Position Encoding"

  The count is drawn evenly from 0 to `highest`, and so are the places of its instructions. The
  other places hold `pass` (a share `passes` of them), instructions of other variables and, before
  the last reset, instructions of any variable.

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
