"""Claim: the best learning rate falls as models get wider, by half for twice the width (Yang et al.
2022, arXiv:2203.03466). Does what configs/studies/scale_width.py found hang on its halved rate?

  python scripts/sweep.py --config=configs/studies/claims/width_rate.py \\
    --kept=results/scale_width --jobs=2

There T5 no longer holds to 4 L and ALiBi gains most past L. Both the width and the rate differ from
the board, so either may be the reason. Here three of those encodings are trained with the board's
rate as well, at the same width.

Known before: at the board's width half of its rate costs RoPE 0.059 bits at L and T5 0.065, and T5,
which has 3.297 at 32 L with the board's rate, has 4.307 with half of it (results/rates). At twice
the width and half the rate T5 has 2.466 at L, 2.600 at 4 L and 4.110 at 32 L (LOG/148).

Predicted before the runs, of the board's rate at twice the width: RoPE is better at L than with
half of it, by less than 0.05; T5 is at 4 L no longer worse than at L (the interval of the
difference does not lie above 0), and has less than 3.7 at 32 L: it was the rate. ALiBi still gains
more than 0.05 at 4 L: that was not.

Cost: 6 runs of some 20 minutes besides those that are kept, two at a time on two cores. Result:
results/width_rate, LOG/164 and 168. Bits per byte at L, 4 L and 32 L with the board's rate, and
with half of it: RoPE 2.460, 3.667 and 5.327 (2.417, 3.536, 5.279), T5 2.482, 2.467 and 3.442
(2.469, 2.572, 4.155), ALiBi 2.493, 2.425 and 2.474 (2.457, 2.285, 2.314).
"""

from pathlib import Path

from posenc_jax.config import load_study

STUDIES = Path(__file__).parents[1]
BOARD = load_study(STUDIES / 'board.py')
WIDTH = load_study(STUDIES / 'scale_width.py')
NAMES = ('t5', 'alibi', 'rope')

get_config, figures = WIDTH.get_config, WIDTH.figures


def sweep():
  lines = BOARD.variants(BOARD.L)
  full = {'optim.learning_rate': BOARD.get_config().optim.learning_rate}
  for seed in range(2):
    for name in NAMES:
      yield {'seed': seed, 'label': f'{name}, rate x 2', 'encoding': lines[name]} | full
    for name in NAMES:
      yield {'seed': seed, 'label': name, 'encoding': lines[name]}


def table():
  return dict(protocols=('last_k',), metric='bpb', baseline='rope')
