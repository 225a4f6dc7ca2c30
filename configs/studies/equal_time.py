"""What does the time buy that the three encodings take which are better than RoPE's window at 4 L?

  python scripts/sweep.py --config=configs/studies/equal_time.py --kept=results/board

On the board all lines have as many steps. There Transformer-XL, PaTH and DAPE are shown to be
better at 4 L than RoPE with a window of L, and a step of theirs takes 1.18, 1.79 and 2.48 times as
long as RoPE's, on a CPU (results/board/step_times.jsonl). Here each is compared with RoPE that is
trained for as much time as it takes, in more steps; that of DAPE is `rope, longer` of the board.
Everything else is as in configs/studies/board.py, from whose rows --kept brings all but the two
other lines of RoPE. On an accelerator, or with kernels, the ratios may be others.

Known before: bits per byte at L and, of RoPE with a window of L, at 4 L: RoPE 2.472 and 2.455,
RoPE trained as long as DAPE takes 2.340 and 2.317; at 4 L Transformer-XL, PaTH and DAPE have, of
three seeds, 2.402, 2.367 and 2.348.

Predicted before the runs, which have three seeds:
- RoPE trained as long as Transformer-XL takes has 2.44 to 2.46 at L, and as long as PaTH takes 2.37
  to 2.41; with a window of L each is at 32 L no worse than at L;
- at 4 L Transformer-XL is better than RoPE of its time with a window by 0.01 to 0.04, which is not
  marked; PaTH is within 0.03 of RoPE of its time, and no interval leaves out 0; DAPE is worse by
  0.02 to 0.05, and no interval shows it;
- at L RoPE is better than PaTH and DAPE of as much time, marked, and not shown to be better than
  Transformer-XL.

Cost: 6 runs of 0.8 million parameters, 5 to 12 minutes each. Result: results/equal_time, LOG/227.
RoPE trained as long as Transformer-XL, PaTH and DAPE take has 2.440, 2.380 and 2.340 bits per byte
at L; from it with a window these differ at 4 L by -0.021 [-0.061, +0.015], +0.008 [-0.061, +0.075]
and +0.031 [-0.022, +0.079]. Does not hold: at L it is shown to be better than Transformer-XL, too.
"""

from pathlib import Path

from posenc_jax.config import load_study

BOARD = load_study(Path(__file__).with_name('board.py'))
# By an encoding: the line of RoPE that is trained for as much time as it takes, and its steps.
AS_LONG = {
  'transformer_xl': ('rope, as long as transformer_xl', 1770),
  'path': ('rope, as long as path', 2685),
  'dape': ('rope, longer', BOARD.REFERENCES['rope, longer']['train.steps']),
}


def get_config():
  return BOARD.get_config()


def sweep():
  lines = BOARD.variants(BOARD.L)
  for seed in range(3):
    yield {'seed': seed, 'label': 'rope', 'encoding': lines['rope']}
    for name, (label, steps) in AS_LONG.items():
      yield {'seed': seed, 'label': label, 'encoding': lines['rope'], 'train.steps': steps}
      yield {'seed': seed, 'label': name, 'encoding': lines[name]}


def table():
  baseline = {name: label for name, (label, _) in AS_LONG.items()}
  return dict(protocols=('last_k',), metric='bpb', baseline=baseline)


def figures():
  return {'extrapolation': dict(protocol='last_k', metric='bpb')}
