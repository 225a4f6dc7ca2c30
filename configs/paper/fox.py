"""The Forgetting Transformer's study of long contexts at true size: trained at 16,384 tokens,
evaluated to 65,536.

  python scripts/prepare_data.py --config=configs/paper/fox.py
  python scripts/sweep.py --config=configs/paper/fox.py

Lin et al. 2025: the "LLaMA" forms of their configs. At 360 million parameters, 7.5e9 tokens, what
does the work, the gate or the rotation: rows `rope`, `nope`, `fox`, both, and gates that do not
read the data. At 760 million, 4.8e10 tokens, the main comparison of `fox` with `rope`.

Cost: not run here. By arithmetic 6 x 3.1e8 x 7.5e9 = 1.4e19 operations a run of the small, 6 x
6.8e8 x 4.8e10 = 2.0e20 of the large, beside attention; evaluation reads 1.4e8 tokens a run. Memory
of a step of 32 x 16,384 tokens: more than one device has. --config.train.grad_accum_steps=16 makes
it a sixteenth, --config.mesh.data=8 an eighth on each of eight devices: 124 GB for `fox`, 360M, as
scripts/aot.py compiles it for TPUs. With --config.mesh.fsdp=8 --config.model.remat=layer it takes
12.9 GB on each, fits eight TPUs v5e, and computes layers twice.

As published (released configs): layers, widths, heads, batch, tokens, AdamW (0.9, 0.95) with decay
0.1, rates, 2^28 tokens of warm-up, cosine to 0, clipping at 1, bfloat16, RoPE's base 500,000,
SwiGLU, output projection not tied, embeddings not scaled. Otherwise:
- Tokens are bytes, theirs BPE's: 16,384 bytes are a quarter of the text, roughly.
- The corpus here is PG-19, the books in TFDS, which prepares them with TensorFlow, in the place of
  LongCrawl64.
- Not set here, of the "Pro" block: its norm of queries and keys, output gate and shifted keys and
  values, which are model.qk_norm, model.output_gate='elementwise' and a chain with `kv_shift`. Not
  here at all: its output norm, and the other architectures (Mamba-2, HGRN2, DeltaNet, Samba).
- Fixed and learned gates start at 2 to 16,384 tokens, one of the ranges that their evaluation
  names.
- The gate's projection does not decay, as no parameter of an encoding does here; theirs does.
- Weights start at fan-in scale; theirs all from N(0, 0.02^2).

Reference: their loss by position is a figure, and no number of it has been verified. Here
`by_position` has it, at each length as one window. From another paper (Yang et al. 2025, 760
million, L 4096), RULER at 4096, 8192 and 16384: FoX 41.6 29.5 4.9, RoPE 35.7 1.3 0.
"""

from pathlib import Path

from posenc_jax.config import load

LENGTH, BATCH = 16384, 32
BASE = Path(__file__).parents[1] / 'base.py'
ROPE = dict(name='rope', base=500_000.0)
ENCODINGS = {
  'fox': dict(name='fox'),
  'rope': ROPE,
  'rope, fox': dict(name='chain', members=(ROPE, 'fox')),
  'nope': dict(name='nope'),
  'fox, learned': dict(name='fox', gate='learned'),
  'fox, fixed': dict(name='fox', gate='fixed'),
}
LARGE = {
  'model.model_dim': 1536,
  'model.mlp_dim': 4096,
  'train.steps': 48_318_382_080 // (BATCH * LENGTH),
}
HEADS = {  # the large models' heads, their width, and the learning rate
  'fox': {'model.heads': 24, 'model.head_dim': 64, 'optim.learning_rate': 1e-3},
  'rope': {'model.heads': 12, 'model.head_dim': 128, 'optim.learning_rate': 5e-4},
}


def get_config():
  settings = {
    'encoding': ENCODINGS['fox'],
    'model.layers': 24,
    'model.model_dim': 1024,
    'model.heads': 16,
    'model.head_dim': 64,
    'model.mlp': 'swiglu',
    'model.mlp_dim': 2816,
    'model.embedding_scale': 1.0,
    'model.tie_embeddings': False,
    'model.unroll': 1,
    'data.corpus': 'tfds:pg19',
    'data.text_field': 'book_text',
    'train.length': LENGTH,
    'train.batch': BATCH,
    'train.steps': 7_516_192_768 // (BATCH * LENGTH),
    'train.compute_dtype': 'bfloat16',
    'train.validate_every': 1000,
    'train.checkpoint_every': 500,
    'optim.learning_rate': 2e-3,
    'optim.warmup': 2**28 // (BATCH * LENGTH),
    'optim.final_fraction': 0.0,
    'optim.weight_decay': 0.1,
    'eval.lengths': (2048, 4096, 8192, 16384, 32768, 65536),
    'eval.target_context': 65536,
    'eval.protocols': ('by_position', 'last_k', 'non_overlapping'),
    'eval.k': 512,
    'eval.documents': 0,
    'eval.spans': 4,
    'eval.document_tokens': 65536,
    'eval.batch_tokens': 65536,
    'eval.compute_dtype': 'bfloat16',
  }
  return load(BASE, settings)


def sweep():
  small = [
    {'encoding': encoding, 'label': f'{name} (360M)'} for name, encoding in ENCODINGS.items()
  ]
  large = [
    {'encoding': ENCODINGS[n], 'label': f'{n} (760M)', **LARGE, **heads}
    for n, heads in HEADS.items()
  ]
  return small + large


def table():
  return dict(protocols=('last_k', 'non_overlapping'), metric='bpb')


def figures():
  return {
    'positions': dict(form='positions', metric='bpb'),
    'extrapolation': dict(protocol='last_k', metric='bpb'),
  }
