"""What a corpus of text gives of one split, whatever the text is read from."""

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from posenc_jax.errors import UserError, shown

SPLITS = ('train', 'validation', 'test')
SETTLED_NS = 2 * 10**9  # since the last change of a file: the coarsest ticks of file systems


class Listing(NamedTuple):
  """What a split is made of, without its text: a run compares it with what it began with.

  Attributes:
    folder: the subfolder of the split, or '.' of all splits together.
    documents: how many there are.
    sha256: the hash of their names and sizes, in order; of a set of TFDS, of its full name and of
      the bytes of each split and the examples of its shards; of one of Hugging Face's Hub, of the
      bytes of each text; of a folder that `datasets` reads, of the names and sizes of its files.
  """

  folder: str
  documents: int
  sha256: str


class Documents(NamedTuple):
  """The documents of a split, in an order that stays; a text is read when it is asked for.

  Attributes:
    count: how many there are.
    name_of: index -> the name of a document.
    read: index -> its bytes, or a file in memory that has them. Raises `UserError`.
    listing: None of an embedded corpus, which is verified by itself.
    identity: as `identity_of`; None: that the text is the same is seen by reading it.
  """

  count: int
  name_of: Callable[[int], str]
  read: Callable[[int], bytes]
  listing: Listing | None = None
  identity: str | None = None


def no_text(
  name: str, text_field: str, features: Mapping[str, object], texts: list[str]
) -> UserError:
  """The error of a field that a set lacks, or that holds something else than text.

  Args:
    features: {field: what it holds, as the library of the set writes it}.
    texts: the fields that hold text.
  """
  problem = f'no such field of {name}'
  if text_field in features:
    problem = f'is {shown(features[text_field])} in {name}'
  allowed = ', '.join(texts) or 'a field of text, of which it has none'
  return UserError(f'config.data.text_field={text_field!r}: {problem}; allowed: {allowed}')


def sampled(texts: Sequence[Sequence], size: int) -> list[Sequence]:
  """The texts in their order; where they are longer than `size` together, so much of some that are
  drawn from all: the first by name may be all of one kind.
  """
  sample, room = [], size
  for text in texts:
    if len(text) > room:
      break
    sample.append(text)
    room -= len(text)
  else:
    return sample
  drawn, room = {}, size
  for n in np.random.default_rng(0).permutation(len(texts)):
    if not room:
      break
    drawn[n] = texts[n][:room]
    room -= len(drawn[n])
  return [drawn[n] for n in sorted(drawn)]


def identity_of(files: Iterable[Path], text_field: str) -> str | None:
  """The hash of the text field, and of the size, the times of the last change and the inode of each
  file, in order: while it stays, their text is taken to be the same, as git's index takes it.

  So it has to be asked for before the files are read. None without files, and where one was changed
  just now: another change within the same tick of the clock would not be seen.
  """
  digest, latest = hashlib.sha256(text_field.encode()), 0
  for file in files:
    found = file.stat()
    about = found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino
    digest.update(b' %d %d %d %d' % about)
    latest = max(latest, found.st_mtime_ns, found.st_ctime_ns)
  return digest.hexdigest() if 0 < latest < time.time_ns() - SETTLED_NS else None
