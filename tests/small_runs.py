"""What tests of tiny runs share: fields of configs, folders of text, waiting for a file. Fixtures
of them stand in conftest.py.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from posenc_jax.config import BASE, load

TEXT = 'the quick brown fox jumps over the lazy dog; ' * 20
MODEL = {
  'model.layers': 1,
  'model.model_dim': 16,
  'model.heads': 2,
  'model.head_dim': 8,
  'model.mlp_dim': 32,
}
STEPS = 12
TINY = {
  **MODEL,
  'train.length': 16,
  'train.batch': 4,
  'train.steps': STEPS,
  'train.log_every': 3,
  'train.validate_every': 4,
  'train.validate_batches': 2,
  'train.checkpoint_every': 4,
  'train.max_to_keep': 2,
  'optim.learning_rate': 0.03,
  'optim.warmup': 2,
  'eval.lengths': (16, 32),
  'eval.target_context': 32,
  'eval.k': 8,
}
TINY_TASK = {  # but for its corpus, its lengths and its encoding
  **MODEL,
  'train.batch': 4,
  'train.steps': 6,
  'train.log_every': 1,
  'train.validate_every': 3,
  'train.validate_batches': 2,
  'train.checkpoint_every': 2,
  'optim.warmup': 1,
  'eval.protocols': ('answers',),
}
SIZES = (37, 16, 64, 41)  # of the fixture `documents`; none is a multiple of all lengths


def dotted(fields: dict) -> dict:
  """{'a.b': value} of {'a__b': value}: fields as keyword arguments."""
  return {name.replace('__', '.'): value for name, value in fields.items()}


def tiny(own: dict, **fields):
  """The config of a tiny run with fields of its own, and then with the field a.b of a__b=value."""
  return load(BASE, {**TINY, **own, **dotted(fields)})


def wait_for(path: Path, text: str) -> None:
  """Waits until a file has this text, for half a minute at most."""
  for _ in range(3000):
    if path.exists() and text in path.read_text():
      return
    time.sleep(0.01)
  raise AssertionError(f'{text!r} never came: {path.read_text() if path.exists() else None}')


def write_text_corpus(folder: Path, texts: str | dict[str, Sequence[str | bytes]] = TEXT) -> str:
  """Writes a.txt, b.txt, ... into a folder for each split; returns the folder's path.

  Args:
    texts: {split: its documents}, or the one document that every split has.
  """
  if isinstance(texts, str):
    texts = dict.fromkeys(('train', 'validation', 'test'), (texts,))
  for split, documents in texts.items():
    (folder / split).mkdir(parents=True)
    for number, document in enumerate(documents):
      contents = document.encode() if isinstance(document, str) else document
      (folder / split / f'{chr(ord("a") + number)}.txt').write_bytes(contents)
  return str(folder)
