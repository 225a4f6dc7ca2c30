"""The classic encodings with three seeds, trained as long as they need, evaluated to 32 times the training length.

  python scripts/sweep.py --config=configs/classic.py --jobs=2

XXX cost: 27 runs of about 0.8 million parameters, some XXX minutes each, XXX hours in all on two cores.
XXX result: results/classic/table.md; bits per byte of the last 64 bytes at 128 and 4096: ALiBi XXX and XXX, T5 XXX and
XXX, RoPE XXX and XXX. From the rows kept in results/classic its tables and figure are made again by

  python scripts/table.py results/classic && python scripts/figures.py results/classic
"""

from pathlib import Path

from posenc_jax.config import load, over, product

ENCODINGS = ('nope', 'learned', 'sinusoidal', 'shaw', 'transformer_xl', 't5', 'deberta', 'rope', 'alibi')


def get_config():
  settings = {
    'train.batch': 16,
    'train.steps': 1200,
    'optim.warmup': 100,
    'eval.lengths': (128, 256, 512, 1024, 2048, 4096),
    'eval.document_tokens': 4096,
  }
  return load(Path(__file__).with_name('base.py'), settings)


def sweep():
  return product(over('seed', 0, 1, 2), over('encoding.name', *ENCODINGS))  # whole tables first, then more seeds


def table():
  return dict(protocols=('last_k', 'blocks'), metric='bpb')


def figures():
  return {'extrapolation': dict(protocol='last_k', metric='ppl')}
