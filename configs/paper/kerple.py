"""KERPLE's tables at true size: six encodings, five seeds, trained at 512 tokens, evaluated to 32
times that.

  python scripts/prepare_data.py --config=configs/paper/kerple.py
  python scripts/sweep.py --config=configs/paper/kerple.py

Chi et al. 2022, the tables of three corpora: the small GPT-NeoX, 12 layers, width 768, 12 heads;
162 million parameters with its vocabulary, 85 million of them in the layers.

Cost: not run here. 30 runs of 50,000 steps of 32 x 512 tokens, 8.2e8 tokens each; by arithmetic 6 x
8.5e7 x 8.2e8 = 4.2e17 operations a run beside attention. Evaluation reads 7.8e7 tokens a run.
Memory: compiled by scripts/aot.py for a TPU v5e, a step of ALiBi takes 13 GB beside 1 GB of
parameters and moments, so it fits its 16. With --config.model.remat=layer it takes 2 GB and
computes layers twice; --config.mesh.data=4 cuts the batch over four devices, 3.7 GB on each.

As published (paper, released config): sizes, length, batch, steps, Adam (0.9, 0.999) at 6e-4, 1 %
warm-up, cosine, no weight decay, no dropout, clipping at 1, bfloat16, output projection not tied,
embeddings not scaled, LayerNorm with an epsilon of 1e-5, GELU by erf, biases, RoPE in all channels,
five seeds. Otherwise:
- Tokens are bytes, theirs GPT-NeoX's: lengths are shorter in text, and perplexities do not compare.
- The corpus here is `scientific_papers/arxiv`, the texts of arXiv papers in TFDS, in the place of
  the Pile's ArXiv. The Pile's parts as folders of text files: --config.data.corpus=FOLDER
  --config.data.text_field=text.
- The cosine ends at 0, as GPT-NeoX's does where nothing is said.
- Evaluated on 320 papers, the middle 16,384 bytes of each at every length; theirs on 320 windows of
  each length.

Their published perplexities a token, means of five seeds, stand in PUBLISHED; the table prints them
apart. At 1.3 billion parameters (150,000 steps) KERPLE-log is behind ALiBi on OpenWebText2: 16.9
and 16.5 at 8192, 17.8 and 16.5 at 16384.
"""

from pathlib import Path

from posenc_jax.config import load, product, vary

BASE = Path(__file__).parents[1] / 'base.py'

LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)
PUBLISHED = {  # perplexity a token, by corpus, at LENGTHS
  'ArXiv': {
    'KERPLE-log': (6.07, 5.61, 5.22, 5.20, 5.01, 5.07),
    'KERPLE-power': (6.10, 5.65, 5.26, 5.25, 5.06, 5.07),
    'ALiBi': (6.12, 5.82, 5.71, 5.87, 5.74, 5.78),
    'T5': (6.03, 5.58, 5.21, 5.32, 5.54, 6.25),
    'Rotary': (6.07, 7.49, 14.2, 30.1, 54.3, 85.4),
    'Sinusoidal': (43, 221, 730, 1998, 4228, 6674),
  },
  'OpenWebText2': {
    'KERPLE-log': (23.9, 22.0, 21.6, 21.2, 21.3, 21.4),
    'KERPLE-power': (23.9, 22.1, 21.9, 21.5, 21.6, 21.6),
    'ALiBi': (23.9, 22.4, 22.5, 22.2, 22.3, 22.5),
    'T5': (23.7, 21.9, 21.7, 22.5, 25.5, 31.4),
    'Rotary': (24.2, 32.8, 62.4, 111, 185, 269),
    'Sinusoidal': (33, 750, 5507, 14039, 22621, 30046),
  },
  'GitHub': {
    'KERPLE-log': (3.40, 3.04, 2.86, 2.74, 2.71, 2.75),
    'KERPLE-power': (3.42, 3.07, 2.90, 2.79, 2.76, 2.76),
    'ALiBi': (3.42, 3.15, 3.13, 3.04, 3.04, 3.02),
    'T5': (3.38, 3.02, 2.84, 2.78, 2.95, 3.35),
    'Rotary': (3.44, 3.86, 5.94, 11.1, 20.2, 31.3),
    'Sinusoidal': (4, 105, 1380, 5217, 10081, 16443),
  },
}
REFERENCE = [
  dict(
    line=f'{name}, {corpus}',
    values=dict(zip(LENGTHS, values, strict=True)),
    source='Chi et al. 2022, perplexity a token, L 512, 162M',
  )
  for corpus, lines in PUBLISHED.items()
  for name, values in lines.items()
]
ENCODINGS = ('kerple_log', 'kerple_power', 'alibi', 't5', 'rope', 'sinusoidal')


def get_config():
  settings = {
    'encoding.name': 'kerple_log',
    'model.layers': 12,
    'model.model_dim': 768,
    'model.heads': 12,
    'model.head_dim': 64,
    'model.mlp_dim': 3072,
    'model.mlp': 'gelu_exact',
    'model.norm': 'layer',
    'model.norm_eps': 1e-5,
    'model.bias': 'all',
    'model.embedding_scale': 1.0,
    'model.tie_embeddings': False,
    'model.unroll': 1,
    'data.corpus': 'tfds:scientific_papers/arxiv',
    'data.text_field': 'article',
    'train.length': 512,
    'train.batch': 32,
    'train.steps': 50_000,
    'train.compute_dtype': 'bfloat16',
    'train.log_every': 100,
    'train.validate_every': 1000,
    'train.checkpoint_every': 2000,
    'optim.learning_rate': 6e-4,
    'optim.warmup': 500,
    'optim.final_fraction': 0.0,
    'optim.beta2': 0.999,
    'eval.split': 'validation',
    'eval.lengths': (512, 1024, 2048, 4096, 8192, 16384),
    'eval.target_context': 16384,
    'eval.spans': 1,
    'eval.protocols': ('non_overlapping', 'last_k', 'by_position'),
    'eval.k': 128,
    'eval.documents': 320,
    'eval.document_tokens': 16384,
    'eval.batch_tokens': 16384,
    'eval.compute_dtype': 'bfloat16',
  }
  return load(BASE, settings)


def sweep():
  return product(vary('seed', 0, 1, 2, 3, 4), vary('encoding.name', *ENCODINGS))


def table():
  return dict(
    protocols=('non_overlapping', 'last_k'),
    metric='bpb',
    controls=False,
    baseline='alibi',
    reference=REFERENCE,
  )


def figures():
  return {
    'extrapolation': dict(protocol='non_overlapping', metric='bpb'),
    'positions': dict(form='positions', metric='bpb'),
  }
