"""Tokens of a split, made once for each tokenizer and kept in the cache.

A split is known by the contents of its documents, so that other text never meets tokens of before:
to hash text takes a small part of the time that cutting it into tokens takes. Since hashing very
much text is long, too, a stamp beside the tokens keeps what was found: that files of this identity
(`identity_of` in documents.py) hold the text of those tokens. It trusts that a file whose size,
inode and times of change stay has not changed. In any doubt all text is read and hashed.
"""

import contextlib
import hashlib
import os
import re
import sys
import zlib
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np

from posenc_jax import storage
from posenc_jax.data.building import build_once
from posenc_jax.data.tokenizers import Bytes
from posenc_jax.errors import Damaged, UserError

# One more with each change of what the modules here make of files, what tokenizers.py makes of a
# text or refuses, or of how it is kept.
FORMAT = 4
# The files of numbers. Where a token stands for LARGE bytes or more, `bytes` has LARGE, `places`
# the place of the token, and `large` its bytes.
FILES = ('tokens', 'bytes', 'places', 'large', 'counts')
LARGE = 255
NAME = 32  # hexadecimal digits of a hash, which name a folder of tokens
CHECKS = 'checks.json'  # the CRC-32 of each file
CHUNK_BYTES = 2**22  # of text, given to the tokenizer at once: it may use several cores
SAMPLE_BYTES = 2**16  # of the first document, in which it is seen whether text is changed


class ByteCounts:
  """How many bytes each of N tokens stands for, kept in a byte each but for the few large ones; a
  slice of it is int64.
  """

  def __init__(self, small_N: np.ndarray, places_M: np.ndarray, large_M: np.ndarray):
    """`large_M`: the counts of the tokens at `places_M`, which rise."""
    self._small_N, self._places_M, self._large_M = small_N, places_M, large_M

  def __len__(self) -> int:
    return len(self._small_N)

  def __getitem__(self, part: slice) -> np.ndarray:
    places_M, large_M, start, stop = self._large_in(part)
    counts_T = self._small_N[start:stop].astype(np.int64)
    counts_T[places_M] = large_M
    return counts_T

  def part(self, part: slice) -> 'ByteCounts':
    """The counts of a slice, of which nothing is read."""
    places_M, large_M, start, stop = self._large_in(part)
    return ByteCounts(self._small_N[start:stop], places_M, large_M)

  def _large_in(self, part: slice) -> tuple[np.ndarray, np.ndarray, int, int]:
    """(the places of large counts within a slice, these counts, its start, its end)."""
    start, stop, _ = part.indices(len(self))
    first, last = np.searchsorted(self._places_M, (start, stop))
    return self._places_M[first:last] - start, self._large_M[first:last], start, stop


class Tokenized(NamedTuple):
  """The tokens of all documents, one after another.

  Attributes:
    tokens_N: uint16 or int32, a file in memory as far as it is read.
    bytes_N: likewise, how many bytes of its document each token stands for.
    counts_D: int64, the number of tokens of each document.
  """

  tokens_N: np.ndarray
  bytes_N: ByteCounts
  counts_D: np.ndarray


def tokenized(
  documents: Sequence[bytes], tokenizer: Bytes, cache: Path, title: str, source: str | None = None
) -> Tokenized:
  """Returns the tokens of all documents from the cache, where they are made if they are not there.

  Args:
    title: what the documents are called in the line that says that they are cut.
    source: what decides on their text, so that it need not be read; None: that is not known.
  Raises:
    UserError: the cache cannot be written or is damaged, documents changed, or what the tokenizer
      raises. OSError: the cache cannot be read.
  """
  cache /= 'tokens'
  stamp = cache / 'stamps' / f'{_digest(tokenizer, source).hexdigest()}.json'
  if source is not None and (name := _stamped(stamp)) and storage.exists(cache / name):
    return _opened(cache / name, tokenizer)
  digest = _digest(tokenizer)
  size = 0
  for document in documents:
    digest.update(_framed(document))
    size += len(document)
  name = digest.hexdigest()[:NAME]
  folder = cache / name

  def make(scratch: Path) -> Path:
    print(f'{title}: {size:,} bytes are cut into tokens, once', file=sys.stderr, flush=True)
    if change := tokenizer.change(next(iter(documents), b'')[:SAMPLE_BYTES]):
      what = f'the tokenizer changes text ({change}), and predicts what it has changed'
      print(f'{title}: {what}: other bits per byte are not comparable', file=sys.stderr, flush=True)
    if _write(scratch / name, documents, tokenizer) != name:
      raise UserError(f'{title}: the text changed while it was read; run again')
    return scratch / name

  build_once(folder, cache, make)
  if source is not None:
    with contextlib.suppress(OSError):  # in a cache that cannot be written the text is read again
      stamp.parent.mkdir(exist_ok=True)
      storage.write_json(stamp, {'tokens': name})
  return _opened(folder, tokenizer)


