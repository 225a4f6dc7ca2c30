"""ALiBi's tables on WikiText-103 at true size: trained at 512 to 3072 tokens, evaluated to 15,360.

  pip install -e '.[hf]' && python scripts/prepare_data.py --config=configs/paper/alibi.py
  python scripts/sweep.py --config=configs/paper/alibi.py

Press et al. 2021, Tables 2 to 5. The model of Baevski and Auli: 16 layers, width 1024, 8 heads,
4096 in the MLP; 201 million parameters in the layers, of 247 with the embeddings as published.

Cost: not run here. 14 runs of 286,000 steps of 73,728 tokens, 2.1e10 tokens each; by arithmetic 6 x
2.0e8 x 2.1e10 = 2.5e19 operations a run beside attention. Evaluation reads 7.6e7 tokens a run.
Memory, as scripts/aot.py compiles the step of ALiBi, L 512: --config.mesh.data=4 cuts every run's
batch over four devices, and a step takes 24 GiB on each beside 2.3 GiB of parameters and moments,
more than the 16 of a TPU v5e; there it needs --config.model.remat=layer, with which it takes 3.2
GiB and computes layers twice.

As published (paper, released command): sizes, lengths, 286,000 steps with 16,000 of warm-up, 9,216
tokens a GPU, clipping at 0.1. Otherwise:
- Tokens are bytes, theirs words: lengths are shorter in text, and perplexities do not compare.
- The set's documents are lines, which are joined with more empty lines; training windows
  cross them, and articles, as theirs do. Evaluation cuts the development set into texts of 65,536
  bytes. A folder is read faster, if its files are as short: --config.data.corpus=FOLDER.
- No adaptive input and softmax; no dropout (theirs 0.3, attention and activations 0.1, adaptive
  softmax 0.2).
- AdamW with a cosine to 0; theirs Nesterov's momentum at rate 1.0 with one to 1e-4. The rate here
  is ours, not tuned.
- GELU and a norm at the end; theirs ReLU and none.
- The command does not say how many GPUs; eight make the 205 epochs of 103 million tokens that the
  paper names. float16 there, bfloat16 here.

Their published perplexities a word of the development set stand in REFERENCE; the table prints them
apart. With windows that slide by one token ALiBi is flat: L 512 at 512, 1024, 1536, 2048, 3072:
17.98 17.92 18.2 18.28 18.3.
"""

from pathlib import Path

from posenc_jax.config import load, product, vary

TOKENS = 8 * 9216  # tokens a step
BASE = Path(__file__).parents[1] / 'base.py'

PUBLISHED = {  # perplexity a word, non-overlapping windows, by L and evaluation length
  512: {
    'sinusoidal': {512: 20.05, 1012: 43.54, 2512: 132.41, 15512: 406.01},
    'rotary': {512: 20.07, 1012: 21.37, 2512: 31.58, 15512: 79.25},
    'T5': {512: 19.65, 1012: 18.79, 2512: 20.41},
    'ALiBi': {
      **{512: 19.73, 1012: 18.73, 1024: 18.81, 1536: 18.50, 2048: 18.48},
      **{2512: 18.41, 3072: 18.40, 15512: 18.31},
    },
  },
  1024: {
    'sinusoidal': {1024: 19.34, 2024: 51.09, 16024: 453.32},
    'rotary': {1024: 19.33, 2024: 31.17, 16024: 106.99},
    'T5': {1024: 18.80, 2024: 18.34},
    'ALiBi': {1024: 18.66, 1536: 18.20, 2024: 18.05, 2048: 18.05, 3072: 17.96, 16024: 17.98},
  },
  1536: {'ALiBi': {1536: 18.12, 2048: 17.90, 3072: 17.72}},
  2048: {'ALiBi': {2048: 17.91, 3072: 17.64}},
  3072: {
    'sinusoidal': {3072: 18.67, 6072: 65.01, 16072: 231.29},
    'rotary': {3072: 18.57, 6072: 19.50, 16072: 34.51},
    'T5': {3072: 18.01, 6072: 17.68},
    'ALiBi': {3072: 17.60, 6072: 17.26, 16072: 17.22},
  },
}
SOURCE = 'Press et al. 2021, tables 2 to 5, perplexity a word of WikiText-103'
REFERENCE = [
  dict(line=f'{name}, L {length}', values=values, source=SOURCE)
  for length, lines in PUBLISHED.items()
  for name, values in lines.items()
]


def get_config():
  settings = {
    'encoding.name': 'alibi',
    'model.layers': 16,
    'model.model_dim': 1024,
    'model.heads': 8,
    'model.head_dim': 128,
    'model.mlp_dim': 4096,
    'model.norm': 'layer',
    'model.bias': 'all',
    'model.unroll': 1,
    'data.corpus': 'hf:Salesforce/wikitext:wikitext-103-v1',
    'data.packing': 'concatenated',
    'train.length': 512,
    'train.batch': TOKENS // 512,
    'train.steps': 286_000,
    'train.compute_dtype': 'bfloat16',
    'train.log_every': 100,
    'train.validate_every': 5000,
    'train.checkpoint_every': 2000,
    'optim.learning_rate': 3e-4,
    'optim.warmup': 16_000,
    'optim.final_fraction': 0.0,
    'optim.clip': 0.1,
    'eval.split': 'validation',
    'eval.lengths': (512, 1024, 1536, 2048, 3072, 6144, 15360),
    'eval.target_context': 15360,
    'eval.spans': 1,
    'eval.protocols': ('sliding', 'last_k', 'non_overlapping'),
    'eval.stride': 512,
    'eval.k': 128,
    'eval.documents': 0,
    'eval.document_tokens': 0,
    'eval.batch_tokens': 15360,
    'eval.compute_dtype': 'bfloat16',
  }
  return load(BASE, settings)


def lengths(*lengths):
  return [{'train.length': length, 'train.batch': TOKENS // length} for length in lengths]


def sweep():
  four = vary('encoding.name', 'sinusoidal', 'rope', 't5', 'alibi')
  alibi = vary('encoding.name', 'alibi')
  return product(lengths(512, 1024, 3072), four) + product(lengths(1536, 2048), alibi)


def table():
  return dict(
    form='training_lengths',
    protocols=('non_overlapping', 'sliding', 'last_k'),
    metric='bpb',
    reference=REFERENCE,
  )


def figures():
  return {'extrapolation': dict(protocol='non_overlapping', metric='bpb')}
