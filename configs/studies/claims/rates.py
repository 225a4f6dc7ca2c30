"""Claim: what the board says of past the training length does not hang on its one learning rate.

  python scripts/sweep.py --config=configs/studies/claims/rates.py --jobs=2

Lines of the board (configs/studies/board.py) whose outcomes differ, at half its learning rate, at
that rate, 3e-3, and at its double; all else is the board's, seed 0. Runs at 3e-3 are those of the
board.

Predicted before the runs at other rates, bits per byte:
- at L each line is within 0.03 of its best of the three at 3e-3, and worst at half of it;
- with a window of L RoPE is at most 0.03 worse at 32 L than at L, at every rate;
- Transformer-XL is better at 4 L than RoPE with its window, each at the same rate, at every rate,
  and holds to 32 L at every rate;
- ALiBi is better at 4 L than at L, by more than 0.05, at every rate, T5 fails by 8 L at every rate;
- at no rate does FoX learn to recall names: at every length its letters cost more than 5 bits;
- DAPE and PaTH are better at 4 L than RoPE with its window, at every rate; PaTH fails by 32 L.

Cost: 14 runs, besides those of the board, which --kept=results/board leaves out.
"""

from pathlib import Path

from posenc_jax.config import load_study

BOARD = load_study(Path(__file__).parents[1] / 'board.py')
SEED = 0
NAMES = ('rope', 'transformer_xl', 'alibi', 't5', 'fox', 'path', 'dape')
STATED = 3e-3  # the board's
FACTORS = (0.5, 2)


def get_config():
  return BOARD.get_config()


def sweep():
  encodings = BOARD.variants(BOARD.L)
  for name in NAMES:
    yield {'seed': SEED, 'label': name, 'encoding': encodings[name]}
  for name in NAMES:
    for x in FACTORS:
      line = {'seed': SEED, 'label': f'{name}, rate x {x:g}', 'encoding': encodings[name]}
      yield line | {'optim.learning_rate': x * STATED}


def table():
  """Each line against RoPE, with its window, of the same rate."""
  baselines = ('rope', *(f'rope, rate x {x:g}' for x in FACTORS))
  of_rates = [dict(protocols=('last_k',), metric='bpb', baseline=name) for name in baselines]
  return [*of_rates, dict(form='distances', controls=False)]


def figures():
  return {'extrapolation': dict(protocol='last_k', metric='bpb')}
