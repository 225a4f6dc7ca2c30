"""RoPE of the board on Python source, extended at evaluation: does it gain from code past L?

  python scripts/sweep.py --config=configs/studies/code_extended.py --kept=results/board_code

On speeches extended RoPE gains past L about as much as Transformer-XL does, to 4 L
(configs/studies/board_extended.py). On Python source what comes again are identifiers, and RoPE's
six seeds end in different states: two have learned to copy within L, one in part, three have not
(configs/studies/board_code.py). Here they are trained as there, and read by the three methods that
need no training and did best on speeches, laid over them in the same way: ReRoPE, Self-Extend made
for 4 L, and dual chunk attention. ALiBi, the best there of those trained at L, and RoPE trained at
4 L are brought in by --kept. Text, budget and scored bytes are those of board_code.

Known before, bits per byte at L of RoPE's six seeds: 1.960, 2.100, 1.861, 2.089, 2.083 and 1.911,
on average 2.001; with a window of L it has 2.013 at 4 L, where ALiBi has 1.745, and RoPE trained
there 1.678.

Predicted before the runs:
- the three methods are within 0.02 of each other at 4 L by their means, at 1.92 to 1.99;
- of seeds 2 and 5 each gains more than 0.04 from L to 4 L with each method, of seeds 1, 3 and 4
  none more than 0.04 with any;
- so none is shown to be better than RoPE with its window and marked so by seeds, and ALiBi is more
  than 0.15 better than each at 4 L, marked;
- at 32 L each has more than RoPE with its window, by 0.03 or more.

Cost: 6 trainings of 7 minutes, and 18 evaluations of 2 minutes each on one core. Result:
results/code_extended/table.md, LOG/219. Bits per byte at 4 L: Self-Extend 2.003, ReRoPE 2.009, dual
chunk attention 2.060; at 32 L 4.719, 2.253 and 2.324. Does not hold: that the three are at 1.92 to
1.99 and within 0.02 of each other, and that seeds 2 and 5 gain with each of them, which they do not
with dual chunk attention, and seed 5 with ReRoPE by 0.033. That ALiBi's lead of 0.259 and more is
marked stands in no table.
"""

from pathlib import Path

from posenc_jax.config import load_study

CODE = load_study(Path(__file__).with_name('board_code.py'))
EXTENDED = load_study(Path(__file__).with_name('board_extended.py'))
METHODS = ('rerope', 'self_extend, 4 L', 'dca')

get_config, table = CODE.get_config, CODE.table


def sweep():
  lines = CODE.BOARD.variants(CODE.BOARD.L)
  for seed in range(6):
    yield EXTENDED.trained(seed)
    yield from EXTENDED.extended(seed, METHODS)
    yield {'seed': seed, 'label': 'alibi', 'encoding': lines['alibi']}
    longer = CODE.BOARD.REFERENCES[CODE.LONGER]
    yield {'seed': seed, 'label': CODE.LONGER, 'encoding': lines['rope']} | longer


def figures():
  return {'extrapolation': CODE.figures()['extrapolation']}
