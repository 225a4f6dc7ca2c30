"""Kazemnejad et al.'s study of length generalization at true size: five encodings on eight tasks,
trained on up to 20 symbols (8 in sorting and addition), asked for twice as many.

  python scripts/sweep.py --config=configs/paper/nope.py

Kazemnejad et al. 2023, figure 2, where the encodings are ranked over tasks: the decoder of T5-base,
12 layers, width 768, 12 heads; 85 million parameters in the layers.

Cost: not run here. 120 runs of 40,000 steps of 64 examples of 19 to 64 tokens, 0.5e8 to 1.6e8
tokens each; by arithmetic 6 x 8.5e7 x 1.6e8 = 8e16 operations a run at most, beside attention.

As published (paper, released configs): sizes, RMSNorm, no biases, tied embeddings, loss on answers
alone, 40,000 steps of 64, AdamW (0.9, 0.999) at 3e-5 with decay 0.05, 6 % warm-up, linear decay,
clipping at 1, three seeds; RoPE in the first quarter of the channels, interleaved, sines before
cosines, ALiBi's slopes for 12 heads, T5's 32 buckets to 128. Otherwise:
- Tokens are symbols, theirs T5's pieces, among them the words of an instruction. Copying and
  reversing draw from 100 symbols, sorting from 50, as theirs; one symbol repeated is of thousands
  in theirs, of the same 100 here. A string that is said twice has [NEXT] between in theirs.
- Examples are drawn anew at every step; theirs are 100,000, read 26 times.
- Not here: one symbol replaced by another, reversing and then copying, sorting numbers of several
  digits, sums, polynomials, parity, LEGO, SCAN, PCFG, and scratchpads. Both numbers of an addition
  have as many digits here; in theirs each has its own number of them, as with unequal=True.
- Scores are divided by the root of the head's width but for T5; theirs never are, and queries begin
  smaller by as much.
- GELU and no dropout; theirs ReLU and 0.1.
- Asked for at five numbers of symbols, 500 examples each; theirs at each from 21 to 40 (9 to 16),
  10,000 in all. They take the checkpoint that is best in validation, here it is the last.

Their mean reciprocal ranks over all tasks: NoPE 0.69, T5 0.55, ALiBi 0.50, RoPE 0.33, sinusoidal
0.22. REFERENCE has exact matches, computed from their released result files (there are none of
sorting and addition): means over the numbers of symbols past training and three seeds, which the
table prints apart. Seeds are bimodal there, so look at each: in SCAN NoPE has 0.672, 0.638 and 0,
T5 0, 0.646 and 0.
"""

from pathlib import Path

from posenc_jax.config import load, product, vary

BASE = Path(__file__).parents[1] / 'base.py'
COPY, REVERSE = 'task:copy/symbols=100', 'task:reverse/symbols=100'
TASKS = {  # symbols (digits) in training, tokens for each of them, tokens besides
  f'{COPY}/distinct=1': (20, 2, 2),
  f'{COPY}/distinct=1/times=2': (20, 3, 2),
  COPY: (20, 2, 2),
  f'{COPY}/times=2': (20, 3, 2),
  REVERSE: (20, 2, 2),
  f'{REVERSE}/times=2': (20, 3, 2),
  'task:sort/symbols=50': (8, 2, 2),
  'task:addition': (8, 3, 4),
}
LINES = {
  'nope': dict(name='nope'),
  't5': dict(name='t5'),
  'alibi': dict(name='alibi'),
  'rope': dict(name='rope', fraction=0.25, layout='interleaved'),
  'sinusoidal': dict(name='sinusoidal', layout='half'),
}
PUBLISHED = {  # exact match beyond training, in the order of LINES
  'copy, one symbol': (0.986, 0.771, 0.289, 0, 0),
  'copy, one symbol, twice': (0.974, 0.558, 0.194, 0, 0),
  'copy': (0.305, 0.420, 0.331, 0.011, 0.028),
  'copy, twice': (0.431, 0.524, 0.569, 0.043, 0.040),
  'reverse': (0.230, 0.242, 0.171, 0.077, 0.023),
  'reverse, twice': (0.473, 0.448, 0.195, 0.053, 0.011),
}
REFERENCE = [
  dict(
    line=f'{name}, {task}',
    values={40: value},
    source='Kazemnejad et al. 2023, mean of 21 to 40 symbols, of their result files',
  )
  for task, values in PUBLISHED.items()
  for name, value in zip(LINES, values, strict=True)
]
PROTOCOLS = ('copy', 'reverse', 'sort', 'addition')


def get_config():
  settings = {
    'encoding.name': 'nope',
    'model.layers': 12,
    'model.model_dim': 768,
    'model.heads': 12,
    'model.head_dim': 64,
    'model.mlp_dim': 3072,
    'model.unroll': 1,
    'data.corpus': COPY,
    'train.length': tokens(COPY, 1),
    'train.batch': 64,
    'train.steps': 40_000,
    'train.log_every': 100,
    'train.validate_every': 2000,
    'train.checkpoint_every': 2000,
    'optim.learning_rate': 3e-5,
    'optim.warmup': 2400,
    'optim.decay': 'linear',
    'optim.final_fraction': 0.0,
    'optim.beta2': 0.999,
    'optim.weight_decay': 0.05,
    'eval.protocols': ('answers',),
    'eval.lengths': lengths(COPY),
    'eval.controls': (),
    'eval.examples': 500,
  }
  return load(BASE, settings)


def tokens(corpus, multiple):
  """The most tokens of an example of so many times the symbols in training, so that this number is
  drawn as often as the others.
  """
  symbols, each, besides = TASKS[corpus]
  return each * (int(symbols * multiple) + 1) - 1 + besides


def lengths(corpus):
  return tuple(tokens(corpus, multiple) for multiple in (1, 1.25, 1.5, 1.75, 2))


def sweep():
  of_tasks = [
    {'data.corpus': corpus, 'train.length': tokens(corpus, 1), 'eval.lengths': lengths(corpus)}
    for corpus in TASKS
  ]
  encodings = [{'label': name, 'encoding': encoding} for name, encoding in LINES.items()]
  return product(vary('seed', 0, 1, 2), of_tasks, encodings)


def table():
  return dict(protocols=PROTOCOLS, metric='exact_match', reference=REFERENCE)


def figures():
  return {name: dict(protocol=name, metric='exact_match') for name in PROTOCOLS}
