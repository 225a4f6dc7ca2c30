"""Scale check of the board: eight of its encodings with four times the budget. Do ranks hold?

  python scripts/sweep.py --config=configs/studies/scale_budget.py --jobs=2
  python scripts/board.py runs/scale_budget --out=runs/scale_budget

Everything is as in configs/studies/board.py but the steps. configs/studies/scale_width.py is the
same for wider models.

Predicted before the runs: of the 28 pairs of encodings at most 7 change their order by bits at L.
Verdicts stay what they are on the board but FoX's: it recalls names within L now (less than 3 bits
a character up to L / 2), and gains from text past L less than ALiBi, since what it forgets within L
it forgets past it. RoPE's and NoPE's losses past L grow, ALiBi's and Transformer-XL's gains at 4 L
do not shrink by more than a third.

Cost: 16 runs of 17 to 43 minutes, two at a time on two cores. Result: results/scale_budget,
LOG/137, LOG/139, LOG/142. At 32 L T5 has 1.840 bits, KERPLE 2.006, Transformer-XL 2.054, ALiBi
2.216, RoPE with a window of L 2.254 and FoX 2.290; 8 pairs change their order at L.
"""

from pathlib import Path

from posenc_jax.config import load_study

NAMES = ('rope', 'alibi', 'transformer_xl', 't5', 'fox', 'kerple_log', 'p_rope', 'nope')
BOARD = load_study(Path(__file__).with_name('board.py'))


def get_config():
  config = BOARD.get_config()
  config.train.steps *= 4
  config.optim.warmup *= 4
  config.train.validate_every *= 4
  return config


def sweep():
  variants = BOARD.variants(BOARD.L)
  for seed in range(2):
    for name in NAMES:
      yield {'seed': seed, 'label': name, 'encoding': variants[name]}


table = BOARD.table


def figures():
  return {'extrapolation': dict(protocol='last_k', metric='bpb')}
