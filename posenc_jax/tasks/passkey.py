"""A key hidden in natural text."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from posenc_jax.tasks.base import Example, Task, join_segments
from posenc_jax.tasks.needles import DEPTHS


@dataclasses.dataclass(kw_only=True, eq=False)
class Passkey(Task):
  """The answer is the digits that were hidden in natural text.

  Example: and of the KEY 4 0 7 1 5 people ... ASK [4] [0] [7] [1] [5]
  Chance: 1/10 and ln 10 nats a digit; the likelihood of digits is graded where exact match is 0.
  Source: after Mohtashami and Jaggi 2023, "Landmark Attention"

  (The words of the example stand for bytes.) The text is a window of a document of the split; the
  key lies at 0 to 100 % of it in turn. Splits never share a key. A model of text is asked in
  English, by the protocol text_passkey. Mohtashami and Jaggi hide a number from 1 to 50,000 by
  sentences, in filler that repeats itself and is easily told apart.
  """

  texts: Sequence[bytes] = dataclasses.field(kw_only=False, repr=False)  # of one split
  digits: int = 5

  depths = DEPTHS

  def __post_init__(self):
    self.require_at_least(3, 'digits')
    self.token_names = [chr(i) if 32 <= i < 127 else f'x{i:02x}' for i in range(256)]
    self.token_names += ['KEY', 'ASK']
    self.overhead = 2 + 2 * self.digits  # tokens that are not text
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
    cut = round(size * depth / 100)
    hiding = [*text[:cut], 256, *digits, *text[cut:]]
    return join_segments((hiding, 0), ([257], 0), (digits, 10), depth=depth)

  def identity(self, example: Example) -> bytes:
    return example.tokens_T[-self.digits :].tobytes()
