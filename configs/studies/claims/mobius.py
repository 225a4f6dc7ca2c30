"""Claim: RoPE of which a quarter of the heads rotate by the frequencies pi (2m + 1) / L finds what
is in its context with every seed, where RoPE does so with some (Bae 2026, arXiv:2607.21405).

  pip install -e '.[code]'
  python scripts/sweep.py --config=configs/studies/claims/mobius.py \\
    --kept=results/board_code --jobs=2

There, of six models of each, the worst has 86 % of what is asked in the context right, RoPE's worst
14 %, at equal perplexity. Here the question is whether a run comes to copy what stands within L, on
Python source, where runs of RoPE and others do so by luck: some have 1.85 bits per byte at L,
others 2.10 (LOG/170). Text, models and budget are those of configs/studies/board_code.py, whose
line `rope` --kept brings in.

Known before: RoPE has 1.960, 2.100 and 1.861 with seeds 0 to 2. Since the predictions were written
its seeds 3 to 5 were run for board_code: 2.089, 2.083 and 1.911 (LOG/198), which --kept brings in,
too.

Predicted before the runs: Möbius RoPE has below 1.90 at L with at least four of six seeds, RoPE
with at most three; its mean at L is lower, by more than 0.05; at 4 L it breaks down as RoPE does,
to above 3, and with a window of L it holds to 32 L within 0.03.

Cost: 12 runs, of which RoPE's six are kept, some 7 minutes each on one core. Result:
results/mobius/table.md, LOG/200. At L it has 1.857, 2.116, 1.806, 1.847, 2.095 and 1.822, four of
six below 1.90, where RoPE has one; on average 0.077 [0.037, 0.103] less, which seeds do not mark.
At 4 L it has 3.681, with a window of L 0.009 [-0.021, 0.026] more at 32 L than at L, 0.041 with one
seed.
"""

from pathlib import Path

from posenc_jax.config import load_study

CODE = load_study(Path(__file__).parents[1] / 'board_code.py')
BOARD = CODE.BOARD

get_config, table = CODE.get_config, CODE.table


def sweep():
  for seed in range(6):
    for name in ('mobius_rope', 'rope'):
      yield {'seed': seed, 'label': name, 'encoding': BOARD.with_kv_shift(name)}


def figures():
  return {'extrapolation': dict(protocol='last_k', metric='bpb')}
