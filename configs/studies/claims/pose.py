"""Claim: a model that is fine-tuned on short text at positions that skip ahead reads long text as
one that is fine-tuned on long text (PoSE, Zhu et al. 2023, arXiv:2309.10400).

  python scripts/sweep.py --config=configs/studies/claims/pose.py --jobs=2

On speeches the two are alike (configs/extension.py), where nothing is to be read far back. Here
text is that of the corpus `planted`, in which only far text decides some characters. RoPE with KV
shift, trained at L = 128 as on the board, with positions interpolated by 4 (Chen et al. 2023), is
fine-tuned for 200 steps of as many tokens: on windows of L as they are, on the same with PoSE, and
on windows of 4 L.

Predicted before the runs, at 4 L: of bits a byte of text (names are a part of it: their characters
were not told apart then), all three within 0.1 of each other. Of
bits a character of planted names that stand 1 to 4 L back, where 5.95 is to know nothing: plain
fine-tuning at L above 5, PoSE at least 1 below it, fine-tuning at 4 L at least 0.5 below PoSE.
So perplexity of text hides what the names show.

What lines read is not alike, which was noticed after the runs: those tuned at L read again what the
model trained at L began with; of what the one tuned at 4 L reads, 86 % is new (that model has read
14 % of the text). `train.first_batch` would have lines at L read on.

Cost: 12 runs of 0.8 million parameters, 17 minutes in all on two cores, other work beside them (jax
0.12). Result: results/pose/table.md, LOG/132. Bits a byte, names included, at L and 4 L, and bits a
character of names that stand 1 to 4 L back: trained at L 2.476, 4.014, 5.81; tuned at L 2.581,
2.487, 3.54; PoSE 2.613, 2.519, 3.32; tuned at 4 L 2.604, 2.534, 5.01.
"""

from pathlib import Path

from posenc_jax.config import load, vary

L, FACTOR = 128, 4
TUNED = {
  'train.steps': 200,
  'train.length': L,
  'train.batch': 16,
  'optim.learning_rate': 5e-4,
  'optim.warmup': 20,
}
AT_4_L = {'train.length': FACTOR * L, 'train.batch': 16 // FACTOR}
SHIFTED = {'name': 'chain', 'members': ('kv_shift', 'rope')}
INTERPOLATED = {
  'name': 'chain',
  'members': (
    'kv_shift',
    {
      'name': 'rope',
      'scaling': {'rope_type': 'linear', 'factor': FACTOR, 'original_max_position_embeddings': L},
    },
  ),
}


def get_config():
  settings = {'eval.lengths': (L, 2 * L, FACTOR * L), 'eval.controls': ()}
  return load(Path(__file__).parents[1] / 'board.py', settings)


def sweep():
  for seed in vary('seed', 0, 1, 2):
    start = seed | {'label': 'trained at L', 'encoding': SHIFTED}
    yield start
    tuned = seed | TUNED | {'train.init_from': start}
    yield tuned | {'label': 'tuned at L', 'encoding': INTERPOLATED}
    skipping = {'name': 'pose', 'inner': INTERPOLATED, 'longest': FACTOR * L}
    yield tuned | {'label': 'PoSE', 'encoding': skipping}
    yield tuned | AT_4_L | {'label': 'tuned at 4 L', 'encoding': INTERPOLATED}


def table():
  return [
    dict(protocols=('last_k',), metric='bpb', baseline='trained at L'),
    dict(form='distances', controls=False),
  ]


def figures():
  return {'extrapolation': dict(protocol='last_k', metric='bpb')}
