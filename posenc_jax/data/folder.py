"""A folder of text as a corpus: each .txt file, and each line of a .jsonl file, is one document. A
list of integers in such a line is the text of these numbers, with a space between two. A line says
how many files are left out that `hf:` would read, or whose endings have capitals.

Subfolders are searched at any depth, those behind links too. If there is a subfolder train/,
validation/ or test/, these are the splits. Otherwise documents are ranked by the SHA-256 of their
names: the first tenth is the test split, the next twentieth the validation split (at least one
document each), and the rest trains. Adding a file can then move others, so a corpus that grows
should have the subfolders.
"""

import functools
import hashlib
import json
import mmap
import os
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from posenc_jax import storage
from posenc_jax.data.documents import SPLITS, Documents, Listing, identity_of
from posenc_jax.errors import UserError, hint, one_line, user_errors, visible

# What the system says of a file that goes away while the folder is read.
GONE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
# How files of gzip, zstd, bzip2, xz and zip begin.
COMPRESSED = (b'\x1f\x8b', b'\x28\xb5\x2f\xfd', b'BZh', b'\xfd7zXZ', b'PK\x03\x04')
SUFFIXES = ('.txt', '.jsonl')
# Ends of files that the library `datasets` reads: those of its tables, and of lines compressed.
OF_LIBRARY = ('.arrow', '.bz2', '.csv', '.gz', '.json', '.parquet', '.tsv', '.xz', '.zst')

# A .txt file of so many bytes or more is not read as a whole: windows are read from where it lies.
MAPPED_BYTES = 2**25
BEGINNING = 2**20  # bytes of a file, by which it is seen whether it is text
AT_ONCE = 2**12  # numbers of an array that become Python's
DIGEST = 'S32'  # a SHA-256: that NumPy leaves off zeros at the end changes no order


class Document(NamedTuple):
  """The place of a document; `offset` is the start of its line in a .jsonl file, None in a .txt.
  `size`: bytes of the file, or of the line.
  """

  name: str
  path: Path
  offset: int | None
  size: int


class Places:
  """The places of documents below a folder, in some tens of bytes each: there may be very many.

  Attributes:
    root: the folder.
    files: the name of each file in it.
    file_D: the number of each document's file.
    line_D: the number of its line, from 1 on; 0: it is the whole file.
    offset_D: where it begins in its file.
    size_D: how many bytes it has there.
  """

  def __init__(self, root: Path, files: list[str], *columns: np.ndarray):
    """`columns`: file_D, line_D, offset_D and size_D."""
    self.root, self.files = root, files
    self.file_D, self.line_D, self.offset_D, self.size_D = columns

  def __len__(self) -> int:
    return len(self.file_D)

  def __getitem__(self, index: int) -> Document:
    file = self.files[self.file_D[index]]
    line, offset, size = map(int, (self.line_D[index], self.offset_D[index], self.size_D[index]))
    return Document(_name(file, line), self.root / file, offset if line else None, size)

  def name(self, index: int) -> str:
    return _name(self.files[self.file_D[index]], self.line_D[index])

  def names(self) -> Iterator[str]:
    """Yields the name of each document."""
    return map(_name, map(self.files.__getitem__, _numbers(self.file_D)), _numbers(self.line_D))

  def chosen(self, indices_D: np.ndarray) -> 'Places':
    """Returns the places of some of the documents."""
    columns = self.file_D, self.line_D, self.offset_D, self.size_D
    return Places(self.root, self.files, *(column[indices_D] for column in columns))


def _name(file: str, line: int) -> str:
  return f'{file}:{line}' if line else file


def _numbers(column_D: np.ndarray) -> Iterator[int]:
  """Yields Python's numbers, which are made of few of them at once."""
  for start in range(0, len(column_D), AT_ONCE):
    yield from column_D[start : start + AT_ONCE].tolist()


@user_errors(*GONE, PermissionError)
def open_split(name: str, split: str, text_field: str, cache: Path) -> Documents:
  """Returns the documents of a split. Raises `UserError`."""
  root = Path(name)
  field = f'config.data.corpus={name!r}'
  _, folders, _ = next(storage.walk(root))
  capital = [folder for folder in folders if folder not in SPLITS and folder.lower() in SPLITS]
  if capital and 'train' in map(str.lower, folders):  # to some file systems these are splits
    raise UserError(f'{field}: a folder {capital[0]!r}; {hint(capital[0], SPLITS)}')
  subfolders = [split for split in SPLITS if (root / split).is_dir()]
  if subfolders and split not in subfolders:
    raise UserError(f'{field}: no split {split!r}; its folders are {", ".join(subfolders)}')
  searched = root / split if subfolders else root
  documents, identity = _documents(searched, text_field)
  if not len(documents):
    there = {path.suffix for path in _files_below(searched) if path.suffix}
    # no line of which is a document; a .txt file would be one
    kinds = sorted('empty .jsonl' if suffix == '.jsonl' else suffix for suffix in there)
    has = f', only {", ".join(kinds[:5])}' if kinds else ''
    allowed = '.txt or .jsonl files'
    if {*kinds} & {*OF_LIBRARY}:
      what = 'Parquet, Arrow, CSV, JSON and what is compressed'
      allowed += f"; {what}, with the extra hf, as data.corpus='hf:{name}'"
    raise UserError(f'{field}: no documents for split {split!r}{has}; allowed: {allowed}')
  listing = listing_of(split if subfolders else '.', documents.names(), _numbers(documents.size_D))
  if not subfolders:
    total = len(documents)
    documents = _split_by_hash(documents, split)
    if not len(documents):
      raise UserError(
        f'{field}: no document of {total} left for {split!r}; '
        'allowed: 3 documents or more, or folders train, validation and test'
      )
  read = lambda index: _read(documents[index], text_field)
  return Documents(len(documents), documents.name, read, listing, identity)


