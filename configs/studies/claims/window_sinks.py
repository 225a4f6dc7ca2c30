"""Claim: what breaks a model whose attention is windowed is the loss of its first tokens, which
serve as attention sinks; with these visible it stays stable (Xiao et al. 2023, arXiv:2309.17453).

  python scripts/sweep.py --config=configs/studies/claims/window_sinks.py --jobs=2

The board finds encodings that a window of L breaks: with every seed NoPE, also with SSMax,
sinusoidal and FIRE, T5 with one seed of three, PaTH with two of five, and several others with one.
Four of these are asked here: each is read with that window, and with the window and the first four
inputs of the text besides, at their own positions.

Known before, of one seed each of the board's pilot, bits per byte at 4 L: T5 2.488 whole, 2.781
with the window and 2.488 with the window and the first input; FIRE 2.625, 2.709 and 2.664
(LOG/113).

Predicted before the runs, at 32 L: with the first inputs T5 stays within 0.02 of its score at L
with both seeds, FIRE is better by more than 0.1 than with the window alone and yet more than 0.02
worse than at L, and NoPE and sinusoidal remain more than 0.5 worse, since what a window takes from
them is how far into the text they are.

Cost: 8 runs of 0.8 million parameters, 8 to 12 minutes each, two at a time on two cores. Result:
results/window_sinks, LOG/160. Bits per byte at L, and at 32 L with the window and with the first
inputs besides: T5 2.502, 2.635, 2.486; FIRE 2.534, 3.008, 2.999; NoPE 2.726, 4.706, 4.756;
sinusoidal 2.658, 5.353, 5.370.
"""

from pathlib import Path

from posenc_jax.config import load_study, product, vary

BOARD = load_study(Path(__file__).parents[1] / 'board.py')
NAMES = ('t5', 'fire', 'nope', 'sinusoidal')


def get_config():
  config = BOARD.get_config()
  config.eval.update(controls=('windowed', 'windowed_with_sink'), sink_tokens=4)
  return config


def sweep():
  lines = BOARD.variants(BOARD.L)
  return product(vary('seed', 0, 1), [{'label': name, 'encoding': lines[name]} for name in NAMES])


def table():
  return dict(protocols=('last_k',), metric='bpb')


def figures():
  controls = get_config().eval.controls
  return {'extrapolation': dict(protocol='last_k', metric='bpb', drawn_controls=controls)}
