"""Half the board's learning rate for twice its steps: does what half the rate costs at L come back,
and does what it gives past L stay?

  python scripts/sweep.py --config=configs/studies/claims/rate_steps.py \\
      --kept=results/rates --jobs=2

With as many steps as the board's, half its rate costs the ten lines with three seeds 0.04 to 0.08
bits per byte at L, by the means; yet eight of 18 models of seeds 1 and 2 know names exactly there,
and DAPE and GRAPE-AP, with all three seeds, are better at 4 L than RoPE of that rate with its
window (configs/studies/claims/rates.py). Here are those two, Shaw and RoPE with 3,000 steps at half
the rate, 1.5e-3, and at the board's, 3e-3, warmup twice as long as well, all else as there. --kept
brings in the same lines with 1,500 steps. Each line is compared with RoPE, and with its window, of
the board's rate and the line's own steps.

Known before, means of three seeds with 1,500 steps, bits per byte at L, and at 4 L (RoPE's with its
window): RoPE 2.472 and 2.455, at half the rate 2.531 and 2.515; DAPE 2.448 and 2.348, at half 2.488
and 2.311; GRAPE-AP 2.580 and 2.482, at half 2.629 and 2.372; Shaw 2.474 and 2.425, at half 2.516
and 2.319. With 6,000 steps at 3e-3 RoPE has 2.287 and 2.254, two seeds.

Predicted before the runs, exact being below 0.3 bits a character of names within L / 2 in windows
of L, means of three seeds:
- at L half the rate for 3,000 steps is better than 3e-3 for 1,500 by more than 0.03 for each of the
  four, and within 0.03 of 3e-3 for 3,000; RoPE is the better there at 3e-3;
- with 3,000 steps at half the rate GRAPE-AP and DAPE know names exactly with all three seeds, Shaw
  with two or three, RoPE with at most one; at 3e-3 fewer of the twelve models do;
- with 3,000 steps at half the rate GRAPE-AP, DAPE and Shaw are each more than 0.1 better at 4 L
  than RoPE of the board's rate with its window, and their intervals exclude 0; at 3e-3 DAPE's does;
- the three are better at 4 L at half the rate than at 3e-3, with 3,000 steps as with 1,500;
- RoPE with its window is at 4 L and at 32 L at most 0.02 worse than at L, at both rates.

Cost: 24 runs, besides those of results/rates, of 8 to 10 minutes, DAPE's of 24, two at a time on
two cores.
"""

from pathlib import Path

from posenc_jax.config import load_study

RATES = load_study(Path(__file__).with_name('rates.py'))
BOARD = RATES.BOARD
NAMES = ('rope', 'grape_ap', 'shaw', 'dape')  # the one that costs most is trained last
LONGER = ', steps x 2'


def get_config():
  return BOARD.get_config()


def longer(name: str, seed: int, factor: float) -> dict:
  """A line of rates.py with twice the steps, and twice the warmup."""
  config = get_config()
  line = RATES.run(name, seed, factor)
  steps = {'train.steps': 2 * config.train.steps, 'optim.warmup': 2 * config.optim.warmup}
  return line | steps | {'label': line['label'] + LONGER}


def sweep():
  for name in NAMES:
    yield from (RATES.run(name, seed, factor) for seed in range(3) for factor in (1, 0.5))
  for names in (NAMES[:-1], NAMES[-1:]):
    for seed in range(3):
      yield from (longer(name, seed, factor) for name in names for factor in (0.5, 1))


def table():
  """Each line against RoPE, with its window, of the board's rate and the line's own steps."""
  labels = dict.fromkeys(line['label'] for line in sweep())
  rope_of = {label: 'rope' + LONGER * label.endswith(LONGER) for label in labels}
  return [
    dict(protocols=('last_k',), metric='bpb', baseline=rope_of),
    *(dict(form='distances', controls=False, length=n) for n in (BOARD.L, 32 * BOARD.L)),
  ]


def figures():
  ends = (LONGER, RATES.HALF + LONGER)
  shown = tuple(name + end for name in NAMES for end in ends)
  return {'extrapolation': dict(protocol='last_k', metric='bpb', labels=shown)}
