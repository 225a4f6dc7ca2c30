"""DroPE: RoPE while the model learns, none for the last part, and what is kept past the training
length (Gelberg et al. 2025, arXiv:2512.12167, in kind).

  python scripts/sweep.py --config=configs/drope.py --jobs=2

A seed is one training of 600 steps with RoPE at 128 tokens. From its parameters three runs go on
for 100 steps at a third of the rate: `rope` as it was, which is the control; `drope` without any
position; `drope_qk_norm` the same with QK-norm switched on, as the paper advises. Then
`drope_temperature` lays the paper's temperature over `drope`, and trains nothing. `nope` never had
a position, and trains for all 700 steps.

Predicted before the runs: at 128 tokens `drope` lies between `rope` and `nope`; past them it fails
as `nope` does, since models of this size tell positions from the causal mask and so from the
length; the temperature helps a little.

Cost: 18 runs of 0.82 million parameters, 25 minutes on two threads of a core that other work shared
(jax 0.12). Result: results/drope/table.md; bits per byte of the last 64 bytes at 128, 256 and 2048
tokens (three seeds): rope after 600 steps 1.88, 2.92, 5.02, after 100 more 1.86, 2.92, 5.08; drope
3.41, 3.43, 3.44, with QK-norm 3.40, 3.42, 3.43, with the temperature 3.41, 3.44, 3.53; nope 2.66,
3.61, 3.99. The prediction was wrong: at this scale 100 steps do not recover what was dropped. At
128 tokens these models stay behind those that never had a position; past that they are flat, and
ahead of those, at a loss that no one wants.
"""

from pathlib import Path

from posenc_jax.config import load, vary

L, STEPS, MORE = 128, 600, 100
GOING_ON = {'train.steps': MORE, 'optim.learning_rate': 1e-3}
NOPE = {'encoding': {'name': 'nope'}}


def get_config():
  settings = {
    'train.length': L,
    'train.batch': 16,
    'train.steps': STEPS,
    'optim.warmup': 20,
    'eval.lengths': (L, 2 * L, 4 * L, 16 * L),
    'eval.protocols': ('last_k',),
    'eval.documents': 24,
  }
  return load(Path(__file__).with_name('base.py'), settings)


def sweep():
  for seed in vary('seed', 0, 1, 2):
    start = seed | {'label': 'rope'}
    dropped = seed | {'label': 'drope', 'train.init_from': start} | GOING_ON | NOPE
    yield start
    yield start | GOING_ON | {'train.init_from': start}
    yield dropped
    yield dropped | {'label': 'drope_qk_norm', 'model.qk_norm': 'head'}
    yield (
      seed
      | {'label': 'drope_temperature', 'train.init_from': dropped, 'train.steps': 0}
      | {'encoding': {'name': 'drope'}}
    )
    yield seed | {'label': 'nope', 'train.steps': STEPS + MORE} | NOPE


def table():
  return dict(
    form='methods', protocols=('last_k',), metric='bpb', baseline=f'rope, L = {L}, {MORE} steps'
  )


def figures():
  return {}
