"""Copying what is scattered among blanks."""

import numpy as np

from posenc_jax.tasks.base import Example, Task, assemble, at_least, enough_places, letters


class SelectiveCopy(Task):
  """Says the symbols that stand among blanks, in order: _ b _ _ a c > [b] [a] [c]

  `items` symbols; all else up to the length asked for is blanks. Chance is 1/`symbols` a symbol,
  its `items`-th power for all. Golovneva et al.: 128 items, trained with 128 blanks, tested with 64
  (dense) and 256 (sparse).
  """

  source = 'Golovneva et al. 2024, "Contextual Position Encoding"; Gu and Dao 2023, "Mamba"'

  def __init__(self, *, symbols: int = 16, items: int = 8):
    at_least(2, symbols=symbols)
    at_least(enough_places(symbols), items=items)
    self.size, self.items = symbols, items
    self.symbols = [*letters(symbols), '_', '>']
    self.shortest = 2 * items + 1

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    places = length - 1 - self.items
    context = np.full(places, self.size)
    string = rng.integers(self.size, size=self.items)
    context[np.sort(rng.permutation(places)[: self.items])] = string
    return assemble((context, 0), ([self.size + 1], 0), (string, self.size))