def _stamped(stamp: Path) -> str | None:
  """The name of the tokens that a stamp tells; None where there is none that can be read."""
  try:
    name = storage.read_json(stamp, {'tokens': str})['tokens']
  except (OSError, Damaged):
    return None
  return name if re.fullmatch(f'[0-9a-f]{{{NAME}}}', name) else None


def _opened(folder: Path, tokenizer: Bytes) -> Tokenized:
  """The tokens in a folder. Raises `UserError` where they are damaged; OSError."""
  try:
    checks = storage.read_json(folder / CHECKS, dict.fromkeys(FILES, int))
    tokens_N, *bytes_N, counts_D = (
      _read(folder / file, kind, checks[file]) for file, kind in _kinds(tokenizer).items()
    )
    return Tokenized(tokens_N, ByteCounts(*bytes_N), counts_D)
  except (FileNotFoundError, ValueError):
    raise UserError(f'the tokens in {folder} are damaged; delete it and run again') from None


def _digest(tokenizer: Bytes, *more: str | None):
  package = tokenizer.package  # another version may cut otherwise
  about = FORMAT, tokenizer.sha256, package, metadata.version(package), *more
  return hashlib.sha256(repr(about).encode())


def _kinds(tokenizer: Bytes) -> dict[str, type]:
  """{file: the type of its numbers}."""
  kinds = dict.fromkeys(FILES, np.int64)
  return kinds | {'tokens': np.uint16 if tokenizer.vocab <= 2**16 else np.int32, 'bytes': np.uint8}


def _framed(document: bytes) -> bytes:
  return b' %d ' % len(document) + document


def _write(folder: Path, documents: Sequence[bytes], tokenizer: Bytes) -> str:
  """Writes the tokens into a new folder; returns the name of the text that they are of. Raises
  `UserError` as `check_unknown` of the tokenizer does.
  """
  folder.mkdir()
  digest, kinds, checks = _digest(tokenizer), _kinds(tokenizer), dict.fromkeys(FILES, 0)
  unknown = size = num_tokens = 0
  files = {name: open(folder / name, 'wb') for name in FILES}  # noqa: SIM115

  def write(name: str, numbers: np.ndarray) -> None:
    content = numbers.astype(kinds[name]).tobytes()
    files[name].write(content)
    checks[name] = zlib.crc32(content, checks[name])

  try:
    for chunk in _chunks(documents):
      for document in chunk:
        digest.update(_framed(document))
        size += len(document)
      for cut in tokenizer.cut(chunk):
        places = np.flatnonzero(cut.bytes_T >= LARGE)
        write('tokens', cut.tokens_T)
        write('bytes', np.minimum(cut.bytes_T, LARGE))
        write('places', num_tokens + places)
        write('large', cut.bytes_T[places])
        write('counts', np.array([len(cut.tokens_T)]))
        num_tokens += len(cut.tokens_T)
        unknown += cut.unknown
    tokenizer.check_unknown(unknown, size)
    for file in files.values():
      file.flush()
      os.fsync(file.fileno())
  finally:
    for file in files.values():
      file.close()
  storage.write_json(folder / CHECKS, checks)
  return digest.hexdigest()[:NAME]


def _chunks(documents: Iterable[bytes]) -> Iterable[list[bytes]]:
  chunk, size = [], 0
  for document in documents:
    chunk.append(document)
    size += len(document)
    if size >= CHUNK_BYTES:
      yield chunk
      chunk, size = [], 0
  yield chunk


def _read(file: Path, kind: type, check: int) -> np.ndarray:
  """The numbers of a file, which stay there until they are read. Raises OSError, and ValueError
  where they have another check.
  """
  numbers = np.memmap(file, kind, 'r') if file.stat().st_size else np.zeros(0, kind)
  if zlib.crc32(numbers) != check:
    raise ValueError
  return np.asarray(numbers)
