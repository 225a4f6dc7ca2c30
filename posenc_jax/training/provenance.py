"""What a run keeps of what it was made of: its tokenizer (`own_tokenizer` says how), a list of its
documents, the code of encodings of the user's own, values of posenc_jax's own (`built_in` says
which), the pretrained model that its parameters come from.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from posenc_jax import storage
from posenc_jax.data.documents import Listing
from posenc_jax.errors import Damaged, UserError, shown
from posenc_jax.training.own_tokenizer import (
  LEARNED,
  TOKENIZER_HASH,
  check_same_tokenizer,
  copy_tokenizer,
)

LISTINGS = 'documents.json'  # holds what the text was made of, unless it is embedded
BUILT_IN_VALUES = 'built_in.json'  # holds defaults and hashes of posenc_jax's own, see `built_in`
OWN_ENCODINGS = 'encodings.json'  # holds hashes of the code of encodings of the user's own, if any
SOURCE_HASH = 'source.json'  # holds the hash of the pretrained model that parameters come from
SOURCE_CONFIG = 'source_config.json'  # what the config.json of that model said


class MadeOf(NamedTuple):
  """What a run is made of, as `claim` writes it.

  Attributes:
    tokenizer: the SHA-256 of its tokenizer; None: there is none.
    learned: that tokenizer, if it was learned from the text.
    listings: those of the splits; None of an embedded corpus.
    code: {name: hash} of the encodings of the user's own; None of one that no file has.
    source: the SHA-256 of the pretrained model that parameters come from, where the run begins;
      None: they come from none.
    start: the directory of the run that it starts from; '' of none.
    built_in: values of posenc_jax's own, which are written where the run begins.
  """

  tokenizer: str | None
  learned: bytes | None = None
  listings: Sequence[Listing | None] = ()
  code: Mapping[str, str | None] = {}
  source: str | None = None
  start: str | Path = ''
  built_in: Mapping[str, object] = {}


def claim(workdir: str | Path, made_of: MadeOf, begins: bool) -> None:
  """Writes what a run is made of where it begins, in the place of what an earlier start has left;
  later compares it with what is there, but for values of posenc_jax's own, which `check_built_in`
  compares. Hashes of the tokenizer, documents and code that are missing then, as in a run of an
  earlier version, are written as they are now, and a line says so; the tokenizer itself without
  one. What `MadeOf` has where the run begins is not written later.

  Raises `UserError` where the run was made of something else; nothing is written then.
  """
  workdir = Path(workdir)
  if begins:
    of_run = TOKENIZER_HASH, LEARNED, LISTINGS, OWN_ENCODINGS, SOURCE_HASH, SOURCE_CONFIG
    for name in (*of_run, BUILT_IN_VALUES):
      (workdir / name).unlink(missing_ok=True)
  if made_of.tokenizer is None or storage.exists(workdir / TOKENIZER_HASH):
    check_same_tokenizer(workdir, made_of.tokenizer)
  for listing in made_of.listings:
    check_documents(workdir, listing)
  check_code(workdir, made_of.code)

  if made_of.tokenizer is not None:
    _write(workdir / TOKENIZER_HASH, {'sha256': made_of.tokenizer}, begins)
  if made_of.learned is not None and not storage.exists(workdir / LEARNED):
    storage.atomic_write(workdir / LEARNED, made_of.learned)
  copy_tokenizer(workdir, made_of.start, made_of.tokenizer, begins)
  if listings := [*filter(None, made_of.listings)]:
    counts, hashes = _documents(workdir / LISTINGS)
    for listing in listings:
      counts[listing.folder], hashes[listing.folder] = listing.documents, listing.sha256
    _write(workdir / LISTINGS, {'documents': counts, 'sha256': hashes}, begins)
  if code := {name: sha256 for name, sha256 in made_of.code.items() if sha256}:
    _write(workdir / OWN_ENCODINGS, {'sha256': kept_code(workdir) | code}, begins)
  if begins and made_of.built_in:
    storage.write_json(workdir / BUILT_IN_VALUES, {'values': dict(made_of.built_in)})
  if begins and made_of.source is not None:
    if made_of.start and storage.exists(said := Path(made_of.start) / SOURCE_CONFIG):
      storage.write_json(workdir / SOURCE_CONFIG, storage.read_json(said))
    storage.write_json(workdir / SOURCE_HASH, {'sha256': made_of.source})


def _write(path: Path, tree: dict, begins: bool) -> None:
  """Writes a file that lacks this, and says so where the run had begun without the file."""
  is_there = storage.exists(path)
  if is_there and storage.read_json(path) == tree:
    return
  storage.write_json(path, tree)
  if not is_there and not begins:
    print(f'{path}: is new; it has what is there now, and later changes are compared with that')


def check_documents(workdir: str | Path, listing: Listing | None) -> None:
  """Raises `UserError` where a text has other documents than when the run began. Of a run that has
  no list of them, of an earlier version, that is not known.
  """
  path = Path(workdir) / LISTINGS
  if listing is None:
    return
  counts, hashes = _documents(path)
  is_whole = listing.folder == '.'
  if hashes and is_whole != ('.' in hashes):
    # documents that were trained on could be in the test split of now
    had, has = ('folders', 'none') if is_whole else ('none', 'folders')
    problem = f'data.corpus had {had} of splits when its run began, {has} now'
  elif hashes.get(listing.folder, listing.sha256) != listing.sha256:
    then, now = counts.get(listing.folder), listing.documents
    folder = 'data.corpus' if is_whole else f'{listing.folder} of data.corpus'
    others = ', others in name or size' if then == now else ''
    problem = f'documents in {folder}: {then} when its run began, {now} now{others}'
  else:
    return
  allowed = f'the documents of then, another workdir, or without {LISTINGS} there'
  raise UserError(f'workdir={str(workdir)!r}: {problem}; allowed: {allowed}')


def _documents(path: Path) -> tuple[dict, dict]:
  """({folder: number of documents}, {folder: hash of their names and sizes}); {} where there are
  none.
  """
  if not storage.exists(path):
    return {}, {}
  remedy = 'without that file, if the text is as it was'
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


def kept_values(workdir: str | Path) -> dict[str, object]:
  """The values of `built_in` that a run, or the runs of a folder of kept results, began with. {}
  where it keeps none, as those of earlier versions.
  """
  path = Path(workdir) / BUILT_IN_VALUES
  if not storage.exists(path):
    return {}
  remedy = 'without that file, if posenc_jax is as it was'
  return storage.read_json(path, {'values': dict}, remedy)['values']


def check_code(
  workdir: str | Path,
  code: Mapping[str, str | None],
  field: str = 'workdir',
  instead: str = 'another workdir',
) -> None:
  """Raises `UserError` where the code of encodings of the user's own is not that of when the run in
  `workdir` began. Runs that have no hashes are taken as they are.

  Args:
    code: {name: hash}; None of an encoding that no file has.
    field: names the run in the error.
    instead: the way out for those who mean the code of now.
  """
  there = kept_code(workdir)
  for name, sha256 in code.items():
    if there.get(name, sha256) != sha256:
      problem = f'encoding {name!r} was edited since its run began'
      # as also where another version of posenc_jax hashed it otherwise
      same = f'without {OWN_ENCODINGS} there, if its numbers are the same'
      allowed = f'its code of then, {instead}, or {same}'
      if sha256 is None:
        problem = f'encoding {name!r} is not that of a file, as it was when its run began'
        allowed = 'after the module that registers it is imported'
      raise UserError(f'{field}={str(workdir)!r}: {problem}; allowed: {allowed}')


def source_of(workdir: str | Path) -> str | None:
  """The SHA-256 of the pretrained model that the run's parameters come from; None: they come from
  none. Raises `UserError` where the file is damaged.
  """
  path = Path(workdir) / SOURCE_HASH
  if not storage.exists(path):
    return None
  remedy = 'the file that the import wrote'
  sha256 = storage.read_json(path, {'sha256': str}, remedy)['sha256']
  if not re.fullmatch('[0-9a-f]{64}', sha256):
    raise Damaged(f'{path} is damaged: sha256={shown(sha256)}; allowed: {remedy}')
  return sha256
