"""Claim: RoPE whose slow pairs rotate by places that tokens choose holds past L as well as RoPE
without those pairs, and is worth more within L (DaRoPE, Levy et al. 2026, arXiv:2609.34556).

  python scripts/sweep.py --config=configs/studies/claims/darope.py --kept=results/board

DaRoPE with the models, text, budget and base (10,000) of configs/studies/board.py, beside its RoPE
and its p-RoPE, whose p is such that all pairs of fewer than one turn in L stand still: that is the
paper's HoPE. 10 of 16 pairs of a head are slow. KV shift stands beside each.

Known before: its authors' models of a billion parameters, trained on 4,096 tokens, hold to 4 L,
and recall keys better than with HoPE. Bits per byte here: p-RoPE has 2.478 at L, as RoPE has
(2.472), 2.658 at 2 L, 3.154 at 4 L and 5.059 at 32 L; with a window of L it holds.

Predicted before the runs, means of three seeds:
- at L DaRoPE is within 0.03 of p-RoPE's 2.478;
- it does not hold past L: at 4 L it has 2.7 to 3.7, at 32 L above 4;
- names that stood 16 bytes back in a window of L cost it within 0.3 of p-RoPE's bits.

Cost: 3 runs of 6 minutes on a core of their own. Result: results/darope/table.md, LOG/225. At L it
has 2.478 bits per byte, as p-RoPE; at 2 L 2.551, at 4 L 3.105 and at 32 L 4.836, and with a window
of L 2.527 there (p-RoPE 2.463). Names 16 bytes back cost 1.012 bits, with p-RoPE 1.005.
"""

from pathlib import Path

from posenc_jax.config import load_study

BOARD = load_study(Path(__file__).parents[1] / 'board.py')

get_config = BOARD.get_config


def sweep():
  lines = BOARD.variants(BOARD.L)
  lines['darope'] = BOARD.with_kv_shift({'name': 'darope', 'base': BOARD.BASE})
  for seed in range(3):
    for name in ('rope', 'p_rope', 'darope'):
      yield {'seed': seed, 'label': name, 'encoding': lines[name]}


def table():
  scores, by_distance = BOARD.table()
  scores = scores | {'baseline': {'darope': 'p_rope', 'p_rope': 'rope'}}
  return [scores, by_distance | {'length': BOARD.L}, by_distance]


def figures():
  return {'extrapolation': dict(protocol='last_k', metric='bpb')}
