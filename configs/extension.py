"""Context extension: a RoPE model trained at 128 tokens, read at up to 1024 by nine methods, before and after a short
fine-tuning at 512 (tables of Chen et al. 2023, arXiv:2306.15595, and Peng et al. 2023, arXiv:2309.00071, in form).

  python scripts/sweep.py --config=configs/extension.py --jobs=2

A seed is one training of 600 steps at 128 tokens; every other run starts from its parameters. At step 0 a method is
only laid over it; at step 100 it was fine-tuned with the method at 512 tokens. All methods extend to 4 times 128
tokens, in their published form, untuned; the fine-tuning has one learning rate for all.

Cost: 40 runs of 0.82 million parameters, 0.3 to 1.4 minutes each but for the two trainings, about 20 minutes in all on
two cores, other work beside them (jax 0.12). Result: results/extension/table.md; perplexity of the last 64 bytes at
128, 512 and 1024 tokens (two seeds): laid over the trained model ReRoPE 3.48, 3.53, 3.59, Self-Extend 3.48, 3.50, 3.83,
longrope 3.49, 4.03, 15.4, llama3 3.80, 4.02, 15.6, YaRN 4.09, 4.21, 12.8, NTK 3.61, 8.43, 21.0, PI 30.1, 30.3, 32.9,
nothing 3.48, 16.4, 31.5. After fine-tuning all but PI (4.65) are at 3.40 to 3.50 at 512; beyond it, at 1024, only
ReRoPE stays (3.42). Only dynamic NTK, tuned for 512 and not for 128, is better at 512 than at 128 (3.46, 3.47):
nothing here shows that text further back than 128 bytes is used.
"""

import math
from pathlib import Path

from posenc_jax.config import load, over

L, FACTOR = 128, 4  # trained tokens; what methods extend them by
BASE, PAIRS = 10_000.0, 16  # RoPE's base; frequencies a head
TURNS = [L * BASE ** (-m / PAIRS) / (2 * math.pi) for m in range(PAIRS)]  # of each pair of channels over L tokens


def rope(rope_type: str, **fields) -> dict:
  return {'name': 'rope', 'scaling': {'rope_type': rope_type, **fields}}


ORIGINAL = {'original_max_position_embeddings': L}  # to be said: a fine-tuned run's own training length is longer
METHODS = {
  'none': {'name': 'rope'},
  'pi': rope('linear', factor=FACTOR),
  'ntk': rope('ntk', factor=FACTOR),
  'dynamic_ntk': rope('dynamic', factor=1, **ORIGINAL),  # by the window / L, as it grows
  'yarn': rope('yarn', factor=FACTOR, **ORIGINAL),
  # Divisors by a rule: what turns at least once in L tokens is kept. LongRoPE searches for them; nothing does here.
  'longrope': rope(
    'longrope',
    factor=FACTOR,
    short_factor=(1,) * PAIRS,
    long_factor=tuple(1 if turns >= 1 else FACTOR for turns in TURNS),
    **ORIGINAL,
  ),
  'llama3': rope('llama3', factor=FACTOR, low_freq_factor=1, high_freq_factor=4, **ORIGINAL),
  'rerope': {'name': 'rerope', 'window': L // 2},
  'self_extend': {'name': 'self_extend', 'window': L // 4, 'group': 8},  # sees trained distances up to 800 tokens
  'logn': {'name': 'chain', 'members': ({'name': 'logn', 'length': L}, 'rope')},
}
TUNED = {'train.steps': 100, 'train.length': FACTOR * L, 'train.batch': 8, 'optim.learning_rate': 5e-4}
TUNED_AT_L = TUNED | {'train.length': L, 'train.batch': 8 * FACTOR}  # as many tokens
AT_L = ('pi', 'yarn')  # the methods that are fine-tuned so too, with PoSE and without


def get_config():
  settings = {
    'train.length': L,
    'optim.warmup': 20,
    'eval.protocols': ('last_k', 'sliding'),
    'eval.lengths': (L, 2 * L, 4 * L, 8 * L),
    'eval.stride': L,
    'eval.controls': (),
    'eval.documents': 24,
  }
  return load(Path(__file__).with_name('base.py'), settings)


def sweep():
  for seed in over('seed', 0, 1, 2):
    start = seed | {'label': 'none'}
    yield start
    for label, encoding in METHODS.items():
      laid_over = {'encoding': encoding, 'train.start_from': start}
      if label != 'none':  # that is the start
        yield seed | {'label': label, 'train.steps': 0} | laid_over
      yield seed | {'label': label} | TUNED | laid_over
    for label in AT_L:
      skipping = {'name': 'pose', 'over': METHODS[label], 'longest': FACTOR * L}
      for name, encoding in ((label, METHODS[label]), (f'{label}_pose', skipping)):
        yield seed | {'label': name} | TUNED_AT_L | {'encoding': encoding, 'train.start_from': start}


def table():
  return dict(form='methods', protocols=('last_k', 'sliding'), metric='ppl', baseline='none, L = 128, 600 steps')


def figures():
  return {}  # twenty lines: a table reads better
