"""Go or no-go before the board: does a model of its size learn to recall a planted name at all?

  python scripts/sweep.py --config=configs/studies/recipe.py --jobs=2

RoPE alone, with and without KV shift beside it, on the corpus `planted` at L = 128. Every 100 steps
metrics.jsonl has `recall_bits`: bits a character of names that stood in the same window before; not
to know one costs 5.95. LOG/104 has the recipes that were tried before.

Predicted before the runs: without KV shift a name that stood within L / 2 costs above 5.5 bits a
character at the end of training, with it below 2, as in the board's seed 0. Result:
results/recipe/table.md, LOG/196: 5.82 to 5.96 without, and 1.08 to 2.25 with it.
"""

from pathlib import Path

from posenc_jax.config import load, product, vary

SHIFTED = {'name': 'chain', 'members': ('kv_shift', 'rope')}


def get_config():
  return load(
    Path(__file__).with_name('board.py'), {'encoding.name': 'rope', 'eval.protocols': ('planted',)}
  )


def sweep():
  lines = [
    {'label': 'rope', 'encoding': {'name': 'rope'}},
    {'label': 'rope, KV shift', 'encoding': SHIFTED},
  ]
  return product(vary('seed', 0), lines)


def table():
  return dict(form='distances', controls=False, length=get_config().train.length)


def figures():
  return {}
