"""Tasks that hide items among fillers: needles, and chains of assignments.

They follow RULER's tasks, with symbols in place of English.
"""

import dataclasses

import numpy as np

from posenc_jax.tasks.base import Example, Task, join_segments, numbered_names

# The share of the filler before the hidden item, in per cent; examples take the depths in turn.
DEPTHS = tuple(range(0, 101, 10))


@dataclasses.dataclass(kw_only=True, eq=False)
class Needle(Task):
  """The answer is every value that stood beside a key among fillers.

  Example: # # k3 v1 # k0 v6 # ? k3 [v1]
  Chance: 1/`symbols` a value.
  Source: after Hsieh et al. 2024, "RULER"

  `needles` keys stand in the text, each with `values` values in as many places; `queries` of the
  keys are asked for, and all their values are due in order. With one query and one value a key, the
  key asked for lies at a depth of 0 to 100 % in turn. RULER's tasks are single, multi-key,
  multi-value (4) and multi-query (4) needles in 1,000 to 16,000 tokens of text; these tasks differ,
  so their numbers do too.
  """

  needles: int = 4
  values: int = 1
  queries: int = 1
  keys: int = 16
  symbols: int = 16
  fillers: int = 16

  def __post_init__(self):
    self.require_at_least(1, 'needles', 'values', 'queries', 'fillers')
    self.require_at_least(2, 'symbols')
    self.require_at_least(self.needles, 'keys')
    if self.queries > self.needles:
      raise ValueError(f'queries={self.queries!r}; allowed: 1 to needles={self.needles}')
    keys, values = numbered_names('k', self.keys), numbered_names('v', self.symbols)
    self.token_names = [*keys, *values, *numbered_names('#', self.fillers), '?']
    self.shortest = 2 * self.needles * self.values + self.queries * (2 + self.values) + 8

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    keys = rng.permutation(self.keys)[: self.needles]
    count = self.needles * self.values
    num_fillers = length - 2 * count - self.queries * (2 + self.values)
    owners = rng.permutation(np.repeat(keys, self.values))
    values = self.keys + rng.integers(self.symbols, size=count)
    gaps = np.sort(rng.integers(num_fillers + 1, size=count))  # fillers before each needle
    asked, depth = keys[: self.queries], None
    if self.queries == self.values == 1:
      depth = DEPTHS[index % len(DEPTHS)]
      gaps[owners == asked[0]] = round(num_fillers * depth / 100)
      order = np.argsort(gaps, kind='stable')
      gaps, owners, values = gaps[order], owners[order], values[order]
    first_filler = self.keys + self.symbols
    fillers = first_filler + rng.integers(self.fillers, size=num_fillers)
    needles = np.stack([owners, values], 1)
    segments = [(np.insert(fillers, np.repeat(gaps, 2), needles.flat), 0)]
    for key in asked:
      question = [first_filler + self.fillers, key]
      segments += [(question, 0), (values[owners == key], self.symbols)]
    return join_segments(*segments, depth=depth)


@dataclasses.dataclass(kw_only=True, eq=False)
class Hops(Task):
  """The answer is the value at the end of a chain of assignments.

  Example: x4 = v2 # x7 = v5 x1 = x4 # # x3 = x1 ? x3 [v2]
  Chance: 1/`values`.
  Source: after Hsieh et al. 2024, "RULER"

  There are `chains` chains of `hops` + 1 variables each. Their statements keep their order and are
  mixed among fillers; the last variable of one chain is asked for. RULER's variable tracking (1
  chain, 4 hops) asks for the variables instead.
  """

  hops: int = 2
  chains: int = 2
  variables: int = 16
  values: int = 16
  fillers: int = 16

  def __post_init__(self):
    self.require_at_least(1, 'hops', 'chains', 'fillers')
    self.require_at_least(2, 'values')
    self.require_at_least(self.chains * (self.hops + 1), 'variables')
    variables, values = numbered_names('x', self.variables), numbered_names('v', self.values)
    self.token_names = [*variables, *values, *numbered_names('#', self.fillers), '=', '?']
    self.shortest = 3 * self.chains * (self.hops + 1) + 3 + 4

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    size = self.hops + 1
    names = rng.permutation(self.variables)[: self.chains * size].reshape(self.chains, size)
    values = self.variables + rng.integers(self.values, size=(self.chains, 1))
    assigned = np.concatenate([values, names[:, :-1]], axis=1)  # what each variable is set to
    chains = rng.permutation(np.repeat(np.arange(self.chains), size))  # of each statement
    step = np.array([(chains[:i] == chain).sum() for i, chain in enumerate(chains)])
    first_filler = self.variables + self.values
    equals = first_filler + self.fillers
    statements = np.stack(
      [names[chains, step], np.full(len(chains), equals), assigned[chains, step]], 1
    )
    num_fillers = length - 3 * len(chains) - 3
    gaps = np.sort(rng.integers(num_fillers + 1, size=len(chains)))
    fillers = first_filler + rng.integers(self.fillers, size=num_fillers)
    tokens = np.insert(fillers, np.repeat(gaps, 3), statements.flat)
    asked = int(rng.integers(self.chains))
    question = [equals + 1, names[asked, -1]]
    return join_segments((tokens, 0), (question, 0), (values[asked], self.values))
