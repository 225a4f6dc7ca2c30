"""Claim: ALiBi's gain past the training length on Python is that of slopes that are flat beside L,
as they are at L = 128, and no longer at L = 1,024.

  pip install -e '.[code]'
  python scripts/sweep.py --config=configs/studies/claims/alibi_slopes.py \\
      --kept=results/board_code --jobs=2

ALiBi's slopes do not depend on L: that of the flattest head is 2^-8 for each token, so that a key L
tokens back loses half a nat at L = 128 and 4 nats at L = 1,024. Scores are then what they are here
with slopes eight times as steep (`factor=0.125`, by which distances are divided); with slopes twice
as steep as those of L = 256. The text stays what it is, so its own distances are not scaled: the
lines say how the gain depends on the slopes, not what is gained in longer texts. Everything else is
as in configs/studies/board_code.py, whose RoPE and ALiBi are compared with them.

Known before, six seeds: ALiBi has 1.847 bits per byte at L, 1.745 at 4 L and 1.774 at 32 L, RoPE
with its window 2.013 at 4 L. Predicted before the runs, means of three seeds:
- slopes x 8: at L 0.03 to 0.15 worse than ALiBi; at 4 L less than 0.03 better than at L, and within
  0.01 of its own score there with a window of L; to 32 L within 0.01 of 4 L;
- at 4 L it is still better than RoPE with its window, by 0.02 to 0.20;
- slopes x 2: at L within 0.05 of ALiBi; at 4 L 0.03 to 0.10 better than at L, between the others;
- with slopes x 8 each seed of three copies within L as ALiBi's do: below 2.00 bits at L.

Cost: 6 runs of 7 minutes, two at a time on two cores. Result: results/alibi_slopes, LOG/238. Slopes
x 8 have 1.891 bits per byte at L and 1.873 at 4 L, of which 0.012 [0.003, 0.024] is lost with a
window of L; slopes x 2 have 1.813 and 1.703, ALiBi 1.843 and 1.735, RoPE with its window 1.981.
Wrong of the predictions: one seed of slopes x 8 has 2.042 at L, x 8 is not within 0.01 of its own
window, x 2 gains more than 0.10, as much as ALiBi, so that it is not between.
"""

from pathlib import Path

from posenc_jax.config import load_study

CODE = load_study(Path(__file__).parents[1] / 'board_code.py')
STEEPER = {f'alibi, slopes x {times}': 1 / times for times in (8, 2)}


def get_config():
  return CODE.get_config()


def sweep():
  with_kv_shift, lines = CODE.BOARD.with_kv_shift, CODE.BOARD.variants(CODE.BOARD.L)
  for seed in range(3):
    for name in ('rope', 'alibi'):
      yield {'seed': seed, 'label': name, 'encoding': lines[name]}
    for label, factor in STEEPER.items():
      encoding = with_kv_shift({'name': 'alibi', 'factor': factor})
      yield {'seed': seed, 'label': label, 'encoding': encoding}


table = CODE.table


def figures():
  return {'extrapolation': dict(protocol='last_k', metric='bpb')}
