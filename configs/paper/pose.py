"""PoSE at true size: LLaMA with 7 billion parameters, L 2048, fine-tuned at 2,048 tokens to read
16,384 and 32,768.

  python scripts/prepare_data.py --config=configs/paper/pose.py
  python scripts/sweep.py --config=configs/paper/pose.py

Zhu et al. 2023, Table 1. LLaMA 7B has the shape of Llama 2 7B, with an epsilon of 1e-6 in its
norms: what yarn.py says of weights, tokens, text and sizes holds here. `full length` is fine-tuned
at 16,384 tokens, by the same interpolation of positions; `RandPos` at 2,048 tokens at random
positions below 16,384 or 32,768, and evaluated at those of the text, as all others: a run of no
steps, which starts from the one that trained. Lines named `trained for RandPos` are the latter,
evaluated at random positions; that of 16k has no score at 32,768.

Cost: not run here; 1.3e8 tokens a run, 1.0e9 of `full length`; 3.5e7 forward in each evaluation.

As published (section 4.1, released script): 1,000 steps of 64 windows, a rate of 2e-5 with 10 steps
of warm-up and linear decay, linear interpolation; AdamW (0.9, 0.999) without decay and clipping at
1, which are defaults there; positions drawn for each example. Otherwise:
- Fine-tuned on PG-19's training books; theirs on documents of the Pile of at least 2,048 tokens.
- The chunks of a window follow each other in the text here; theirs also skip text.
- Evaluated on 50 of PG-19's test books, the middle 32,768 bytes of each; the table is GovReport's
  and Proof-pile's, 50 documents of each.

Their published perplexities a token, LLaMA 7B, windows that slide by 1,024 tokens, stand in
PUBLISHED, `None` as it was before fine-tuning; the table prints them apart.
"""

from pathlib import Path

from posenc_jax.config import load, load_study

L = 2048
LENGTHS = (2048, 4096, 8192, 16384, 32768)
BEYOND = ('> 1000',) * 4
PUBLISHED = {
  'None, GovReport': (4.74, *BEYOND),
  'full length, 16k, GovReport': (4.87, 4.70, 4.61, 4.59),
  'RandPos, 16k, GovReport': (11.63, 11.17, 11.54, 15.16),
  'RandPos, 32k, GovReport': (93.43, 95.85, 91.79, 93.22, 97.57),
  'PoSE, 16k, GovReport': (4.84, 4.68, 4.60, 4.60),
  'PoSE, 32k, GovReport': (4.91, 4.76, 4.68, 4.64, 4.66),
  'None, Proof-pile': (2.83, *BEYOND),
  'full length, 16k, Proof-pile': (2.93, 2.71, 2.58, 2.53),
  'RandPos, 16k, Proof-pile': (7.26, 6.83, 6.76, 7.73),
  'RandPos, 32k, Proof-pile': (60.74, 63.54, 60.56, 63.15, 66.47),
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


def skipping(name, factor, **more):
  return dict(name=name, inner=interpolated(float(factor)), longest=factor * L, **more)


def get_config():
  settings = {
    'label': 'PoSE, 16k',
    'encoding': skipping('pose', 8),
    'model.norm_eps': 1e-6,
    'train.length': L,
    'train.steps': 1000,
    'optim.warmup': 10,
    'optim.beta2': 0.999,
    'optim.clip': 1.0,
    'eval.stride': 1024,
    'eval.lengths': LENGTHS,
    'eval.target_context': 32768,
    'eval.documents': 50,
    'eval.document_tokens': 32768,
    'eval.batch_tokens': 32768,
  }
  return load(Path(__file__).with_name('yarn.py'), settings)


def sweep():
  yield {'label': 'full length, 16k', 'encoding': interpolated(8.0), 'train.length': 8 * L}
  for factor in (8, 16):
    target = f'{factor * L // 1024}k'
    drawn = {
      'label': f'trained for RandPos, {target}',
      'encoding': skipping('random_positions', factor, each='example'),
    }
    yield drawn
    yield {
      'label': f'RandPos, {target}',
      'encoding': interpolated(float(factor)),
      'train.init_from': drawn,
      'train.steps': 0,
    }
    yield {'label': f'PoSE, {target}', 'encoding': skipping('pose', factor)}


def table():
  return dict(form='methods', protocols=('sliding', 'last_k'), metric='bpb', reference=REFERENCE)
