"""A needle in a haystack: trained on up to 64 tokens, tested at 11 depths of 32 to 512, drawn as depth by length.

  python scripts/sweep.py --config=configs/needle.py --jobs=2

Cost: 12 runs of 0.1 million parameters, by one tried half a minute each on a core of its own, evaluation included;
the study has not been run as a whole. One needle of 16 values, which stands out by its kind: nothing but length is hard
about it. RoPE, one seed, 150 steps of 64 examples: exact match 1.00 to 128 tokens, 0.97 at 256, 0.61 at 512, there 0.17
at depth 0 and 0.82 at 100 %.
"""

from pathlib import Path

from posenc_jax.config import load, over, product

ENCODINGS = ('nope', 't5', 'rope', 'alibi')


def get_config():
  settings = {
    'data.corpus': 'task:needle/needles=1/keys=4/symbols=16/fillers=16',
    'model.layers': 2,
    'model.model_dim': 64,
    'model.heads': 2,
    'model.mlp_dim': 256,
    'train.length': 64,
    'train.batch': 32,
    'train.steps': 200,
    'train.log_every': 50,
    'train.validate_every': 0,
    'optim.warmup': 50,
    'eval.protocols': ('answers',),
    'eval.lengths': (32, 64, 128, 256, 512),
    'eval.examples': 440,
    'eval.controls': (),
  }
  return load(Path(__file__).with_name('base.py'), settings)


def sweep():
  return product(over('seed', 0, 1, 2), over('encoding.name', *ENCODINGS))


def table():
  return dict(protocols=('needle',), metric='exact_match')


def figures():
  return {'needle': dict(form='heat_map')}
