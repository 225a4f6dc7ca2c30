"""Tokens of a split, made once for each tokenizer and kept in the cache.

A split is known by the contents of its documents, so that other text never meets tokens of before:
to hash text takes a small part of the time that cutting it into tokens takes. Since hashing very
much text is long, too, a stamp beside the tokens keeps what was found: that files of this identity
(`identity_of` in documents.py) hold the text of those tokens. It trusts that a file whose size,
inode and times of change stay has not changed. In any doubt all text is read and hashed. The tokens
themselves are not trusted: each block has a check, which is made when the block is first read.
"""

import contextlib
import hashlib
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np

from posenc_jax import storage
from posenc_jax.data.building import build_once
from posenc_jax.data.tokenizers import Bytes, OtherText, Unread, not_utf8
from posenc_jax.errors import Damaged, UserError

# One more with each change of what the modules here make of files, what tokenizers.py and
# tokenizer_json.py make of a text or refuse, or of how it is kept.
FORMAT = 7
# The files of numbers. Where a token stands for LARGE bytes or more, `bytes` has LARGE, `places`
# the place of the token, and `large` its bytes.
FILES = ('tokens', 'bytes', 'places', 'large', 'counts')
LARGE = 255
NAME = 32  # hexadecimal digits of a hash, which name a folder of tokens
CHECKS = 'checks.json'  # the CRC-32 of each block of each file
BLOCK_BYTES = 2**20  # at least read at once, until all have been checked
CHUNK_BYTES = 2**22  # of text, given to the tokenizer at once: it may use several cores
# Where it is seen whether text is changed: so many documents, spread evenly, and bytes of each.
SAMPLED, SAMPLE_BYTES = 32, 2**13


