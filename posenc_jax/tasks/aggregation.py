"""Tasks that count all words of a text: RULER's common words and frequent words."""

import dataclasses

import numpy as np

from posenc_jax.tasks.base import Example, Task, join_segments, numbered_names


@dataclasses.dataclass(kw_only=True, eq=False)
class CommonWords(Task):
  """The answer is the words that occur most often, in the order of their first occurrences.

  Example: w3 w0 w3 w5 w0 w7 w0 w3 > [w3] [w0]
  Chance: 1/`symbols` a word. Without counting, naming the words that come twice is right in all
    answers with `uncommon_times` = 1, the default.
  Source: Hsieh et al. 2024, "RULER" (common-word extraction, CWE)

  `common` words occur `common_times` times each, all others `uncommon_times` times, in a random
  order. As many others as fill the length are drawn from `symbols` words of one symbol each, anew
  in each example. Words must be counted only where `uncommon_times` is 2 or more.

  RULER has 10 common words, 30 and 3 times (below 4,096 tokens of text: 6 times and once), in a
  numbered list of English words; it shows a solved example first and takes answers in any order.
  """

  common: int = 4
  common_times: int = 6
  uncommon_times: int = 1
  symbols: int = 256

  def __post_init__(self):
    self.require_at_least(1, 'common', 'uncommon_times')
    self.require_at_least(self.common + 1, 'symbols')
    self.require_at_least(self.uncommon_times + 1, 'common_times')
    self.token_names = [*numbered_names('w', self.symbols), '>']
    self.unit = self.uncommon_times
    self.overhead = self.common * (self.common_times + 1) + 1  # tokens that are no uncommon words
    self.shortest = self.overhead + self.unit
    self.longest = self.overhead + (self.symbols - self.common) * self.unit

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    uncommon = (length - self.overhead) // self.unit
    words = rng.permutation(self.symbols)[: self.common + uncommon]
    times = np.repeat([self.common_times, self.uncommon_times], [self.common, uncommon])
    text = rng.permutation(np.repeat(words, times))
    first = [np.flatnonzero(text == word)[0] for word in words[: self.common]]
    answer = words[: self.common][np.argsort(first)]
    return join_segments((text, 0), ([self.symbols], 0), (answer, self.symbols))


@dataclasses.dataclass(kw_only=True, eq=False)
class FrequentWords(Task):
  """The answer is the words that occur most often but for the noise, the most frequent first.

  Example: _ w5 w2 _ w5 _ w8 w5 _ w2 _ w8 w5 w1 _ w2 > [w5] [w2] [w8]
  Chance: 1/`symbols` a word. Without counting, the word at any place of the text, if it is no noise
    and was not yet said, is right in 0.42 at 128 tokens and 0.39 at 256.
  Source: Hsieh et al. 2024, "RULER" (frequent-word extraction, FWE)

  The noise has rank 1, and the word of rank k has the share k^-`alpha` / zeta(`alpha`) of the text,
  rounded down; the noise fills what is left. The `asked` words of ranks 2, 3, ... are the answer.
  Which word has which rank is drawn anew in each example. RULER asks for three words at `alpha` 2,
  of six letters each, out of one word in 50 tokens, in any order.
  """

  symbols: int = 64
  alpha: float = 2.0
  asked: int = 3

  def __post_init__(self):
    self.require_at_least(1, 'asked')
    self.require_at_least(self.asked + 1, 'symbols')
    self.require_number('alpha', 1.1, 4.0)
    self.token_names = [*numbered_names('w', self.symbols), '_', '>']
    ranks = np.arange(2, self.symbols + 2)
    self.shares = ranks**-self.alpha / zeta(self.alpha)
    # From so many words on, the last word asked for occurs more often than the next one.
    last, following = self.shares[self.asked - 1 : self.asked + 1]
    self.shortest = int(np.ceil(1 / (last - following))) + 1 + self.asked

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    size = length - 1 - self.asked
    words = rng.permutation(self.symbols)
    text = np.repeat(words, np.floor(self.shares * size).astype(int))
    noise = np.full(size - len(text), self.symbols)
    text = rng.permutation(np.concatenate([text, noise]))
    return join_segments((text, 0), ([self.symbols + 1], 0), (words[: self.asked], self.symbols))


def zeta(alpha: float) -> float:
  """The sum of k^-alpha over k = 1, 2, ..., for alpha above 1."""
  terms = 10_000
  k = np.arange(1, terms + 1, dtype=float)
  return float((k**-alpha).sum() + terms ** (1 - alpha) / (alpha - 1) - terms**-alpha / 2)
