"""Five encodings on text of your own, at a size that one GPU is bought for: 46 million parameters
in 12 layers, trained at 1,024 tokens on 330 million, evaluated to eight times that length.

  python scripts/sweep.py --config=configs/own_text.py

Cost: not run. A step compiled for an H100 takes 14.1 GiB (RoPE, NoPE) to 17.0 GiB (FoX) beside 0.5
GiB of parameters and optimizer, so that a card of 24 GB has little to spare; with
`train.grad_accum_steps` of 2 T5's takes 8.4 GiB in the place of 16.3, with `model.remat` of
'attention' 3.8. Before its first run set, in a copy:
- FOLDER, your text, as docs/train.md says under "A folder of text": documents of fewer than L
  tokens are left out of training, unless `data.packing` joins them, and of fewer than 8 L out of
  evaluation;
- TOKENIZER, the path of your tokenizer.json; 'sentencepiece' learns one from the text;
- STEPS: 10,000 of 32 sequences are 7 tokens a parameter;
- on a GPU with less than 24 GB, `train.grad_accum_steps` of 2 or more, or `model.remat`;
- on one before Ampere, which has no units for bfloat16 (T4, V100), `train.compute_dtype` and
  `eval.compute_dtype` of 'float32', in which a step takes more memory.

Verdicts allow 0.01 or 0.02 bits a byte, whatever a byte of your text spells (docs/statistics.md).

T5's last bucket begins at L: by its default all distances from 128 on would share it. The learning
rate is one for all lines and a guess; scripts/lr_grid.py chooses one for each.
"""

from posenc_jax.config import BASE, load, product, vary

FOLDER = 'my_texts'
TOKENIZER = 'sentencepiece'
STEPS = 10_000
L = 1024
NAMES = ('rope', 'alibi', 't5', 'fox', 'nope')
OF_LENGTH = {'t5': {'encoding.max_distance': L}}


def get_config():
  settings = {
    'data.corpus': FOLDER,
    'data.tokenizer': TOKENIZER,
    'data.vocab': 0 if TOKENIZER.endswith('.json') else 16_384,
    'model.layers': 12,
    'model.model_dim': 512,
    'model.heads': 8,
    'model.head_dim': 64,
    'model.mlp_dim': 2048,
    'model.unroll': 1,  # a loop over layers, which is compiled in a twelfth of the time
    'train.length': L,
    'train.batch': 32,
    'train.steps': STEPS,
    'train.compute_dtype': 'bfloat16',
    'train.validate_every': 1000,
    'train.checkpoint_every': 1000,
    'optim.learning_rate': 1e-3,
    'optim.warmup': 200,
    'eval.lengths': (L, 2 * L, 4 * L, 8 * L),
    'eval.target_context': 8 * L,
    'eval.documents': 0,
    'eval.document_tokens': 0,
    'eval.batch_tokens': 8 * L,
    'eval.compute_dtype': 'bfloat16',
  }
  return load(BASE, settings)


def lines():
  return [{'encoding.name': name} | OF_LENGTH.get(name, {}) for name in NAMES]


def sweep():
  return product(vary('seed', 0, 1, 2), lines())  # whole tables first, then more seeds


def table():
  return dict(protocols=('last_k',), metric='bpb', baseline='rope')


def figures():
  return {'extrapolation': dict(protocol='last_k', metric='bpb')}