class Checked:
  """The numbers of a file, which stay there until they are read: a slice is an array. Blocks are
  checked when something of them is asked for the first time, so that a start need not read all.
  """

  def __init__(self, file: Path, kind: type, checks: list[int]):
    """Raises OSError, and ValueError where the file has another size than blocks with `checks`."""
    size = file.stat().st_size
    if len(checks) != -(-size // BLOCK_BYTES):
      raise ValueError
    numbers = np.memmap(file, kind, 'r') if size else np.zeros(0, kind)
    self._numbers, self._folder, self._checks = np.asarray(numbers), file.parent, checks
    self._is_checked = np.zeros(len(checks), bool)

  def __len__(self) -> int:
    return len(self._numbers)

  def __getitem__(self, part: slice) -> np.ndarray:
    """Raises `UserError` where a block that it lies in is damaged."""
    start, stop, _ = part.indices(len(self))
    size = BLOCK_BYTES // self._numbers.itemsize
    first, last = start // size, -(-stop // size)
    for block in first + np.flatnonzero(~self._is_checked[first:last]):
      if zlib.crc32(self._numbers[block * size : (block + 1) * size]) != self._checks[block]:
        raise _damaged(self._folder)
      self._is_checked[block] = True
    return self._numbers[start:stop]


class ByteCounts:
  """How many bytes each of N tokens stands for, kept in a byte each but for the few large ones; a
  slice of it is int64.
  """

  def __init__(self, small_N: Checked | np.ndarray, places_M: np.ndarray, large_M: np.ndarray):
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
    """The counts of a slice, as they are kept."""
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
    tokens_N: uint16 or int32.
    bytes_N: how many bytes of its document each token stands for.
    counts_D: int64, the number of tokens of each document.
  """

  tokens_N: Checked
  bytes_N: ByteCounts
  counts_D: np.ndarray


def tokenized(
  documents: Sequence[bytes],
  tokenizer: Bytes,
  cache: Path,
  title: str,
  source: str | None = None,
  names: Sequence[str] | None = None,
) -> Tokenized:
  """Returns the tokens of all documents from the cache, where they are made if they are not there.

  Args:
    title: what the documents are called in the line that says that they are cut.
    source: what decides on their text, so that it need not be read; None: that is not known.
    names: what errors call each document; None: its number.
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
    _update(digest, document)
    size += len(document)
  name = digest.hexdigest()[:NAME]
  folder = cache / name

  def make(scratch: Path) -> Path:
    print(f'{title}: {size:,} bytes are cut into tokens, once', file=sys.stderr, flush=True)
    count = len(documents)
    sample = sorted({n * count // SAMPLED for n in range(SAMPLED)}) if count else []
    changes = (tokenizer.change(documents[n][:SAMPLE_BYTES]) for n in sample)
    if change := next(filter(None, changes), ''):
      what = f'the tokenizer changes text ({change}), and predicts what it has changed'
      print(f'{title}: {what}: other bits per byte are not comparable', file=sys.stderr, flush=True)
    name_of = lambda n: f'{title}, {names[n] if names else n}'
    written, replaced = _write(scratch / name, documents, tokenizer, name_of)
    if written != name:
      raise UserError(f'{title}: the text changed while it was read; run again')
    if replaced:
      print(f'{title}: {not_utf8(replaced, size)}', file=sys.stderr, flush=True)
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
  """The tokens in a folder. Raises `UserError` where they are seen to be damaged; OSError."""
  try:
    checks = storage.read_json(folder / CHECKS, dict.fromkeys(FILES, list))
    tokens_N, small_N, *others = (
      Checked(folder / file, kind, checks[file]) for file, kind in _kinds(tokenizer).items()
    )
    places_M, large_M, counts_D = (numbers[:] for numbers in others)
    if not len(tokens_N) == len(small_N) == counts_D.sum():
      raise ValueError
  except (FileNotFoundError, ValueError):
    raise _damaged(folder) from None
  return Tokenized(tokens_N, ByteCounts(small_N, places_M, large_M), counts_D)


def _damaged(folder: Path) -> UserError:
  return UserError(f'the tokens in {folder} are damaged; delete it and run again')


def _digest(tokenizer: Bytes, *more: str | None):
  package = tokenizer.package  # another version may cut otherwise
  version = package and metadata.version(package)
  about = FORMAT, tokenizer.sha256, package, version, *more
  return hashlib.sha256(repr(about).encode())


def _kinds(tokenizer: Bytes) -> dict[str, type]:
  """{file: the type of its numbers}."""
  kinds = dict.fromkeys(FILES, np.int64)
  return kinds | {'tokens': np.uint16 if tokenizer.vocab <= 2**16 else np.int32, 'bytes': np.uint8}


def _update(digest, document: bytes) -> None:
  """Hashes a document and where it ends. A file of gigabytes is not copied for that."""
  digest.update(b' %d ' % len(document))
  digest.update(document)


class _Writer:
  """Writes the numbers of a file; `checks` is the CRC-32 of each block."""

  def __init__(self, file: Path, kind: type):
    self.checks, self._file, self._kind, self._size = [], file.open('wb'), kind, 0

  def write(self, numbers: np.ndarray) -> None:
    content = memoryview(numbers.astype(self._kind).tobytes())
    self._file.write(content)
    while content:
      begun = self._size % BLOCK_BYTES
      piece, content = content[: BLOCK_BYTES - begun], content[BLOCK_BYTES - begun :]
      before = self.checks.pop() if begun else 0
      self.checks.append(zlib.crc32(piece, before))
      self._size += len(piece)

  def sync(self) -> None:
    """Waits until all is on the disk."""
    self._file.flush()
    os.fsync(self._file.fileno())

  def close(self) -> None:
    self._file.close()


def _write(
  folder: Path, documents: Sequence[bytes], tokenizer: Bytes, name_of: Callable[[int], str]
) -> tuple[str, int]:
  """Writes the tokens into a new folder; returns the name of the text that they are of, and how
  many of its bytes are replaced since they are not UTF-8. Raises `UserError` as `check_unread` of
  the tokenizer does, and with the name of a document that is none of its texts.
  """
  folder.mkdir()
  digest = _digest(tokenizer)
  example = first_unknown = first_replaced = ''
  unknown = replaced = size = num_tokens = num_cut = 0
  files = {name: _Writer(folder / name, kind) for name, kind in _kinds(tokenizer).items()}
  try:
    for chunk in _chunks(documents):
      for document in chunk:
        _update(digest, document)
        size += len(document)
      for cut in tokenizer.cut(chunk):
        places = np.flatnonzero(cut.bytes_T >= LARGE)
        files['tokens'].write(cut.tokens_T)
        files['bytes'].write(np.minimum(cut.bytes_T, LARGE))
        files['places'].write(num_tokens + places)
        files['large'].write(cut.bytes_T[places])
        files['counts'].write(np.array([len(cut.tokens_T)]))
        num_tokens += len(cut.tokens_T)
        if cut.unknown and not first_unknown:
          example, first_unknown = cut.example, name_of(num_cut)
        if cut.replaced and not first_replaced:
          first_replaced = name_of(num_cut)
        unknown += cut.unknown
        replaced += cut.replaced
        num_cut += 1
    unread = Unread(unknown, replaced, size, example, first_unknown, first_replaced)
    tokenizer.check_unread(unread)
    for file in files.values():
      file.sync()
  except OtherText as error:
    raise UserError(f'{name_of(num_cut)}: {error}') from None
  finally:
    for file in files.values():
      file.close()
  storage.write_json(folder / CHECKS, {name: file.checks for name, file in files.items()})
  return digest.hexdigest()[:NAME], replaced


def _chunks(documents: Iterable[bytes]) -> Iterable[list[bytes]]:
  chunk, size = [], 0
  for document in documents:
    chunk.append(document)
    size += len(document)
    if size >= CHUNK_BYTES:
      yield chunk
      chunk, size = [], 0
  yield chunk
