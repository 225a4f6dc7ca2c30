"""Claim: trained at random positions whose range is drawn anew for each batch, RoPE copies strings
longer than in training at positions in order, where with one range it does at random ones alone.

  python scripts/sweep.py --config=configs/studies/claims/ranges_copying.py \\
    --kept=results/board_tasks

The lines of ranges_needle.py beside this on the copying of random_copying.py, up to 2 L.

Known before: with one range and positions from it RoPE copies 0.380 of strings of 2 L whole with
the four seeds of eight that have learned to, as it is next to none.

Predicted before the runs, of the seeds that have learned, in order: with ranges five seeds or more
learn it, and copy more than 0.25 of strings of 2 L whole; with one range less than 0.1.

Cost: 16 trainings of 0.1 million parameters, a minute and a quarter each on a core of their own,
and 16 evaluations. Result: results/ranges_copying/table.md, LOG/224. In order five seeds of eight
learn it with ranges, and copy 0.204 of strings of 2 L whole; none does with one range, where none
is copied whole. Does not hold: that with ranges they copy more than 0.25.
"""

from pathlib import Path

from posenc_jax.config import load, load_study

COPYING = load_study(Path(__file__).with_name('random_copying.py'))
NEEDLE = load_study(Path(__file__).with_name('ranges_needle.py'))
TASKS = COPYING.TASKS


def sweep():
  for line in NEEDLE.seeds_and_lines(load(TASKS.TASKS, TASKS.COPYING).train.length):
    trained = line.get('train.init_from')
    starts = {'train.init_from': TASKS.COPYING | trained} if trained else {}
    yield TASKS.COPYING | line | starts


get_config, table, figures = COPYING.get_config, COPYING.table, COPYING.figures
