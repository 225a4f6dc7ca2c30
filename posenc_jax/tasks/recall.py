"""Tasks that recall what stood beside a symbol (induction, associative recall, n-back), or at a
place (index lookup).
"""

import dataclasses

import numpy as np

from posenc_jax.tasks.base import (
  Example,
  Task,
  draw_codes,
  join_segments,
  letter_names,
  min_string_length,
  numbered_names,
)


@dataclasses.dataclass(kw_only=True, eq=False)
class Induction(Task):
  """The answer is the symbol that came after the one earlier occurrence of the symbol asked for.

  Example: c a b d c ? a [b]
  Chance: 1/(`symbols` - 1): the symbol asked for stands once, and so is no answer. The most
    frequent symbol of the string is right in 0.13 at 64 tokens and 0.09 at 256.
  Source: Olsson et al. 2022, "In-context Learning and Induction Heads"; Gu and Dao 2023, "Mamba"

  The place of that occurrence is drawn evenly. Gu and Dao train at 256 tokens with 16 symbols and
  test to 4096 times that.
  """

  symbols: int = 16

  def __post_init__(self):
    self.require_at_least(3, 'symbols')
    self.token_names = [*letter_names(self.symbols), '?']
    self.shortest = 12

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    asked = int(rng.integers(self.symbols))
    string = rng.integers(self.symbols - 1, size=length - 3)
    string += string >= asked  # any symbol but the one asked for
    place = int(rng.integers(len(string) - 1))
    string[place] = asked
    answer = string[place + 1 : place + 2]
    return join_segments((string, 0), ([self.symbols, asked], 0), (answer, self.symbols - 1))


