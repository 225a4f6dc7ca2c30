"""Addition of two numbers, in the formats that decide whether it generalises to more digits."""

import numpy as np

from posenc_jax.tasks.base import Example, Task, at_least, numbered


class Addition(Task):
  """Adds two numbers of n digits: 5 7 + 6 8 = [1] [2] [5] [.]

  With `reverse`, all digits stand from the lowest: 7 5 + 8 6 = [5] [2] [1] [.] With `pad`, numbers
  may begin with zeros and the sum has n + 1 digits: 0 7 + 1 4 = [0] [2] [1] [.] With `hints` = m, a
  mark of its place stands before every digit, from a run of marks with a random start among m, so
  that all are seen in training: <4 5 <5 7 + <4 6 <5 8 = ... (with `reverse` and `pad`, marks are
  counted from the lowest digit). 3 n + 4 tokens, 6 n + 5 with hints. Chance is 1/10 a digit, 1/8
  for the first of a sum of n digits, 1/2 for a first that is a carry; marks and the end are given.
  Kazemnejad et al. train to 8 digits and test at 16. The format decides the result: state it.
  """

  source = (
    'Kazemnejad et al. 2023; Zhou et al. 2023, "What Algorithms can Transformers Learn?" (marks)'
  )
  ends = True

  def __init__(self, *, reverse: bool = False, pad: bool = False, hints: int = 0):
    at_least(0, hints=hints)
    for name, value in (('reverse', reverse), ('pad', pad)):
      if not isinstance(value, bool):
        raise ValueError(f'{name}={value!r}; allowed: True, False')
    if hints and not (reverse and pad):
      raise ValueError(f'hints={hints!r}; allowed: 0, or with reverse=True and pad=True')
    at_least(4, **({'hints': hints} if hints else {}))
    self.reverse, self.pad, self.hints = reverse, pad, hints
    self.symbols = [*numbered('', 10), '+', '=', '.', *numbered('<', hints)]
    self.per_digit = 2 if hints else 1
    self.shortest = self._tokens(2)
    self.longest = self._tokens(hints - 1) if hints else None
    self.unit = 3 * self.per_digit + (not pad)  # a sum without a carry is a digit shorter

  def _tokens(self, digits: int) -> int:
    return self.per_digit * (3 * digits + 1) + 3

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    n = ((length - 3) // self.per_digit - 1) // 3
    numbers = rng.integers(10, size=(2, n))
    if not self.pad:
      numbers[:, 0] = rng.integers(1, 10, size=2)
    total, carry = [], 0
    for pair in numbers[:, ::-1].T:
      carry, digit = divmod(int(pair.sum()) + carry, 10)
      total.append(digit)
    choices = [10] * n
    if self.pad:
      total, choices = [*total, carry], [*choices, 2]
    elif carry:
      total, choices = [*total, carry], [*choices, 1]
    else:
      choices[-1] = 8  # 2 to 9
    start = int(rng.integers(self.hints - n)) if self.hints else 0
    tokens, asked = [], []
    for lowest_first, may, after in (
      (numbers[0, ::-1], [0] * n, 10),
      (numbers[1, ::-1], [0] * n, 11),
      (total, choices, 12),
    ):
      digits = list(zip(lowest_first, may, strict=True))
      for place, (digit, may_be) in enumerate(digits if self.reverse else digits[::-1]):
        tokens += [13 + start + place, digit] if self.hints else [digit]
        asked += [min(may_be, 1), may_be] if self.hints else [may_be]
      tokens.append(after)
      asked.append(int(after == 12))
    return Example(np.array(tokens, np.int32), np.array(asked, np.int32))
