"""PoSE at true size: LLaMA with 7 billion parameters, L 2048, fine-tuned at 2,048 tokens to read
16,384 and 32,768.

  python scripts/sweep.py --config=configs/paper/pose.py

Zhu et al. 2023, Table 1. LLaMA 7B has the shape of Llama 2 7B: what yarn.py says of weights, tokens
and sizes holds here. `full length` is fine-tuned at 16,384 tokens, by the same interpolation of
positions; `RandPos` at 2,048 tokens at random positions below 16,384.

Cost: not run here; 1.3e8 tokens a run, 1.0e9 of `full length`.

As published (section 4.1): 1,000 steps of 64 windows, a rate of 2e-5 with 10 steps of warm-up and
linear decay, linear interpolation. Otherwise:
- Fine-tuned on PG-19's training books; theirs on documents of the Pile of at least 2,048 tokens.
- AdamW is said to have its defaults, taken to be (0.9, 0.999) and, here, no decay; gradients are
  not clipped, of which the paper says nothing.
- The chunks of a window follow each other in the text here; theirs also skip text.
- Evaluated on PG-19's test books; the table is GovReport's and Proof-pile's.

Their published perplexities a token, LLaMA 7B, windows that slide by 1,024 tokens, stand in
PUBLISHED; the table prints them apart.
"""

from pathlib import Path

from posenc_jax.config import load, load_study

L = 2048
LENGTHS = (2048, 4096, 8192, 16384, 32768)
PUBLISHED = {
  'full length, 16k, GovReport': (4.87, 4.70, 4.61, 4.59),
  'RandPos, 16k, GovReport': (11.63, 11.17, 11.54, 15.16),
  'PoSE, 16k, GovReport': (4.84, 4.68, 4.60, 4.60),
  'PoSE, 32k, GovReport': (4.91, 4.76, 4.68, 4.64, 4.66),
  'full length, 16k, Proof-pile': (2.93, 2.71, 2.58, 2.53),
  'RandPos, 16k, Proof-pile': (7.26, 6.83, 6.76, 7.73),
  'PoSE, 16k, Proof-pile': (2.95, 2.74, 2.61, 2.60),
  'PoSE, 32k, Proof-pile': (3.01, 2.78, 2.66, 2.60, 2.59),
}
REFERENCE = [
  dict(
    line=line,
    values=dict(zip(LENGTHS, values, strict=False)),
    source='Zhu et al. 2023, table 1, perplexity a token, sliding by 1,024',
  )
  for line, values in PUBLISHED.items()
]
interpolated = load_study(Path(__file__).with_name('pi.py')).interpolated


def skipping(name, factor):
  return dict(name=name, inner=interpolated(float(factor)), longest=factor * L)


def get_config():
  settings = {
    'label': 'PoSE, 16k',
    'encoding': skipping('pose', 8),
    'train.length': L,
    'train.steps': 1000,
    'optim.warmup': 10,
    'optim.beta2': 0.999,
    'eval.stride': 1024,
    'eval.lengths': LENGTHS,
    'eval.target_context': 32768,
    'eval.document_tokens': 32768,
    'eval.batch_tokens': 32768,
  }
  return load(Path(__file__).with_name('yarn.py'), settings)


def sweep():
  full = {'encoding': interpolated(8.0), 'train.length': 8 * L}
  return [
    {'label': 'full length, 16k', **full},
    {'label': 'RandPos, 16k', 'encoding': skipping('random_positions', 8)},
    {'label': 'PoSE, 16k', 'encoding': skipping('pose', 8)},
    {'label': 'PoSE, 32k', 'encoding': skipping('pose', 16)},
  ]


def table():
  return dict(form='methods', protocols=('sliding', 'last_k'), metric='bpb', reference=REFERENCE)
