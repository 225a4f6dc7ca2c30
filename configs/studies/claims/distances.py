"""Claim: a model fails on longer inputs because they hold distances that training did not show
(Ruoss et al. 2023, arXiv:2305.16843), and not because they hold more symbols.

  python scripts/sweep.py --config=configs/studies/claims/distances.py --jobs=2

Copying tells the two apart. A string of n symbols stands n + 1 tokens before its copy, so that
training on up to 15 symbols shows no answer farther back than 16 tokens, and to copy 23 asks for
more symbols and for a longer way at once. Here each encoding is trained as in
configs/studies/board_tasks.py, and again with blanks between the string and its copy: up to 15
symbols, with answers up to 29 tokens back. Both are asked without blanks: up to 28 symbols (58
tokens), all distances were trained in the second case and none past 16 in the first.

Predicted before the runs, share of symbols right, mean of the seeds that have learned to copy at L:
  of 48 and 58 tokens T5, p-RoPE and Music Transformer have above 0.85 with blanks, and 0.3 or more
  above what they have without; RoPE has above 0.7 at 48; ALiBi changes by less than 0.1, and NoPE,
  which has no distances, by less than 0.15;
  of 64 tokens, 32 back, where no answer stood in training, T5, p-RoPE and RoPE have less with
  blanks than of 58.
The dip of T5, p-RoPE and Music Transformer between 1.5 and 2 L (LOG/187) is gone with blanks, and
there without. (58 was 60, and the last prediction another, when the first runs began, of which none
had been read.)

Cost: 96 trainings of 0.1 million parameters, a minute each on a core of their own, and 48
evaluations. Result of five seeds of eight: results/distances, LOG/190, and LOG/243 on which seeds
count. Share of symbols right of 48 and 58 tokens, without blanks in training, mean of the seeds
that learned to copy, and with them, mean of all five, each of which learned to copy as trained: T5
0.465 and 0.834, 0.460 and 0.354; p-RoPE 0.379 and 0.461, 0.634 and 0.543; Music Transformer 0.502
and 0.686, 0.476 and 0.373; RoPE 0.594 and 0.790, 0.449 and 0.526; ALiBi 0.976 and 0.819, 0.949 and
0.721; NoPE 0.949 and 0.903, 0.905 and 0.854.
"""

from pathlib import Path

from posenc_jax.config import load, load_study

BOARD_TASKS = load_study(Path(__file__).parents[1] / 'board_tasks.py')
L, BLANKS = 32, 26
ENCODINGS = ('t5', 'p_rope', 'music_transformer', 'rope', 'alibi', 'nope')
TASK = 'task:copy/symbols=16/blanks='
NEAR, FAR = {'data.corpus': f'{TASK}0'}, {'data.corpus': f'{TASK}{BLANKS}'}


def get_config():
  lengths = {'eval.lengths': (L, 40, 48, 58, 64)}
  return load(BOARD_TASKS.TASKS, BOARD_TASKS.COPYING | NEAR | lengths)


def sweep():
  variants = BOARD_TASKS.BOARD.variants(L)
  for seed in range(8):
    for label in ENCODINGS:
      line = {'seed': seed, 'encoding': variants[label]}
      far = line | FAR | {'label': f'{label}, blanks in training and test'}
      yield line | NEAR | {'label': label}
      yield far
      yield (
        line
        | NEAR
        | {'label': f'{label}, blanks in training', 'train.init_from': far, 'train.steps': 0}
      )


def table():
  return dict(protocols=('copy',), metric='token_accuracy', baseline='rope')


def figures():
  return {'copying': dict(protocol='copy', metric='token_accuracy')}
