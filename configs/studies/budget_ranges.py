"""After four times the training, does RoPE trained at random positions from ranges that are drawn
anew use text past L as distance-based encodings do?

  python scripts/sweep.py --config=configs/studies/budget_ranges.py --kept=results/scale_budget

RoPE trained so (`ranges` of configs/studies/claims/random_ranges.py: for each batch the range of
positions ends log-uniformly between L and 32 L), with the steps of configs/studies/scale_budget.py,
whose RoPE, Transformer-XL, ALiBi, T5 and KERPLE --kept brings in. It is evaluated at positions from
32 L, and as plain RoPE, at positions in order, without and with logits that grow with the logarithm
of the keys that a token sees.

Known before, bits per byte of two seeds: RoPE 2.287 at L and 2.254 past it with its window; at 4 L
T5 1.942, RoPE trained at 4 L 2.018; at 32 L T5 1.840, ALiBi 2.216. With the board's own budget
ranges have 2.597 at L in order, 2.494 at 4 L and 2.727 at 32 L, where RoPE has 2.472 and with its
window 2.455.

Predicted before the runs, means of two seeds at positions in order:
- at L 2.33 to 2.43, worse than RoPE by less than the 0.126 of the board's budget;
- at 4 L 2.05 to 2.25: better than RoPE with its window, and worse than T5 by more than 0.1;
- at 8 L better than RoPE with its window; at 32 L 2.15 to 2.6;
- with log n at 32 L 0.02 to 0.25 better than without.

Cost: 2 trainings of some 18 minutes on a core of their own, and 4 evaluations of a minute. Result:
results/budget_ranges, LOG/224. In order it has 2.373 bits at L, 2.252 at 4 L, 2.299 at 8 L and
2.619 at 32 L, with log n 2.506 there. Does not hold: that at 4 L it has 2.25 or less, that at 8 L
it is better than RoPE with its window (it is 0.044 worse, by the means), and 2.6 or less at 32 L.
That it is better than that window at 4 L is not shown (by 0.002).
"""

from pathlib import Path

from posenc_jax.config import load_study

LONGER = load_study(Path(__file__).with_name('budget_longer.py'))
RANGES = load_study(Path(__file__).parent / 'claims' / 'random_ranges.py')
BOARD = LONGER.BOARD


def sweep():
  lines = BOARD.variants(BOARD.L)
  for seed in range(2):
    for name in LONGER.NAMES:
      yield {'seed': seed, 'label': name, 'encoding': lines[name]}
    trained = {'seed': seed, 'label': 'rope, ranges', 'encoding': RANGES.drawn(32)}
    yield trained
    starts = {'seed': seed, 'train.init_from': trained, 'train.steps': 0}
    for label, members in RANGES.IN_ORDER.items():
      yield starts | {'label': f'ranges, {label}', 'encoding': BOARD.with_kv_shift(*members)}


get_config, table, figures = LONGER.get_config, BOARD.table, LONGER.figures