def prepare(name: str, cache: Path) -> Path:
  """A folder needs no preparation and is read where it is."""
  return Path(name)


def _files_below(root: Path) -> Iterator[Path]:
  """Yields the files below a folder, hidden ones left out, each folder once: where it lies, if that
  is below `root`, else behind the first link to it. A link to a folder that `root` is in leads
  nowhere, for other splits are there.

  Raises `UserError` of a link to nothing that may have been a document or a folder, and OSError of
  a folder that cannot be listed.
  """
  places = [root]
  seen = set(map(str, root.resolve().parents))
  for place in places:  # links behind links join it
    for folder, subfolders, names in storage.walk(place):
      subfolders[:] = sorted(name for name in subfolders if not name.startswith('.'))
      if (real := os.path.realpath(folder)) in seen:
        subfolders.clear()
        continue
      seen.add(real)
      places += [path for path in map(Path(folder).joinpath, subfolders) if path.is_symlink()]
      for path in (Path(folder, name) for name in names if not name.startswith('.')):
        if path.is_file():
          yield path
        elif path.suffix in ('', *SUFFIXES) and path.is_symlink() and not storage.exists(path):
          raise UserError(
            f'config.data.corpus: {path} is a link to nothing; allowed: links to what is there'
          )


def _documents(root: Path, text_field: str) -> tuple[Places, str | None]:
  """All documents below `root`, sorted by the names of their files, without hidden files; and what
  `identity_of` says of these files, before they are read.
  """
  files, left_out = [], Counter()
  for path in _files_below(root):
    if path.suffix in SUFFIXES:
      files.append(path.relative_to(root).as_posix())
    elif path.suffix.lower() in (*SUFFIXES, *OF_LIBRARY):
      left_out[path.suffix] += 1
  files.sort()
  if files and left_out:
    counts = ', '.join(f'{left_out[suffix]} {suffix}' for suffix in sorted(left_out))
    say(f'{root}: files that are neither .txt nor .jsonl are not read: {counts}')
  identity = identity_of((root / name for name in files), text_field)
  columns = numbers, lines, offsets, sizes = array('i'), array('q'), array('q'), array('q')
  for number, name in enumerate(files):
    path = root / name
    if path.suffix == '.txt':
      numbers.append(number)
      lines.append(0)
      offsets.append(0)
      sizes.append(path.stat().st_size)
      continue
    offset = 0
    with path.open('rb') as file:
      for line, content in enumerate(file, 1):
        if content.strip():
          numbers.append(number)
          lines.append(line)
          offsets.append(offset)
          sizes.append(len(content))
        offset += len(content)
  return Places(root, files, *map(np.asarray, columns)), identity


@functools.cache  # since all splits may be of the same folder
def say(line: str) -> None:
  """Prints a line to the error stream, once."""
  print(visible(line), file=sys.stderr, flush=True)


def listing_of(folder: str, names: Iterable[str], sizes: Iterable[int]) -> Listing:
  """The listing of documents, or of what is known of them by name and size."""
  digest, count = hashlib.sha256(), 0
  for name, size in zip(names, sizes, strict=True):
    digest.update(b'%s\0%d\0' % (os.fsencode(name), size))
    count += 1
  return Listing(folder, count, digest.hexdigest())


def _split_by_hash(documents: Places, split: str) -> Places:
  """The documents that the hash of their names puts into this split, in the order given."""
  digests = (hashlib.sha256(os.fsencode(name)).digest() for name in documents.names())
  ranked = np.fromiter(digests, DIGEST, len(documents)).argsort()
  test = max(1, len(ranked) // 10)
  validation = test + max(1, len(ranked) // 20)
  bounds = {'test': (0, test), 'validation': (test, validation), 'train': (validation, None)}
  return documents.chosen(np.sort(ranked[slice(*bounds[split])]))


def _content(document: Document) -> bytes | mmap.mmap:
  """The content of a .txt file. Raises `UserError` where it is no text."""
  with document.path.open('rb') as file:
    is_large = os.fstat(file.fileno()).st_size >= MAPPED_BYTES
    content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if is_large else file.read()
  start = content[:BEGINNING]
  place = start.find(b'\0')
  if place >= 0 or start.startswith(COMPRESSED):
    seen = f'byte {place} is NUL' if place >= 0 else 'by its first bytes'
    raise UserError(
      f'config.data.corpus: {document.name} of {document.path.parent} is compressed, binary or '
      f'UTF-16 ({seen}); allowed: text in UTF-8'
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
  if isinstance(text, list) and all(type(number) is int for number in text):
    text = ' '.join(map(str, text))
  if not isinstance(text, str):
    raise UserError(
      f'config.data.text_field={text_field!r}: no such text or list of integers in '
      f'{document.name}; its fields: {", ".join(fields) or "none"}'
    )
  return text.encode('utf-8', 'surrogatepass')
