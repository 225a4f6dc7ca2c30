"""Claim: what the board says of past the training length does not hang on its one learning rate.

  python scripts/sweep.py --config=configs/studies/claims/rates.py --jobs=2

Lines of the board (configs/studies/board.py) whose outcomes differ, at half its learning rate, at
that rate, 3e-3, and at its double; all else is the board's, seed 0. Runs at 3e-3 are those of the
board.

Predicted before the runs at other rates, bits per byte:
- at L each line is within 0.03 of its best of the three at 3e-3, and worst at half of it;
- with a window of L RoPE is at most 0.03 worse at 32 L than at L, at every rate;
- Transformer-XL is better at 4 L than RoPE with its window, each at the same rate, at every rate,
  and holds to 32 L at every rate;
- ALiBi is better at 4 L than at L, by more than 0.05, at every rate, T5 fails by 8 L at every rate;
- at no rate does FoX learn to recall names: at every length its letters cost more than 5 bits;
- DAPE and PaTH are better at 4 L than RoPE with its window, at every rate; PaTH fails by 32 L.

When those of the first five lines were there, more were planned: at half the rate Transformer-XL
and T5 recalled names exactly, letters of names within L / 2 at 0.04 and 0.03 bits, where nearly
every model of the board stays near 1.2, recalls in part, so to say. Predicted before those runs:
- at half the rate with seeds 1 and 2 Transformer-XL recalls exactly (below 0.3 bits) with both, T5
  with at least one, RoPE with none;
- at a quarter, seed 0, Transformer-XL and T5 recall exactly, RoPE and ALiBi in part;
- at half the rate, over three seeds, Transformer-XL is more than 0.1 better at 4 L than RoPE with
  its window.

Cost: 24 runs, besides those of the board, which --kept=results/board leaves out, of 7 to 10
minutes, two at a time on two cores. Result, of 16 of these, none at a quarter and none of PaTH and
DAPE: results/rates, LOG/136. 3e-3 is near the best of three rates for all five lines. Held up at
other rates: RoPE's window, ALiBi's gain, FoX's not recalling, Transformer-XL ahead of that window
at 4 L. Not: how far T5 and Transformer-XL hold. Which models know names exactly is luck.
"""

from pathlib import Path

from posenc_jax.config import load_study

BOARD = load_study(Path(__file__).parents[1] / 'board.py')
STATED = 3e-3  # the board's rate
FIRST = ('rope', 'transformer_xl', 'alibi', 't5', 'fox')
COSTLY = ('path', 'dape')
HALF = ', rate x 0.5'


def get_config():
  return BOARD.get_config()


def run(name: str, seed: int, factor: float = 1) -> dict:
  """A line of the board, or that line at so many times its rate."""
  label = name if factor == 1 else f'{name}, rate x {factor:g}'
  encoding = BOARD.variants(BOARD.L)[name]
  line = {'seed': seed, 'label': label, 'encoding': encoding}
  return line if factor == 1 else line | {'optim.learning_rate': factor * STATED}


def sweep():
  yield from (run(name, 0) for name in (*FIRST, *COSTLY))
  yield from (run(name, 0, factor) for name in FIRST for factor in (0.5, 2))
  for seed in (1, 2):
    yield from (run(name, seed) for name in ('rope', 'transformer_xl', 't5'))
    yield from (run(name, seed, 0.5) for name in ('transformer_xl', 'rope', 't5'))
  yield from (run(name, 0, 0.25) for name in ('transformer_xl', 'rope', 't5', 'alibi'))
  yield from (run(name, 0, factor) for name in COSTLY for factor in (0.5, 2))


def table():
  """Each line against RoPE, with its window, of the same rate."""
  labels = dict.fromkeys(line['label'] for line in sweep())
  rope_of = {label: 'rope' + label[len(label.partition(',')[0]) :] for label in labels}
  return [
    dict(protocols=('last_k',), metric='bpb', baseline=rope_of),
    dict(form='distances', controls=False),
  ]


def figures():
  shown = tuple(f'{name}{rate}' for name in ('rope', 'transformer_xl', 't5') for rate in ('', HALF))
  return {'extrapolation': dict(protocol='last_k', metric='bpb', labels=shown)}
