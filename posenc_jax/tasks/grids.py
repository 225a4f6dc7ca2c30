"""What stands beside a symbol in two dimensions: a task for encodings of several axes."""

import dataclasses
import math

import numpy as np

from posenc_jax.tasks.base import CarriedPositions, Example, Task, join_segments, letter_names

NEIGHBORS = ('below', 'right')
POSITIONS = ('contiguous', 'grid')
LEAST_TOKENS = 16  # of a grid; its rows then have 2 to 6 cells


@dataclasses.dataclass(kw_only=True, eq=False)
class Grid(Task):
  """The answer is the symbol that stands below each symbol asked for, in a grid said row by row.

  Example: a b c / d e f / b g ? e [g] c [f]
  Chance: 1/`symbols` a query; 1/(`symbols` - 1) for guesses that leave out the symbol asked for,
    which stands once. Without looking at places, the symbol that the grid has most often is right
    in 0.09 at 73 tokens and 0.06 at 265.
  Source: after Li et al. 2024, "2D-TPE: Two-Dimensional Positional Encoding Enhances Table
    Understanding for Large Language Models" (locating values)

  What stands below is one step away along an axis, however large the grid is. Along the sequence it
  is as many tokens away as a row has, which differs from example to example and can only be read
  off the ends of rows. With `neighbor` = 'right' it is the next token, so encodings without rows
  should do as well there.

  The number of columns is drawn evenly, from a half to three halves of the root of the number of
  the grid's tokens; `/` ends a row, and the last row is cut where the length is filled. So rows and
  columns grow alike: 64 tokens of grid (of 73) have 4 to 12 columns, 256 (of 265) have 8 to 24.
  `queries` different symbols are asked for; each stands in the grid once, and all other cells are
  drawn evenly from the other symbols.

  With `positions` = 'grid' the same examples carry two positions a token, for `axial_rope` and
  others that take two: row and column, both from 1, with `/` in a column of its own. After the grid
  both go on alike, from the largest there, as text after an image in Qwen2-VL (Wang et al. 2024).
  So the question and the answers do not say where in the grid anything stood.
    a b / c d ? a [c]  at  1,1 1,2 1,3 2,1 2,2 4,4 5,5 6,6
  """

  symbols: int = 32
  queries: int = 4
  neighbor: str = 'below'
  positions: str = 'contiguous'

  def __post_init__(self):
    self.require_at_least(1, 'queries')
    self.require_at_least(self.queries + 2, 'symbols')
    self.require_one_of('neighbor', NEIGHBORS)
    self.require_one_of('positions', POSITIONS)
    if self.positions == 'grid':
      self.carried_positions = CarriedPositions(per_token=2)
    self.token_names = [*letter_names(self.symbols), '/', '?']
    self.overhead = 1 + 2 * self.queries  # tokens after the grid
    self.shortest = self.overhead + max(LEAST_TOKENS, 4 * self.queries)  # enough cells to ask for

  def largest_position(self, length: int) -> int:
    # A row has more tokens than half of the root, so there are fewer rows than twice the root.
    return math.isqrt(4 * (length - self.overhead)) + 1 + self.overhead

  def draw(self, rng: np.random.Generator, length: int, index: int) -> Example:
    size = length - self.overhead
    root = math.isqrt(size)
    width = 1 + int(rng.integers(root // 2, 3 * root // 2 + 1))  # tokens of a row
    row, column = np.divmod(np.arange(size), width)
    is_cell = column < width - 1
    step = width if self.neighbor == 'below' else 1
    possible = np.flatnonzero(is_cell[:-step] & is_cell[step:])
    places = rng.choice(possible, self.queries, replace=False)
    symbols = rng.permutation(self.symbols)
    asked, others = symbols[: self.queries], symbols[self.queries :]
    grid = np.where(is_cell, rng.choice(others, size), self.symbols)
    grid[places] = asked
    segments = [(grid, 0), ([self.symbols + 1], 0)]
    for place in places:
      # The symbol asked for is no choice; it counts as one because kept rows have that chance.
      segments += [(grid[place], 0), (grid[place + step], self.symbols)]
    example = join_segments(*segments)
    if self.positions == 'contiguous':
      return example
    after = 2 + max(row[-1], width - 1) + np.arange(self.overhead)
    rows_and_columns = [np.concatenate([1 + axis, after]) for axis in (row, column)]
    return example._replace(positions_T=np.stack(rows_and_columns, 1).astype(np.int32))
