"""An n-gram model of tokens: what followed each context of up to n tokens in a text, counted.

It is the reference beside trained models: what its n tokens of context are worth, at no training.
The counts of contexts are a tree: the context of k tokens is a node, found from the node of its
last k - 1 tokens and the token before them. Contexts never cross the start of a text or a window;
what stands near it is predicted from a shorter context.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

SMOOTHINGS = ('witten_bell', 'kneser_ney')


@dataclasses.dataclass(frozen=True)
class Level:
  """The counts of all contexts of k tokens.

  Attributes:
    contexts: the sorted keys of the contexts; a context's node is its place here.
    pairs: the sorted keys of (context, next token).
    counts: how often each pair was seen, float64; with Kneser-Ney and below the longest contexts,
      after how many different tokens.
    totals: the sum of the counts of a node's pairs, float64.
    types: the number of a node's pairs, float64.
    discount: what Kneser-Ney takes from each count; None: Witten-Bell.
  """

  contexts: np.ndarray
  pairs: np.ndarray
  counts: np.ndarray
  totals: np.ndarray
  types: np.ndarray
  discount: float | None = None


class Found:
  """What a level knows of each of some tokens, arrays of one shape: whether it has seen the
  context, how often the token followed it, how often anything did, and how many different tokens.
  """

  def __init__(self, level: Level, nodes: np.ndarray, tokens: np.ndarray, vocab: int):
    self.is_known = nodes >= 0
    where = np.where(self.is_known, nodes, 0)
    place, is_pair = _find(level.pairs, where * vocab + tokens)
    self.counts = np.where(is_pair & self.is_known, level.counts[place], 0.0)
    self.totals = np.where(self.is_known, level.totals[where], 0.0)
    self.types = np.where(self.is_known, level.types[where], 0.0)
    self.is_known &= self.totals > 0


class NGrams:
  """The model. Tokens are 0 to `vocab` - 2; the last symbol, BOS, is never predicted.

  With c the count of a token after a context, N of anything, T the number of different tokens, and
  p' the probability from the context without its first token:
  Witten-Bell: p = (c + T p') / (N + T). Kneser-Ney: p = (max(c - D, 0) + D T p') / N, where N and c
  of shorter contexts count different tokens before them, and D = n1 / (n1 + 2 n2), from the numbers
  of pairs counted once and twice. The shortest context's p' is even. (Bell, Cleary and Witten 1990,
  method C; Chen and Goodman 1999.)
  """

  def __init__(
    self, texts: Iterable[np.ndarray], context: int, vocab: int, smoothing: str = 'witten_bell'
  ):
    """Counts the texts, tokens_T each, with contexts of up to `context` tokens. Raises ValueError
    for texts without any token and for another smoothing.
    """
    if smoothing not in SMOOTHINGS:
      raise ValueError(f'smoothing={smoothing!r}; allowed: {", ".join(SMOOTHINGS)}')
    self.vocab, self.context = vocab, context
    self.levels = _levels(texts, context, vocab)
    if not len(self.levels[0].pairs):
      raise ValueError('n-grams of no text; allowed: one token or more')
    if smoothing == 'kneser_ney':
      self.levels = _kneser_ney(self.levels, vocab)

  def find(self, tokens_BT: np.ndarray, window: int | None = None) -> Iterator[Found]:
    """Yields, for contexts of 0, 1, ... tokens, what is known of each token of each window.

    `window`: the tokens that a prediction may see, or None.
    """
    tokens_BT = np.asarray(tokens_BT, np.int64)
    nodes_BT = np.zeros(tokens_BT.shape, np.int64)
    longest = self.context if window is None else min(self.context, window)
    for k, level in enumerate(self.levels[: longest + 1]):
      if k:
        older_BT = np.zeros_like(tokens_BT)
        older_BT[:, k:] = tokens_BT[:, :-k]
        place, is_there = _find(level.contexts, np.maximum(nodes_BT, 0) * self.vocab + older_BT)
        is_there &= nodes_BT >= 0
        is_there[:, :k] = False
        nodes_BT = np.where(is_there, place, -1)
      yield Found(level, nodes_BT, tokens_BT, self.vocab)

  def probabilities(self, tokens_BT: np.ndarray, window: int | None = None) -> np.ndarray:
    """Returns p_BT, the probability of each token given those before it in its window, float64."""
    p_BT = np.full(np.shape(tokens_BT), 1 / (self.vocab - 1))
    for level, found in zip(self.levels, self.find(tokens_BT, window), strict=False):
      counts, totals, types = found.counts, np.where(found.is_known, found.totals, 1), found.types
      if level.discount is None:
        mixed_BT = (counts + types * p_BT) / (totals + types)
      else:
        taken = level.discount
        mixed_BT = (np.maximum(counts - taken, 0) + taken * types * p_BT) / totals
      p_BT = np.where(found.is_known, mixed_BT, p_BT)
    return p_BT

  def nats(self, tokens_BT: np.ndarray, window: int | None = None) -> np.ndarray:
    """Returns nats_BT, as `token_nll` does of a trained model."""
    return -np.log(self.probabilities(tokens_BT, window))


def _find(keys: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The places of keys in a sorted array, and whether each is there."""
  if not len(keys):
    return np.zeros(wanted.shape, np.int64), np.zeros(wanted.shape, bool)
  place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
  return place, keys[place] == wanted


