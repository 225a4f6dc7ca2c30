"""Tokens of a split, made once for each tokenizer and kept in the cache.

A split is known by the contents of its documents, so that other text never meets tokens of before:
to hash text takes a small part of the time that cutting it into tokens takes.
"""

import hashlib
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np

from posenc_jax.data.building import build_once
from posenc_jax.data.tokenizers import Bytes
from posenc_jax.errors import UserError

TOKENS, BYTES, COUNTS = 'tokens.int32', 'bytes.int32', 'counts.int64'
CHUNK_BYTES = 2**24  # of text, given to the tokenizer at once: it may use several cores


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


def tokenized(documents: Sequence[bytes], tokenizer: Bytes, cache: Path) -> Tokenized:
  """Returns the tokens of all documents from the cache, where they are made if they are not there.
  Raises `UserError` where the cache cannot be written or is damaged, and what the tokenizer does.
  """
  name = _digest(documents, tokenizer)
  folder = cache / 'tokens' / name

  def make(scratch: Path) -> Path:
    _write(scratch / name, documents, tokenizer)
    return scratch / name

  build_once(folder, cache, make)
  try:
    counts_D = np.fromfile(folder / COUNTS, np.int64)
    tokens_N, bytes_N = (_mapped(folder / file, counts_D.sum()) for file in (TOKENS, BYTES))
    if len(counts_D) != len(documents):
      raise ValueError
  except (OSError, ValueError):
    raise UserError(f'the tokens in {folder} are damaged; delete it and run again') from None
  return Tokenized(tokens_N, bytes_N, counts_D)


def _digest(documents: Iterable[bytes], tokenizer: Bytes) -> str:
  package = tokenizer.package  # another version may cut otherwise
  digest = hashlib.sha256(f'{tokenizer.sha256} {package} {metadata.version(package)}'.encode())
  for document in documents:
    digest.update(b' %d ' % len(document) + document)
  return digest.hexdigest()[:32]


def _write(folder: Path, documents: Sequence[bytes], tokenizer: Bytes) -> None:
  folder.mkdir()
  counts = []
  with open(folder / TOKENS, 'wb') as tokens, open(folder / BYTES, 'wb') as sizes:
    for chunk in _chunks(documents):
      for tokens_T, bytes_T in tokenizer.cut(chunk):
        tokens_T.astype(np.int32).tofile(tokens)
        bytes_T.astype(np.int32).tofile(sizes)
        counts.append(len(tokens_T))
  np.array(counts, np.int64).tofile(folder / COUNTS)


def _chunks(documents: Sequence[bytes]) -> Iterable[list[bytes]]:
  chunk, size = [], 0
  for document in documents:
    chunk.append(document)
    size += len(document)
    if size >= CHUNK_BYTES:
      yield chunk
      chunk, size = [], 0
  yield chunk


def _mapped(file: Path, count: int) -> np.ndarray:
  """The int32 numbers of a file. Raises OSError and ValueError where it has not `count` of them."""
  if file.stat().st_size != 4 * count:
    raise ValueError
  return np.asarray(np.memmap(file, np.int32, 'r')) if count else np.zeros(0, np.int32)
