"""Claim: what RoPE trained at random positions loses past L it loses to gaps between positions that
are smaller than in training, not to the number of keys.

  python scripts/sweep.py --config=configs/studies/claims/random_gaps.py --kept=results/random_text

In random_text.py beside this, positions are drawn from 0 .. 32 L - 1 in training and test. So T
tokens lie 32 L / T apart on average: 32 at L, 1 at 32 L, where the draw is every position. That
more keys and smaller gaps come together there is broken up here: the same models are evaluated with
positions from 0 .. L - 1 (which are then every one, in order), 2 L, 4 L and 8 L, so L tokens lie 1,
2, 4 and 8 apart with as many keys as in training. Longer inputs than there are positions have no
score. No distance is larger than those of training.

Known before, bits per byte with 32 L: 2.588 at L, 2.536 at 2 L, 2.674 at 4 L, 3.061 at 8 L, 4.018
at 32 L; there a window of L, which leaves as many keys as in training, gives back 0.083.

Predicted before the runs, means of three seeds:
- at L, with the keys of training, the score is 2.58 to 2.75 where tokens lie 8 apart, 2.75 to 3.2
  at 4, and 3.5 to 4.1 at 1;
- where tokens lie 1 apart on average, scores of L, 2 L, 4 L and 8 L are within 0.4 of the 4.018 of
  32 L;
- where they lie 4 apart, those of L and 2 L are within 0.2 of the 3.061 of 8 L.

Cost: 3 trainings of 9 minutes, and 12 evaluations of a minute each on one core. Result:
results/random_gaps/table.md, LOG/220. At L the score is 2.588 where tokens lie 32 apart, 2.767 at
8, 3.085 at 4, 3.504 at 2 and 3.887 at 1; of equal gaps scores differ by 0.131 and less from L to
32 L. So most is lost to gaps; but names, which weigh little there, are lost to length, too. Does
not hold: that the score is 2.75 or less at 8.
"""

from pathlib import Path

from posenc_jax.config import load_study

TEXT = load_study(Path(__file__).with_name('random_text.py'))
BOARD = TEXT.BOARD
LONGEST = tuple(n * BOARD.L for n in (1, 2, 4, 8))

get_config = TEXT.get_config


def sweep():
  for seed in range(3):
    encoding = TEXT.at_random('rope')
    trained = {'seed': seed, 'label': 'rope, random', 'encoding': encoding}
    yield trained
    for longest in LONGEST:
      laid_over = {'encoding': encoding | {'longest': longest}}
      starts = {'train.init_from': trained, 'train.steps': 0}
      yield {'seed': seed, 'label': f'from {longest}'} | laid_over | starts


def table():
  _, by_distance = BOARD.table()
  scores = dict(protocols=('last_k',), metric='bpb', baseline='rope, random')
  return [scores, by_distance | {'length': BOARD.L}, by_distance | {'length': 8 * BOARD.L}]


def figures():
  return {'extrapolation': dict(protocol='last_k', metric='bpb')}
