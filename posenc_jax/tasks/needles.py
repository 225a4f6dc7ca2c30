"""Tasks that hide items among fillers: needles, and chains of assignments.

They follow RULER's tasks, with symbols in place of English.
"""

import dataclasses

import numpy as np

from posenc_jax.tasks.base import Example, Task, draw_codes, join_segments, numbered_names

# The share of the filler before the hidden item, in per cent; examples take the depths in turn.
DEPTHS = tuple(range(0, 101, 10))
HAYSTACKS = ('fillers', 'needles')
DRAWS_OF_DEPTH = ('in_turn', 'even')


@dataclasses.dataclass(kw_only=True, eq=False)
class Needle(Task):
  """The answer is every value that stood beside a key among fillers.

  Example: # # k3 v1 # k0 v6 # ? k3 [v1]
  Chance: 1/`symbols` a symbol. Without reading the key, any value of the text is right in
    s + (1 - s)/`symbols`, where s is 1/`needles`, with `haystack` = 'needles' 1/the needles of the
    text (0.078 at 128 tokens); with `distinct` in s. But the needle asked for stands at a tenth of
    the text, where others seldom do: naming one that stands there is right in 0.73 of 64 tokens
    and 0.97 of 512 with `distinct`; with `haystack` = 'needles' a random tenth in 0.11. With
    `depth` = 'even' no place tells anything. With `distance` the place is the whole answer, right
    always. Of codes only the first symbol asks for the key: any value, gone on with as it was
    begun, has 0.80 of the symbols with `value_symbols` = 4.
  Source: after Hsieh et al. 2024, "RULER"

  `needles` keys stand in the text, each with `values` values in as many places; `queries` of the
  keys are asked for, and all their values are due in order. With one query and one value a key, the
  key asked for lies at a depth of 0 to 100 % in turn, in training, too, and the others anywhere;
  with `depth` = 'even' it lies anywhere as they do, and scores are not told by depth. With several
  queries or values all lie anywhere. With one needle the key says nothing. With `distinct`, all
  values of the `needles` keys differ; only with `depth` = 'even' is then the key all that tells
  which is due.

  Keys and values are codes of `key_symbols` and `value_symbols` symbols (RULER's numbers and
  uuids): k3 k1 v7 v0. With `haystack` = 'needles' there are no fillers: the text is needles all
  through, the others with keys that nothing asks for.

  With `distance`, the needle asked for ends so many tokens before the question at every length, and
  what grows with the length is the text before it (NoLiMa's aligned depth, Modarressi et al. 2025,
  arXiv:2502.05167): far away and in a long context are told apart. 0: as `depth` says.

  RULER's tasks, in 4,096 to 131,072 tokens of text: multi-key 1 is needles=4, multi-key 2
  haystack='needles' with words and numbers, multi-key 3 the same with uuids, multi-value values=4,
  multi-query queries=4. They ask in English, take answers in any order, and draw the places of
  all needles alike (in essays from 40 depths, none twice); so their numbers differ from these.
  """

  needles: int = 4
  values: int = 1
  queries: int = 1
  keys: int = 16
  symbols: int = 16
  fillers: int = 16
  key_symbols: int = 1
  value_symbols: int = 1
  distinct: bool = False
  haystack: str = 'fillers'
  distance: int = 0
  depth: str = 'in_turn'

  def __post_init__(self):
    self.require_at_least(1, 'needles', 'values', 'queries', 'fillers')
    self.require_at_least(2, 'symbols')
    self.require_one_of('haystack', HAYSTACKS)
    self.require_flag('distinct')
    self.of_needles = self.haystack == 'needles'
    if self.of_needles and self.fillers != Needle.fillers:
      allowed = f"{Needle.fillers}, or with haystack='fillers'"
      raise ValueError(f'fillers={self.fillers}; allowed: {allowed}')
    self.require_codes(self.needles + self.of_needles, 'keys', 'key_symbols')
    count = self.needles * self.values
    self.require_codes(count if self.distinct else 1, 'symbols', 'value_symbols')
    if self.queries > self.needles:
      raise ValueError(f'queries={self.queries!r}; allowed: 1 to needles={self.needles}')
    fillers = [] if self.of_needles else numbered_names('#', self.fillers)
    keys, values = numbered_names('k', self.keys), numbered_names('v', self.symbols)
    self.token_names = [*keys, *values, *fillers, '?']
    self.pair = self.key_symbols + self.value_symbols  # tokens of a key with one value
    self.overhead = count * self.pair
    self.overhead += self.queries * (1 + self.key_symbols + self.values * self.value_symbols)
    self.unit = self.pair if self.of_needles else 1
    self._check_distance()
    takes_depths = self.queries == self.values == 1 and not self.distance
    self.require_one_of('depth', DRAWS_OF_DEPTH)
    if self.depth != Needle.depth and not takes_depths:
      allowed = f'{Needle.depth}, or with queries=1, values=1 and distance=0'
      raise ValueError(f'depth={self.depth!r}; allowed: {allowed}')
    self.depths = DEPTHS if takes_depths and self.depth == 'in_turn' else ()
    self.shortest = self.overhead + max(4 * self.pair if self.of_needles else 8, self.distance)

  def _check_distance(self) -> None:
    """Raises ValueError for a distance at which no needle can lie."""
    self.require_at_least(0, 'distance')
    if self.distance % self.unit:
      allowed = f'a multiple of {self.unit}, the tokens of a needle, since they are the haystack'
      raise ValueError(f'distance={self.distance}; allowed: {allowed}')
    if self.distance and (self.queries, self.values) != (1, 1):
      raise ValueError(f'distance={self.distance}; allowed: with queries=1 and values=1')

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    keys = draw_codes(rng, self.keys, self.key_symbols, self.needles)
    count = self.needles * self.values
    size = (length - self.overhead) // self.unit  # of the haystack, in fillers or other needles
    owners = rng.permutation(np.repeat(np.arange(self.needles), self.values))
    values = self._values(rng, count, self.distinct)
    gaps = np.sort(rng.integers(size + 1, size=count))  # what stands before each needle
    depth = None
    if self.distance:
      gaps, owners = self._at_distance(rng, size)
    elif self.depths:
      depth = DEPTHS[index % len(DEPTHS)]
      gaps[owners == 0] = round(size * depth / 100)
      order = np.argsort(gaps, kind='stable')
      gaps, owners, values = gaps[order], owners[order], values[order]
    hay = self._hay(rng, size, keys)
    needles = np.concatenate([keys[owners], values], 1)
    places = np.repeat(gaps * self.unit, self.pair)
    segments = [(np.insert(hay.reshape(-1), places, needles.flat), 0)]
    for asked in range(self.queries):
      segments += [([len(self.token_names) - 1], 0), (keys[asked], 0)]
      segments += [(values[owners == asked], self.symbols)]
    return join_segments(*segments, depth=depth)

  def _at_distance(self, rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """What stands before each needle, and which one it is, where number 0 has its `distance`.

    The others are as likely to come after it as if they were put anywhere in the text.
    """
    others = self.needles - 1
    text = size * self.unit + others * self.pair
    most = min(others, self.distance // self.pair)
    after = min(int(rng.binomial(others, self.distance / text)), most)
    gap = size - (self.distance - after * self.pair) // self.unit
    before_it = np.sort(rng.integers(gap + 1, size=others - after))
    behind_it = np.sort(rng.integers(gap, size + 1, size=after))
    owners = np.insert(rng.permutation(others) + 1, others - after, 0)
    return np.concatenate([before_it, [gap], behind_it]), owners

  def _values(self, rng: np.random.Generator, count: int, distinct: bool) -> np.ndarray:
    """The tokens of `count` values, [count, value_symbols]."""
    if distinct:
      return self.keys + draw_codes(rng, self.symbols, self.value_symbols, count)
    return self.keys + rng.integers(self.symbols, size=(count, self.value_symbols))

  def _hay(self, rng: np.random.Generator, size: int, keys: np.ndarray) -> np.ndarray:
    """The fillers, [size], or needles with other keys than `keys`, [size, pair]."""
    if not self.of_needles:
      return self.keys + self.symbols + rng.integers(self.fillers, size=size)
    others = rng.integers(self.keys, size=(size, self.key_symbols))
    while (taken := (others[:, None] == keys).all(-1).any(-1)).any():
      others[taken] = rng.integers(self.keys, size=(taken.sum(), self.key_symbols))
    return np.concatenate([others, self._values(rng, size, distinct=False)], 1)


@dataclasses.dataclass(kw_only=True, eq=False)
class Chains(Task):
  """The base of tasks on chains of assignments, whose statements are mixed among fillers.

  There are `chains` chains of `hops` + 1 variables each; the statements of a chain keep their
  order.
  """

  hops: int = 2
  chains: int = 2
  variables: int = 16
  values: int = 16
  fillers: int = 16

  values_differ = False  # whether no two chains have the same value

  def __post_init__(self):
    self.require_at_least(1, 'hops', 'chains', 'fillers')
    self.require_at_least(2, 'values')
    if self.values_differ:
      self.require_at_least(self.chains, 'values')
    self.require_at_least(self.chains * (self.hops + 1), 'variables')
    variables, values = numbered_names('x', self.variables), numbered_names('v', self.values)
    self.token_names = [*variables, *values, *numbered_names('#', self.fillers), '=', '?']
    self.shortest = 3 * self.chains * (self.hops + 1) + self.asked + 4

  @property
  def asked(self) -> int:
    """The number of tokens of the question with its answer."""
    raise NotImplementedError

  def question(self, names: np.ndarray, value: np.ndarray) -> tuple[tuple, tuple]:
    """The segments of the question for a chain, and of its answer.

    Args:
      names: the variables of the chain in order, [hops + 1].
      value: the token of its value, [1].
    """
    raise NotImplementedError

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    size = self.hops + 1
    names = rng.permutation(self.variables)[: self.chains * size].reshape(self.chains, size)
    if self.values_differ:
      values = self.variables + rng.permutation(self.values)[: self.chains, None]
    else:
      values = self.variables + rng.integers(self.values, size=(self.chains, 1))
    assigned = np.concatenate([values, names[:, :-1]], axis=1)  # what each variable is set to
    chains = rng.permutation(np.repeat(np.arange(self.chains), size))  # of each statement
    step = np.array([(chains[:i] == chain).sum() for i, chain in enumerate(chains)])
    first_filler = self.variables + self.values
    equals = first_filler + self.fillers
    statements = np.stack(
      [names[chains, step], np.full(len(chains), equals), assigned[chains, step]], 1
    )
    num_fillers = length - 3 * len(chains) - self.asked
    gaps = np.sort(rng.integers(num_fillers + 1, size=len(chains)))
    fillers = first_filler + rng.integers(self.fillers, size=num_fillers)
    tokens = np.insert(fillers, np.repeat(gaps, 3), statements.flat)
    chain = int(rng.integers(self.chains))
    question, answer = self.question(names[chain], values[chain])
    return join_segments((tokens, 0), ([equals + 1], 0), question, answer)


class Hops(Chains):
  """The answer is the value at the end of a chain of assignments.

  Example: x4 = v2 # x7 = v5 x1 = x4 # # x3 = x1 ? x3 [v2]
  Chance: 1/`values`. Without following any chain, naming a value of the text is right in
    1/`chains` + (1 - 1/`chains`)/`values`: 0.531 at the defaults, 0.297 with chains=4.
  Source: after Hsieh et al. 2024, "RULER"

  There are `chains` chains of `hops` + 1 variables each. Their statements keep their order and are
  mixed among fillers; the last variable of one chain is asked for.
  """

  asked = 3

  def question(self, names: np.ndarray, value: np.ndarray) -> tuple[tuple, tuple]:
    return (names[-1:], 0), (value, self.values)


@dataclasses.dataclass(kw_only=True, eq=False)
class VariableTracking(Chains):
  """The answer is all variables that have a value, in the order in which they got it.

  Example: x4 = v2 # x7 = v5 x1 = x4 # # x3 = x1 ? v2 [x4] [x1] [x3]
  Chance: 1/`variables` a variable. Finding the value and then naming the variables of one statement
    after another, whatever they are set to, is right in (1 + `hops`/`chains`)/(`hops` + 1).
  Source: after Hsieh et al. 2024, "RULER"

  There are `chains` chains of `hops` + 1 variables each, each chain with another value. With one
  chain, the default, nothing need be tracked: every statement belongs to it, and that rule is right
  in all answers. Take `chains` of 2 (0.6) or more (4: 0.4).

  RULER uses 1 chain and 4 hops in 4,096 to 131,072 tokens of text, asks in English, shows a solved
  example first, and takes the variables in any order.
  """

  hops: int = 4
  chains: int = 1

  values_differ = True

  @property
  def asked(self) -> int:
    return 3 + self.hops

  def question(self, names: np.ndarray, value: np.ndarray) -> tuple[tuple, tuple]:
    return (value, 0), (names, self.variables)
