"""Tokens of a split, made once for each tokenizer and kept in the cache.

A split is known by the contents of its documents, so that other text never meets tokens of before:
to hash text takes a small part of the time that cutting it into tokens takes.
"""

import hashlib
import os
import sys
import zlib
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np

from posenc_jax.data.building import build_once
from posenc_jax.data.tokenizers import Bytes
from posenc_jax.errors import UserError
from posenc_jax.storage import read_json, write_json

# One more with each change of what tokenizers.py makes of a text or refuses, or of how it is kept.
FORMAT = 3
NUMBERS = {'tokens': np.int32, 'bytes': np.int32, 'counts': np.int64}  # the type in each file
CHECKS = 'checks.json'  # the CRC-32 of each file
CHUNK_BYTES = 2**22  # of text, given to the tokenizer at once: it may use several cores
SAMPLE_BYTES = 2**16  # of the first document, in which it is seen whether text is changed


class Tokenized(NamedTuple):
  """The tokens of all documents, one after another.

  Attributes:
    tokens_N: int32, a file in memory as far as it is read.
    bytes_N: int32 likewise, how many bytes of its document each token stands for.
    counts_D: int64, the number of tokens of each document.
  """

  tokens_N: np.ndarray
  bytes_N: np.ndarray
  counts_D: np.ndarray


def tokenized(documents: Sequence[bytes], tokenizer: Bytes, cache: Path, title: str) -> Tokenized:
  """Returns the tokens of all documents from the cache, where they are made if they are not there.

  Args:
    title: what the documents are called in the line that says that they are cut.
  Raises:
    UserError: the cache cannot be written or is damaged, documents changed, or what the tokenizer
      raises. OSError: the cache cannot be read.
  """
  digest = _digest(tokenizer)
  size = 0
  for document in documents:
    digest.update(_framed(document))
    size += len(document)
  name, cache = digest.hexdigest()[:32], cache / 'tokens'
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
  try:
    checks = read_json(folder / CHECKS, dict.fromkeys(NUMBERS, int))
    return Tokenized(*(_read(folder / file, checks[file]) for file in NUMBERS))
  except (FileNotFoundError, ValueError):
    raise UserError(f'the tokens in {folder} are damaged; delete it and run again') from None


def _digest(tokenizer: Bytes):
  package = tokenizer.package  # another version may cut otherwise
  about = FORMAT, tokenizer.sha256, package, metadata.version(package)
  return hashlib.sha256(repr(about).encode())


def _framed(document: bytes) -> bytes:
  return b' %d ' % len(document) + document


def _write(folder: Path, documents: Sequence[bytes], tokenizer: Bytes) -> str:
  """Writes the tokens into a new folder; returns the name of the text that they are of. Raises
  `UserError` as `check_unknown` of the tokenizer does.
  """
  folder.mkdir()
  digest, counts, checks = _digest(tokenizer), [], dict.fromkeys(NUMBERS, 0)
  unknown = size = 0
  files = {name: open(folder / name, 'wb') for name in NUMBERS}  # noqa: SIM115

  def write(name: str, numbers: np.ndarray) -> None:
    content = numbers.astype(NUMBERS[name]).tobytes()
    files[name].write(content)
    checks[name] = zlib.crc32(content, checks[name])

  try:
    for chunk in _chunks(documents):
      for document in chunk:
        digest.update(_framed(document))
        size += len(document)
      for cut in tokenizer.cut(chunk):
        write('tokens', cut.tokens_T)
        write('bytes', cut.bytes_T)
        counts.append(len(cut.tokens_T))
        unknown += cut.unknown
    tokenizer.check_unknown(unknown, size)
    write('counts', np.array(counts))
    for file in files.values():
      file.flush()
      os.fsync(file.fileno())
  finally:
    for file in files.values():
      file.close()
  write_json(folder / CHECKS, checks)
  return digest.hexdigest()[:32]


def _chunks(documents: Iterable[bytes]) -> Iterable[list[bytes]]:
  chunk, size = [], 0
  for document in documents:
    chunk.append(document)
    size += len(document)
    if size >= CHUNK_BYTES:
      yield chunk
      chunk, size = [], 0
  yield chunk


def _read(file: Path, check: int) -> np.ndarray:
  """The numbers of a file, which stay there until they are read. Raises OSError, and ValueError
  where they have another check.
  """
  kind = NUMBERS[file.name]
  numbers = np.memmap(file, kind, 'r') if file.stat().st_size else np.zeros(0, kind)
  if zlib.crc32(numbers) != check:
    raise ValueError
  return np.asarray(numbers)
