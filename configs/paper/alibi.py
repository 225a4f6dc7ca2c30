"""ALiBi's tables on WikiText-103 at true size: trained at 512 to 3072 tokens, evaluated to 15,360.

  python scripts/sweep.py --config=configs/paper/alibi.py

Press et al. 2021, Tables 2 to 5. The model of Baevski and Auli: 16 layers, width 1024, 8 heads, 4096 in the MLP; 201
million parameters in the layers, of 247 with the embeddings as published.

Cost: not run here. 14 runs of 286,000 steps of 73,728 tokens, 2.1e10 tokens each; by arithmetic 6 x 2.0e8 x 2.1e10 =
2.5e19 operations a run beside attention. One device, which keeps the activations of a step: about 36 GB.

As published (paper, released command): sizes, lengths, 286,000 steps with 16,000 of warm-up, 9,216 tokens a GPU,
clipping at 0.1. Otherwise:
- Tokens are bytes, theirs words: lengths are shorter in text, and perplexities do not compare.
- The corpus here is `wiki40b/en`, articles of Wikipedia in TFDS, which has no WikiText-103; that as a folder of text
  files: --config.data.corpus=FOLDER. Windows do not cross documents; theirs do.
- No adaptive input and softmax; no dropout (theirs 0.3, attention and activations 0.1, adaptive softmax 0.2).
- AdamW with one cosine; theirs Nesterov's momentum at rate 1.0, cosine with restarts. The rate here is ours, not tuned.
- RMSNorm, GELU and no biases; theirs LayerNorm, ReLU and biases.
- The command does not say how many GPUs: 8 here. float16 there, bfloat16 here.

Reference, published, perplexity a word of the development set, `blocks`:

  L 512   at 512, 1012, 2512, 15512    sinusoidal 20.05 43.54 132.41 406.01    rotary 20.07 21.37 31.58 79.25
                                       T5 19.65 18.79 20.41 -                  ALiBi 19.73 18.73 18.41 18.31
  L 1024  at 1024, 2024, 16024         sinusoidal 19.34 51.09 453.32           rotary 19.33 31.17 106.99
                                       T5 18.80 18.34 -                        ALiBi 18.66 18.05 17.98
  L 3072  at 3072, 6072, 16072         sinusoidal 18.67 65.01 231.29           rotary 18.57 19.50 34.51
                                       T5 18.01 17.68 -                        ALiBi 17.60 17.26 17.22

With windows that slide by one token ALiBi is flat: L 512 at 512, 1024, 1536, 2048, 3072: 17.98 17.92 18.2 18.28 18.3.
"""

from pathlib import Path

from posenc_jax.config import chain, load, over, product, zipped

TOKENS = 8 * 9216  # a step
BASE = Path(__file__).parents[1] / 'base.py'


def get_config():
  settings = {
    'encoding.name': 'alibi',
    'model.layers': 16,
    'model.model_dim': 1024,
    'model.heads': 8,
    'model.head_dim': 128,
    'model.mlp_dim': 4096,
    'model.unroll': 1,
    'data.corpus': 'tfds:wiki40b/en',
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
    'eval.k': 128,
    'eval.documents': 0,
    'eval.document_tokens': 0,
    'eval.batch_tokens': 15360,
  }
  return load(BASE, settings)


def lengths(*values):
  return zipped(over('train.length', *values), over('train.batch', *(TOKENS // length for length in values)))


def sweep():
  four = over('encoding.name', 'sinusoidal', 'rope', 't5', 'alibi')
  return chain(product(lengths(512, 1024, 3072), four), product(lengths(1536, 2048), over('encoding.name', 'alibi')))


def table():
  return dict(protocols=('blocks', 'last_k'), metric='bpb')


def figures():
  return {'extrapolation': dict(protocol='blocks', metric='bpb')}
