"""configs/pretrained.py at four times the model's length: 32,768 tokens.

  python scripts/sweep.py --config=configs/studies/pretrained_4.py

Cost: a document of 32,768 tokens took 406 CPU-seconds and 1.6 GiB with plain RoPE, so some 14
CPU-hours for all methods. Result: none yet.
"""

from pathlib import Path

from posenc_jax.config import load_study

FACTOR = 4
PRETRAINED = load_study(Path(__file__).parents[1] / 'pretrained.py')

get_config = PRETRAINED.get_config


def sweep():
  return list(PRETRAINED.runs(FACTOR))


def table():
  return dict(protocols=('last_k',), controls=False, baseline=f'none, {FACTOR} L')


def figures():
  return {'differences': dict(form='differences', baseline=f'none, {FACTOR} L')}
