"""Claim: attention whose queries can take keys from later queries (selective attention) models text
better at equal training, at no parameter more (Leviathan et al. 2024, arXiv:2410.02703).

  python scripts/sweep.py --config=configs/studies/claims/selective.py --kept=results/board --jobs=2

RoPE and ALiBi with and without it. Text, models and budget are those of the board
(configs/studies/board.py), whose lines `rope` and `alibi` --kept brings in. The paper does not ask
what happens past the training length L.

Known before: after 60 steps on speeches, one seed, RoPE has 3.290 bits per byte and with selection
2.921.

Predicted before the runs, bits per byte:
- at L both are better with selection, by more than 0.02 and with every seed;
- RoPE with it fails past L as without: at 4 L it loses more than 0.1;
- ALiBi with it holds to 32 L, as without;
- letters of names 1 to 2 L back cost ALiBi with it more than 5.5 bits, as without.

Cost: 6 runs, besides the 6 of the board; evaluation, by whole matrices of scores, takes twice as
long as training.
Result: results/selective, LOG/152; all four predictions fail. At L ALiBi has 2.508 with selection
and 2.573 without, but RoPE 2.533 and 2.472. RoPE with it does not fail past L: it has 2.538 at
32 L, and knows no name, within L neither. ALiBi with it has 2.674 at 32 L, and letters of names 1
to 2 L back cost it 4.225 bits there, without it 2.643.
"""

from pathlib import Path

from posenc_jax.config import load_study

BOARD = load_study(Path(__file__).parents[1] / 'board.py')


def get_config():
  return BOARD.get_config()


def sweep():
  for seed in range(3):
    for name in ('rope', 'alibi'):
      yield {'seed': seed, 'label': name, 'encoding': BOARD.variants(BOARD.L)[name]}
      yield {
        'seed': seed,
        'label': f'{name}, selective',
        'encoding': BOARD.with_kv_shift(name, 'selective'),
      }


table = BOARD.table


def figures():
  return {'extrapolation': dict(protocol='last_k', metric='bpb')}
