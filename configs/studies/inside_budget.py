"""configs/studies/inside.py with four times the training: is far text worth anything then?

  python scripts/sweep.py --config=configs/studies/inside_budget.py --jobs=2

After 3.07 million bytes of training what lines gain past L are names, and text farther back than L
gives next to nothing. Here six of the lines of configs/studies/scale_budget.py, trained anew on
12.3 million bytes, are read likewise.

Predicted before the runs, of each seed:
  of text alone T5, ALiBi, KERPLE and Transformer-XL gain less than 0.02 bits per byte at 8 L beside
  what they have there with attention windowed at L, but for lines that the window breaks;
  at L FoX has fewer bits of text than RoPE, by 0.02 to 0.08;
  ALiBi, 0.137 behind RoPE there after a quarter of the training, is less than 0.06 behind;
  all have at least 0.04 fewer bits of text at L than after a quarter of the training;
  from L to 8 L attention of T5 and ALiBi moves farther away, to more than three times.

Cost: 12 runs of 0.8 million parameters, some 22 minutes each on one core. Result, of seed 0 of T5,
RoPE and ALiBi: results/inside_budget, LOG/195. Bits per byte of text alone at L: T5 1.697, RoPE
1.699, ALiBi 1.726; at 8 L T5 1.639, ALiBi 1.677, and with attention windowed at L T5 1.653, RoPE
1.637, ALiBi 1.911.
"""

from pathlib import Path

from posenc_jax.config import load_study, product, vary

INSIDE = load_study(Path(__file__).with_name('inside.py'))
BUDGET = load_study(Path(__file__).with_name('scale_budget.py'))
SELECTED = ('t5', 'rope', 'alibi', 'fox', 'kerple_log', 'transformer_xl')


def get_config():
  config = BUDGET.get_config()
  config.eval = INSIDE.get_config().eval
  return config


def sweep():
  lines = BUDGET.BOARD.variants(INSIDE.L)
  selected = [{'label': name, 'encoding': lines[name]} for name in SELECTED]
  return product(vary('seed', 0, 1), selected)


table, figures = INSIDE.table, INSIDE.figures
