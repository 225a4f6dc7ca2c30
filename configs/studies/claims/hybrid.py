"""Claim: where most layers have a short window and a few see everything, as in Gemma 3, Cohere's
Command A and Llama 4, the few carry the model past its training length, best without positions.

  python scripts/sweep.py --config=configs/studies/claims/hybrid.py --jobs=2

Three layers of four have RoPE and a window of L / 4; the fourth sees all, with RoPE, without
positions (NoPE), with ALiBi or with Transformer-XL's bias. The control `local x 4` has the window
in the fourth layer, too: what it can do needs no layer that sees all. Text, models and budget are
those of the board (configs/studies/board.py), and `rope` is its line, with no window at all.

Known before: of the board's models `rope x 3 + nope`, trained without windows, that of seed 2 with
windows of L laid over its RoPE layers has 2.458 bits at 32 L, where it has 2.469 at L, and recalls
no name from beyond L.

Predicted before the runs, bits per byte:
- at L all four are within 0.03 of RoPE;
- at 32 L the global layer without positions is within 0.02 of its own score at L, with every seed,
  and recalls no name from beyond L: letters of names 1 to 2 L back cost more than 5.8 bits;
- with RoPE in the global layer it fails by 2 L, and loses less than plain RoPE there;
- with ALiBi or Transformer-XL's bias it holds to 32 L, and letters of names 1 to 2 L back cost less
  than 5.5 bits;
- the control, added and predicted once the first run had trained, is within 0.04 of RoPE at L, and
  at 32 L within 0.02 of its score at L; letters of names 1 to 2 L back cost more than 5.8 bits.

Cost: 15 runs of 7 to 10 minutes on a core, besides those of the board, which --kept=results/board
leaves out. Result: results/hybrid/table.md, LOG/210. At L the four have 2.563 to 2.573 bits per
byte, the control 2.561, RoPE 2.472. At 32 L NoPE, ALiBi and Transformer-XL's bias in the global
layer change by 0.003 and less, the control not at all, RoPE there by 0.148. No model with windows
knows a name from farther back than these: 5.87 bits a character and more. Predictions that do not
hold: all at L, the control's too, and that with ALiBi or Transformer-XL letters of names 1 to 2 L
back cost less than 5.5 bits."""

from pathlib import Path

from posenc_jax.config import load_study

BOARD = load_study(Path(__file__).parents[1] / 'board.py')
GLOBAL = ('rope', 'nope', 'alibi', 'transformer_xl')


def get_config():
  return BOARD.get_config()


LOCAL = BOARD.with_kv_shift('rope') | {'attention_window': BOARD.L // 4}


def after_local(last: dict) -> dict:
  """Three layers with RoPE and a window of L / 4, then one with the encoding `last`."""
  return {'name': 'pattern', 'layers': (LOCAL,) * 3 + (last,)}


def sweep():
  for seed in range(3):
    yield {'seed': seed, 'label': 'rope', 'encoding': BOARD.variants(BOARD.L)['rope']}
    for name in GLOBAL:
      encoding = after_local(BOARD.with_kv_shift(name))
      yield {'seed': seed, 'label': f'local x 3 + {name}', 'encoding': encoding}
    yield {'seed': seed, 'label': 'local x 4', 'encoding': after_local(LOCAL)}


table = BOARD.table
