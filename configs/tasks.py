"""Recall and copying beyond the training length: what perplexity cannot see.

python scripts/sweep.py --config=configs/tasks.py
"""

from pathlib import Path

from posenc_jax.config import load, over, product

ENCODINGS = ('nope', 't5', 'rope', 'alibi', 'fire')
TASKS = {
  'task:mqar/pairs=4/keys=16/values=16/power=1.0': {'data.shortest': 32},
  'task:copy/symbols=16': {},
}


def get_config():
  settings = {
    'data.corpus': next(iter(TASKS)),
    'model.layers': 2,
    'model.model_dim': 64,
    'model.heads': 2,
    'model.mlp_dim': 256,
    'train.length': 64,
    'train.batch': 64,
    'train.steps': 1500,
    'train.log_every': 100,
    'train.validate_every': 500,
    'train.checkpoint_every': 1500,
    'optim.warmup': 100,
    'eval.protocols': ('answers',),
    'eval.lengths': (32, 64, 96, 128, 256),
    'eval.controls': (),
  }
  return load(Path(__file__).with_name('base.py'), settings)


def sweep():
  return product(over('seed', 0), over('data.corpus', *TASKS), over('encoding.name', *ENCODINGS))
