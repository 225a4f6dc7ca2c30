"""Claim: RoPE at random positions whose range is drawn anew for each batch meets gaps of every size
in training, and so loses less past L than with one range.

  python scripts/sweep.py --config=configs/studies/claims/random_ranges.py \\
    --kept=results/random_ranges

In random_gaps.py beside this, RoPE trained at positions from 0 .. 32 L - 1 lost most of what it
lost to gaps between tokens that are smaller than in training. Here the end of the range is drawn
log-uniformly from L to 32 L for each batch (`shortest`), so that gaps are 1 to 32 on average. The
rest is as there: models, budget, seeds, and evaluation with positions from 0 .. L - 1, 2 L, 4 L,
8 L and 32 L. Positions from as many as an input has tokens are those in order, as RoPE has them.

Known before, bits per byte with one range, means of three seeds: 2.588 at L where tokens lie 32
apart, 3.887 where they lie 1 apart; 4.018 at 32 L. RoPE as it is has 2.472 at L, 3.411 at 2 L and
5.582 at 32 L, with its window 2.455 from 2 L on.

Predicted before the runs, means of three seeds:
- at L the score is 2.54 to 2.72, whether tokens lie 1 or 32 apart, and these two are within 0.1;
- at 4 L, where they lie 8 apart, it is within 0.1 of that at L and so 8 apart;
- at 32 L it is 2.6 to 3.3: better than with one range by more than 0.7, and worse than at L;
- in windows of 32 L letters of names 1 to 2 L back still cost more than 5 bits.

Two lines were added when these had come (2.695 at L where tokens lie 32 apart, 2.597 where they lie
1 apart, 2.494 at 4 L there, 2.727 at 32 L), since a price at L is paid for lengths that few need:
RoPE as it is, of the rows of results/random_text, and RoPE with ranges of L to 4 L. Predicted
before its runs:
- at L, positions in order, it is 2.51 to 2.58;
- at 4 L, positions in order, 2.42 to 2.49, and better than with ranges up to 32 L;
- in windows of 4 L letters of names 1 to 2 L back cost less than the 2.96 bits that they cost with
  the other ranges.

Then the first models were also evaluated as plain RoPE, at positions in order, and so with logits
that grow with the logarithm of the keys that a token sees (`logn`), since at 32 L the text between
names had lost nothing (2.004 bits at positions from 32 L, 2.035 at L in order), and names had
(those 16 bytes back 1.579 in order at L, 4.283 at 32 L). Predicted before: with log n the score at
32 L is 0.03 to 0.2 better than without, and names 16 bytes back cost less than 4 bits there.

One more line was added when these had come, with ranges to 32 L and logits that grow with the
logarithm of the keys in training, too (`logn` with floor 0). Predicted before its runs, at
positions in order: 2.56 to 2.64 at L; at 32 L better than the 2.682 of log n that is laid over at
evaluation, and names 16 bytes back cost less than 3.287 bits there.

Cost: 9 trainings of 9 minutes, and 27 evaluations of a minute each on one core. Result:
results/random_ranges/table.md, LOG/222, and LOG/224 for log n in training, which has 2.604 at L and
2.721 at 32 L, where names 16 bytes back cost 3.566 bits: neither is better than laid over. With
ranges to 32 L the score at positions in order is 2.597 at L, 2.520 at 2 L, 2.494 at 4 L and 2.727
at 32 L, with log n 2.682 there; with ranges to 4 L 2.573 at L and 2.483 at 4 L. Does not hold: that
names 1 to 2 L back cost more than 5 bits at 32 L (4.450), and that with ranges to 4 L they cost
less than 2.96 at 4 L (3.015). The trainings with ranges to 32 L, without log n, are of a commit
whose draws were others (LOG/222).
"""

from pathlib import Path

from posenc_jax.config import load_study

GAPS = load_study(Path(__file__).with_name('random_gaps.py'))
BOARD = GAPS.BOARD

get_config = GAPS.get_config

RANGES = {'ranges': (32, GAPS.LONGEST), 'ranges to 512': (4, GAPS.LONGEST[:2])}
IN_ORDER = {'in order': ('rope',), 'in order, log n': ('logn', 'rope')}


def drawn(times: int) -> dict:
  """RoPE at positions from ranges of L to so many times L."""
  return GAPS.TEXT.at_random('rope') | {'shortest': BOARD.L, 'longest': times * BOARD.L}


LOG_N = BOARD.with_kv_shift({'name': 'logn', 'floor': 0.0}, 'rope')


def sweep():
  plain = BOARD.variants(BOARD.L)['rope']
  yield from ({'seed': seed, 'label': 'rope', 'encoding': plain} for seed in range(3))
  yield from GAPS.sweep()
  for name, (times, others) in RANGES.items():
    encoding = drawn(times)
    for seed in range(3):
      trained = {'seed': seed, 'label': f'rope, {name}', 'encoding': encoding}
      yield trained
      evaluated = {f'from {longest}': encoding | {'longest': longest} for longest in others}
      if name == 'ranges':
        evaluated |= {label: BOARD.with_kv_shift(*of) for label, of in IN_ORDER.items()}
      for label, laid_over in evaluated.items():
        starts = {'train.init_from': trained, 'train.steps': 0}
        yield {'seed': seed, 'label': f'{name}, {label}', 'encoding': laid_over} | starts
  for seed in range(3):
    encoding = drawn(32) | {'inner': LOG_N}
    trained = {'seed': seed, 'label': 'rope, ranges, log n trained', 'encoding': encoding}
    yield trained
    starts = {'train.init_from': trained, 'train.steps': 0}
    yield {'seed': seed, 'label': 'log n trained, in order', 'encoding': LOG_N} | starts


def table():
  _, by_distance = BOARD.table()
  scores = dict(protocols=('last_k',), metric='bpb', baseline='rope')
  lengths = (BOARD.L, 4 * BOARD.L, 8 * BOARD.L)
  return [scores, *(by_distance | {'length': T} for T in lengths), by_distance]


def figures():
  labels = ('rope', 'rope, random', 'rope, ranges', 'ranges, in order', 'ranges, in order, log n')
  return {'extrapolation': dict(protocol='last_k', metric='bpb', labels=labels)}
