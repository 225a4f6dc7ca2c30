"""The classic encodings in minutes: trained at 128 tokens on two CPU cores, evaluated to 16 times
that.

  python scripts/sweep.py --config=configs/quick.py

Cost: nine runs of about 0.8 million parameters, 1.2 to 2.8 minutes each, 16 minutes in all on two
cores (jax 0.10). Result: sinusoidal and learned positions fail past the training length, RoPE
degrades, T5 holds for a while, ALiBi stays flat. Bits per byte of the last 64 bytes at 128 and 2048
tokens: sinusoidal 1.98 and 4.25, learned 2.00 and no value, RoPE 1.62 and 5.12, T5 1.62 and 2.53,
ALiBi 1.72 and 1.72.
"""

from pathlib import Path

from posenc_jax.config import load, product, vary

ENCODINGS = (
  'nope',
  'learned',
  'sinusoidal',
  'shaw',
  'transformer_xl',
  't5',
  'deberta',
  'rope',
  'alibi',
)


def get_config():
  settings = {
    'train.batch': 16,
    'train.steps': 700,
    'train.checkpoint_every': 350,
    'optim.warmup': 100,
    'eval.documents': 24,
    'eval.spans': 2,
  }
  return load(Path(__file__).with_name('base.py'), settings)


def sweep():
  return product(vary('encoding.name', *ENCODINGS), vary('seed', 0))


def table():
  return dict(protocols=('last_k', 'non_overlapping'), metric='bpb')


def figures():
  return {'extrapolation': dict(protocol='last_k', metric='ppl')}
