"""What a run keeps of its tokenizer: the hash; one that was learned from its text; or the
tokenizer.json that an import leaves there, with files that go with it, of which what starts from
such a run takes copies.
"""

import hashlib
from pathlib import Path

from ml_collections import ConfigDict

from posenc_jax import storage
from posenc_jax.config import saved_config
from posenc_jax.config.serialization import OWN_TOKENIZER
from posenc_jax.data.tokenizer_json import TokenizerJson, read_tokenizer_json
from posenc_jax.data.tokenizers import SentencePiece, learned_before
from posenc_jax.errors import UserError

TOKENIZER_HASH = 'tokenizer.json'  # holds the hash of the tokenizer, if there is one but bytes
LEARNED = 'tokenizer.model'  # the tokenizer, if it was learned from the text
GENERATION = 'generation_config.json'  # of which only the tokens that end a text are read
# Files that other programs read: they go with the tokenizer, there and back.
ABOUT_TOKENIZER = ('tokenizer_config.json', 'special_tokens_map.json')
PIECES = 'tokenizer.model'  # of SentencePiece, which llama.cpp converts in its place
BESIDE = (*ABOUT_TOKENIZER, GENERATION, 'chat_template.jinja', PIECES)


def kept_tokenizer(workdir: str | Path, data: ConfigDict) -> SentencePiece | TokenizerJson | None:
  """The tokenizer that a run has learned, or has from a pretrained model, and keeps; None where the
  section `data` of a config asks for none, or the run keeps none, as those of earlier versions.
  Raises `UserError`.

  With it, a run needs neither the text that it was learned from nor the same version of
  SentencePiece, nor the run that it starts from. `workdir`: '' of no run.
  """
  if not workdir:
    return None
  if (own := tokenizer_path(workdir, data)) != Path(data.tokenizer):
    return read_tokenizer_json(str(own), data.vocab)
  path = Path(workdir) / LEARNED
  if data.tokenizer != 'sentencepiece' or not storage.exists(path):
    return None
  return learned_before(path, data.vocab)


def check_same_tokenizer(
  workdir: str | Path,
  sha256: str | None,
  field: str = 'workdir',
  allowed: str = 'the same text and tokenizer',
) -> None:
  """Raises `UserError` where the run's tokens are those of another tokenizer; it says that `field`
  names the run, and what is allowed.
  """
  path = Path(workdir) / TOKENIZER_HASH
  there = None
  if storage.exists(path):
    remedy = (
      'after it is removed and the same train.py command of the run has written it anew; an '
      'imported model is imported anew'
    )
    there = storage.read_json(path, {'sha256': str}, remedy)['sha256']
  if there != sha256:
    trained_with, here = (
      f'the tokenizer {digest[:16]}' if digest else 'no learned tokenizer'
      for digest in (there, sha256)
    )
    problem = f'its run was trained with {trained_with}, here is {here}'
    raise UserError(f'{field}={str(workdir)!r}: {problem}; allowed: {allowed}')


def tokenizer_path(workdir: str | Path, data: ConfigDict) -> Path:
  """Where the tokenizer.json lies that the section `data` of a config names: in the run, if it
  keeps one and began with that. Raises `UserError`.
  """
  own, named = Path(workdir) / OWN_TOKENIZER, Path(data.tokenizer)
  if not storage.exists(own):
    return named
  saved = saved_config(workdir, 'data.tokenizer')
  return own if saved.data.tokenizer == data.tokenizer else named


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
