"""Scale check of the board: eight of its encodings in models twice as wide. Do ranks hold?

  python scripts/sweep.py --config=configs/studies/scale_width.py --jobs=2
  python scripts/board.py runs/scale_width --out=runs/scale_width

Everything is as in configs/studies/board.py but the width: 3.2 million parameters, eight heads. The
rate is half of the board's: the best one falls about as the width grows (Yang et al. 2022,
arXiv:2203.03466).

Predicted before the runs: of the 28 pairs of encodings at most 7 change their order by bits at L,
and verdicts stay what they are on the board. ALiBi still gains at 4 L, by less than there: its
flattest slope, 2^-8, is that of one head in eight, and not in four.

Cost: 16 runs of 8 to 22 minutes, two at a time on two cores. Result: results/scale_width, LOG/148,
LOG/241. By the means four pairs change their order from that of the board. T5 and p-RoPE fail by 4
L, Transformer-XL holds to 32 L, RoPE with a window. ALiBi gains 0.172 at 4 L, more than on the
board, 0.135.
"""

from pathlib import Path

from posenc_jax.config import load_study

BOARD = load_study(Path(__file__).with_name('board.py'))
BUDGET = load_study(Path(__file__).with_name('scale_budget.py'))


def get_config():
  config = BOARD.get_config()
  config.model.update(model_dim=256, heads=8, mlp_dim=1024)
  config.optim.learning_rate /= 2
  return config


sweep, table, figures = BUDGET.sweep, BUDGET.table, BUDGET.figures
