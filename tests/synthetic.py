"""Rows of runs that never were."""

import itertools
import math
import random

from posenc_jax.rows import row_schema

LN2 = math.log(2)


def row(label, seed=0, length=8, bits=2.0, document='a', tokens=10, **fields):
  """A row of run 'encoding.name=LABEL,seed=SEED' that scored `bits` a byte, or has a metric and
  value in `fields`.
  """
  base = dict(
    encoding=label,
    label=label,
    step=100,
    corpus='sotu',
    split='test',
    train_length=8,
    protocol='last_k',
    k=4,
  )
  score = (
    {}
    if {'status', 'metric'} & fields.keys()
    else dict(nats=bits * tokens * LN2, tokens=tokens, bytes=tokens)
  )
  key = dict(run=f'encoding.name={label},seed={seed}', seed=seed, length=length, document=document)
  return row_schema.row(**base | key | score | fields)


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


DOCUMENTS = tuple(f'd{number}' for number in range(8))


def of_documents(bits, **fields):
  """Rows as `rows_of` makes them, the same for each of DOCUMENTS: intervals have no width."""
  return [row for document in DOCUMENTS for row in rows_of(bits, document=document, **fields)]


NINE = ('nope', 'learned', 'sinusoidal', 'shaw', 'transformer_xl', 't5', 'deberta', 'rope', 'alibi')
LENGTHS = (128, 256, 512, 1024, 2048)


def lines_of(table):
  """The lines of all groups of a table."""
  return [line for group in table.groups for line in group.lines]


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


def tasks(
  seeds=3, names=('copy', 'sort'), lines=('nope', 't5', 'alibi'), lengths=(4, 8, 12, 16, 24, 32)
):
  """Exact match of runs trained to length 8, and chance."""
  noise, rows = random.Random(1), []
  for task, (rank, label), seed, length in itertools.product(
    names, enumerate(lines), range(seeds), lengths
  ):
    past = max(0, math.log2(length / 8))
    share = min(1.0, max(0.0, 1 - past * (0.1 + 0.2 * rank) + noise.gauss(0, 0.03)))
    fields = dict(protocol=task, k=None, document=None)
    rows.append(row(label, seed, length, metric='exact_match', value=share, **fields))
    rows.append(row(label, seed, length, metric='chance', value=0.1, **fields))
  return rows


def planted(seeds=2, lines=('rope', 'alibi', 'fox'), distances=(None, 0, 16, 32, 64)):
  """Bits a letter by the distance to what decides it, and of text, in windows of 32 tokens."""
  noise = random.Random(3)
  fields = dict(protocol='planted', corpus='planted', k=None, document=None)
  return [
    row(
      label, seed, 32, rank + math.log2(1 + (place or 0)) + noise.random(), position=place, **fields
    )
    for (rank, label), seed, place in itertools.product(enumerate(lines), range(seeds), distances)
  ]


def needles(
  seeds=2,
  lines=('rope', 'alibi', 'nope', 't5'),
  lengths=(64, 128, 256, 512),
  depths=range(0, 101, 10),
):
  """Exact match by depth, of runs trained at length 128."""
  noise, rows = random.Random(2), []
  for (rank, label), seed, length, depth in itertools.product(
    enumerate(lines), range(seeds), lengths, depths
  ):
    lost = max(0, math.log2(length / 128)) * (0.2 + 0.2 * rank) * (100 - depth) / 60 + abs(
      noise.gauss(0, 0.02)
    )
    fields = dict(protocol='needle', k=None, document=None, train_length=128)
    rows.append(
      row(
        label,
        seed,
        length,
        position=depth,
        metric='exact_match',
        value=max(0.0, 1 - lost),
        **fields,
      )
    )
  return rows


def bins(stop):
  """First positions of bins, two an octave."""
  return [0, *sorted(m << n for n in range(stop.bit_length()) for m in (1, 3) if m << n < stop)]


def by_position(
  seeds=3, lines=('rope', 'kerple_log', 'alibi'), length=1024, controls=(None, 'windowed')
):
  """Loss by position, of runs trained at length 128."""
  noise, rows = random.Random(3), []
  for (rank, label), seed, control, first in itertools.product(
    enumerate(lines), range(seeds), controls, bins(length)
  ):
    seen = min(first, 128) if control else first
    bits = (
      1.6
      + 2.4 / (1 + seen) ** 0.5
      + 0.05 * rank * max(0, math.log2((1 + seen) / 128))
      + noise.gauss(0, 0.02)
    )
    fields = dict(protocol='by_position', control=control, k=None, document=None, train_length=128)
    rows.append(row(label, seed, length, bits, tokens=100, position=first, **fields))
  return rows


def receptive_field(seeds=2, lines=('rope', 'alibi'), length=512):
  """Shares of the gradient by distance, of runs trained at length 128: exp(-distance / (80 - 60
  rank - seed)).
  """
  rows, firsts = [], bins(length - 1)
  for (rank, label), seed in itertools.product(enumerate(lines), range(seeds)):
    weights = [math.exp(-distance / (80 - 60 * rank - seed)) for distance in range(length - 1)]
    fields = dict(
      protocol='receptive_field', k=None, document=None, train_length=128, metric='gradient'
    )
    for first, end in zip(firsts, [*firsts[1:], length - 1], strict=True):
      rows.append(
        row(
          label,
          seed,
          length,
          position=first,
          value=sum(weights[first:end]) / sum(weights),
          **fields,
        )
      )
  return rows


def trained_at(lengths=(32, 64, 128), lines=('alibi', 't5'), seeds=2):
  """Bits of runs trained at each length and evaluated at it and beyond, with equal tokens and so
  fewer steps.
  """
  noise, rows = random.Random(4), []
  for label, L, seed, length in itertools.product(lines, lengths, range(seeds), (*lengths, 256)):
    if length >= L:
      run = f'train.length={L},encoding.name={label},seed={seed}'
      bits = 3 - 0.1 * math.log2(L) - 0.05 * math.log2(length) + noise.gauss(0, 0.01)
      rows.append(row(label, seed, length, bits, run=run, train_length=L, step=3200 // L))
  return rows


def extended(seeds=2, label='rope'):
  """Bits of one model, as trained at 8 and with two methods of context extension."""
  methods = (None, {'encoding.scaling.rope_type': 'linear', 'encoding.scaling.factor': 4})
  methods += ({'encoding.scaling.rope_type': 'yarn', 'encoding.scaling.factor': 4},)
  noise, rows = random.Random(5), []
  for (rank, method), seed, length, document in itertools.product(
    enumerate(methods), range(seeds), (8, 16, 32), 'abc'
  ):
    bits = 2 + 0.5 * (3 - rank) * math.log2(length / 8) / 3 + 0.1 * rank + noise.gauss(0, 0.02)
    rows.append(row(label, seed, length, bits, document=document, overrides=method))
  return rows
