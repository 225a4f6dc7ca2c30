"""Copying a string, forwards or backwards."""

import numpy as np

from posenc_jax.tasks.base import Example, Task, assemble, at_least, enough_places, letters


class Copy(Task):
  """Says a random string again: a b c > [a] [b] [c] [.]

  A string of n symbols makes 2 n + 2 tokens. Chance is 1/`symbols` a symbol, its n-th power for
  all; the end is given. Kazemnejad et al. train to 20 symbols and test to 40, with variants that
  `distinct` and `times` make: 1 and 1 (a single symbol repeated), 1 and 2, 0 and 2. To stop too
  early is the usual failure beyond the training length.
  """

  source = 'Kazemnejad et al. 2023, "The Impact of Positional Encoding on Length Generalization in Transformers"'
  ends = True

  def __init__(self, *, symbols: int = 26, distinct: int = 0, times: int = 1):
    """`distinct`: different symbols within one string, at most (0: any); `times`: how often it is
    said again.
    """
    at_least(2, symbols=symbols)
    at_least(0, distinct=distinct)
    at_least(1, times=times)
    if distinct > symbols:
      raise ValueError(f'distinct={distinct!r}; allowed: 0 to symbols={symbols}')
    self.size, self.distinct, self.times, self.unit = symbols, distinct, times, 1 + times
    self.symbols = [*letters(symbols), '>', '.']
    self.shortest = (1 + times) * enough_places(symbols) + 2

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    n = (length - 2) // (1 + self.times)
    if self.distinct:
      string = rng.choice(rng.permutation(self.size)[: self.distinct], n)
    else:
      string = rng.integers(self.size, size=n)
    answer = np.tile(self.answer(string), self.times)
    return assemble((string, 0), ([self.size], 0), (answer, self.size), ([self.size + 1], 1))

  def answer(self, string: np.ndarray) -> np.ndarray:
    return string


class Reverse(Copy):
  """Says a random string backwards: a b c > [c] [b] [a] [.]

  Sizes, options and chance are those of `copy`.
  """

  def answer(self, string: np.ndarray) -> np.ndarray:
    return string[::-1]


class Sort(Copy):
  """Says the symbols of a random string in their order: c a c b > [a] [b] [c] [c] [.]

  Sizes, options and chance are those of `copy`. Kazemnejad et al. train on 8 numbers and test on
  16.
  """

  def answer(self, string: np.ndarray) -> np.ndarray:
    return np.sort(string)
