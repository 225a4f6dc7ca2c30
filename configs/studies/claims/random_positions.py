"""Claim: trained at random positions in order, from a range longer than any input, encodings find
and copy past their training length (Ruoss et al. 2023, arXiv:2305.16843).

  python scripts/sweep.py --config=configs/studies/claims/random_positions.py --jobs=2

Five encodings, each as it is and at positions drawn from 0 .. 16 L - 1, in training and test, one
draw a batch as released: learned and sinusoidal positions, RoPE, ALiBi and T5's bias, whose table
is then of 16 L, too. Tasks are those of two studies: the needle of
configs/studies/claims/needle_places.py, one of four anywhere in up to 8 L, and the copying of
configs/studies/board_tasks.py, up to 2 L. KV shift stands beside each encoding, as there: it is of
the neighbour in the text, whatever its position. Tasks are outermost.

Predicted before the runs, of the share of answers that are right with the seeds that have learned:
  needle   at 8 L learned and sinusoidal positions and RoPE have above 0.95 at random positions
           (plain: none, 0.938 and 0.675), and T5 stays at 1; ALiBi has less than its plain 0.771;
  learned  of the needle, learned positions with at least six seeds of eight, where plain ones have
           two; of copying, fewer lines and seeds than plain ones, in as many steps;
  copying  at 2 L RoPE and T5 at random positions have more of the symbols right than plain (0.265
           and 0.562), those with sinusoidal positions more than 0.5.

Cost: 160 runs of 0.1 million parameters, on a core of their own one minute for the needle, two for
copying. Half are of plain lines, of which the two studies have rows, too.
"""

from pathlib import Path

from posenc_jax.config import load, load_study

PLACES = load_study(Path(__file__).with_name('needle_places.py'))
TASKS = PLACES.BOARD_TASKS
NAMES = ('learned', 'sinusoidal', 'rope', 'alibi', 't5')
RANGE = 16  # positions are drawn from so many training lengths


get_config = TASKS.get_config


def at_random(name: str, length: int) -> dict:
  """KV shift and the encoding at random positions, whose tables have rows for all of them."""
  longest = RANGE * length
  sizes = {'learned': {'max_length': longest}, 't5': {'max_distance': longest}}.get(name, {})
  inner = TASKS.BOARD.with_kv_shift({'name': name, **sizes})
  return {'name': 'random_positions', 'inner': inner, 'longest': longest}


def sweep():
  for task in (PLACES.ANYWHERE, TASKS.COPYING):
    length = load(TASKS.TASKS, task).train.length
    plain = TASKS.BOARD.variants(length)
    for seed in range(8):
      for name in NAMES:
        yield task | {'seed': seed, 'label': name, 'encoding': plain[name]}
        random = {'label': f'{name}, random', 'encoding': at_random(name, length)}
        yield task | {'seed': seed} | random


def table():
  needle = dict(protocols=('needle',), metric='token_accuracy', baseline='rope')
  return [needle, dict(protocols=('copy',), metric='token_accuracy', baseline='rope')]


def figures():
  both = dict(metric='token_accuracy')
  return {name: dict(protocol=name, **both) for name in ('needle', 'copy')}
