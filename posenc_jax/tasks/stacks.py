"""Several stacks, pushed to and popped from in turn, and nested brackets."""

import dataclasses

import numpy as np

from posenc_jax.tasks.base import Example, Task, join_segments, letter_names, numbered_names


@dataclasses.dataclass(kw_only=True, eq=False)
class Stack(Task):
  """The answer to every pop is the symbol last pushed to that stack and not popped since.

  Example: push 1 g push 0 b push 1 c pop 1 [c] pop 1 [g]
  Chance: 1/`symbols` a pop. Without heeding earlier pops, the symbol last pushed to the stack is
    right in 0.91 of 8 stacks in 63 tokens and in 0.96 of 64 stacks in 255; with `repeat` = 0.75 in
    0.48 and 0.38.
  Source: Kimi Team 2025, "Kimi Linear"

  An operation is a pop with probability `pops` where a stack holds something, else a push; the
  stack is drawn evenly (of those that hold something), and so is the symbol. The last operation is
  a pop. The paper has 64 stacks and 256 to 2,048 tokens; how it draws operations was not compared.

  So drawn, a stack seldom holds more than one symbol, and nothing of a stack is needed. With
  probability `repeat` an operation is of the kind and on the stack of the one before it, unless
  that stack is then empty: several symbols are pushed to a stack, and several popped from it. At
  0.75 a pop finds 4.0 symbols on its stack instead of 1.1 (64 stacks, 255 tokens), and a rule that
  takes all stacks for one is right in 0.43 of the pops (0.41 without `repeat`).
  """

  stacks: int = 8
  symbols: int = 16
  pops: float = 0.5
  repeat: float = 0.0

  unit = 3

  def __post_init__(self):
    self.require_at_least(1, 'stacks')
    self.require_at_least(2, 'symbols')
    self.require_number('pops', 0.01, 0.99)
    self.require_number('repeat', 0, 0.99)
    ids, symbols = numbered_names('', self.stacks), letter_names(self.symbols)
    self.token_names = [*ids, *symbols, 'push', 'pop']
    self.shortest = 24

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    n = length // 3
    push, pop = len(self.token_names) - 2, len(self.token_names) - 1
    wants_pop, symbols = rng.random(n) < self.pops, rng.integers(self.symbols, size=n)
    wants_pop[-1] = True
    # Without `repeat` nothing is drawn for it: so examples are those of before it was an option.
    repeats = rng.random(n) < self.repeat if self.repeat else np.zeros(n, bool)
    repeats[[0, -1]] = False
    stacks, held = [[] for _ in range(self.stacks)], 0
    is_pop, chosen = False, 0  # of the operation before
    tokens = np.empty((n, 3), np.int32)
    for i in range(n):
      can_pop = held > (i == n - 2)  # the last pop needs something to pop
      if not repeats[i] or (is_pop and not (can_pop and stacks[chosen])):
        is_pop = wants_pop[i] and can_pop
        possible = [s for s, stack in enumerate(stacks) if stack] if is_pop else range(self.stacks)
        chosen = possible[int(rng.integers(len(possible)))]
      if is_pop:
        symbol = stacks[chosen].pop()
        held -= 1
      else:
        symbol = int(symbols[i])
        stacks[chosen].append(symbol)
        held += 1
      tokens[i] = pop if is_pop else push, chosen, self.stacks + symbol
    choices = np.zeros_like(tokens)
    choices[tokens[:, 0] == pop, 2] = self.symbols
    return Example(tokens.reshape(-1), choices.reshape(-1))


@dataclasses.dataclass(kw_only=True, eq=False)
class Dyck(Task):
  """The answer is the kind of the bracket that is to be closed next, with `kinds` of brackets.

  Example: (0 (2 (1 )1 (0 )0 > [)2]
  Chance: 1/`kinds`. Without any order, the kind of which most are open is right in 0.52 at 64
    tokens and 0.53 at 256.
  Source: after Hewitt et al. 2020, "RNNs can Generate Bounded Hierarchical Languages with Optimal
    Memory" (Dyck-(k, m))

  At most `depth` brackets are open at a time. The place of the one asked for is drawn evenly; all
  that are opened after it are closed. So its distance, which coins alone would make short, says
  nothing. Elsewhere brackets are opened or closed as a coin falls, where both can be. Hewitt et al.
  ask for every token of words in which all brackets are closed.
  """

  kinds: int = 4
  depth: int = 8

  def __post_init__(self):
    self.require_at_least(2, 'kinds')
    self.require_at_least(3, 'depth')
    self.token_names = [*numbered_names('(', self.kinds), *numbered_names(')', self.kinds), '>']
    self.shortest = 14

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    n = length - 2
    asked = n - 1 - 2 * int(rng.integers(1, (n - 1) // 2 + 1))  # its place
    wants_open, kinds = rng.random(n) < 0.5, rng.integers(self.kinds, size=n)
    brackets, held = np.empty(n, np.int32), []
    for i in range(n):
      if i <= asked:  # with room for it and for one within it
        opens = i == asked or not held or (wants_open[i] and len(held) < self.depth - 2)
        outside = len(held) + 1
      else:  # with tokens left to close all that is within it
        within = len(held) - outside
        can_open = len(held) < self.depth and within < n - i
        opens = not within or (wants_open[i] and can_open)
      if opens:
        held.append(int(kinds[i]))
        brackets[i] = held[-1]
      else:
        brackets[i] = self.kinds + held.pop()
    answer = self.kinds + held[-1]
    return join_segments((brackets, 0), ([2 * self.kinds], 0), (answer, self.kinds))
