"""The tokenizer.json that a run keeps: an import leaves it there, with files that go with it, and
what starts from such a run takes copies.
"""

import hashlib
from pathlib import Path

from ml_collections import ConfigDict

from posenc_jax import storage
from posenc_jax.config import saved_config
from posenc_jax.config.serialization import OWN_TOKENIZER

GENERATION = 'generation_config.json'  # of which only the tokens that end a text are read
# Files that other programs read: they go with the tokenizer, there and back.
ABOUT_TOKENIZER = ('tokenizer_config.json', 'special_tokens_map.json')
BESIDE = (*ABOUT_TOKENIZER, GENERATION, 'chat_template.jinja')


def tokenizer_path(workdir: str | Path, data: ConfigDict) -> Path:
  """Where the tokenizer.json lies that the section `data` of a config names: in the run, if it
  keeps one and began with that. Raises `UserError`.
  """
  own, named = Path(workdir) / OWN_TOKENIZER, Path(data.tokenizer)
  if not storage.exists(own) or saved_config(workdir).data.tokenizer != data.tokenizer:
    return named
  return own


def copy_tokenizer(workdir: str | Path, start: str | Path, sha256: str | None) -> None:
  """Copies what the run in `start` keeps, if it keeps the tokenizer of this hash and the run in
  `workdir` none: the files beside it first, so that all is there once the tokenizer is.
  """
  own, other = (Path(folder) / OWN_TOKENIZER for folder in (workdir, start))
  if not start or storage.exists(own) or not storage.exists(other):
    return
  if hashlib.sha256(other.read_bytes()).hexdigest() != sha256:
    return
  own.parent.mkdir(exist_ok=True)
  for name in (*BESIDE, own.name):
    if storage.exists(other.with_name(name)):
      storage.atomic_write(own.with_name(name), other.with_name(name).read_bytes())
