"""A key hidden in natural text."""

import functools
from collections.abc import Sequence

import numpy as np

from posenc_jax.tasks.base import Example, Task, assemble, at_least
from posenc_jax.tasks.needles import DEPTHS

TELL = b' The pass key is %s. Remember it: %s is the pass key. '
ASK = b' What is the pass key? The pass key is '


class Passkey(Task):
  """Says the digits that were hidden in natural text: and of the KEY 4 0 7 1 5 people ... ASK [4]
  [0] [7] [1] [5]

  (Other tokens are bytes.) Text is a window of a document of the split; the key lies at 0 to 100 %
  of it in turn. With `style` = 'sentences' the key and the question are English, and all tokens are
  bytes: a model of text can be asked. Keys of the splits are disjoint. Chance is 1/10 a digit, and
  ln 10 nats: the likelihood of digits is graded where exact match is 0. Mohtashami and Jaggi: 5
  digits, sentences, filler that repeats itself, which is easily told apart.
  """

  source = 'after Mohtashami and Jaggi 2023, "Landmark Attention"'
  in_digits = True

  def __init__(self, texts: Sequence[bytes], *, digits: int = 5, style: str = 'symbols'):
    """`texts`: the documents of a split."""
    at_least(3, digits=digits)
    if style not in ('symbols', 'sentences'):
      raise ValueError(f'style={style!r}; allowed: symbols, sentences')
    self.texts, self.digits = texts, digits
    self.in_symbols = style == 'symbols'
    self.symbols = [chr(i) if 32 <= i < 127 else f'x{i:02x}' for i in range(256)]
    self.symbols += ['KEY', 'ASK'] if self.in_symbols else []
    self.around = (
      2 + 2 * digits if self.in_symbols else len(TELL % (b'', b'')) + 3 * digits + len(ASK)
    )
    self.shortest = self.around + 8

  @functools.cached_property
  def sizes(self) -> np.ndarray:
    return np.array([len(text) for text in self.texts])

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    fill, depth = length - self.around, DEPTHS[index % len(DEPTHS)]
    enough = np.flatnonzero(self.sizes >= fill)
    if not len(enough):
      raise ValueError(
        f'{length} tokens; allowed: at most {self.sizes.max() + self.around}, by the longest document'
      )
    text = self.texts[int(rng.choice(enough))]
    start = int(rng.integers(len(text) - fill + 1))
    text = np.frombuffer(text, np.uint8, fill, start)
    digits = ord('0') + rng.integers(10, size=self.digits)
    key = digits.astype(np.uint8).tobytes()
    if self.in_symbols:
      tell, ask = np.concatenate([[256], digits]), [257]
    else:
      tell, ask = list(TELL % (key, key)), list(ASK)
    at = round(fill * depth / 100)
    return assemble((text[:at], 0), (tell, 0), (text[at:], 0), (ask, 0), (digits, 10), depth=depth)

  def identity(self, example: Example) -> bytes:
    return example.tokens_T[-self.digits :].tobytes()
