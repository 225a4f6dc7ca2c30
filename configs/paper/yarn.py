"""YaRN's fine-tuning at true size: Llama 2 with 7 billion parameters, L 4096, extended to 8,192 and
65,536 tokens.

  python scripts/prepare_data.py --config=configs/paper/yarn.py
  python scripts/sweep.py --config=configs/paper/yarn.py

Peng et al. 2023, Tables 1 and 2. The shape of Llama 2 7B: 32 layers, width 4096, 32 heads, RoPE of
base 10,000 whose `original_max_position_embeddings` is 4096.

Theirs start from Llama 2's weights, this config from a random draw: it is their setting and not
their result. With the weights (scripts/import_model.py), a study takes its `model` and `encoding`
from the imported run and names that in `train.init_from` of get_config(), as configs/swap.py does;
s 32 starts from s 16 all the same. The same question may be asked of a run of our own, at any size,
without fine-tuning:

  python eval.py --workdir=RUN --config.encoding.scaling="{'rope_type': 'yarn', 'factor': 16}"

Cost: not run here. By arithmetic 6 x 6.5e9 x 1.7e9 = 6.5e19 operations for s 16 beside attention,
and for the evaluation of each run, whose windows slide by 256 tokens, 2 x 6.5e9 x 5.7e8 = 7.4e18;
104 GB of parameters, gradients and moments in float32. As set here all that and the activations
are on one device, more than any has. --config.mesh.fsdp=8 and --config.mesh.context=8 cut
parameters and moments by 64, and activations by eight each, as --config.train.grad_accum_steps=8
does: on each of 64 devices, of one process or of several (docs/accelerators.md), scripts/aot.py has
compiled s 16 to 86 GB beside parameters and moments; with --config.model.remat=layer to 22 GB, and
layers are computed twice. That was when mesh.context left parameters whole.

As published (paper, released script): 400 steps of 64 x 65,536 tokens at a rate of 2e-5 with 20 of
warm-up, on PG-19, for s 16, and 200 more for s 32; for s 2, 1,000 steps of PI and NTK and 400 of
YaRN; AdamW (0.9, 0.95) without decay; SwiGLU, norms with an epsilon of 1e-5, embeddings not scaled;
gradients not clipped. Otherwise:
- Tokens are bytes, theirs Llama's: contexts are a quarter of the text, roughly, and perplexities do
  not compare.
- The batch of s 2 is not named: 128 windows make the 1e9 and 4e8 tokens of Table 1. Its PI is
  LLongMA-2 7B, which others trained on RedPajama.
- PG-19 is that of TFDS, which prepares it with TensorFlow.
- Evaluated on ten of PG-19's test books, the middle 131,072 bytes of each; the tables are
  Proof-pile's, ten documents of 128k tokens.

Their published perplexities a token, Llama 2 7B, stand in PUBLISHED; the table prints them apart.
Captions say windows that slide by 256 tokens; the released script cuts each document to one window,
and takes the mean of windows. YaRN with s 16 is above 10 from 98,304 tokens on.
"""

from pathlib import Path

from posenc_jax.config import load

BASE = Path(__file__).parents[1] / 'base.py'
BATCH, L = 64, 4096
PUBLISHED = {
  'PI, s 2': {2048: 3.92, 4096: 3.51, 6144: 3.51, 8192: 3.34, 10240: 8.07},
  'NTK, base 20,000': {2048: 4.20, 4096: 3.75, 6144: 3.74, 8192: 3.59, 10240: 6.24},
  'YaRN, s 2': {2048: 3.91, 4096: 3.50, 6144: 3.51, 8192: 3.35, 10240: 6.04},
  'YaRN, s 16': {8192: 3.51, 32768: 2.65, 65536: 2.42},
  'YaRN, s 32': {8192: 3.56, 32768: 2.70, 65536: 2.45, 98304: 2.36, 131072: 2.37},
}


def _table_of(line):
  return 2 if line in ('YaRN, s 16', 'YaRN, s 32') else 1


REFERENCE = [
  dict(line=line, values=values, source=f'Peng et al. 2023, table {_table_of(line)}, Proof-pile')
  for line, values in PUBLISHED.items()
]


def yarn(factor):
  scaling = dict(rope_type='yarn', factor=factor, original_max_position_embeddings=L)
  return dict(name='rope', scaling=scaling)


def get_config():
  settings = {
    'label': 'YaRN, s 16',
    'encoding': yarn(16.0),
    'model.layers': 32,
    'model.model_dim': 4096,
    'model.heads': 32,
    'model.head_dim': 128,
    'model.mlp': 'swiglu',
    'model.mlp_dim': 11008,
    'model.norm_eps': 1e-5,
    'model.tie_embeddings': False,
    'model.embedding_scale': 1.0,
    'model.unroll': 1,
    'data.corpus': 'tfds:pg19',
    'data.text_field': 'book_text',
    'train.length': 16 * L,
    'train.batch': BATCH,
    'train.steps': 400,
    'train.compute_dtype': 'bfloat16',
    'train.validate_every': 0,
    'train.checkpoint_every': 100,
    'optim.learning_rate': 2e-5,
    'optim.warmup': 20,
    'optim.decay': 'linear',
    'optim.final_fraction': 0.0,
    'optim.clip': 0.0,
    'eval.lengths': (2048, 4096, 6144, 8192, 10240, 32768, 65536, 98304, 131072),
    'eval.target_context': 131072,
    'eval.spans': 1,
    'eval.protocols': ('sliding', 'last_k'),
    'eval.stride': 256,
    'eval.k': 256,
    'eval.documents': 10,
    'eval.document_tokens': 131072,
    'eval.batch_tokens': 131072,
    'eval.compute_dtype': 'bfloat16',
  }
  return load(BASE, settings)


def of_s_2(steps):
  return {'train.length': 2 * L, 'train.batch': 128, 'train.steps': steps}


def sweep():
  s_16 = {'label': 'YaRN, s 16', 'encoding': yarn(16.0)}
  return [
    {
      'label': 'PI, s 2',
      'encoding': dict(name='rope', scaling=dict(rope_type='linear', factor=2.0)),
      **of_s_2(1000),
    },
    {'label': 'NTK, base 20,000', 'encoding': dict(name='rope', base=20_000.0), **of_s_2(1000)},
    {'label': 'YaRN, s 2', 'encoding': yarn(2.0), **of_s_2(400)},
    s_16,
    s_16
    | {'label': 'YaRN, s 32', 'encoding': yarn(32.0), 'train.steps': 200}
    | {'train.init_from': s_16},
  ]


def table():
  return dict(form='methods', protocols=('sliding', 'last_k'), metric='bpb', reference=REFERENCE)
