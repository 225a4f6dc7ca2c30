"""Attention sinks by encoding, at true size: the share of heads whose attention rests on the first
token, in models of 60 million parameters, L 2048.

  python scripts/prepare_data.py --config=configs/paper/sinks.py
  python scripts/sweep.py --config=configs/paper/sinks.py

Gu et al. 2024 (arXiv:2410.10781), what becomes of the sink under other encodings, and under
attention whose weights are no softmax: a small LLaMA, 10 layers, width 768, 8 heads of 96, 59
million parameters in the layers.

Cost: not run here. 7 runs of 20,000 steps of 512 x 2048 tokens, 2.1e10 each; by arithmetic 6 x
5.9e7 x 2.1e10 = 7.4e18 operations a run beside attention. --config.mesh.data=4
--config.train.grad_accum_steps=8 makes microbatches of 16 windows on each of four devices, as
theirs.

As published (released config): sizes, SwiGLU of 1536, RMSNorm with an epsilon of 1e-5, no biases,
output projection not tied, embeddings not scaled, batch, steps, AdamW (0.9, 0.95) with decay 0.1 at
a constant 4e-4, 100 steps of warm-up, clipping at 1, bfloat16, the measure: 64 tokens, a mean
weight on the first above 0.3. Otherwise:
- Windows begin with BOS here, in training and evaluation, so that the first token is always the
  same, and no text; theirs begin anywhere in packed documents, and with a text's first word.
- Tokens are bytes, theirs GPT-NeoX's: 64 are a quarter of the text, roughly, and losses do not
  compare. The corpus is PG-19, the books in TFDS, which prepares them with TensorFlow, about twice;
  theirs 5e9 tokens of the Pile, about four times. Sinks are measured in the middle of test books,
  256 windows each; theirs in 100 texts.
- `t5` learns a number for each bucket of distances. Their `relative` is no such encoding: released,
  it adds to a score the number of its bucket, which grows with distance, so that far tokens have
  the most weight.
- `rope, sigmoid` has an offset of -log L; theirs none, and for the measure their weights are
  divided by their sum, here taken as they are.
- Learned positions begin with unit variance, theirs as small as token embeddings; all other initial
  weights are ours, too.

Their shares of heads with a sink, and validation losses in nats a token, stand in PUBLISHED; the
tables print them apart. Those of RoPE and sigmoid are of a table of the released repository, the
others of the paper's, as a digest of it has them: they were not compared with it.
"""

from pathlib import Path

from posenc_jax.config import load

BASE = Path(__file__).parents[1] / 'base.py'
L, SINK_TOKENS = 2048, 64
ENCODINGS = {
  'nope': dict(name='nope'),
  'sinusoidal': dict(name='sinusoidal', layout='half'),
  'learned': dict(name='learned'),
  't5': dict(name='t5'),
  'alibi': dict(name='alibi'),
  'rope': dict(name='rope'),
  'rope, sigmoid': dict(name='chain', members=('rope', 'sigmoid')),
}
REPOSITORY, DIGEST = 'a table of the released repository', 'a digest of the paper'
PUBLISHED = {  # heads with a sink in per cent, loss in nats a token, where from
  'nope': (20.35, 3.81, DIGEST),
  'absolute (sinusoidal)': (32.73, 3.74, DIGEST),
  'learned': (33.13, 3.79, DIGEST),
  'relative': (35.53, 5.45, DIGEST),
  'alibi': (20.78, 3.71, DIGEST),
  'rope': (18.18, 3.73, REPOSITORY),
  'rope, sigmoid': (0.44, 3.70, REPOSITORY),
}


def reference(column, length, unit):
  return [
    dict(
      line=line,
      values={length: of_line[column]},
      source=f'Gu et al. 2024, {unit}, from {of_line[2]}',
    )
    for line, of_line in PUBLISHED.items()
  ]


def get_config():
  settings = {
    'encoding.name': 'rope',
    'model.layers': 10,
    'model.model_dim': 768,
    'model.heads': 8,
    'model.head_dim': 96,
    'model.mlp': 'swiglu',
    'model.mlp_dim': 1536,
    'model.norm_eps': 1e-5,
    'model.embedding_scale': 1.0,
    'model.tie_embeddings': False,
    'model.unroll': 1,
    'data.corpus': 'tfds:pg19',
    'data.text_field': 'book_text',
    'train.length': L,
    'train.batch': 512,
    'train.steps': 20_000,
    'train.compute_dtype': 'bfloat16',
    'train.log_every': 10,
    'train.validate_every': 1000,
    'train.checkpoint_every': 1000,
    'optim.learning_rate': 4e-4,
    'optim.warmup': 100,
    'optim.final_fraction': 1.0,  # a constant rate
    'optim.weight_decay': 0.1,
    'eval.protocols': ('sink_rate', 'non_overlapping'),
    'eval.lengths': (L,),
    'eval.sink_rate_tokens': SINK_TOKENS,
    'eval.sink_rate_epsilon': 0.3,
    'eval.target_context': L,
    'eval.documents': 0,
    'eval.document_tokens': 16384,
    'eval.batch_tokens': 32768,
    'eval.compute_dtype': 'bfloat16',
  }
  return load(BASE, settings)


def sweep():
  return [{'label': name, 'encoding': encoding} for name, encoding in ENCODINGS.items()]


def table():
  sinks, losses = reference(0, SINK_TOKENS, 'per cent of heads'), reference(1, L, 'nats a token')
  return [
    dict(protocols=('sink_rate',), metric='sink_rate', reference=sinks),
    dict(protocols=('non_overlapping',), metric='bpb', reference=losses),
  ]


def figures():
  return {'sinks': dict(protocol='sink_rate', metric='sink_rate')}
