"""A needle in a haystack: trained on up to 64 tokens, tested at 11 depths of 32 to 512, drawn as
depth by length.

  python scripts/sweep.py --config=configs/needle.py --jobs=2

Cost: 12 runs of 0.1 million parameters, 0.6 minutes each on a core of their own, evaluation
included. One needle of 16 values, which stands out by its kind: nothing but length is hard about
it.

Exact match over all depths of seeds 0, 1, 2: NoPE and T5 1.00 1.00 1.00 to 512 tokens; RoPE 0.94
1.00 1.00 at 256 and 0.50 0.83 0.96 at 512; ALiBi 1.00 0.95 1.00 at 256 and 1.00 0.80 1.00 at 512.
To 128 all are at 0.99 or above. Result: results/needle/table.md.
"""

from pathlib import Path

from posenc_jax.config import load, product, vary

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
  return product(vary('seed', 0, 1, 2), vary('encoding.name', *ENCODINGS))


def table():
  return dict(protocols=('needle',), metric='exact_match')


def figures():
  return {'needle': dict(form='heat_map')}
