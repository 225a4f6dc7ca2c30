"""A folder of text as a corpus: each .txt file, and each line of a .jsonl file, is one document.

Subfolders are searched at any depth. If there is a subfolder train/, validation/ or test/, these
are the splits. Otherwise documents are ranked by the SHA-256 of their names: the first tenth is the
test split, the next twentieth the validation split (at least one document each), and the rest
trains. Adding a file can then move others, so a corpus that grows should have the subfolders.
"""

import hashlib
import json
import mmap
import os
from pathlib import Path
from typing import NamedTuple

from posenc_jax.data.documents import SPLITS, Documents, Listing
from posenc_jax.errors import UserError, one_line, user_errors

# What the system says of a file that goes away while the folder is read.
GONE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
# How files of gzip, zstd, bzip2, xz and zip begin.
COMPRESSED = (b'\x1f\x8b', b'\x28\xb5\x2f\xfd', b'BZh', b'\xfd7zXZ', b'PK\x03\x04')

# A .txt file of so many bytes or more is not read as a whole: windows are read from where it lies.
MAPPED_BYTES = 2**25
BEGINNING = 2**20  # bytes of such a file, by which it is seen whether it is text


class Document(NamedTuple):
  """The place of a document; `offset` is the start of its line in a .jsonl file, None in a .txt.
  `size`: bytes of the file, or of the line.
  """

  name: str
  path: Path
  offset: int | None
  size: int


def open_split(name: str, split: str, text_field: str, cache: Path) -> Documents:
  """Returns the documents of a split. Raises `UserError`."""
  root = Path(name)
  field = f'config.data.corpus={name!r}'
  subfolders = [split for split in SPLITS if (root / split).is_dir()]
  if subfolders and split not in subfolders:
    raise UserError(f'{field}: no split {split!r}; its folders are {", ".join(subfolders)}')
  documents = _documents(root / split if subfolders else root)
  if not documents:
    kinds = sorted({path.suffix for path in root.rglob('*') if path.suffix and path.is_file()})
    has = f', only {", ".join(kinds[:5])}' if kinds else ''
    raise UserError(
      f'{field}: no documents for split {split!r}{has}; allowed: .txt or .jsonl files'
    )
  listing = listing_of(split if subfolders else '.', documents)
  if not subfolders:
    total = len(documents)
    documents = _split_by_hash(documents, split)
    if not documents:
      raise UserError(
        f'{field}: no document of {total} left for {split!r}; '
        'allowed: 3 documents or more, or folders train, validation and test'
      )
  return Documents(
    len(documents), lambda n: documents[n].name, lambda n: _read(documents[n], text_field), listing
  )


def prepare(name: str, cache: Path) -> Path:
  """A folder needs no preparation and is read where it is."""
  return Path(name)


@user_errors(*GONE)
def _documents(root: Path) -> list[Document]:
  """All documents below `root`, sorted by the names of their files, without hidden files."""
  documents = []
  paths = (path for path in root.rglob('*') if path.suffix in ('.txt', '.jsonl') and path.is_file())
  for name, path in sorted((path.relative_to(root).as_posix(), path) for path in paths):
    if any(part.startswith('.') for part in name.split('/')):
      continue
    if path.suffix == '.txt':
      documents.append(Document(name, path, None, path.stat().st_size))
      continue
    offset = 0
    with path.open('rb') as lines:
      for number, line in enumerate(lines, 1):
        if line.strip():
          documents.append(Document(f'{name}:{number}', path, offset, len(line)))
        offset += len(line)
  return documents


def listing_of(folder: str, documents: list[Document]) -> Listing:
  """The listing of documents, or of what is known of them by name and size."""
  digest = hashlib.sha256()
  for document in documents:
    digest.update(b'%s\0%d\0' % (os.fsencode(document.name), document.size))
  return Listing(folder, len(documents), digest.hexdigest())


def _split_by_hash(documents: list[Document], split: str) -> list[Document]:
  """The documents that the hash of their names puts into this split, in the order given."""
  ranked = sorted(
    documents, key=lambda document: hashlib.sha256(os.fsencode(document.name)).digest()
  )
  test = max(1, len(ranked) // 10)
  validation = test + max(1, len(ranked) // 20)
  bounds = {'test': (0, test), 'validation': (test, validation), 'train': (validation, None)}
  chosen = set(ranked[slice(*bounds[split])])
  return [document for document in documents if document in chosen]


def _content(document: Document) -> bytes | mmap.mmap:
  """The content of a .txt file. Raises `UserError` where it is no text."""
  with document.path.open('rb') as file:
    is_large = os.fstat(file.fileno()).st_size >= MAPPED_BYTES
    content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if is_large else file.read()
  start = content[:BEGINNING] if is_large else content
  if b'\0' in start or start.startswith(COMPRESSED):
    raise UserError(
      f'config.data.corpus: {document.name} of {document.path.parent} is compressed, binary or '
      'UTF-16; allowed: text in UTF-8'
    )
  return content


@user_errors(*GONE)
def _read(document: Document, text_field: str) -> bytes | mmap.mmap:
  if document.offset is None:
    return _content(document)
  with document.path.open('rb') as lines:
    lines.seek(document.offset)
    line = lines.readline()
  try:
    row = json.loads(line)
  except (ValueError, RecursionError) as error:
    where = f'{document.name} of {document.path.parent}'
    raise UserError(f'config.data.corpus: {where} is not JSON: {one_line(error)}') from None
  fields = row if isinstance(row, dict) else {}
  text = fields.get(text_field)
  if not isinstance(text, str):
    raise UserError(
      f'config.data.text_field={text_field!r}: no such text in {document.name}; '
      f'its fields: {", ".join(fields) or "none"}'
    )
  return text.encode('utf-8', 'surrogatepass')
