"""Addition of two numbers, in the formats that decide whether it generalises to more digits."""

import dataclasses

import numpy as np

from posenc_jax.tasks.base import CarriedPositions, Example, Task, numbered_names

PLUS, EQUALS, END = 10, 11, 12  # tokens 0 to 9 are the digits
FIRST_MARK = 13
SUM = 'sum'  # the value of `reverse` that turns the sum alone around
POSITIONS = ('contiguous', 'abacus', 'coupled')


@dataclasses.dataclass(kw_only=True, eq=False)
class Addition(Task):
  """The answer is the sum of two numbers of n digits each.

  Example: 5 7 + 6 8 = [1] [2] [5] [.]
  Chance: 1/10 a digit; marks and the end are certain. 1/9 for the highest digit where it is said
    first, which is not 0: always saying 1 is right in 0.6 of these. With `pad`, 1/2 for the highest
    digit, a carry or 0. With `reverse` alone, 1/2 for what follows n digits, the carry or the end,
    unless the last of them is 0 or 1, which only a carry follows; it is certain where one number is
    longer. With `unequal`, saying the longer number's digits at places that the other lacks is
    right in 0.90 of these at 28 tokens, which are half of all.
  Source: Kazemnejad et al. 2023; Zhou et al. 2023, "What Algorithms can Transformers Learn?"
    (marks)

  The format decides the result, so state it with every figure. An example has 3 n + 4 tokens, with
  hints 6 n + 5. Splits share no sum, but the mirrored b + a of a test sum a + b may be trained on.
  That matters for 2 digits alone, of which there are some 10,000 sums, so that a training sees most
  of its own; of 3 there are a million.

  With `unequal`, the longer number has n digits and the other m, from 1 to n, such that 2 n + m + 4
  tokens, with hints 4 n + 2 m + 5, are those asked for; n is drawn evenly, and so is which comes
  first. All pairs occur but two single digits, so that training of up to L tokens meets numbers of
  up to (L - 5) / 2 digits, 12 at 30, where equal ones have 8: tests of more tokens ask in part for
  numbers that it has seen. Kazemnejad et al. have unequal numbers, too: each pair of up to 8 digits
  as often in training, and in tests the pairs of which one number at least has 9 to 16; a number of
  one digit may be 0 there.

  With `reverse`, all digits stand from the lowest to the highest: 7 5 + 8 6 = [5] [2] [1] [.]
  With `reverse` 'sum', those of the sum alone: 5 7 + 6 8 = [5] [2] [1] [.] (Cho et al. 2024, with
  `pad`.)
  With `pad`, numbers may begin with zeros and the sum has n + 1 digits: 0 7 + 1 4 = [0] [2] [1] [.]
  With `hints` = m, each digit follows a mark of its place: <4 5 <5 7 + <4 6 <5 8 = ... The marks
  are consecutive, with a random start among m marks, so that training meets all of them. Hints need
  `reverse` True and `pad`; marks then count from the lowest digit.

  With `positions`, examples carry positions of their own, 0 at the end symbol:
    'abacus': a digit has the number of digits of its number up to itself, + and = have 0; so equal
      places are at equal positions only with `reverse` True (McLeish et al. 2024).
        7 5 + 8 6 = [5] [2] [1] [.]  at  1 2 0 1 2 0 1 2 3 0
    'coupled': a digit has 2 + its place, whatever the order of digits; + has 1, = the position
      that comes before that of the first digit of the sum (Cho et al. 2024). With neither `reverse`
      nor `pad` that of = tells a model how many digits the sum has, and so whether it begins with a
      carried 1: use one of them, as they do, whose main format has `reverse` 'sum' and `pad`.
        7 5 + 8 6 = [5] [2] [1] [.]  at  2 3 1 2 3 1 2 3 4 0
        5 7 + 6 8 = [1] [2] [5] [.]  at  3 2 1 3 2 5 4 3 2 0
        5 7 + 6 8 = [5] [2] [1] [.]  at  3 2 1 3 2 1 2 3 4 0
  """

  reverse: bool | str = False
  pad: bool = False
  hints: int = 0
  positions: str = 'contiguous'
  unequal: bool = False

  ends = True

  def __post_init__(self):
    self.require_at_least(0, 'hints')
    self.require_flag('pad', 'unequal')
    if not isinstance(self.reverse, bool) and self.reverse != SUM:
      raise ValueError(f'reverse={self.reverse!r}; allowed: True, False, {SUM}')
    if self.hints:
      if not (self.reverse is True and self.pad):
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
    self.shortest = self._num_tokens(2, 1 if self.unequal else 2)
    self.longest = self._num_tokens(self.hints - 1, self.hints - 1) if self.hints else None
    # A sum without a carry is a digit shorter.
    self.unit = (1 if self.unequal else 3) * self.per_digit + (not self.pad)

  def _num_tokens(self, longer: int, other: int) -> int:
    return self.per_digit * (2 * longer + other + 1) + 3

  def identity(self, example: Example) -> bytes:
    """The sum without its marks: whatever the first mark is, it is one sum."""
    return example.tokens_T[example.tokens_T < FIRST_MARK].tobytes()

  def largest_position(self, length: int) -> int:
    digits_of_sum = self._num_digits(length)[-1] + 1
    if self.positions == 'abacus':
      return digits_of_sum
    return digits_of_sum + (1 if self.reverse else 2)  # = stands before the highest digit

  def _num_digits(self, length: int) -> range:
    """How many digits the longer number of an example of at most `length` tokens may have."""
    digits = (length - 3) // self.per_digit - 1  # of both numbers, and again of the longer one
    if not self.unequal:
      return range(digits // 3, digits // 3 + 1)
    most = (digits - 1) // 2
    return range(-(-digits // 3), (min(most, self.hints - 1) if self.hints else most) + 1)

  def _draw_counts(self, rng: np.random.Generator, length: int) -> list[int]:
    """How many digits the two numbers of an example of at most `length` tokens have."""
    possible = self._num_digits(length)
    if not self.unequal:
      return [*possible] * 2
    longer = int(rng.choice(possible))
    other = (length - 3) // self.per_digit - 1 - 2 * longer
    return [longer, other] if rng.integers(2) else [other, longer]

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    counts = self._draw_counts(rng, length)
    n = max(counts)
    numbers = rng.integers(10, size=(2, n))
    for number, count in zip(numbers, counts, strict=True):
      number[: n - count] = 0
    if not self.pad:
      numbers[[0, 1], n - np.array(counts)] = rng.integers(1, 10, size=2)
    total = self._sum(numbers)
    choices, choices_of_end = self._choices(total, *counts)
    first_mark = FIRST_MARK + (int(rng.integers(self.hints - n)) if self.hints else 0)
    tokens, asked = [], []
    turns_numbers, turns_sum = self.reverse is True, bool(self.reverse)
    for digits, digit_choices, sign, sign_choices, turns in (
      (numbers[0, : -counts[0] - 1 : -1], [0] * counts[0], PLUS, 0, turns_numbers),
      (numbers[1, : -counts[1] - 1 : -1], [0] * counts[1], EQUALS, 0, turns_numbers),
      (total, choices, END, choices_of_end, turns_sum),
    ):
      pairs = list(zip(digits, digit_choices, strict=True))
      for place, (digit, choice) in enumerate(pairs if turns else pairs[::-1]):
        if self.hints:
          tokens.append(first_mark + place)
          asked.append(min(choice, 1))
        tokens.append(digit)
        asked.append(choice)
      tokens.append(sign)
      asked.append(sign_choices)
    positions = self._positions(*counts, len(total))
    return Example(np.array(tokens, np.int32), np.array(asked, np.int32), positions_T=positions)

  def _positions(self, *counts: int) -> np.ndarray | None:
    """The positions of the tokens of an example, int32 [T], by the digits of the two numbers and of
    the sum.
    """
    if self.positions == 'contiguous':
      return None
    numbers = [np.arange(count) for count in counts]
    if self.positions == 'abacus':
      first, second, total = (1 + number for number in numbers)
      plus = equals = 0
    else:
      turns = (self.reverse is True, self.reverse is True, self.reverse)
      first, second, total = (
        2 + (n if t else n[::-1]) for n, t in zip(numbers, turns, strict=True)
      )
      plus, equals = 1, 1 if self.reverse else 2 + counts[2]
    return np.concatenate([first, [plus], second, [equals], total, [0]]).astype(np.int32)

  def _sum(self, numbers: np.ndarray) -> list[int]:
    """The digits of the sum, lowest first."""
    total, carry = [], 0
    for pair in numbers[:, ::-1].T:
      carry, digit = divmod(int(pair.sum()) + carry, 10)
      total.append(digit)
    return [*total, carry] if carry or self.pad else total

  def _choices(self, total: list[int], *counts: int) -> tuple[list[int], int]:
    """How many symbols can stand at each digit of the sum, lowest first, and at its end, by the
    digits of the two numbers.
    """
    n = max(counts)
    if self.pad:
      return [10] * n + [2], 1
    has_carry = len(total) > n
    if not self.reverse:
      # The first digit decides where the end is: two digits from 1 to 9 add up to 2 or more, so a
      # sum that begins with 1 has a carry, and no other has. Where one number is longer, one with a
      # carry begins with 1 and zeros down to the other's digits, so low as none without a carry is.
      return [10] * (len(total) - 1) + [9], 1
    # What follows n digits is a carry or the end; a carry after 0 and 1, as above. Where one number
    # is longer, its highest digit becomes 0 with a carry, and only so.
    behind = 2 if counts[0] == counts[1] and total[n - 1] > 1 else 1
    return ([10] * n + [behind], 1) if has_carry else ([10] * n, behind)
