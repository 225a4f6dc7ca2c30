"""Counting since the last reset."""

import numpy as np

from posenc_jax.tasks.base import Example, Task, assemble, at_least, letters


class Counting(Task):
  """Says how often a variable was increased since it was last reset: a++ a=0 pass a++ pass a++ a?
  [2]

  Counts are drawn evenly from 0 to `highest`, and places evenly; the rest are `pass` (a share of
  `passes`), instructions of other variables and, before the last reset, of any. Chance is
  1/(`highest` + 1). Golovneva et al.: 1, 3 and 5 variables, counts to 10, tested in longer
  contexts.
  """

  source = 'Golovneva et al. 2024, "Contextual Position Encoding"'

  def __init__(self, *, variables: int = 1, highest: int = 10, passes: float = 0.5):
    at_least(1, variables=variables, highest=highest)
    if not isinstance(passes, int | float) or not 0 <= passes <= 1:
      raise ValueError(f'passes={passes!r}; allowed: 0 to 1')
    self.variables, self.highest, self.passes = variables, highest, passes
    names = letters(variables)
    values = [str(value) for value in range(highest + 1)]
    self.symbols = [
      *values,
      'pass',
      *(f'{name}{what}' for what in ('=0', '++', '?') for name in names),
    ]
    self.shortest = max(highest, 4) + 8

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    # `none`: the token of pass; what comes after it are instructions
    n, none = self.variables, self.highest + 1
    asked, count = int(rng.integers(n)), int(rng.integers(self.highest + 1))
    places = np.sort(rng.permutation(length - 2)[: count + 1])
    which = rng.integers(n, size=length - 2)
    others = (asked + rng.integers(1, n, size=length - 2)) % n if n > 1 else which
    is_after = np.arange(length - 2) > places[0]
    tokens = none + 1 + n * rng.integers(2, size=length - 2) + np.where(is_after, others, which)
    tokens[(rng.random(length - 2) < self.passes) | (is_after & (n == 1))] = none
    tokens[places] = none + 1 + n + asked
    tokens[places[0]] = none + 1 + asked
    return assemble((tokens, 0), ([none + 1 + 2 * n + asked], 0), (count, self.highest + 1))
