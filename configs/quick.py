"""The classic encodings in minutes: trained at 128 tokens on two CPU cores, evaluated to 16 times
that.

  python scripts/sweep.py --config=configs/quick.py

Cost: nine runs of about 0.8 million parameters, 1.5 to 2.6 minutes each, 18 minutes in all on two
cores (jax 0.12), other work beside them for a part of it. Result, one seed: sinusoidal, NoPE and
RoPE models of this budget are of no use past the training length, T5 holds for a while,
Transformer-XL loses 0.01 and ALiBi stays. Bits per byte of the last 64 bytes at 128 and 2048
tokens: DeBERTa 1.79 and 1.86, T5 1.81 and 2.61, Transformer-XL 1.82 and 1.83, RoPE 1.83 and 4.83,
ALiBi 1.99 and 1.99, sinusoidal 2.18 and 4.36, learned 2.24 and no value, NoPE 2.57 and 4.01.
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
  return {'extrapolation': dict(protocol='last_k', metric='bpb')}
