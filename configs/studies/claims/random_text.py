"""Claim: trained at random positions in order, from a range longer than any input, encodings hold
past their training length (Ruoss et al. 2023, arXiv:2305.16843). In text, too?

  python scripts/sweep.py --config=configs/studies/claims/random_text.py --kept=results/board

RoPE and sinusoidal positions of configs/studies/board.py, as they are, of its rows, and at
positions drawn from 0 .. 32 L - 1, in training and test, one draw a batch for all layers (in the
released code RoPE draws in every layer). 32 L is the longest input that is evaluated; there the
draw is every position, in order. KV shift stands beside each encoding: it is of the neighbour in
the text, whatever its position.

Known before: in a needle test RoPE at random positions finds at 8 L what it loses as it is
(random_positions.py beside this, two seeds). Bits per byte of three seeds of the board at
L: RoPE 2.472, sinusoidal positions 2.621.

Predicted before the runs, means of three seeds:
- at L RoPE at random positions is 0.02 to 0.15 worse than as it is, sinusoidal positions 0.02 to
  0.25 worse;
- at 4 L RoPE at random positions is within 0.1 of its own score at L, at 32 L more than 0.2 worse
  than at L and more than 2 bits better than RoPE as it is;
- at 4 L it is not better than RoPE with its window;
- it recalls no name from 1 to 2 L back: letters cost more than 5.5 bits.

Cost: 6 runs of 9 to 14 minutes on a core of their own. Result: results/random_text/table.md,
LOG/214. RoPE at random positions has 2.588 bits per byte at L, 2.536 at 2 L, 2.674 at 4 L and 4.018
at 32 L; sinusoidal positions 2.683, 2.625, 2.784 and 4.634. Letters of names from 1 to 2 L back
cost 3.234 bits in windows of 4 L and 6.207 in those of 32 L. Does not hold: that it recalls no such
name, and that RoPE is more than 2 bits better at 32 L than as it is (5.582). All documents and
seeds are evaluated at one draw of positions a length.
"""

from pathlib import Path

from posenc_jax.config import load_study

BOARD = load_study(Path(__file__).parents[1] / 'board.py')
RANDOM = load_study(Path(__file__).with_name('random_positions.py'))
NAMES = ('rope', 'sinusoidal')

get_config = BOARD.get_config


def at_random(name: str) -> dict:
  """KV shift and the encoding at random positions, as many as the longest input has tokens."""
  return RANDOM.at_random(name, BOARD.L) | {'longest': max(get_config().eval.lengths)}


def sweep():
  plain = BOARD.variants(BOARD.L)
  for seed in range(3):
    for name in NAMES:
      yield {'seed': seed, 'label': name, 'encoding': plain[name]}
      yield {'seed': seed, 'label': f'{name}, random', 'encoding': at_random(name)}


def table():
  scores, by_distance = BOARD.table()
  return [scores, by_distance | {'length': 4 * BOARD.L}, by_distance]
