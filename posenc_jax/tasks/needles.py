"""What is hidden among fillers: needles, and chains of assignments. After RULER's, with symbols in
place of English.
"""

import numpy as np

from posenc_jax.tasks.base import Example, Task, assemble, at_least, numbered

# per cent of the filler before what is asked for; examples take them in turn
DEPTHS = tuple(range(0, 101, 10))


class Needle(Task):
  """Says what values stood beside a key among fillers: # # k3 v1 # k0 v6 # ? k3 [v1]

  `needles` keys, each with `values` values that stand in as many places; `queries` of the keys are
  asked for, all their values in order. With one query and one value a key the one asked for lies at
  a depth of 0 to 100 % in turn. Chance is 1/`symbols` a value. After RULER's single, multi-key,
  multi-value (4) and multi-query (4) needles, 1,000 to 16,000 tokens there; not these tasks, so not
  their numbers.
  """

  source = 'after Hsieh et al. 2024, "RULER"'

  def __init__(
    self,
    *,
    needles: int = 4,
    values: int = 1,
    queries: int = 1,
    keys: int = 16,
    symbols: int = 16,
    fillers: int = 16,
  ):
    at_least(1, needles=needles, values=values, queries=queries, fillers=fillers)
    at_least(2, symbols=symbols)
    at_least(needles, keys=keys)
    if queries > needles:
      raise ValueError(f'queries={queries!r}; allowed: 1 to needles={needles}')
    self.needles, self.values, self.queries = needles, values, queries
    self.keys, self.size, self.fillers = keys, symbols, fillers
    self.symbols = [*numbered('k', keys), *numbered('v', symbols), *numbered('#', fillers), '?']
    self.shortest = 2 * needles * values + self.queries * (2 + values) + 8

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    keys, count = rng.permutation(self.keys)[: self.needles], self.needles * self.values
    fill = length - 2 * count - self.queries * (2 + self.values)
    owners = rng.permutation(np.repeat(keys, self.values))
    values = self.keys + rng.integers(self.size, size=count)
    gaps = np.sort(rng.integers(fill + 1, size=count))  # fillers before each needle
    asked, depth = keys[: self.queries], None
    if self.queries == self.values == 1:
      depth = DEPTHS[index % len(DEPTHS)]
      own = owners == asked[0]
      gaps[own] = round(fill * depth / 100)
      order = np.argsort(gaps, kind='stable')
      gaps, owners, values = gaps[order], owners[order], values[order]
    base = self.keys + self.size
    tokens = np.insert(
      base + rng.integers(self.fillers, size=fill),
      np.repeat(gaps, 2),
      np.stack([owners, values], 1).flat,
    )
    parts = [(tokens, 0)]
    for key in asked:
      parts += [([base + self.fillers, key], 0), (values[owners == key], self.size)]
    return assemble(*parts, depth=depth)


class Hops(Task):
  """Says the value at the end of a chain of assignments: x4 = v2 # x7 = v5 x1 = x4 # # x3 = x1 ? x3
  [v2]

  `chains` of `hops` + 1 variables each, their statements in order and mixed among fillers; the last
  variable of one is asked for. Chance is 1/`values`. After RULER's variable tracking (1 chain, 4
  hops), which asks for the variables.
  """

  source = 'after Hsieh et al. 2024, "RULER"'

  def __init__(
    self,
    *,
    hops: int = 2,
    chains: int = 2,
    variables: int = 16,
    values: int = 16,
    fillers: int = 16,
  ):
    at_least(1, hops=hops, chains=chains, fillers=fillers)
    at_least(2, values=values)
    at_least(chains * (hops + 1), variables=variables)
    self.hops, self.chains, self.variables, self.values, self.fillers = (
      hops,
      chains,
      variables,
      values,
      fillers,
    )
    self.symbols = [
      *numbered('x', variables),
      *numbered('v', values),
      *numbered('#', fillers),
      '=',
      '?',
    ]
    self.shortest = 3 * chains * (hops + 1) + 3 + 4

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    size = self.hops + 1
    names = rng.permutation(self.variables)[: self.chains * size].reshape(self.chains, size)
    values = self.variables + rng.integers(self.values, size=(self.chains, 1))
    said = np.concatenate([values, names[:, :-1]], axis=1)  # what each variable is set to
    turn = rng.permutation(np.repeat(np.arange(self.chains), size))  # whose statement comes next
    step = np.array([(turn[:i] == chain).sum() for i, chain in enumerate(turn)])
    base = self.variables + self.values
    statements = np.stack(
      [names[turn, step], np.full(len(turn), base + self.fillers), said[turn, step]], 1
    )
    fill = length - 3 * len(turn) - 3
    gaps = np.sort(rng.integers(fill + 1, size=len(turn)))
    tokens = np.insert(
      base + rng.integers(self.fillers, size=fill), np.repeat(gaps, 3), statements.flat
    )
    asked = int(rng.integers(self.chains))
    return assemble(
      (tokens, 0), ([base + self.fillers + 1, names[asked, -1]], 0), (values[asked], self.values)
    )
