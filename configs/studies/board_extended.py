"""RoPE of the board, extended at evaluation: does it use text past L as Transformer-XL does?

  python scripts/sweep.py --config=configs/studies/board_extended.py --kept=results/board --jobs=2

The board weighs encodings that use text past L against RoPE with a window of L, which by its nature
cannot. Here RoPE is trained as there, with the five seeds that it has there, and read by methods
that need no training, laid over it as over SmolLM2 (configs/pretrained.py): ReRoPE, Self-Extend
made for 4 L and for 32 L, dual chunk attention, Jet-Long, YaRN made for 4 L, and StreamingLLM,
which sees no more than the window. Text, budget and scored bytes are those of
configs/studies/board.py, whose Transformer-XL --kept brings in.

Predicted before the runs, bits per byte at 4 L, where RoPE with its window has 2.459 and
Transformer-XL 2.402:
- ReRoPE has 2.40 to 2.45, and Self-Extend and dual chunk attention are within 0.03 of it;
- so no difference from Transformer-XL is shown for the best of the three;
- YaRN, untuned, is worse than RoPE with its window by more than 0.03, and Jet-Long, which reads
  only 8 distances as they are, worse than Self-Extend;
- StreamingLLM is within 0.01 of RoPE with its window;
- letters of names 1 to 2 L back cost ReRoPE less than Transformer-XL's 4.983 bits.
At 32 L attention spreads thin: no method there is shown to be better than RoPE with its window.

Predicted before seed 4 was evaluated, whose RoPE has 2.471 at L and with its window 2.505 at 32 L,
where four seeds had no loss: StreamingLLM is there within 0.01 of its score at L; Self-Extend for
4 L, dual chunk attention and ReRoPE have 2.34 to 2.44 at 4 L.

Cost: 5 trainings of 7 to 12 minutes, and 35 evaluations of 4 minutes each on one core. Result:
results/board_extended, LOG/157, 165 and 227. Bits per byte at 4 L: Self-Extend for 4 L and dual
chunk attention 2.379, Self-Extend for 32 L 2.391, ReRoPE 2.392, Transformer-XL 2.408; at 32 L they
have 5.213, 2.583, 2.544, 2.572 and 2.455. StreamingLLM has 2.463 at both, with seed 4 0.013 less
than at L; YaRN 2.951 and 5.544, Jet-Long 4.074 and 5.942. Of seed 4 the three methods held, and
StreamingLLM is 0.013 from its score at L, better, where 0.01 was predicted.
"""

from pathlib import Path

from posenc_jax.config import load_study

BOARD = load_study(Path(__file__).with_name('board.py'))
PRETRAINED = load_study(Path(__file__).parents[1] / 'pretrained.py')
OWN = {'name': 'rope', 'base': BOARD.BASE}
# By label: a method, and by how much it extends, which is 1 where that has no part in it.
METHODS = {
  'rerope': ('rerope', 1),
  'self_extend, 4 L': ('self_extend', 4),
  'self_extend, 32 L': ('self_extend', 32),
  'dca': ('dca', 1),
  'jet_long': ('jet_long', 1),
  'yarn, 4 L': ('yarn', 4),
  'streaming': ('streaming', 1),
}
# With every seed those that are to use text past L come first.
FIRST, LAST = list(METHODS)[:4], list(METHODS)[4:]


def get_config():
  return BOARD.get_config()


def trained(seed: int) -> dict:
  return {'seed': seed, 'label': 'rope', 'encoding': BOARD.variants(BOARD.L)['rope']}


def extended(seed: int, methods):
  """Each method, laid over RoPE trained with a seed."""
  for label in methods:
    method, factor = METHODS[label]
    more = PRETRAINED.laid_over(method, factor, OWN, BOARD.L)
    encoding = BOARD.with_kv_shift(more.pop('encoding'))
    laid_over = {'encoding': encoding, 'train.init_from': trained(seed), 'train.steps': 0}
    yield {'seed': seed, 'label': label} | more | laid_over


def sweep():
  for seed in range(5):
    yield trained(seed)
    yield from extended(seed, FIRST)
  for seed in range(5):
    yield from extended(seed, LAST)
    encoding = BOARD.variants(BOARD.L)['transformer_xl']
    yield {'seed': seed, 'label': 'transformer_xl', 'encoding': encoding}


table = BOARD.table


def figures():
  return {'extrapolation': dict(protocol='last_k', metric='bpb')}
