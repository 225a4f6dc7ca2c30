"""Recall and copying, trained at 32 tokens and tested to 128: what perplexity cannot see.

python scripts/sweep.py --config=configs/tasks.py --jobs=2
"""

from pathlib import Path

from posenc_jax.config import load, over, product

ENCODINGS = ('nope', 't5', 'rope', 'alibi', 'fire')
TASKS = ('task:mqar/pairs=4/keys=16/values=16/power=1.0', 'task:copy/symbols=16')


def get_config():
  settings = {
    'data.corpus': TASKS[0],
    'model.layers': 2,
    'model.model_dim': 64,
    'model.heads': 2,
    'model.mlp_dim': 256,
    'train.length': 32,
    'train.batch': 64,
    'train.steps': 1500,
    'train.log_every': 100,
    'train.validate_every': 500,
    'optim.warmup': 100,
    'eval.protocols': ('answers',),
    'eval.lengths': (24, 32, 40, 48, 64, 96, 128),
    'eval.controls': (),
  }
  return load(Path(__file__).with_name('base.py'), settings)


def sweep():
  return product(over('seed', 0, 1, 2), over('data.corpus', *TASKS), over('encoding.name', *ENCODINGS))


def table():
  return dict(protocols=('mqar', 'copy'), metric='exact_match')


def figures():
  return {name: dict(protocol=name, metric='exact_match') for name in ('mqar', 'copy')}
