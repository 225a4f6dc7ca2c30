"""The classic encodings with five seeds, trained for three tokens a parameter, evaluated to 32
times the training length.

  python scripts/sweep.py --config=configs/classic.py --jobs=2
  python scripts/ngram.py --config=configs/classic.py --config.seeds=0,1,2,3,4 \\
      --workdir=runs/classic/ngram
  python scripts/table.py runs/classic && python scripts/figures.py runs/classic

DeBERTa's span is L / 2: its table's last row, which all larger distances share, is hardly trained
otherwise. RoPE trained at 4 L, on as many tokens a step and with three seeds, says what text
farther back than L is worth; a byte n-gram of the same batches, what the nearest five bytes are.

Cost: 48 runs of 0.8 to 1.0 million parameters, 3.4 to 7.4 minutes each, two at a time on two cores
of one processor, two hours in all (jax 0.12). Result: results/classic/table.md, LOG/115; bits per
byte of the last 64 bytes at 128 and 4096 tokens: DeBERTa 1.751 and 1.809, T5 1.756 and 2.493, Shaw
1.764 and 1.884, Transformer-XL 1.769 and 1.776, RoPE 1.786 and 5.312 (with a window of L 1.790),
ALiBi 1.863 and 1.863, the n-gram 1.700.
"""

from pathlib import Path

from posenc_jax.config import load

L = 128
LONG = 4 * L
ENCODINGS = (
  *('rope', 'nope', 'alibi', 't5', 'transformer_xl'),
  *('shaw', 'deberta', 'sinusoidal', 'learned'),
)


def get_config():
  settings = {
    'train.length': L,
    'train.batch': 16,
    'train.steps': 1200,
    'optim.warmup': 100,
    'eval.protocols': ('last_k',),
    'eval.lengths': (L, 2 * L, 4 * L, 8 * L, 32 * L),
    'eval.controls': ('windowed', 'windowed_with_sink', 'shuffled_far'),
    'eval.documents': 0,
    'eval.spans': 1,
  }
  return load(Path(__file__).with_name('base.py'), settings)


def sweep():
  # whole tables first, then more seeds
  for seed in range(5):
    for name in ENCODINGS:
      run = {'seed': seed, 'encoding.name': name}
      yield run | {'encoding.span': L // 2} if name == 'deberta' else run
    if seed < 3:
      long = {'train.length': LONG, 'train.batch': 16 * L // LONG}
      yield {'seed': seed, 'encoding.name': 'rope', 'label': f'rope, L = {LONG}'} | long


def table():
  return dict(protocols=('last_k',), metric='bpb', baseline='rope')


def figures():
  return {'extrapolation': dict(protocol='last_k', metric='bpb', references=(f'rope, L = {LONG}',))}
