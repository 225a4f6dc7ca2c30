"""RoPE trained at four times the length, with four times the board's budget: what is it worth
against encodings that were trained at L and gain past it?

  python scripts/sweep.py --config=configs/studies/budget_longer.py --kept=results/scale_budget

Who can train at the length that is wanted has no need to extrapolate. RoPE trained at 4 L, with as
many tokens a step (`rope, L = 512` of configs/studies/board.py) and the steps of
configs/studies/scale_budget.py, whose RoPE, Transformer-XL, ALiBi, T5 and KERPLE --kept brings in.
They are compared with RoPE trained at 4 L, also with attention windowed at its training length, and
that with RoPE trained at L (which was added with the results).

Known before: bits per byte of two seeds at 4 L and 32 L, T5 1.942 and 1.840, ALiBi 1.950 and 2.216,
RoPE trained at L with its window 2.254. With the board's own budget RoPE trained at 4 L has 2.530
at L and 2.463 at 4 L.

Predicted before the runs, means of two seeds of RoPE trained at 4 L:
- at L it has 2.28 to 2.38, at 4 L 1.97 to 2.12;
- at 32 L, with attention windowed at 4 L, it is within 0.03 of its own score at 4 L with both
  seeds; without a window it fails, with more than 4 bits;
- at 4 L T5 is less than 0.12 better, and no interval or test shows it; at 32 L T5 is more than 0.12
  better than RoPE with that window.

Cost: 2 runs of 30 minutes on a core of their own. Result: results/budget_longer, LOG/213. RoPE
trained at 4 L has 2.271 bits per byte at L, 2.018 at 4 L and 2.002 at 32 L with attention windowed
at 4 L (5.933 without). By the means T5 is 0.076 better at 4 L, of which no interval is made, and
0.162 [0.057, 0.286] at 32 L. Does not hold: that at L it has 2.28 or more; and with one seed it is
0.031 better at 32 L with its window than at 4 L, where 0.03 was predicted.
"""

from pathlib import Path

from posenc_jax.config import load_study

BUDGET = load_study(Path(__file__).with_name('scale_budget.py'))
BOARD = BUDGET.BOARD
NAMES = ('rope', 'transformer_xl', 'alibi', 't5', 'kerple_log')
LONGER = f'rope, L = {4 * BOARD.L}'


def sweep():
  lines = BOARD.variants(BOARD.L)
  for seed in range(2):
    longer = BOARD.REFERENCES[LONGER]
    yield {'seed': seed, 'label': LONGER, 'encoding': lines['rope']} | longer
    for name in NAMES:
      yield {'seed': seed, 'label': name, 'encoding': lines[name]}


def table():
  baselines = {LONGER: 'rope'} | {name: LONGER for name in NAMES if name != 'rope'}
  return dict(protocols=('last_k',), metric='bpb', baseline=baselines)


get_config, figures = BUDGET.get_config, BUDGET.figures
