"""A key hidden in natural text."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from posenc_jax.tasks.base import Example, Task, join_segments
from posenc_jax.tasks.needles import DEPTHS

KEY_SENTENCE = b' The pass key is %s. Remember it: %s is the pass key. '
QUESTION = b' What is the pass key? The pass key is '


@dataclasses.dataclass(kw_only=True, eq=False)
class Passkey(Task):
  """The answer is the digits that were hidden in natural text.

  Example: and of the KEY 4 0 7 1 5 people ... ASK [4] [0] [7] [1] [5]
  Chance: 1/10 and ln 10 nats a digit; the likelihood of digits is graded where exact match is 0.
  Source: after Mohtashami and Jaggi 2023, "Landmark Attention"

  (The words of the example stand for bytes.) The text is a window of a document of the split; the
  key lies at 0 to 100 % of it in turn. With `style` = 'sentences' the key and the question are
  English and all tokens are bytes, so that a model of text can be asked. Splits never share a key.
  Mohtashami and Jaggi hide 5 digits by sentences, in filler that repeats itself and is easily told
  apart.
  """

  texts: Sequence[bytes] = dataclasses.field(kw_only=False, repr=False)  # of one split
  digits: int = 5
  style: str = 'symbols'

  def __post_init__(self):
    self.require_at_least(3, 'digits')
    self.require_one_of('style', ('symbols', 'sentences'))
    self.token_names = [chr(i) if 32 <= i < 127 else f'x{i:02x}' for i in range(256)]
    if self.style == 'symbols':
      self.token_names += ['KEY', 'ASK']
      self.overhead = 2 + 2 * self.digits  # tokens that are not text
    else:
      self.overhead = len(KEY_SENTENCE % (b'', b'')) + 3 * self.digits + len(QUESTION)
    self.shortest = self.overhead + 8

  @functools.cached_property
  def sizes(self) -> np.ndarray:
    """The bytes of each document."""
    return np.array([len(text) for text in self.texts])

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    size, depth = length - self.overhead, DEPTHS[index % len(DEPTHS)]
    long_enough = np.flatnonzero(self.sizes >= size)
    if not len(long_enough):
      most = self.sizes.max() + self.overhead
      raise ValueError(f'{length} tokens; allowed: at most {most}, by the longest document')
    document = self.texts[int(rng.choice(long_enough))]
    start = int(rng.integers(len(document) - size + 1))
    text = np.frombuffer(document, np.uint8, size, start)
    digits = ord('0') + rng.integers(10, size=self.digits)
    if self.style == 'symbols':
      hidden, question = [256, *digits], [257]
    else:
      key = digits.astype(np.uint8).tobytes()
      hidden, question = list(KEY_SENTENCE % (key, key)), list(QUESTION)
    cut = round(size * depth / 100)
    before, after = text[:cut], text[cut:]
    return join_segments(
      (before, 0), (hidden, 0), (after, 0), (question, 0), (digits, 10), depth=depth
    )

  def identity(self, example: Example) -> bytes:
    return example.tokens_T[-self.digits :].tobytes()
