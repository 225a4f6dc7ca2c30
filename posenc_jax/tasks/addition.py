"""Addition of two numbers, in the formats that decide whether it generalises to more digits."""

import dataclasses

import numpy as np

from posenc_jax.tasks.base import Example, Task, numbered_names

PLUS, EQUALS, END = 10, 11, 12  # tokens 0 to 9 are the digits
FIRST_MARK = 13


@dataclasses.dataclass(kw_only=True, eq=False)
class Addition(Task):
  """The answer is the sum of two numbers of n digits each.

  Example: 5 7 + 6 8 = [1] [2] [5] [.]
  Chance: 1/10 a digit, 1/8 for the first digit of a sum of n digits, 1/2 for a first digit that can
    only be a carry; marks and the end are certain.
  Source: Kazemnejad et al. 2023; Zhou et al. 2023, "What Algorithms can Transformers Learn?"
    (marks)

  The format decides the result, so state it with every figure. An example has 3 n + 4 tokens, with
  hints 6 n + 5. Kazemnejad et al. train to 8 digits and test at 16.

  With `reverse`, all digits stand from the lowest to the highest: 7 5 + 8 6 = [5] [2] [1] [.]
  With `pad`, numbers may begin with zeros and the sum has n + 1 digits: 0 7 + 1 4 = [0] [2] [1] [.]
  With `hints` = m, each digit follows a mark of its place: <4 5 <5 7 + <4 6 <5 8 = ... The marks
  are consecutive, with a random start among m marks, so that training meets all of them. Hints need
  `reverse` and `pad`; marks then count from the lowest digit.
  """

  reverse: bool = False
  pad: bool = False
  hints: int = 0

  ends = True

  def __post_init__(self):
    self.require_at_least(0, 'hints')
    for name in ('reverse', 'pad'):
      if not isinstance(getattr(self, name), bool):
        raise ValueError(f'{name}={getattr(self, name)!r}; allowed: True, False')
    if self.hints:
      if not (self.reverse and self.pad):
        raise ValueError(f'hints={self.hints!r}; allowed: 0, or with reverse=True and pad=True')
      self.require_at_least(4, 'hints')
    digits, marks = numbered_names('', 10), numbered_names('<', self.hints)
    self.token_names = [*digits, '+', '=', '.', *marks]
    self.per_digit = 2 if self.hints else 1
    self.shortest = self._num_tokens(2)
    self.longest = self._num_tokens(self.hints - 1) if self.hints else None
    self.unit = 3 * self.per_digit + (not self.pad)  # a sum without a carry is a digit shorter

  def _num_tokens(self, digits: int) -> int:
    return self.per_digit * (3 * digits + 1) + 3

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    n = ((length - 3) // self.per_digit - 1) // 3
    numbers = rng.integers(10, size=(2, n))
    if not self.pad:
      numbers[:, 0] = rng.integers(1, 10, size=2)
    total, choices = self._sum(numbers)
    first_mark = FIRST_MARK + (int(rng.integers(self.hints - n)) if self.hints else 0)
    tokens, asked = [], []
    for digits, digit_choices, sign in (
      (numbers[0, ::-1], [0] * n, PLUS),
      (numbers[1, ::-1], [0] * n, EQUALS),
      (total, choices, END),
    ):
      pairs = list(zip(digits, digit_choices, strict=True))
      for place, (digit, choice) in enumerate(pairs if self.reverse else pairs[::-1]):
        if self.hints:
          tokens.append(first_mark + place)
          asked.append(min(choice, 1))
        tokens.append(digit)
        asked.append(choice)
      tokens.append(sign)
      asked.append(int(sign == END))
    return Example(np.array(tokens, np.int32), np.array(asked, np.int32))

  def _sum(self, numbers: np.ndarray) -> tuple[list[int], list[int]]:
    """The digits of the sum, lowest first, and how many symbols can stand at each."""
    total, carry = [], 0
    for pair in numbers[:, ::-1].T:
      carry, digit = divmod(int(pair.sum()) + carry, 10)
      total.append(digit)
    choices = [10] * len(total)
    if self.pad:
      return [*total, carry], [*choices, 2]
    if carry:
      return [*total, carry], [*choices, 1]
    choices[-1] = 8  # without a carry, two first digits from 1 to 9 add up to 2 to 9
    return total, choices
