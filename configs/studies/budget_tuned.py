"""RoPE with four times the board's budget, fine-tuned briefly: does it reach what gains past L?

  python scripts/sweep.py --config=configs/studies/budget_tuned.py --kept=results/scale_budget

configs/studies/budget_extended.py extends RoPE at evaluation alone, and at 4 L stays 0.19 bits
behind T5, which was trained at L as well (LOG/159). Here the same RoPE is fine-tuned for 400 steps,
a fifteenth of its training: as it is at L, which says what the steps alone do, and at 4 L; with
positions interpolated by 4 (Chen et al. 2023) at L, which recalled names well in
configs/studies/claims/pose.py, PoSE a little better; with YaRN made for 4 L, at 4 L; and with
ReRoPE at 4 L. A step has as many tokens in each. --kept brings in T5, KERPLE, ALiBi and
Transformer-XL, which have these 400 steps less.

Known before: bits per byte at 4 L of two seeds, RoPE with its window 2.254, dual chunk attention
2.129, ReRoPE untuned 2.144, KERPLE 1.987, T5 1.942.

Predicted before the runs, means of two seeds:
- at 4 L the best of the four that are extended has 2.00 to 2.10, and T5 is shown to be better;
- ReRoPE tuned at 4 L is at least 0.03 better at 4 L than untuned, and at 32 L less than 0.15 worse
  than at 4 L; the other three have more than 3 bits at 32 L;
- RoPE tuned at 4 L as it is, and interpolated at L, are within 0.1 of YaRN at 4 L;
- RoPE tuned at L as it is has more than 4 bits at 4 L.

What lines read is not alike, which was noticed after the runs: those tuned at L read again what
their start began with; of what those tuned at 4 L read, 44 % is new (the start has read 56 % of the
text).

Cost: 10 runs of 7 minutes, two at a time on two cores, and 2 trainings of 20 minutes before them.
Result: results/budget_tuned, LOG/162. Bits per byte at 4 L and 32 L: ReRoPE tuned at 4 L 2.136 and
2.213, YaRN 2.165 and 5.948, RoPE tuned at 4 L 2.209 and 3.972, interpolated 2.233 and 6.205, RoPE
tuned at L 4.735 and 6.124.
"""

from pathlib import Path

from posenc_jax.config import load_study

EXTENDED = load_study(Path(__file__).with_name('budget_extended.py'))
BUDGET = EXTENDED.BUDGET
L = BUDGET.BOARD.L
POSE = load_study(Path(__file__).parent / 'claims' / 'pose.py')
TUNED = POSE.TUNED | {'train.steps': 400}
YARN = {'rope_type': 'yarn', 'factor': 4.0, 'original_max_position_embeddings': L}


def tuned() -> dict:
  """What each line is fine-tuned with, by its label."""
  shifted = BUDGET.BOARD.with_kv_shift
  rope = BUDGET.BOARD.variants(L)['rope']
  return {
    'rope, tuned at L': {'encoding': rope},
    'rope, tuned at 4 L': {'encoding': rope} | POSE.AT_4_L,
    'interpolated, tuned at L': {'encoding': POSE.INTERPOLATED},
    'yarn, tuned at 4 L': {'encoding': shifted({'name': 'rope', 'scaling': YARN})} | POSE.AT_4_L,
    'rerope, tuned at 4 L': {'encoding': shifted({'name': 'rerope', 'window': L // 2})}
    | POSE.AT_4_L,
  }


def sweep():
  board = BUDGET.BOARD.variants(L)
  for seed in range(2):
    start = EXTENDED.EXTENDED.trained(seed)
    yield start
    for label, more in tuned().items():
      yield {'seed': seed, 'label': label} | TUNED | {'train.init_from': start} | more
    for name in EXTENDED.BIASES:
      yield {'seed': seed, 'label': name, 'encoding': board[name]}


get_config, table, figures = BUDGET.get_config, BUDGET.table, BUDGET.figures
