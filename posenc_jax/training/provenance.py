"""What a run keeps of what it was made of: its tokenizer, the documents of a folder of text, the
pretrained model that its parameters come from.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from ml_collections import ConfigDict

from posenc_jax import storage
from posenc_jax.data.documents import Listing
from posenc_jax.data.tokenizers import SentencePiece, TokenizerJson, learned_before, tokenizer_json
from posenc_jax.errors import Damaged, UserError, shown
from posenc_jax.training.own_tokenizer import tokenizer_path

TOKENIZER_HASH = 'tokenizer.json'  # holds the hash of the learned tokenizer, if there is one
MODEL = 'tokenizer.model'  # that tokenizer, if it was learned from the text
DOCUMENTS = 'documents.json'  # holds what a folder of text was made of, if the corpus is one
OWN_ENCODINGS = 'encodings.json'  # holds hashes of the code of encodings of the user's own, if any
SOURCE = 'source.json'  # holds the hash of the pretrained model that parameters come from, if so
SOURCE_CONFIG = 'source_config.json'  # what the config.json of that model said


def claim_tokenizer(workdir: str | Path, sha256: str | None, learned: bytes | None = None) -> None:
  """Writes the hash of the learned tokenizer (None: there is none), or compares it; then the model
  that was learned from the text, if so.
  """
  path = Path(workdir) / TOKENIZER_HASH
  if sha256 is not None and not storage.exists(path):
    storage.write_json(path, {'sha256': sha256})
  check_same_tokenizer(workdir, sha256)
  if learned is not None and not storage.exists(path.with_name(MODEL)):
    storage.atomic_write(path.with_name(MODEL), learned)


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
    return tokenizer_json(str(own), data.vocab)
  path = Path(workdir) / MODEL
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
    remedy = 'without that file, if the text is the one that it was trained on'
    there = storage.read_json(path, {'sha256': str}, remedy)['sha256']
  if there != sha256:
    trained_with, here = (
      f'the tokenizer {digest[:16]}' if digest else 'no learned tokenizer'
      for digest in (there, sha256)
    )
    problem = f'its run was trained with {trained_with}, here is {here}'
    raise UserError(f'{field}={str(workdir)!r}: {problem}; allowed: {allowed}')


def claim_documents(
  workdir: str | Path, listings: Iterable[Listing | None], begins: bool = False
) -> None:
  """Writes the numbers and hashes of the documents in a folder of text (None: the corpus is none),
  or compares them with those that are there.

  Runs that have none, of an earlier version, go on without.

  Args:
    begins: whether the run begins: then what may be there counts for nothing.
  Raises:
    UserError: other documents are there than when the run began.
  """
  path, listings = Path(workdir) / DOCUMENTS, [*filter(None, listings)]
  if not listings or not (begins or storage.exists(path)):
    return
  counts, hashes = ({}, {}) if begins else _documents(path)
  for listing in listings:
    if not begins:
      check_documents(workdir, listing)
    counts[listing.folder], hashes[listing.folder] = listing.documents, listing.sha256
  if begins or _documents(path) != (counts, hashes):
    storage.write_json(path, {'documents': counts, 'sha256': hashes})


def check_documents(workdir: str | Path, listing: Listing | None) -> None:
  """Raises `UserError` where other documents are in a folder of text than when the run began."""
  path = Path(workdir) / DOCUMENTS
  if listing is None or not storage.exists(path):
    return
  counts, hashes = _documents(path)
  if hashes.get(listing.folder, listing.sha256) != listing.sha256:
    then, now = counts.get(listing.folder), listing.documents
    folder = 'data.corpus' if listing.folder == '.' else f'{listing.folder} of data.corpus'
    others = ', others in name or size' if then == now else ''
    problem = f'documents in {folder}: {then} when its run began, {now} now{others}'
    allowed = f'the documents of then, another workdir, or without {DOCUMENTS} there'
    raise UserError(f'workdir={str(workdir)!r}: {problem}; allowed: {allowed}')


def _documents(path: Path) -> tuple[dict, dict]:
  """({folder: number of documents}, {folder: hash of their names and sizes})."""
  remedy = 'without that file, if the folder of text is as it was'
  tree = storage.read_json(path, {'documents': dict, 'sha256': dict}, remedy)
  return tree['documents'], tree['sha256']


def kept_code(workdir: str | Path) -> dict[str, str]:
  """{name: hash} of the code of the encodings of the user's own that a run, or a folder of kept
  results, was made of. {} where it keeps none, as those of earlier versions. Raises `UserError`.
  """
  path = Path(workdir) / OWN_ENCODINGS
  if not storage.exists(path):
    return {}
  remedy = 'without that file, if its encodings are as they were'
  hashes = storage.read_json(path, {'sha256': dict}, remedy)['sha256']
  if not all(isinstance(sha256, str) for sha256 in hashes.values()):
    raise Damaged(f'{path} is damaged: sha256={shown(hashes)}; allowed: {remedy}')
  return hashes


def source_of(workdir: str | Path) -> str | None:
  """The SHA-256 of the pretrained model that the run's parameters come from; None: they come from
  none. Raises `UserError` where the file is damaged.
  """
  path = Path(workdir) / SOURCE
  if not storage.exists(path):
    return None
  remedy = 'the file that the import wrote'
  sha256 = storage.read_json(path, {'sha256': str}, remedy)['sha256']
  if not re.fullmatch('[0-9a-f]{64}', sha256):
    raise Damaged(f'{path} is damaged: sha256={shown(sha256)}; allowed: {remedy}')
  return sha256


def claim_source(workdir: str | Path, sha256: str | None, start: str | Path = '') -> None:
  """Writes the hash of the pretrained model that the run starts from, if it starts from one, and
  what its config.json said, which stands in `start`, the directory of the run before.
  """
  path, said = Path(workdir) / SOURCE, Path(start) / SOURCE_CONFIG
  if sha256 is None or storage.exists(path):
    return
  if start and storage.exists(said):
    storage.write_json(Path(workdir) / SOURCE_CONFIG, storage.read_json(said))
  storage.write_json(path, {'sha256': sha256})