@dataclasses.dataclass(kw_only=True, eq=False)
class MQAR(Task):
  """Multi-query associative recall: the answer is the value that stood beside each key.

  Example: k2 v5 k0 v3 # k0 [v3] # # k2 [v5] #
  Chance: 1/`values` a query. Without reading any key, naming a value of the pairs that was not yet
    said is right in s + (1 - s)/`values` of n queries of p pairs, where s = (1/p + 1/(p - 1) + ...
    + 1/(p - n + 1))/n: 0.551 of pairs=4/values=16, and 0.360 at the defaults.
  Source: Arora et al. 2023, "Zoology: Measuring and Improving Recall in Efficient Language Models"

  `pairs` keys stand with their values first; each key follows once more among fillers. The gap to
  that place, in pairs of tokens, follows the density power * gap^(power - 1): 1 is even, and at
  0.01, as published, most gaps are short. Places are then drawn, as in the released code, such that
  keys which stand first are asked earlier: naming values in their order is right in 0.40 of the
  default at 64 tokens. With `queries` = n, only n of the keys follow, drawn evenly (0: all): with
  few of many pairs, what was said before tells little (pairs=16/queries=2: 0.094).

  Three things differ from the released code. There, all values of an example differ; here two keys
  may have one value. There, a value is a label that no token shows, and behind a query stands a
  random symbol; here the value stands there, so that later queries see it. There, fillers are drawn
  from all symbols, so that keys occur that nothing is asked about; here no filler is a key. Arora
  et al. use 8192 symbols, 64 to 512 tokens and 4 to 64 pairs.
  """

  pairs: int = 8
  keys: int = 32
  values: int = 32
  fillers: int = 8
  power: float = 0.01
  queries: int = 0

  def __post_init__(self):
    self.require_at_least(2, 'pairs', 'values')
    self.require_at_least(self.pairs, 'keys')
    self.require_at_least(1, 'fillers')
    if not 0 < self.power <= 1:
      raise ValueError(f'power={self.power!r}; allowed: more than 0, at most 1')
    self.require_at_least(0, 'queries')
    if self.queries > self.pairs:
      raise ValueError(f'queries={self.queries!r}; allowed: 0 to pairs={self.pairs}')
    self.num_asked = self.queries or self.pairs
    keys, values = numbered_names('k', self.keys), numbered_names('v', self.values)
    self.token_names = [*keys, *values, *numbered_names('#', self.fillers)]
    self.shortest = 2 * self.pairs + 2 * self.num_asked

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    n = self.pairs
    keys = rng.permutation(self.keys)[:n]
    values = self.keys + rng.integers(self.values, size=n)
    tokens_T = self.keys + self.values + rng.integers(self.fillers, size=length)
    choices_T = np.zeros(length, np.int32)
    tokens_T[: 2 * n : 2], tokens_T[1 : 2 * n : 2] = keys, values
    gaps = np.arange(1, (length - 2 * n) // 2 + 1)
    density = gaps ** (self.power - 1.0)
    places = rng.choice(len(gaps), self.num_asked, replace=False, p=density / density.sum())
    places = 2 * (n + places)
    asked = rng.permutation(n)[: self.queries] if self.queries else np.arange(n)
    tokens_T[places], tokens_T[places + 1] = keys[asked], values[asked]
    choices_T[places + 1] = self.values
    return Example(tokens_T.astype(np.int32), choices_T)


@dataclasses.dataclass(kw_only=True, eq=False)
class MQMTAR(Task):
  """Multi-query multi-token associative recall: the answer is the values of several keys, in turn.

  Example: _ a3 a1 : a2 a7 _ _ a1 a5 : a0 a4 _ ? a1 a5 ? a3 a1 > ? [a0] [a4] ? [a2] [a7]
  Chance: 1/`alphabet` a symbol. Only the first symbol of a value asks for the key: without reading
    it, any value of the text, gone on with as it was begun, has 1/pairs of the first symbols right
    and nearly all others: 0.53 of all at 128 tokens. Take value_symbols=1, or exact match.
  Source: Vasylenko et al. 2025, "Long-Context Generalization with Sparse Attention"

  Keys and values are codes of `key_symbols` and `value_symbols` symbols of one alphabet, no two
  keys alike and no two values; pairs with their signs and one space after each are the share
  `density` of the text, and spaces the rest. Then `queries` keys follow, which may be the same, and
  last their values. The sizes are the paper's. Its released code draws pairs from 10,000 keys and
  values that are the same in all examples, gives every pair a slot of its own with its share of the
  spaces, and scores the '?' of the answer too; here codes are drawn anew, spaces fall anywhere
  between pairs, and each '?' is given.
  """

  queries: int = 4
  key_symbols: int = 2
  value_symbols: int = 2
  density: float = 0.8
  alphabet: int = 256

  def __post_init__(self):
    self.require_at_least(1, 'queries')
    self.require_at_least(2, 'alphabet')
    for size in ('key_symbols', 'value_symbols'):
      self.require_codes(2, 'alphabet', size)
    self.require_number('density', 0.01, 1.0)
    self.token_names = [*numbered_names('a', self.alphabet), ':', '_', '?', '>']
    self.pair = self.key_symbols + self.value_symbols + 2  # tokens, with ':' and a space
    self.overhead = self.queries * (2 + self.key_symbols + self.value_symbols) + 1
    self.most_pairs = self.alphabet ** min(self.key_symbols, self.value_symbols)
    fewest = min(max(2, self.queries), self.most_pairs)
    self.shortest = self.overhead + int(np.ceil(fewest * self.pair / self.density))

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    colon, space, question, end = range(self.alphabet, self.alphabet + 4)
    size = length - self.overhead
    count = min(int(size * self.density / self.pair), self.most_pairs)
    keys, values = (
      draw_codes(rng, self.alphabet, symbols, count)
      for symbols in (self.key_symbols, self.value_symbols)
    )
    signs = [np.full((count, 1), sign) for sign in (colon, space)]
    pairs = np.concatenate([keys, signs[0], values, signs[1]], 1)
    num_spaces = size - pairs.size
    gaps = np.sort(rng.integers(num_spaces + 1, size=count))  # spaces before each pair
    text = np.insert(np.full(num_spaces, space), np.repeat(gaps, self.pair), pairs.flat)
    asked = rng.integers(count, size=self.queries)
    segments = [(text, 0), *(([question, *keys[pair]], 0) for pair in asked), ([end], 0)]
    for pair in asked:
      segments += [([question], 0), (values[pair], self.alphabet)]
    return join_segments(*segments)


@dataclasses.dataclass(kw_only=True, eq=False)
class NBack(Task):
  """The answer is the value that a key had `back` assignments before its last one.

  Example: k1 v4 k0 v2 k1 v7 k1 v0 ? k1 [v7]
  Chance: 1/`values` a query. Without any order, a value that the key has in the text is right in
    0.53 at 25 tokens, 0.30 at 64 and 0.19 at 128.
  Source: Yang et al. 2025, "PaTH Attention"

  (The example has `back` = 1; `back` = 0 asks for the last value.) `queries` different keys are
  asked for, one after another. Yang et al. use 32 pairs and 768 tokens.
  """

  back: int = 1
  keys: int = 8
  values: int = 16
  queries: int = 4

  unit = 2

  def __post_init__(self):
    self.require_at_least(0, 'back')
    self.require_at_least(1, 'queries')
    self.require_at_least(2, 'values')
    self.require_at_least(self.queries, 'keys')
    keys, values = numbered_names('k', self.keys), numbered_names('v', self.values)
    self.token_names = [*keys, *values, '?']
    self.shortest = 2 * max(self.queries * (self.back + 1), 4) + 1 + 2 * self.queries

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    count = (length - 1 - 2 * self.queries) // 2
    asked = rng.permutation(self.keys)[: self.queries]
    needed = np.repeat(asked, self.back + 1)
    others = rng.integers(self.keys, size=count - len(needed))
    keys = rng.permutation(np.concatenate([needed, others]))
    values = self.keys + rng.integers(self.values, size=count)
    segments = [(np.stack([keys, values], 1), 0), ([self.keys + self.values], 0)]
    for key in asked:
      segments += [([key], 0), (values[keys == key][-1 - self.back], self.values)]
    return join_segments(*segments)


@dataclasses.dataclass(kw_only=True, eq=False)
class IndexLookup(Task):
  """The answer is the symbol at a place that is counted from the start of the string or its end.

  Example: c a b d a c a @2 [b]
  Chance: 1/`symbols`. Without counting, the most frequent of the `places` symbols is right in 0.19.
  Source: Ebrahimi et al. 2024, "Your Context Is Not an Array"

  The place is one of `places`, counted from 0; with `origin` = 'end', @0 is the last symbol, and
  the answer to the example would be a. So longer strings ask for nothing that training did not ask
  for: from the start, whether a model still knows where the start is; from the end, whether a
  distance that it knows stays what it was. Ebrahimi et al. compare addresses by place with
  addresses by content in other tasks; this one is not theirs.
  """

  symbols: int = 16
  places: int = 16
  origin: str = 'start'

  def __post_init__(self):
    self.require_at_least(2, 'symbols', 'places')
    self.require_one_of('origin', ('start', 'end'))
    self.token_names = [*letter_names(self.symbols), *numbered_names('@', self.places)]
    self.shortest = max(self.places, min_string_length(self.symbols)) + 2

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    string = rng.integers(self.symbols, size=length - 2)
    place = int(rng.integers(self.places))
    answer = string[place] if self.origin == 'start' else string[-1 - place]
    return join_segments((string, 0), ([self.symbols + place], 0), (answer, self.symbols))
