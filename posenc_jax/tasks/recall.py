"""Recall of what stood beside something: induction, and associative recall with many queries."""

import numpy as np

from posenc_jax.tasks.base import Example, Task, assemble, at_least, letters, numbered


class Induction(Task):
  """Says what came after the one earlier occurrence of a symbol: c a b d c ? a [b]

  The symbol asked for occurs once before; where, is drawn evenly. Chance is 1/`symbols`. Gu and Dao
  train at 256 tokens with 16 symbols and test to 4096 times that.
  """

  source = 'Olsson et al. 2022, "In-context Learning and Induction Heads"; Gu and Dao 2023, "Mamba"'

  def __init__(self, *, symbols: int = 16):
    at_least(3, symbols=symbols)
    self.size = symbols
    self.symbols = [*letters(symbols), '?']
    self.shortest = 12

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    asked = int(rng.integers(self.size))
    string = rng.integers(self.size - 1, size=length - 3)
    string += string >= asked  # any other symbol
    place = int(rng.integers(len(string) - 1))
    string[place] = asked
    return assemble(
      (string, 0), ([self.size, asked], 0), (string[place + 1 : place + 2], self.size)
    )


class MQAR(Task):
  """Multi-query associative recall: k2 v5 k0 v3 # k0 [v3] # # k2 [v5] #

  `pairs` keys with their values, then each key once more among fillers. The gap to it, in twos,
  follows the density power * gap^(power - 1): 1 is even, and at 0.01, as published, most are short.
  No filler is a key: with fillers from all symbols, as in the released code, keys occur that
  nothing is asked about. Chance is 1/`values` a query. Published: 8192 symbols, 64 to 512 tokens, 4
  to 64 pairs.
  """

  source = (
    'Arora et al. 2023, "Zoology: Measuring and Improving Recall in Efficient Language Models"'
  )

  def __init__(
    self, *, pairs: int = 8, keys: int = 32, values: int = 32, fillers: int = 8, power: float = 0.01
  ):
    at_least(2, pairs=pairs, values=values)
    at_least(pairs, keys=keys)
    at_least(1, fillers=fillers)
    if not 0 < power <= 1:
      raise ValueError(f'power={power!r}; allowed: more than 0, at most 1')
    self.pairs, self.keys, self.values, self.fillers, self.power = (
      pairs,
      keys,
      values,
      fillers,
      power,
    )
    self.symbols = [*numbered('k', keys), *numbered('v', values), *numbered('#', fillers)]
    self.shortest = 4 * pairs

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    n = self.pairs
    keys = rng.permutation(self.keys)[:n]
    values = self.keys + rng.integers(self.values, size=n)
    tokens_T = self.keys + self.values + rng.integers(self.fillers, size=length)
    choices_T = np.zeros(length, np.int32)
    tokens_T[: 2 * n : 2], tokens_T[1 : 2 * n : 2] = keys, values
    gaps = np.arange(1, (length - 2 * n) // 2 + 1)
    density = gaps ** (self.power - 1.0)
    places = 2 * n + 2 * rng.choice(len(gaps), n, replace=False, p=density / density.sum())
    tokens_T[places], tokens_T[places + 1] = keys, values
    choices_T[places + 1] = self.values
    return Example(tokens_T.astype(np.int32), choices_T)


class NBack(Task):
  """Says the value that a key had `back` assignments before its last: k1 v4 k0 v2 k1 v7 k1 v0 ? k1
  [v7]

  (With `back` = 1.) `queries` different keys are asked for, one after another; `back` = 0 asks for
  the last value. Chance is 1/`values` a query. Yang et al.: 32 pairs, 768 tokens.
  """

  source = 'Yang et al. 2025, "PaTH Attention"'
  unit = 2

  def __init__(self, *, back: int = 1, keys: int = 8, values: int = 16, queries: int = 4):
    at_least(0, back=back)
    at_least(1, queries=queries)
    at_least(2, values=values)
    at_least(queries, keys=keys)
    self.back, self.keys, self.values, self.queries = back, keys, values, queries
    self.symbols = [*numbered('k', keys), *numbered('v', values), '?']
    self.shortest = 2 * max(queries * (back + 1), 4) + 1 + 2 * queries

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    count = (length - 1 - 2 * self.queries) // 2
    asked = rng.permutation(self.keys)[: self.queries]
    needed = np.repeat(asked, self.back + 1)
    keys = rng.permutation(
      np.concatenate([needed, rng.integers(self.keys, size=count - len(needed))])
    )
    values = self.keys + rng.integers(self.values, size=count)
    parts = [(np.stack([keys, values], 1), 0), ([self.keys + self.values], 0)]
    for key in asked:
      parts += [([key], 0), (values[keys == key][-1 - self.back], self.values)]
    return assemble(*parts)
