"""The tasks of the board: recall, copying, and a needle among four, with eight seeds.

  python scripts/sweep.py --config=configs/studies/board_tasks.py --jobs=2
  python scripts/keep.py runs/board_tasks --out=results/board_tasks
  python scripts/board.py results/board results/board_tasks

The encodings of configs/studies/board.py, KV shift beside each, in models of two layers. Seeds are
bimodal: what has not been learned at L is counted, and says nothing about longer inputs.

Budgets are from pilots of RoPE, one seed: it finds the needle after 100 of 300 steps and recalls
after 200 of 300; after 600 steps 85 % of copied symbols were right.

Cost: 624 runs of 0.1 million parameters, 0.7 to 3 minutes each on a core of their own, it is
guessed. Result: none yet.
"""

from pathlib import Path

from posenc_jax.config import load, load_study, product, vary

BOARD = load_study(Path(__file__).with_name('board.py'))
TASKS = Path(__file__).parents[1] / 'tasks.py'
RECALL = {
  'data.corpus': 'task:mqar/pairs=4/keys=16/values=16/power=1.0',
  'train.steps': 300,
  'eval.lengths': (32, 64, 128),
}
COPYING = {'data.corpus': 'task:copy/symbols=16', 'train.steps': 1500, 'eval.lengths': (32, 48, 64)}
NEEDLE = {
  'data.corpus': 'task:needle/needles=4/keys=16/symbols=16/fillers=16/distinct=True',
  'train.length': 64,
  'train.steps': 300,
  'eval.lengths': (64, 128, 256, 512),
  'eval.examples': 220,
}


def get_config():
  return load(TASKS, RECALL)


def sweep():
  lines = []
  for task in (NEEDLE, RECALL, COPYING):
    length = load(TASKS, task).train.length
    for label, encoding in BOARD.variants(length).items():
      lines.append(task | {'label': label, 'encoding': encoding})
  return product(vary('seed', *range(8)), lines)


def table():
  return dict(protocols=('needle', 'mqar', 'copy'), metric='token_accuracy', baseline='rope')


def figures():
  return {}
