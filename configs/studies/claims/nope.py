"""Claim: without any position encoding a decoder generalizes to longer inputs best (Kazemnejad et
al. 2023, arXiv:2305.19466).

  python scripts/sweep.py --config=configs/studies/claims/nope.py --jobs=2

NoPE beside RoPE and T5's bias in three tasks, with eight seeds, since seeds are bimodal: recall,
copying, and a needle. What a seed has not learned at L says nothing about longer inputs; it is
counted, and left out of the means. Of text the board (configs/studies/board.py) has the answer.

Predicted before the runs, share of answers right, mean of the seeds that have learned: NoPE at
least 0.95 in the needle to 8 L and in recall to 4 L, and better there than RoPE; below 0.2 in
copying at 2 L, where T5 is no better than 0.3. At most six of NoPE's eight seeds learn recall, and
all of RoPE's and T5's.

Cost: 72 runs of 0.1 million parameters, 21 minutes in all, two at a time on two threads of a core.
Result: results/nope/table.md, LOG/126. Share of answers right, of seeds that have learned: needle
at 8 L NoPE 1.000, T5 1.000, RoPE 0.795 (eight seeds each); recall at 4 L NoPE 0.999 (4 of 8 seeds),
T5 1.000 (2), RoPE 0.925 (7); copying at 2 L T5 0.394 (6), RoPE 0.192 (8), NoPE learns it with none.
"""

from pathlib import Path

from posenc_jax.config import load, product, vary

NEEDLE = {
  'data.corpus': 'task:needle/needles=1/keys=4/symbols=16/fillers=16',
  'train.length': 64,
  'train.batch': 32,
  'train.steps': 200,
  'optim.warmup': 50,
  'eval.lengths': (64, 128, 256, 512),
  'eval.examples': 220,
}
RECALL = {
  'data.corpus': 'task:mqar/pairs=4/keys=16/values=16/power=1.0',
  'eval.lengths': (32, 64, 128),
}
COPYING = {'data.corpus': 'task:copy/symbols=16', 'eval.lengths': (32, 64)}


def get_config():
  return load(Path(__file__).parents[2] / 'tasks.py', RECALL | {'train.steps': 1500})


def sweep():
  return product(
    vary('seed', *range(8)), [RECALL, COPYING, NEEDLE], vary('encoding.name', 'nope', 'rope', 't5')
  )


def table():
  return dict(protocols=('mqar', 'copy', 'needle'), metric='token_accuracy', baseline='rope')


def figures():
  return {'needle': dict(protocol='needle', metric='token_accuracy')}
