"""Claim: a model whose RoPE is dropped has its loss at L back after a short training, and keeps it
past L (DroPE, Gelberg et al. 2025, arXiv:2512.12167).

  python scripts/sweep.py --config=configs/studies/claims/drope_recovery.py --jobs=2

In configs/drope.py 100 steps after 600 with RoPE did not bring it back: 3.41 bits per byte at L,
where the model had 1.88. How many would? From the same 600 steps three trainings go on without
positions, for 100, 400 and 1,600 steps at a third of the rate, and one with RoPE for 1,600, on text
that the model has not read (those of configs/drope.py begin at its first batch again). `nope` never
had a position, and trains for all 700 and all 2,200 steps on the same text: what dropping has to be
better than, and what it becomes if nothing of RoPE is left.

Predicted before the runs, mean bits per byte of the last 64 bytes:
- at L `drope` falls with the steps, to below 2.6 after 400 and below 2.1 after 1,600, where it is
  within 0.1 of `nope` after 2,200 steps in all, and behind RoPE by more than 0.05;
- at 4 L it then fails as `nope` does, by more than 0.3 bits above its own score at L: what it
  learns in place of RoPE is to count tokens by the causal mask;
- so at no number of steps is it both within 0.1 of RoPE at L and within 0.1 of that at 4 L.

Cost: 21 runs of 0.82 million parameters, on a core of their own a minute for each 300 steps.
Result: results/drope_recovery/table.md, LOG/221. At L `drope` has 3.414 bits per byte after 100
steps, 3.119 after 400 and 2.111 after 1,600, where RoPE had 1.882 before, RoPE that goes on has
1.644 and `nope` 1.869; at 4 L 3.434, 3.488 and 4.444. Does not hold: below 2.6 after 400 steps,
below 2.1 and within 0.1 of `nope` after 1,600, and that it fails at 4 L after 100.
"""

from pathlib import Path

from posenc_jax.config import load_study, vary

DROPE = load_study(Path(__file__).parents[2] / 'drope.py')
STEPS = DROPE.STEPS
MORE = (100, 400, 1600)

get_config = DROPE.get_config


def sweep():
  for seed in vary('seed', 0, 1, 2):
    start = seed | {'label': 'rope'}
    yield start
    for label, encoding in {'rope': {}, 'drope': DROPE.NOPE}.items():
      for more in MORE if label == 'drope' else MORE[-1:]:
        going_on = {'train.init_from': start, 'train.first_batch': STEPS, 'train.steps': more}
        yield seed | {'label': label} | encoding | DROPE.GOING_ON | going_on
    for more in (MORE[0], MORE[-1]):
      yield seed | {'label': 'nope', 'train.steps': STEPS + more} | DROPE.NOPE


def table():
  baseline = f'rope, L = {DROPE.L}, {STEPS} steps'
  return dict(form='methods', protocols=('last_k',), metric='bpb', baseline=baseline)


def figures():
  return {}
