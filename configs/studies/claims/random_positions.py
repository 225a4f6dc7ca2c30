"""Claim: trained at random positions in order, from a range longer than any input, encodings find
what lies past their training length (Ruoss et al. 2023, arXiv:2305.16843).

  python scripts/sweep.py --config=configs/studies/claims/random_positions.py \\
    --kept=results/needle_places --jobs=2

Five encodings, each as it is and at positions drawn from 0 .. 16 L - 1, in training and test, one
draw a batch for all layers: learned and sinusoidal positions, RoPE, ALiBi and T5's bias, whose
table is then of 16 L, too. In the released code so are learned and sinusoidal positions; RoPE draws
in every layer there, and ALiBi draws distances. The task, and the rows of plain lines, are those of
configs/studies/claims/needle_places.py: a needle, one of four anywhere in up to 8 L. KV shift
stands beside each encoding, as there: it is of the neighbour in the text, whatever its position.
Copying is in configs/studies/claims/random_copying.py.

Predicted before the runs, of the share of answers that are right with the seeds that have learned:
- at 8 L learned and sinusoidal positions and RoPE have above 0.95 at random positions (plain: none,
  0.938 and 0.675), and T5 stays at 1; ALiBi has less than its plain 0.771;
- learned positions learn it with at least six seeds of eight, where plain ones do with two.

Cost: 40 runs of 0.1 million parameters, half a minute each on a core of their own. Result:
results/random_positions/table.md, LOG/215. At 8 L RoPE has 0.993 of the answers right at random
positions and 0.675 as it is, sinusoidal positions 0.996 and 0.938, ALiBi 1.000 and 0.771, T5 1.000
and 1.000. Does not hold: what is predicted of ALiBi, which learns it with six seeds, and of learned
positions, which do with none.
"""

from pathlib import Path

from posenc_jax.config import load_study

PLACES = load_study(Path(__file__).with_name('needle_places.py'))
BOARD = PLACES.BOARD_TASKS.BOARD
NAMES = ('learned', 'sinusoidal', 'rope', 'alibi', 't5')
RANGE = 16  # positions are drawn from so many training lengths

get_config = PLACES.get_config


def at_random(name: str, length: int) -> dict:
  """KV shift and the encoding at random positions, whose tables have rows for all of them."""
  longest = RANGE * length
  sizes = {'learned': {'max_length': longest}, 't5': {'max_distance': longest}}.get(name, {})
  inner = BOARD.with_kv_shift({'name': name, **sizes})
  return {'name': 'random_positions', 'inner': inner, 'longest': longest}


def variants(length: int):
  """Every encoding as it is and at random positions, for models of this training length."""
  plain = BOARD.variants(length)
  for name in NAMES:
    yield {'label': name, 'encoding': plain[name]}
    yield {'label': f'{name}, random', 'encoding': at_random(name, length)}


def sweep():
  for seed in range(8):
    for line in variants(get_config().train.length):
      yield {'seed': seed} | line


table = PLACES.table


def figures():
  return {'needle': dict(protocol='needle', metric='token_accuracy')}
