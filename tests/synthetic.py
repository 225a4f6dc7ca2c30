"""Rows of runs that never were."""

import math
import random

from posenc_jax import records

LN2 = math.log(2)


def row(label, seed=0, length=8, bits=2.0, document='a', tokens=10, **fields):
  """A row of run 'encoding.name=LABEL,seed=SEED' that scored `bits` a byte."""
  base = dict(
    encoding=label, label=label, step=100, corpus='sotu', split='test', train_length=8, protocol='last_k', k=4
  )
  score = {} if 'status' in fields else dict(nats=bits * tokens * LN2, tokens=tokens, bytes=tokens)
  key = dict(run=f'encoding.name={label},seed={seed}', seed=seed, length=length, document=document)
  return records.row(**base | key | score | fields)


def rows_of(bits, **fields):
  """Rows of {label: {length: bits of seed 0, 1, ...}}; a str for a status."""
  return [
    row(label, seed, length, status=value, **fields)
    if isinstance(value, str)
    else row(label, seed, length, value, **fields)
    for label, by_length in bits.items()
    for length, seeds in by_length.items()
    for seed, value in enumerate(seeds)
  ]


NINE = ('nope', 'learned', 'sinusoidal', 'shaw', 'transformer_xl', 't5', 'deberta', 'rope', 'alibi')
LENGTHS = (128, 256, 512, 1024, 2048)


def realistic(seeds=3):
  noise = random.Random(0)
  rows = []
  for rank, label in enumerate(NINE):
    for seed in range(seeds):
      for i, length in enumerate(LENGTHS):
        for control in (None, 'windowed'):
          fields = dict(train_length=128, control=control)
          if label == 'learned' and i:
            rows.append(row(label, seed, length, status='beyond_table', **fields))
          else:
            bits = 1.8 + 0.1 * i * rank * (control is None) + noise.gauss(0, 0.02)
            rows.append(row(label, seed, length, bits, **fields))
  return rows
