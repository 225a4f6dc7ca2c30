"""A key of five digits, hidden in natural text and asked for in English: what any model of text can
be asked in its own tokens, without training (after Mohtashami and Jaggi 2023, arXiv:2305.16300).
"""

import random
from collections.abc import Callable

import numpy as np

KEY = ' The pass key is {key}. Remember it: {key} is the pass key. '
QUESTION = ' What is the pass key? The pass key is'
DIGITS = 5
MOST_SCORED = 16  # tokens of a question's end and a key, in any tokenizer
LEAST_TEXT = 8  # tokens of text that a window has at least


def draw_key(seed: str) -> str:
  """Five digits that depend on the seed alone."""
  draw = random.Random(seed).random  # the only method whose numbers stay the same over versions
  return ''.join(str(int(10 * draw())) for _ in range(DIGITS))


def window(
  encode: Callable[[bytes], np.ndarray], text_T: np.ndarray, length: int, depth: float, key: str
) -> tuple[np.ndarray, int]:
  """Hides a key in text and asks for it.

  The tokens of the answer are those behind what a question with its answer and one with a space in
  its place have in common: a tokenizer may join the space and the first digits.

  Args:
    text_T: tokens, of which the middle ones are taken.
    depth: the share of the text that stands before the key.
  Returns:
    (`length` tokens, how many of the last of them are the answer).
  Raises:
    ValueError: `length` leaves less than LEAST_TEXT tokens of text.
  """
  hidden = encode(KEY.format(key=key).encode())
  asked, unanswered = (encode(f'{QUESTION} {end}'.encode()) for end in (key, ''))
  shorter = min(len(asked), len(unanswered))
  differ = np.flatnonzero(asked[:shorter] != unanswered[:shorter])
  common = differ[0] if len(differ) else shorter
  need = length - len(hidden) - len(asked)
  if need < LEAST_TEXT:
    least = length - need + LEAST_TEXT
    raise ValueError(f'{length} tokens for a hidden key; allowed: {least} or more')
  start = (len(text_T) - need) // 2
  place = start + round(depth * need)
  parts = text_T[start:place], hidden, text_T[place : start + need], asked
  return np.concatenate(parts).astype(np.int32), len(asked) - int(common)
