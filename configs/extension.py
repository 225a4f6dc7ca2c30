"""Context extension: a RoPE model trained at 128 tokens, read at up to 1024 by nine methods, before
and after a short fine-tuning at 512 (tables of Chen et al. 2023, arXiv:2306.15595, and Peng et al.
2023, arXiv:2309.00071, in form).

  python scripts/sweep.py --config=configs/extension.py --jobs=2

A seed is one training of 600 steps at 128 tokens; every other run starts from its parameters. At
step 0 a method is only laid over it; at step 100 it was fine-tuned with the method at 512 tokens,
PI and YaRN also with as many tokens at 128, by PoSE (Zhu et al. 2023, arXiv:2309.10400: positions
skip ahead, up to 511) and, as its control, without. All methods extend to 4 times 128 tokens, in
their published form, untuned, but for ReRoPE, which is without its log n and with a window of L /
2, theirs L / 4; the fine-tuning has one learning rate for all. Runs tuned at 128 tokens read again
what the training began with; of what those tuned at 512 read, 70 % is new.

Cost: 72 runs of 0.82 million parameters, 0.7 to 4 minutes each, 54 minutes in all on two cores,
other work beside them (jax 0.12). Result: results/extension/table.md, LOG/144; perplexity of the
last 64 bytes at 128, 512 and 1024 tokens (three seeds): laid over the trained model ReRoPE 3.41,
3.45, 3.50, Self-Extend 3.41, 3.44, 3.83, longrope 3.43, 4.07, 14.0, llama3 3.75, 4.06, 16.3, YaRN
4.19, 4.38, 13.9, NTK 3.56, 7.63, 18.5, PI 29.7, 29.5, 33.6, nothing 3.41, 13.6, 29.2. After
fine-tuning at 512 all but PI (4.60) are at 3.36 to 3.43 there; at 1024 only ReRoPE stays (3.37).
Fine-tuning at 128 does nearly as well: YaRN 3.42 at 512 (3.40 when tuned there), PI 4.67 (4.60).
PoSE adds to that in one seed of PI alone (YaRN 3.43, PI 4.60). Only dynamic NTK, tuned for 512 and
not for 128, is better at 512 than at 128 with every seed (3.42, 3.44): nothing here shows that text
further back than 128 bytes is used, and so nothing that PoSE could teach.
"""

import math
from pathlib import Path

from posenc_jax.config import load, vary

L, FACTOR = 128, 4  # the training length in tokens; by how much methods extend it
BASE, PAIRS = 10_000.0, 16  # RoPE's base; frequencies a head
# How often each pair of channels turns over L tokens.
TURNS = [L * BASE ** (-m / PAIRS) / (2 * math.pi) for m in range(PAIRS)]


def rope(rope_type: str, **fields) -> dict:
  return {'name': 'rope', 'scaling': {'rope_type': rope_type, **fields}}


# It must be said: the training length of a fine-tuned run is longer.
ORIGINAL = {'original_max_position_embeddings': L}
METHODS = {
  'none': {'name': 'rope'},
  'pi': rope('linear', factor=FACTOR),
  'ntk': rope('ntk', factor=FACTOR),
  # Extends by the window's length / L, as it grows.
  'dynamic_ntk': rope('dynamic', factor=1, **ORIGINAL),
  'yarn': rope('yarn', factor=FACTOR, **ORIGINAL),
  # Divisors follow a rule: pairs that turn at least once in L tokens keep theirs. LongRoPE searches
  # for divisors; nothing does here.
  'longrope': rope(
    'longrope',
    factor=FACTOR,
    short_factor=(1,) * PAIRS,
    long_factor=tuple(1 if turns >= 1 else FACTOR for turns in TURNS),
    **ORIGINAL,
  ),
  'llama3': rope('llama3', factor=FACTOR, low_freq_factor=1, high_freq_factor=4, **ORIGINAL),
  'rerope': {'name': 'rerope', 'window': L // 2},
  # It sees trained distances up to 800 tokens.
  'self_extend': {'name': 'self_extend', 'window': L // 4, 'group': 8},
  'logn': {'name': 'chain', 'members': ({'name': 'logn', 'length': L}, 'rope')},
}
TUNED = {
  'train.steps': 100,
  'train.length': FACTOR * L,
  'train.batch': 8,
  'optim.learning_rate': 5e-4,
}
TUNED_AT_L = TUNED | {'train.length': L, 'train.batch': 8 * FACTOR}  # as many tokens
AT_L = ('pi', 'yarn')  # methods that are fine-tuned at L too, with PoSE and without


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
  for seed in vary('seed', 0, 1, 2):
    start = seed | {'label': 'none'}
    yield start
    for label, encoding in METHODS.items():
      laid_over = {'encoding': encoding, 'train.init_from': start}
      if label != 'none':  # that is the start
        yield seed | {'label': label, 'train.steps': 0} | laid_over
      yield seed | {'label': label} | TUNED | laid_over
    for label in AT_L:
      skipping = {'name': 'pose', 'inner': METHODS[label], 'longest': FACTOR * L}
      for name, encoding in ((label, METHODS[label]), (f'{label}_pose', skipping)):
        yield (
          seed | {'label': name} | TUNED_AT_L | {'encoding': encoding, 'train.init_from': start}
        )


def table():
  return dict(
    form='methods',
    protocols=('last_k', 'sliding'),
    metric='ppl',
    baseline='none, L = 128, 600 steps',
  )


def figures():
  return {}  # twenty lines: a table reads better
