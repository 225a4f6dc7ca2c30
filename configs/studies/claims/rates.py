"""Claim: what the board says of past the training length does not hang on its one learning rate.

  python scripts/sweep.py --config=configs/studies/claims/rates.py --kept=results/board --jobs=2

Lines of the board (configs/studies/board.py), at half its learning rate, at that rate, 3e-3, and at
its double; all else is the board's, seed 0. Runs at 3e-3 of the first seven lines are those of the
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

Then the other nineteen lines of the board, at half the rate and at double, seed 0, those that
README names first. Predicted before these runs:
- at L 3e-3 is within 0.03 of the best of the three rates for 16 of the nineteen, or more, and half
  of it is the worst of the three for 12 or more;
- grape_ap, kerple_log, sandwich and cope are more than 0.02 better at 4 L than at L at every rate;
- rope+fox, stick_breaking and grape_ap stay at 32 L within 0.02 of their score at L at every rate,
  and the first two recall no name at any;
- p_rope, xpos, pope, selective_rope, sinusoidal, nope, nope+ssmax and rope x 3 + nope are more
  than 0.02 worse at 2 L than at L at every rate; with a window of L p_rope, xpos and rope x 3 +
  nope are at 32 L at most 0.02 worse at every rate, nope, nope+ssmax, sinusoidal and fire at none;
- each at its best rate for L, at most two of the nineteen are better there than RoPE at its best;
- nope and learned stay the two worst at L, each at its best rate.

Then seeds 1 and 2 at half the rate of the seven other lines that know names exactly there with
seed 0: is that the rate's, or this seed's? At 3e-3 these seeds are the board's. Predicted before
these runs, exact being below 0.3 bits within L / 2, in windows of L:
- of the 14 runs 2 to 7 are exact: PaTH and Shaw with one seed or both, sinusoidal with none;
- with the lines whose six runs are there, exact in 2 to 7 of 18 at half the rate, which is more
  than at 3e-3 with these seeds;
- over three seeds PaTH, DAPE and Shaw are each more than 0.05 better at 4 L at half the rate than
  at 3e-3, and none of the seven is more than 0.06 worse at L;
- at half the rate, over three seeds, PaTH is better at 4 L than RoPE with its window, and its
  interval excludes 0; that of Shaw does not.

Cost: 76 runs, besides those of the board, which --kept=results/board leaves out, of 4 to 10
minutes, two at a time on two cores. Here the lines at 3e-3 of the nineteen were trained again,
beside those at other rates, with seed 0. Result: results/rates, LOG/136, LOG/232, LOG/233. At L
3e-3 is within 0.03 of the best of three rates for 24 of 26 lines with seed 0. Held up at other
rates: RoPE's window, ALiBi's gain, FoX's not recalling, Transformer-XL and PaTH ahead of that
window at 4 L. Not: how far eight lines hold, T5, PaTH and Transformer-XL among them. At half the
rate nine of 26 know names exactly with seed 0, at the board's and at double none; with seeds 1 and
2 eight of the nine's 18 models, four at the board's rate, DAPE and GRAPE-AP with all three.
"""

from pathlib import Path

from posenc_jax.config import load_study

BOARD = load_study(Path(__file__).parents[1] / 'board.py')
STATED = 3e-3  # the board's rate
FIRST = ('rope', 'transformer_xl', 'alibi', 't5', 'fox')
COSTLY = ('path', 'dape')
REST = (
  *('kerple_log', 'p_rope', 'nope', 'fire', 'grape_ap', 'cope', 'sandwich', 'shaw', 'deberta'),
  *('stick_breaking', 'music_transformer', 'rope+fox', 'rope x 3 + nope', 'xpos', 'sinusoidal'),
  *('learned', 'nope+ssmax', 'pope', 'selective_rope'),
)
EXACT = (*COSTLY, 'shaw', 'grape_ap', 'fire', 'music_transformer', 'sinusoidal')
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
  for name in REST:
    yield from (run(name, 0, factor) for factor in (1, 0.5, 2))
  for seed in (1, 2):
    for name in EXACT:
      yield from (run(name, seed, factor) for factor in (1, 0.5))


def table():
  """Each line against RoPE, with its window, of the same rate."""
  labels = dict.fromkeys(line['label'] for line in sweep())
  rope_of = {label: 'rope' + label[len(label.partition(',')[0]) :] for label in labels}
  return [
    dict(protocols=('last_k',), metric='bpb', baseline=rope_of),
    *(dict(form='distances', controls=False, length=n) for n in (BOARD.L, 32 * BOARD.L)),
  ]


def figures():
  shown = tuple(f'{name}{rate}' for name in ('rope', 'dape', 'grape_ap') for rate in ('', HALF))
  return {'extrapolation': dict(protocol='last_k', metric='bpb', labels=shown)}
