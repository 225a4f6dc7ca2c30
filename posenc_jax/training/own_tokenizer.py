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


def copy_tokenizer(
  workdir: str | Path, start: str | Path, sha256: str | None, begins: bool
) -> None:
  """Copies what the run in `start` keeps, if it keeps the tokenizer of this hash, where the run in
  `workdir` begins or keeps none: the files beside it first, so that all is there once the tokenizer
  is. Where it begins, what an earlier start has copied of another tokenizer goes.
  """
  own, other = (Path(folder) / OWN_TOKENIZER for folder in (workdir, start))
  if not start or (storage.exists(own) and not begins):
    return
  names = *BESIDE, own.name
  if _has_hash(other, sha256):
    own.parent.mkdir(exist_ok=True)
    for name in names:
      if storage.exists(other.with_name(name)):
        storage.atomic_write(own.with_name(name), other.with_name(name).read_bytes())
      else:
        own.with_name(name).unlink(missing_ok=True)
  elif storage.exists(own) and not _has_hash(own, sha256):
    for name in names:
      own.with_name(name).unlink(missing_ok=True)


def _has_hash(path: Path, sha256: str | None) -> bool:
  return storage.exists(path) and hashlib.sha256(path.read_bytes()).hexdigest() == sha256
