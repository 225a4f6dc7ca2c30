"""Claim: attention spreads thin as keys become more, and a temperature that grows with their number
cures it (log n: Su 2023, kexue.fm/archives/9706; SSMax: Nakanishi 2025, arXiv:2501.19399).

  python scripts/sweep.py --config=configs/studies/claims/temperatures.py --jobs=2

Asked apart from how position is encoded: NoPE, T5 and ALiBi, each as it is, with log n, which acts
past L alone, and with SSMax, which is trained, look for one needle as in configs/needle.py. They
learn it on up to L = 64 tokens; nothing but the length is hard about finding it in 4,096. FIRE was
not asked; of four needles see needle_temperatures.py, of text the board, which has NoPE with SSMax.

Predicted before the runs, exact match, mean of the seeds that have learned: at L all lines the
same; at 64 L NoPE and T5 without a temperature below 0.9, and 0.1 or more better with either; ALiBi
the same with and without, since its slopes bound how many keys compete.

Cost: 27 runs of 0.1 million parameters, 0.7 minutes each, two at a time on two threads of one core.
Result: results/temperatures/table.md, LOG/125. At L all are at 1. NoPE and T5 are at 0.997 or above
to 64 L without a temperature, too, so that nothing is left for one to cure; ALiBi, of which the
opposite was predicted, falls to 0.79 there (0.46, 0.96 and 0.96) and has 0.90 with log n and 0.89
with SSMax.
"""

from pathlib import Path

from posenc_jax.config import load, product

L = 64
ENCODINGS = ('nope', 't5', 'alibi')
TEMPERATURES = {'log n': {'name': 'logn'}, 'SSMax': {'name': 'ssmax'}}


def get_config():
  settings = {'eval.lengths': tuple(L * 2**n for n in range(7)), 'eval.examples': 220}
  return load(Path(__file__).parents[2] / 'needle.py', settings)


def lines():
  for name in ENCODINGS:
    yield {'label': name, 'encoding': {'name': name}}
    for label, temperature in TEMPERATURES.items():
      members = (temperature, {'name': name})
      yield {'label': f'{name}, {label}', 'encoding': {'name': 'chain', 'members': members}}


def sweep():
  return product([{'seed': seed} for seed in range(3)], list(lines()))


def table():
  return dict(protocols=('needle',), metric='exact_match', baseline='nope')


def figures():
  return {'needle': dict(protocol='needle', metric='exact_match')}
