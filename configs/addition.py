"""Addition of up to 5 digits, tested to 11: positions that come with the data, against others.

python scripts/sweep.py --config=configs/addition.py --jobs=2
"""

from pathlib import Path

from posenc_jax.config import load, product, vary

TASK = 'task:addition/reverse=True/pad=True'
ABACUS, COUPLED = (f'{TASK}/positions={positions}' for positions in ('abacus', 'coupled'))


def get_config():
  settings = {
    'data.corpus': TASK,
    'model.layers': 1,
    'train.length': 19,  # 3 n + 4 tokens for n digits
    'train.batch': 64,
    'train.steps': 1500,
    'train.log_every': 250,
    'train.validate_every': 0,
    'optim.warmup': 50,
    'eval.protocols': ('answers',),
    'eval.lengths': (10, 16, 19, 22, 25, 28, 31, 37),
    'eval.controls': (),
  }
  return load(Path(__file__).with_name('base.py'), settings)


def sweep():
  # Positions move so far in training that all those of 11 digits occur.
  coupling = {
    'encoding.name': 'position_coupling',
    'encoding.max_length': 14,
    'data.corpus': COUPLED,
  }
  abacus = {
    'encoding.name': 'abacus',
    'encoding.max_length': 13,
    'encoding.max_k': 6,
    'data.corpus': ABACUS,
  }
  encodings = [coupling, abacus, *vary('encoding.name', 'rope', 'nope')]
  return product(vary('seed', 0, 1, 2), encodings)


def table():
  return dict(protocols=('addition',), metric='exact_match')


def figures():
  return {'addition': dict(protocol='addition', metric='exact_match')}
