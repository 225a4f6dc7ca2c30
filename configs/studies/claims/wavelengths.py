"""Claim: RoPE fails past its training length because some of its wavelengths never complete a turn
within it (Liu et al. 2023, arXiv:2310.05209; p-RoPE, Barbero et al. 2024, arXiv:2410.06205).

  python scripts/sweep.py --config=configs/studies/claims/wavelengths.py --jobs=2

With a base of 10,000 and 16 pairs of channels a head, 6 pairs have wavelengths below L = 128 tokens
and 10 above. The lines: RoPE as it is; without the 10 slow pairs, which then do not turn (p-RoPE);
without the 6 fast ones; with a base of 24, all of whose wavelengths are below L; with one of
500,000, of which 4 are. Model, text and budget are those of configs/classic.py.

Predicted before the runs, in bits a byte: without the slow pairs at most 0.02 worse than RoPE at L,
and at 32 L less than 0.1 above its own score at L, where RoPE is more than 3 above. Without the
fast pairs more than 0.1 worse at L, and at 32 L more than 1 above its own score. A base of 24 at
most 0.02 worse at L, and at 32 L less than 0.3 above. A base of 500,000 more than 2 above at 32 L.

Cost: 15 runs of the size of those of configs/classic.py, 36 minutes in all on two cores, other work
beside them (jax 0.12). Result: results/wavelengths/table.md, LOG/131. Bits a byte at L, and more at
2 and 32 L: RoPE 1.708, +1.45, +3.41; without the slow pairs 1.715, +0.11, +2.60; without the fast
pairs 1.772, +3.70, +3.70; base 24 1.715, +0.07, +1.42; base 500,000 1.708, +1.23, +3.58.
"""

from pathlib import Path

import numpy as np

from posenc_jax import register
from posenc_jax.config import load, product
from posenc_jax.encodings.rope import Rotary, rotate_at

FAST = 6  # of 16 pairs, those with a wavelength below L


class SlowPairs(Rotary):
  """RoPE of which the `fast` fastest pairs of channels do not turn."""

  def __init__(self, dims, rngs, *, fast: int = FAST):
    super().__init__(dims, rngs)
    self.fast = fast

  def frequencies(self):
    frequencies = super().frequencies()
    return np.where(np.arange(len(frequencies)) < self.fast, 0.0, frequencies)

  def transform_qk(self, q_BTHK, k_BSGK, i, j):
    frequencies = self.frequencies()
    q_BTHK = rotate_at(q_BTHK, i, frequencies, self.layout)
    return q_BTHK, rotate_at(k_BSGK, j, frequencies, self.layout)


register('slow_pairs', SlowPairs)

LINES = {
  'rope': {'name': 'rope'},
  'without slow pairs': {'name': 'p_rope', 'p': FAST / 16},
  'without fast pairs': {'name': 'slow_pairs'},
  'base 24': {'name': 'rope', 'base': 24.0},
  'base 500,000': {'name': 'rope', 'base': 500_000.0},
}


def get_config():
  classic = Path(__file__).parents[2] / 'classic.py'
  settings = {'eval.protocols': ('last_k',), 'eval.controls': (), 'eval.spans': 2}
  return load(classic, settings)


def sweep():
  lines = [{'label': label, 'encoding': encoding} for label, encoding in LINES.items()]
  return product([{'seed': seed} for seed in range(3)], lines)


def table():
  return dict(protocols=('last_k',), metric='bpb', baseline='rope')


def figures():
  return {'extrapolation': dict(protocol='last_k', metric='bpb')}
