"""Classification by a rule that only the solved examples in the context tell."""

import dataclasses
import itertools

import numpy as np

from posenc_jax.tasks.base import MAX_DRAWS, Example, Task, join_segments

MAX_INPUTS = 4096  # different inputs, levels ** features
HELD_OUT = 0.25  # the share of inputs that are never shown with their label


@dataclasses.dataclass(kw_only=True, eq=False)
class ManyShot(Task):
  """The answer is the label of an input under a linear rule that the shots before it follow.

  Example: 1 -1 A -1 1 B -1 -1 B 1 1 A ? 3 -3 [A]
  Chance: 1/2 a query. Without finding the rule, the label of the shot that is nearest to the input
    is right in 0.81 at 104 tokens and 0.84 at 204.
  Source: in kind after Yen et al. 2024, "HELMET" (many-shot in-context learning)

  (The example has `features` = 2.) An input is `features` numbers, each one of `levels` about 0: -3
  -1 1 3, or of three levels -2 0 2. Each example has a rule of its own, a weight of -1, 0 or 1 for
  each feature, not all 0: an input has the label A where its weighted sum is above 0, else B. Shots
  fill the length; then `queries` inputs are asked for that no shot shows, as many of A as of B on
  average, and all rules that agree with the shots agree on them. So the label is certain, but must
  be worked out. HELMET takes real texts with many classes, which are renamed as numbers.
  """

  features: int = 4
  levels: int = 4
  queries: int = 4

  def __post_init__(self):
    self.require_at_least(2, 'features', 'levels')
    self.require_at_least(1, 'queries')
    if self.features > 6:
      raise ValueError(f'features={self.features!r}; allowed: 2 to 6')
    if self.levels**self.features > MAX_INPUTS:
      raise ValueError(
        f'levels={self.levels!r}; allowed: at most {MAX_INPUTS} inputs, levels ** features'
      )
    most = int(self.levels**self.features * HELD_OUT)
    if self.queries > most:
      allowed = f'at most {most} for {self.levels**self.features} inputs, levels ** features'
      raise ValueError(f'queries={self.queries!r}; allowed: {allowed}')
    numbers = range(1 - self.levels, self.levels, 2)
    self.token_names = [*map(str, numbers), 'A', 'B', '?']
    self.unit = self.features + 1
    self.overhead = self.queries * (self.features + 2)
    self.shortest = self.overhead + 4 * self.features * self.unit
    # [inputs, features], as numbers of levels; and whether a rule says A, [rules, inputs]
    self.inputs = np.array(list(itertools.product(range(self.levels), repeat=self.features)))
    rules = np.array([w for w in itertools.product((-1, 0, 1), repeat=self.features) if any(w)])
    self.says_a = rules @ np.array(numbers)[self.inputs].T > 0

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    num_shots = (length - self.overhead) // self.unit
    wants_a = rng.random(self.queries) < 0.5
    for _ in range(MAX_DRAWS):
      is_a = self.says_a[rng.integers(len(self.says_a))]
      held_out = rng.random(len(self.inputs)) < HELD_OUT
      if held_out.all():  # as may be where there are few inputs
        continue
      shots = rng.choice(np.flatnonzero(~held_out), num_shots)
      agree = (self.says_a[:, shots] == is_a[shots]).all(1)
      decided = held_out & (self.says_a[agree] == is_a).all(0)
      of_a, of_b = (rng.permutation(np.flatnonzero(decided & label)) for label in (is_a, ~is_a))
      if len(of_a) >= wants_a.sum() and len(of_b) >= (~wants_a).sum():
        break
    else:
      raise ValueError(f'{length} tokens: no queries that the shots decide; allowed: more tokens')
    asked = np.empty(self.queries, int)
    asked[wants_a], asked[~wants_a] = of_a[: wants_a.sum()], of_b[: (~wants_a).sum()]
    labels = self.levels + ~is_a  # the tokens of A and B come after the numbers
    segments = [(np.column_stack([self.inputs[shots], labels[shots]]), 0)]
    for query in asked:
      segments += [([self.levels + 2, *self.inputs[query]], 0), (labels[query], 2)]
    return join_segments(*segments)
