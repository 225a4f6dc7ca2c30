"""Claim: trained at random positions in order, from a range longer than any input, encodings copy
strings longer than in training (Ruoss et al. 2023, arXiv:2305.16843).

  python scripts/sweep.py --config=configs/studies/claims/random_copying.py \\
    --kept=results/board_tasks --jobs=2

The lines are those of configs/studies/claims/random_positions.py; the task, and the rows of plain
lines, are the copying of configs/studies/board_tasks.py, up to 2 L.

Predicted before the runs, of the share of symbols that are right with the seeds that have learned:
at 2 L RoPE and T5 at random positions have more than plain (0.265 and 0.562), sinusoidal positions
more than 0.5; fewer lines and seeds than of plain ones learn it, in as many steps.

Cost: 40 runs of 0.1 million parameters, a minute and a quarter each on a core of their own. Result:
results/random_copying/table.md, LOG/217. Of the symbols of strings twice as long as in training
RoPE has 0.970 right at random positions and 0.265 as it is, ALiBi 0.986 and 0.868, T5 0.928 and
0.562, sinusoidal positions 0.913 and 0.508, learned ones 0.903 where they end at L as they are. 21
of the 40 runs have learned it, of plain ones 36. Does not hold: that fewer lines learn it.
"""

from pathlib import Path

from posenc_jax.config import load, load_study

RANDOM = load_study(Path(__file__).with_name('random_positions.py'))
TASKS = RANDOM.PLACES.BOARD_TASKS


def get_config():
  return TASKS.get_config()


def sweep():
  length = load(TASKS.TASKS, TASKS.COPYING).train.length
  for seed in range(8):
    for line in RANDOM.variants(length):
      yield TASKS.COPYING | {'seed': seed} | line


def table():
  return dict(protocols=('copy',), metric='exact_match', baseline='rope')


def figures():
  return {'copying': dict(protocol='copy', metric='token_accuracy')}
