"""Claim: T5's and Transformer-XL's lead over RoPE at L, on speeches, is what KV shift gives to all.

  python scripts/sweep.py --config=configs/studies/claims/speeches_kv_shift.py \\
      --kept=results/classic --jobs=2

On speeches, in models without KV shift, T5 and Transformer-XL are better at L than RoPE, by 0.030
and 0.017, which seeds mark (configs/classic.py). On the board, where all lines have KV shift and
names come again, no encoding is marked better (configs/studies/board.py). KV shift gives each key
and value that of the token before, which a bias of relative distances would otherwise have to find.
Here four lines of configs/classic.py have it, each beside the line without.

Predicted before the runs, three seeds, bits per byte at L:
- each line is better with KV shift than without, by 0.01 to 0.10, RoPE by no less than T5;
- with KV shift T5 is less than 0.02 better than RoPE, and Transformer-XL less than 0.015, and
  neither is marked; ALiBi stays 0.04 or more worse;
- with KV shift no line gains past L: at 4 L none is more than 0.01 better than at L;
- with a window of L RoPE with KV shift is at 32 L within 0.02 of its score at L with each seed.

Cost: 12 runs of some 5 minutes, two at a time on two cores. Result: results/speeches_kv_shift,
LOG/240. At L RoPE has 1.786 bits per byte without KV shift and 1.746 with it, T5 1.749 and 1.744,
Transformer-XL 1.764 and 1.745, ALiBi 1.861 and 1.804. Not as predicted: T5's own gain, and RoPE's
window with one seed, a loss of 0.028. With KV shift a window of L costs all of them something,
0.066 of ALiBi.
"""

from pathlib import Path

from posenc_jax.config import load_study

CLASSIC = load_study(Path(__file__).parents[2] / 'classic.py')
BOARD = load_study(Path(__file__).parents[1] / 'board.py')
NAMES = ('rope', 't5', 'transformer_xl', 'alibi')
SHIFTED = '{} + kv_shift'


def get_config():
  return CLASSIC.get_config()


def sweep():
  for seed in range(3):
    for name in NAMES:
      yield {'seed': seed, 'encoding.name': name}
    for name in NAMES:
      encoding = BOARD.with_kv_shift(name)
      yield {'seed': seed, 'label': SHIFTED.format(name), 'encoding': encoding}


def table():
  """Lines with KV shift against RoPE with KV shift, and that against RoPE."""
  shifted = {SHIFTED.format(name): SHIFTED.format('rope') for name in NAMES}
  baselines = dict.fromkeys(NAMES, 'rope') | shifted | {SHIFTED.format('rope'): 'rope'}
  return dict(protocols=('last_k',), metric='bpb', baseline=baselines)


def figures():
  return {'extrapolation': dict(protocol='last_k', metric='bpb')}
