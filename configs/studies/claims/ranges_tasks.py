"""Claim: trained at random positions whose range is drawn anew for each batch, RoPE finds and
copies past L at positions in order, where with one range it does at random positions alone.

  python scripts/sweep.py --config=configs/studies/claims/ranges_tasks.py \\
    --kept=results/needle_places
  python scripts/sweep.py --config=configs/studies/claims/ranges_tasks.py \\
    --kept=results/board_tasks

The needle of random_positions.py beside this, one of four anywhere in up to 8 L, and the copying of
random_copying.py, up to 2 L. RoPE as it is (whose rows --kept brings in, of the needle and then of
copying), at positions from one range, 0 .. 16 L - 1, and from ranges that end log-uniformly between
L and 16 L. Those two are evaluated at positions from 16 L, and as plain RoPE, at positions in
order. KV shift stands beside each.

Known before, with one range and positions from it: at 8 L RoPE finds the needle 0.993 of the times
(as it is 0.675); of strings of 2 L it copies 0.380 whole with the four seeds of eight that have
learned to.

Predicted before the runs, of the seeds that have learned, at positions in order:
- with ranges it finds the needle at 8 L more than 0.9 of the times, with one range less often;
- with ranges five seeds or more learn to copy, and copy more than 0.25 of strings of 2 L whole;
  with one range less than 0.1.

Cost: 32 trainings of 0.1 million parameters, half a minute (needle) and a minute and a quarter
(copying) each on a core of their own, and 32 evaluations.
"""

from pathlib import Path

from posenc_jax.config import load, load_study

RANDOM = load_study(Path(__file__).with_name('random_positions.py'))
TASKS = RANDOM.PLACES.BOARD_TASKS

get_config = TASKS.get_config


def sweep():
  for task in (RANDOM.PLACES.ANYWHERE, TASKS.COPYING):
    length = load(TASKS.TASKS, task).train.length
    plain = TASKS.BOARD.variants(length)['rope']
    one_range = RANDOM.at_random('rope', length)
    for seed in range(8):
      yield task | {'seed': seed, 'label': 'rope', 'encoding': plain}
      for name, encoding in {
        'random': one_range,
        'ranges': one_range | {'shortest': length},
      }.items():
        trained = task | {'seed': seed, 'label': f'rope, {name}', 'encoding': encoding}
        yield trained
        starts = {'train.init_from': trained, 'train.steps': 0}
        yield task | {'seed': seed, 'label': f'{name}, in order', 'encoding': plain} | starts


def table():
  return [
    dict(protocols=('needle',), metric='token_accuracy', baseline='rope'),
    dict(protocols=('copy',), metric='exact_match', baseline='rope'),
  ]


def figures():
  return {
    'needle': dict(protocol='needle', metric='token_accuracy'),
    'copying': dict(protocol='copy', metric='token_accuracy'),
  }