def _levels(texts: Iterable[np.ndarray], context: int, vocab: int) -> list[Level]:
  """The levels of contexts of 0 to `context` tokens. BOS stands before each text, so a context that
  would reach beyond a start holds BOS, which no window has.

  Places are sorted by their contexts one token after another, the last token counting most: of
  numbers of 16 bits NumPy does that in linear time, and it takes most of the time here.
  """
  kind = np.uint16 if vocab <= 2**16 else np.int64
  start = np.full(context, vocab - 1, kind)
  parts = (part for text in texts for part in (np.asarray(text).astype(kind), start))
  tokens = np.concatenate([start, *parts])
  places = np.flatnonzero(tokens < vocab - 1)
  following = tokens[places]
  by_context = np.arange(len(places))
  for k in range(context, 0, -1):
    before = tokens[places - k]
    by_context = by_context[np.argsort(before[by_context], kind='stable')]
  by_pair = by_context[np.argsort(following[by_context], kind='stable')]
  nodes, is_first = np.zeros(len(places), np.int64), np.zeros(len(places), bool)
  is_first[:1] = True
  levels = [_level(np.zeros(1, np.int64), nodes, following, by_pair, vocab)]
  for k in range(1, context + 1):
    before = tokens[places - k]
    is_first[1:] |= np.diff(before[by_context]) != 0
    firsts = by_context[is_first]
    contexts = nodes[firsts] * vocab + before[firsts]
    nodes = np.empty_like(nodes)
    nodes[by_context] = np.cumsum(is_first) - 1
    levels.append(_level(contexts, nodes, following, by_pair, vocab))
  return levels


def _level(
  contexts: np.ndarray, nodes: np.ndarray, following: np.ndarray, by_pair: np.ndarray, vocab: int
) -> Level:
  """The level of these contexts, from the node and the next token of every place in the texts;
  `by_pair` is an order of places in which those of one pair stand together.
  """
  keys = nodes[by_pair] * vocab + following[by_pair]
  firsts = np.flatnonzero(np.append(True, np.diff(keys) != 0)[: len(keys)])
  counts = np.diff(np.append(firsts, len(keys)))
  order = np.argsort(keys[firsts])
  return _with_counts(contexts, keys[firsts][order], counts[order], vocab)


def _with_counts(
  contexts: np.ndarray,
  pairs: np.ndarray,
  counts: np.ndarray,
  vocab: int,
  discount: float | None = None,
) -> Level:
  nodes = pairs // vocab
  totals = np.bincount(nodes, counts, minlength=len(contexts))
  types = np.bincount(nodes, minlength=len(contexts)).astype(np.float64)
  return Level(contexts, pairs, counts.astype(np.float64), totals, types, discount)


def _kneser_ney(levels: Sequence[Level], vocab: int) -> list[Level]:
  """The levels with counts of different tokens before, except the last, and with discounts."""
  changed = []
  for level, longer in zip(levels, [*levels[1:], None], strict=True):
    pairs, counts = level.pairs, level.counts
    if longer is not None:
      shorter_nodes = longer.contexts[longer.pairs // vocab] // vocab
      keys = shorter_nodes * vocab + longer.pairs % vocab
      pairs, counts = np.unique(keys, return_counts=True)
    once, twice = (counts == 1).sum(), (counts == 2).sum()
    # Without pairs that were counted once, nothing says how many are still unseen.
    discount = float(once / (once + 2 * twice)) if once else 0.5
    changed.append(_with_counts(level.contexts, pairs, counts, vocab, discount))
  return changed
