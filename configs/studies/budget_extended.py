"""RoPE with four times the board's budget, extended at evaluation, beside what gains past L there.

  python scripts/sweep.py --config=configs/studies/budget_extended.py --kept=results/scale_budget

configs/studies/board_extended.py with four times the training: the same methods, but for those that
have no part in the answer, laid over RoPE of configs/studies/scale_budget.py, whose Transformer-XL,
ALiBi, T5 and KERPLE --kept brings in.

Known before: of the board's own budget and one seed, ReRoPE has 2.391 bits per byte at 4 L, and
Self-Extend 2.375, where RoPE with its window has 2.456 and Transformer-XL 2.416. With four times
that budget RoPE with its window has 2.254 at 4 L and at 32 L, T5 1.942 and 1.840, Transformer-XL
2.031 and 2.054.

Predicted before the runs, means of two seeds:
- at 4 L Self-Extend made for 4 L has 1.95 to 2.10, with both seeds more than 0.1 less than RoPE
  with its window;
- at 32 L Self-Extend made for 32 L has 2.0 to 2.3, and T5 stays more than 0.1 better;
- ReRoPE at 32 L is less than 0.1 worse than at 4 L.

Cost: 2 trainings of 6,000 steps, 20 minutes each, and 8 evaluations of 5 minutes. Result:
results/budget_extended, LOG/159. Bits per byte at 4 L and 32 L: T5 1.942 and 1.840, Self-Extend
made for 4 L 2.129 and 5.519, dual chunk attention 2.129 and 2.358, Self-Extend made for 32 L 2.136
and 2.304, ReRoPE 2.144 and 2.311, RoPE with its window 2.253.
"""

from pathlib import Path

from posenc_jax.config import load_study

EXTENDED = load_study(Path(__file__).with_name('board_extended.py'))
BUDGET = load_study(Path(__file__).with_name('scale_budget.py'))
BIASES = ('transformer_xl', 'alibi', 't5', 'kerple_log')


def sweep():
  lines = BUDGET.BOARD.variants(BUDGET.BOARD.L)
  for seed in range(2):
    yield EXTENDED.trained(seed)
    yield from EXTENDED.extended(seed, EXTENDED.FIRST)
    for name in BIASES:
      yield {'seed': seed, 'label': name, 'encoding': lines[name]}


get_config, table, figures = BUDGET.get_config, EXTENDED.table, EXTENDED.figures
