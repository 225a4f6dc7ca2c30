"""Claim: what RoPE and ALiBi lose of one needle among four is lost to how many keys there are, and
a temperature that grows with their number brings it back (log n: Su 2023, kexue.fm/archives/9706;
SSMax: Nakanishi 2025, arXiv:2501.19399).

  python scripts/sweep.py --config=configs/studies/claims/needle_temperatures.py \\
    --kept=results/needle_places --jobs=2

In configs/studies/claims/temperatures.py one needle left NoPE and T5 nothing to bring back, and
ALiBi some. Here the task is that of configs/studies/claims/needle_places.py, four needles anywhere
in up to 8 L, where RoPE and ALiBi fall, and plain lines are its own. Log n acts past L alone; SSMax
is trained.

Known before, of the rows of configs/studies/board_tasks.py: at 8 L RoPE and ALiBi find nearly all
needles that lie within L of the question, among as many keys, and lose the far ones.

Predicted before the runs, of the share of answers that are right at 8 L:
- RoPE, which has 0.675, has between 0.60 and 0.75 with log n and between 0.50 and 0.80 with SSMax:
  what it loses is lost by distance;
- ALiBi, which has 0.771 with one seed at 0.386, has above 0.85 with either: both make the content
  of keys count more beside a bias that grows with distance;
- at L all lines are at 1, and are learned with all eight seeds.

Cost: 32 runs of 0.1 million parameters, some 40 seconds each on a core of their own. Result:
results/needle_temperatures/table.md, LOG/208. All lines learn it with all eight seeds, and have
1.000 at L. At 8 L RoPE has 0.675, with log n 0.739, more with every seed, with SSMax 0.723; ALiBi
has 0.771, with log n 0.845, with SSMax 0.893. Of the predictions that of ALiBi with log n does not
hold.
"""

from pathlib import Path

from posenc_jax.config import load_study

PLACES = load_study(Path(__file__).with_name('needle_places.py'))
BOARD = PLACES.BOARD_TASKS.BOARD

get_config = PLACES.get_config


def sweep():
  for seed in range(8):
    for name in ('rope', 'alibi'):
      yield {'seed': seed, 'label': name, 'encoding': BOARD.with_kv_shift(name)}
      for label, temperature in {'log n': 'logn', 'SSMax': 'ssmax'}.items():
        encoding = BOARD.with_kv_shift(temperature, name)
        yield {'seed': seed, 'label': f'{name}, {label}', 'encoding': encoding}


table = PLACES.table


def figures():
  return {'needle': dict(protocol='needle', metric='token_accuracy')}
