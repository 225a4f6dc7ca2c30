"""Claim: those that find one needle of four at 8 L find it by its key, and not by its place.

  python scripts/sweep.py --config=configs/studies/claims/needle_places.py --jobs=2

In configs/studies/board_tasks.py the needle asked for stands at one of eleven places and the others
anywhere, so that naming the value at such a place, without reading a key, is right in 0.734 of the
cases at L and in 0.968 at 8 L, more than RoPE, xPos and ALiBi have there. Here it lies anywhere as
the others do, in training and test: without the key any value of the text is right once in four
times. All else is as there. Seeds are outermost.

Predicted before the runs, of the share of answers that are right:
  learned  at least 15 of the 25 lines learn it with all seeds; FoX and RoPE with FoX with none;
  at 8 L   NoPE, p-RoPE, T5, KERPLE and Transformer-XL have above 0.99 with the seeds that have
           learned it, as before; RoPE between 0.40 and 0.65 (0.671 before), xPos below 0.65
           (0.640), ALiBi between 0.45 and 0.85 (0.761);
  at 2 L   all lines that have learned it but learned positions have above 0.9.

Cost: 200 runs of 0.1 million parameters, some 40 seconds each on a core of their own. Result:
results/needle_places/table.md, LOG/203 and 204. 17 lines learn it with all eight seeds, FoX and
RoPE with FoX with none. At 8 L RoPE has 0.675, xPos 0.649, ALiBi 0.771, KERPLE 0.980 with the six
seeds that have learned it, NoPE, p-RoPE, T5 and Transformer-XL 1.000. At 2 L the lowest of those
that have learned it is PoPE's 0.930. What was predicted of RoPE and KERPLE at 8 L does not hold.
"""

from pathlib import Path

from posenc_jax.config import load, load_study

BOARD_TASKS = load_study(Path(__file__).parents[1] / 'board_tasks.py')
NEEDLE = BOARD_TASKS.NEEDLE
ANYWHERE = NEEDLE | {'data.corpus': f'{NEEDLE["data.corpus"]}/depth=even'}


def get_config():
  return load(BOARD_TASKS.TASKS, ANYWHERE)


def sweep():
  variants = BOARD_TASKS.BOARD.variants(ANYWHERE['train.length'])
  for seed in range(8):
    for label, encoding in variants.items():
      if encoding['name'] != 'pattern':
        yield {'seed': seed, 'label': label, 'encoding': encoding}


def table():
  return dict(protocols=('needle',), metric='token_accuracy', baseline='rope')


def figures():
  labels = BOARD_TASKS.BOARD.SELECTED
  return {'needle': dict(protocol='needle', metric='token_accuracy', labels=labels)}
