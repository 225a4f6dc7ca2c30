"""The classic encodings with three seeds, trained for three tokens a parameter, evaluated to 32
times the training length.

  python scripts/sweep.py --config=configs/classic.py --jobs=2

Cost: 27 runs of about 0.8 million parameters, 2 to 10 minutes each on a core of their own, about an
hour and a quarter in all on two cores (jax 0.12). Result: results/classic/table.md; bits per byte
of the last 64 bytes at 128 and 4096 tokens: ALiBi 1.82 and 1.82, Transformer-XL 1.72 and 1.73, T5
1.72 and 2.42, RoPE 1.75 and 5.33, sinusoidal 1.92 and 4.95, learned 1.93 and no value. From the
rows kept in results/classic its tables and figure are made again by

  python scripts/table.py results/classic && python scripts/figures.py results/classic
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
  # With the default, `span` = L, training would hardly reach the last row of its table, which all
  # larger distances share.
  {'encoding.name': 'deberta', 'encoding.span': 64},
  'rope',
  'alibi',
  # The reference for far context: as many tokens a step, in sequences four times as long.
  {'encoding.name': 'rope', 'train.length': 512, 'train.batch': 4, 'label': 'rope, L = 512'},
)


def get_config():
  settings = {
    'train.batch': 16,
    'train.steps': 1200,
    'optim.warmup': 100,
    'eval.protocols': ('last_k', 'by_position'),
    'eval.lengths': (128, 256, 512, 1024, 2048, 4096),
    'eval.controls': ('windowed', 'windowed_with_sink', 'truncated', 'shuffled_far'),
    'eval.documents': 0,
    'eval.spans': 2,
    'eval.document_tokens': 4096,
  }
  return load(Path(__file__).with_name('base.py'), settings)


def sweep():
  # whole tables first, then more seeds
  lines = [line if isinstance(line, dict) else {'encoding.name': line} for line in ENCODINGS]
  return [dict(line, seed=seed) for seed in range(5) for line in lines]


def table():
  return dict(protocols=('last_k', 'by_position'), metric='bpb', baseline='rope')


def figures():
  return {'extrapolation': dict(protocol='last_k', metric='bpb')}
