"""The board on Python source with four times the budget: who gains past L, and does T5?

  pip install -e '.[code]'
  python scripts/sweep.py --config=configs/studies/code_budget.py --jobs=2

Everything is as in configs/studies/board_code.py but the steps, whose 12.3 million bytes are three
quarters of the training split, so that no text is read twice. Without p-RoPE.

Known before: with the board's budget, of six seeds, bits per byte at L, 4 L and 32 L are of ALiBi
1.847, 1.745 and 1.774, of RoPE trained at 4 L 1.849, 1.678 and 4.318, of T5 1.999, 2.027 and 2.627,
of RoPE with a window of L 2.001, 2.013 and 2.013; there most runs of T5 and RoPE have not learned
to copy. On the corpus `planted` four times the budget made T5 the best at 4 L and at 32 L, where it
had failed (results/scale_budget).

Predicted before the runs, of each seed:
- every run has learned to copy: at L it has less than 1.75, and the five that are trained at L lie
  within 0.08 of each other;
- at 4 L ALiBi is better than at L by 0.08 to 0.16, T5, KERPLE and Transformer-XL by 0.06 or more,
  and each of the four is better than RoPE there with a window of L;
- at 32 L T5 is no worse than at L, and KERPLE and Transformer-XL are no worse than at 4 L by 0.03;
- RoPE fails by 2 L, and holds with the window;
- RoPE trained at 4 L is the best at 4 L, by 0.03 or more.

Cost: 12 runs of 0.8 million parameters, 10 to 19 minutes each, two at a time on two cores. Result:
results/code_budget, LOG/229. Of ALiBi and RoPE trained at 4 L it came so, but that with one seed
Transformer-XL is 0.011 better at 4 L than the latter, and loses 0.098 from there to 32 L, and that
RoPE with its window loses 0.034 and 0.040. Four runs have more than 1.75 at L, one each of RoPE,
T5, KERPLE and Transformer-XL, and gain 0.012 at most past it; T5 fails by 32 L with both.
"""

from pathlib import Path

from posenc_jax.config import load_study

CODE = load_study(Path(__file__).with_name('board_code.py'))
BOARD = CODE.BOARD
NAMES = ('rope', 'alibi', 't5', 'kerple_log', 'transformer_xl')


def get_config():
  config = CODE.get_config()
  config.train.steps *= 4
  config.optim.warmup *= 4
  config.train.validate_every *= 4
  return config


def sweep():
  lines = BOARD.variants(BOARD.L)
  longer = BOARD.REFERENCES[CODE.LONGER]
  for seed in range(2):
    for name in NAMES[:3]:
      yield {'seed': seed, 'label': name, 'encoding': lines[name]}
    yield {'seed': seed, 'label': CODE.LONGER, 'encoding': lines['rope']} | longer
    for name in NAMES[3:]:
      yield {'seed': seed, 'label': name, 'encoding': lines[name]}


table = CODE.table


def figures():
  return {'extrapolation': CODE.figures()['extrapolation']}
