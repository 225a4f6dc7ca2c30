"""Claim: trained at random positions whose range is drawn anew for each batch, RoPE finds a needle
past L at positions in order, where with one range it does at random positions alone.

  python scripts/sweep.py --config=configs/studies/claims/ranges_needle.py \\
    --kept=results/needle_places

The needle of random_positions.py beside this, one of four anywhere in up to 8 L. RoPE as it is, at
positions from one range, 0 .. 16 L - 1, and from ranges that end log-uniformly between L and 16 L.
Those two are evaluated at positions from 16 L, and as plain RoPE, at positions in order. KV shift
stands beside each. Copying is in ranges_copying.py.

Known before: with one range and positions from it RoPE finds the needle 0.993 of the times at 8 L,
as it is 0.675.

Predicted before the runs, of the seeds that have learned: in order at 8 L it has more than 0.9 of
the answers right with ranges, and less with one range.

Cost: 16 trainings of 0.1 million parameters, half a minute each on a core of their own, and 16
evaluations. Result: results/ranges_needle/table.md, LOG/224. In order at 8 L it has 0.999 of the
answers right with ranges, and 1.000 with one range: that one range has less does not hold.
Evaluated at positions from 16 L, six of eight seeds trained with ranges do not count as having
learned it.
"""

from pathlib import Path

from posenc_jax.config import load_study

RANDOM = load_study(Path(__file__).with_name('random_positions.py'))

get_config = RANDOM.get_config


def seeds_and_lines(length: int):
  """RoPE as it is, trained at random positions of each kind, and these evaluated in order."""
  plain = RANDOM.BOARD.variants(length)['rope']
  one_range = RANDOM.at_random('rope', length)
  for seed in range(8):
    yield {'seed': seed, 'label': 'rope', 'encoding': plain}
    for name, drawn in {'random': {}, 'ranges': {'shortest': length}}.items():
      trained = {'seed': seed, 'label': f'rope, {name}', 'encoding': one_range | drawn}
      yield trained
      starts = {'train.init_from': trained, 'train.steps': 0}
      yield {'seed': seed, 'label': f'{name}, in order', 'encoding': plain} | starts


def sweep():
  return seeds_and_lines(get_config().train.length)


table, figures = RANDOM.table, RANDOM.figures
