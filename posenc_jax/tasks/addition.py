"""Addition of two numbers, in the formats that decide whether it generalises to more digits."""

import dataclasses

import numpy as np

from posenc_jax.tasks.base import CarriedPositions, Example, Task, numbered_names

PLUS, EQUALS, END = 10, 11, 12  # tokens 0 to 9 are the digits
FIRST_MARK = 13
POSITIONS = ('contiguous', 'abacus', 'coupled')


@dataclasses.dataclass(kw_only=True, eq=False)
class Addition(Task):
  """The answer is the sum of two numbers of n digits each.

  Example: 5 7 + 6 8 = [1] [2] [5] [.]
  Chance: 1/10 a digit; marks and the end are certain. 1/9 for the highest digit where it is said
    first, which is not 0: always saying 1 is right in 0.6 of these. With `pad`, 1/2 for the highest
    digit, a carry or 0. With `reverse` alone, 1/2 for what follows n digits, the carry or the end,
    unless the last of them is 0 or 1, which only a carry follows.
  Source: Kazemnejad et al. 2023; Zhou et al. 2023, "What Algorithms can Transformers Learn?"
    (marks)

  The format decides the result, so state it with every figure. An example has 3 n + 4 tokens, with
  hints 6 n + 5. Kazemnejad et al. train to 8 digits and test at 16. Splits share no sum, but the
  mirrored b + a of a test sum a + b may be trained on. That matters for 2 digits alone, of which
  there are some 10,000 sums, so that a training sees most of its own; of 3 there are a million.

  With `reverse`, all digits stand from the lowest to the highest: 7 5 + 8 6 = [5] [2] [1] [.]
  With `pad`, numbers may begin with zeros and the sum has n + 1 digits: 0 7 + 1 4 = [0] [2] [1] [.]
  With `hints` = m, each digit follows a mark of its place: <4 5 <5 7 + <4 6 <5 8 = ... The marks
  are consecutive, with a random start among m marks, so that training meets all of them. Hints need
  `reverse` and `pad`; marks then count from the lowest digit.

  With `positions`, examples carry positions of their own, 0 at the end symbol:
    'abacus': a digit has the number of digits of its number up to itself, + and = have 0; so equal
      places are at equal positions only with `reverse` (McLeish et al. 2024).
        7 5 + 8 6 = [5] [2] [1] [.]  at  1 2 0 1 2 0 1 2 3 0
    'coupled': a digit has 2 + its place, whatever the order of digits; + has 1, = the position
      that comes before that of the first digit of the sum (Cho et al. 2024).
        7 5 + 8 6 = [5] [2] [1] [.]  at  2 3 1 2 3 1 2 3 4 0
        5 7 + 6 8 = [1] [2] [5] [.]  at  3 2 1 3 2 5 4 3 2 0
  """

  reverse: bool = False
  pad: bool = False
  hints: int = 0
  positions: str = 'contiguous'

  ends = True

  def __post_init__(self):
    self.require_at_least(0, 'hints')
    self.require_flag('reverse', 'pad')
    if self.hints:
      if not (self.reverse and self.pad):
        raise ValueError(f'hints={self.hints!r}; allowed: 0, or with reverse=True and pad=True')
      self.require_at_least(4, 'hints')
    self.require_one_of('positions', POSITIONS)
    if self.positions != 'contiguous':
      if self.hints:
        raise ValueError(f'positions={self.positions!r}; allowed: contiguous, with hints')
      self.carried_positions = CarriedPositions()
    digits, marks = numbered_names('', 10), numbered_names('<', self.hints)
    self.token_names = [*digits, '+', '=', '.', *marks]
    self.per_digit = 2 if self.hints else 1
    self.shortest = self._num_tokens(2)
    self.longest = self._num_tokens(self.hints - 1) if self.hints else None
    self.unit = 3 * self.per_digit + (not self.pad)  # a sum without a carry is a digit shorter

  def _num_tokens(self, digits: int) -> int:
    return self.per_digit * (3 * digits + 1) + 3

  def identity(self, example: Example) -> bytes:
    """The sum without its marks: whatever the first mark is, it is one sum."""
    return example.tokens_T[example.tokens_T < FIRST_MARK].tobytes()

  def largest_position(self, length: int) -> int:
    digits_of_sum = self._num_digits(length) + 1
    if self.positions == 'abacus':
      return digits_of_sum
    return digits_of_sum + (1 if self.reverse else 2)  # = stands before the highest digit

  def _num_digits(self, length: int) -> int:
    """The digits of each number in an example of at most `length` tokens."""
    return ((length - 3) // self.per_digit - 1) // 3

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    n = self._num_digits(length)
    numbers = rng.integers(10, size=(2, n))
    if not self.pad:
      numbers[:, 0] = rng.integers(1, 10, size=2)
    total = self._sum(numbers)
    choices, choices_of_end = self._choices(total, n)
    first_mark = FIRST_MARK + (int(rng.integers(self.hints - n)) if self.hints else 0)
    tokens, asked = [], []
    for digits, digit_choices, sign, sign_choices in (
      (numbers[0, ::-1], [0] * n, PLUS, 0),
      (numbers[1, ::-1], [0] * n, EQUALS, 0),
      (total, choices, END, choices_of_end),
    ):
      pairs = list(zip(digits, digit_choices, strict=True))
      for place, (digit, choice) in enumerate(pairs if self.reverse else pairs[::-1]):
        if self.hints:
          tokens.append(first_mark + place)
          asked.append(min(choice, 1))
        tokens.append(digit)
        asked.append(choice)
      tokens.append(sign)
      asked.append(sign_choices)
    positions = self._positions(n, len(total))
    return Example(np.array(tokens, np.int32), np.array(asked, np.int32), positions_T=positions)

  def _positions(self, digits: int, digits_of_sum: int) -> np.ndarray | None:
    """The positions of the tokens of an example, int32 [T]."""
    if self.positions == 'contiguous':
      return None
    numbers = [np.arange(count) for count in (digits, digits, digits_of_sum)]
    if self.positions == 'abacus':
      first, second, total = (1 + number for number in numbers)
      plus = equals = 0
    else:
      first, second, total = (2 + (n if self.reverse else n[::-1]) for n in numbers)
      plus, equals = 1, 1 if self.reverse else 2 + digits_of_sum
    return np.concatenate([first, [plus], second, [equals], total, [0]]).astype(np.int32)

  def _sum(self, numbers: np.ndarray) -> list[int]:
    """The digits of the sum, lowest first."""
    total, carry = [], 0
    for pair in numbers[:, ::-1].T:
      carry, digit = divmod(int(pair.sum()) + carry, 10)
      total.append(digit)
    return [*total, carry] if carry or self.pad else total

  def _choices(self, total: list[int], n: int) -> tuple[list[int], int]:
    """How many symbols can stand at each digit of the sum, lowest first, and at its end."""
    if self.pad:
      return [10] * n + [2], 1
    has_carry = len(total) > n
    if not self.reverse:
      # The first digit decides where the end is: two digits from 1 to 9 add up to 2 or more, so a
      # sum that begins with 1 has a carry, and no other has.
      return [10] * (len(total) - 1) + [9], 1
    behind = 2 if total[n - 1] > 1 else 1  # a carry or the end; after 0 and 1 a carry, as above
    return ([10] * n + [behind], 1) if has_carry else ([10] * n, behind)
