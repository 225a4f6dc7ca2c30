"""The embedded corpus with invented names in it, such as <q7NhIb0Zke>: text in which far context
pays, and how far back it lies is known.

A name is ten random letters and digits, of which the first two are those of no other name near it.
It comes again a few times, each time after a number of bytes drawn log-uniformly from 24 to 4,000.
Its first two characters then say which name it is, and the last eight can be known from where it
stood before and from nowhere else: a model that finds them there needs 0 bits a character, one that
does not log2 62 = 5.95. Those of a name that is new cannot be known at all, and cost 5.95 bits as a
control.

The text is that of `sotu`, with the same splits and documents: without the names it is the same,
byte for byte. A name begins every 50 bytes or so. To learn that names come again, small models need
more of them than text has: the training split holds, for each document of text, one as long that is
a list of names of 4 to 15 characters, most of which come again within a few names. What is planted
is built once into the user's cache. One SHA-256 over all documents is checked at the build, and by
every process that opens the corpus.
"""

import functools
import heapq
import math
import random
import re
import string
from collections.abc import Callable
from pathlib import Path

import numpy as np

from posenc_jax import storage
from posenc_jax.data import sotu
from posenc_jax.data.building import build_once, can_build
from posenc_jax.data.documents import SPLITS, Documents
from posenc_jax.data.sotu import check_sha256
from posenc_jax.errors import UserError

SHA256 = '5315f624c6dba4db7a6abe97ae1a7f99745b436fceb8cfe64431752b65b262e8'
NAME = re.compile(rb'<[A-Za-z0-9]{10}>')
ANY_NAME = re.compile(rb'<[A-Za-z0-9]+>')  # those of lists, too, which have other lengths
CHARACTERS = string.ascii_letters + string.digits
GAP = 400  # the most bytes of text between a name that is new and the next one; half on average
COMES_AGAIN = 0.75  # the probability, each time
NEAREST, FARTHEST = 24, 4000  # bytes from a name to the next time
# Places in '<q7NhIb0Zke>' of the characters that a first time decides.
FIRST_DECIDED, LAST_DECIDED = 3, 10
SHORTEST, LONGEST = 4, 16  # characters of a name in a list, the longest excluded
FARTHEST_BACK = 8  # names from one in a list to where it stood before, this number excluded
NEW = 0.3  # the probability that a name in a list is new
# Files of the cache: all documents, one after another, and [split, name, size] of each.
TEXT, INDEX = 'documents', 'index.json'


def open_split(name: str, split: str, text_field: str, cache: Path) -> Documents:
  """Returns the documents of a split. Raises `UserError`."""
  prepare(name, cache)
  documents = _verified(cache)[split]
  return Documents(len(documents), lambda n: documents[n][0], lambda n: documents[n][1])


def prepare(name: str, cache: Path) -> Path:
  """Plants the names into the corpus `sotu` if that is not done, and verifies the hash of what is
  there, once a process; returns its folder, or that of `sotu` in a cache that cannot be written.
  Raises `UserError`.
  """
  folder = _folder(cache)
  if not storage.exists(folder):
    plain = _plain(cache)  # before the lock, under which it is built, too
    if not can_build(cache):
      _verified(cache)
      return sotu.prepare('sotu', cache)
    build_once(folder, cache, lambda scratch: _build(_planted(plain), scratch))
  _verified(cache)
  return folder


def _folder(cache: Path) -> Path:
  return cache / 'planted' / SHA256[:16]


@functools.lru_cache(maxsize=1)
def _verified(cache: Path) -> dict[str, list[tuple[str, bytes]]]:
  """{split: (name, text) of each document}. A training opens three splits: they are read once, or
  planted once where the cache cannot be written.
  """
  folder = _folder(cache)
  if not storage.exists(folder):
    return _planted(_plain(cache))
  remedy = f'delete {folder} and run again'
  splits, start = {split: [] for split in SPLITS}, 0
  try:
    index = storage.read_json(folder / INDEX, {'documents': list}, remedy)['documents']
    text = (folder / TEXT).read_bytes()
  except FileNotFoundError as error:
    raise UserError(f'{error.filename} is gone; allowed: {remedy}') from None
  for split, name, size in index:
    splits[split].append((name, text[start : start + size]))
    start += size
  _check(splits, f'what {folder} holds', remedy)
  return splits


def _plain(cache: Path) -> dict[str, Documents]:
  """The splits of `sotu`, which are built where they are not there."""
  return {split: sotu.open_split('sotu', split, '', cache) for split in SPLITS}


def _planted(plain: dict[str, Documents]) -> dict[str, list[tuple[str, bytes]]]:
  """{split: (name, text) of each document}, planted anew."""
  splits = {}
  for split, documents in plain.items():
    names = map(documents.name_of, range(documents.count))
    splits[split] = [(name, plant(name, documents.read(n))) for n, name in enumerate(names)]
    if split == 'train':
      splits[split] += [
        (f'{name}-names', names_alone(name, len(text))) for name, text in splits[split]
      ]
  _check(splits, 'what is planted into sotu', 'posenc_jax/data/planted.py as it was published')
  return splits


def _build(splits: dict[str, list[tuple[str, bytes]]], scratch: Path) -> Path:
  """Writes the documents into an empty directory; returns their folder there."""
  folder = scratch / 'planted'
  folder.mkdir()
  rows = [(split, name, text) for split, some in splits.items() for name, text in some]
  storage.atomic_write(folder / TEXT, b''.join(text for *_, text in rows))
  index = [[split, name, len(text)] for split, name, text in rows]
  storage.write_json(folder / INDEX, {'documents': index})
  return folder


def _check(splits: dict[str, list[tuple[str, bytes]]], origin: str, remedy: str) -> None:
  """Raises `UserError` unless these are the documents of the corpus."""
  documents = ((name, split, text) for split, some in splits.items() for name, text in some)
  check_sha256(sorted(documents), SHA256, origin, remedy)


def plant(seed: str, text: bytes) -> bytes:
  """Returns the text with names in it, each after a space and before one. The names and their
  places are drawn from the seed.
  """
  draw = random.Random(seed).random  # the only method whose numbers stay the same over versions
  beginnings = [first + second for first in CHARACTERS for second in CHARACTERS]
  beginnings.sort(key=lambda _: draw())
  parts, taken, written, num_new = [], 0, 0, 0
  planned = []  # (place in the new text, number, name) of what comes again
  next_new = GAP * draw()
  while True:
    place = min(next_new, planned[0][0]) if planned else next_new
    if place > written:
      end = text.find(b' ', taken + math.ceil(place) - written - 1) + 1
      if not end:
        return b''.join([*parts, text[taken:]])
      parts.append(text[taken:end])
      written, taken = written + end - taken, end
    if place == next_new:
      beginning = beginnings[num_new % len(beginnings)]
      name = f'<{beginning}{_characters(draw, 8)}> '.encode()
      num_new += 1
      next_new = written + GAP * draw()
    else:
      name = heapq.heappop(planned)[-1]
    if draw() < COMES_AGAIN:
      distance = NEAREST * (FARTHEST / NEAREST) ** draw()
      heapq.heappush(planned, (written + distance, num_new, name))
    parts.append(name)
    written += len(name)


def names_alone(seed: str, size: int) -> bytes:
  """Returns a list of names of so many bytes, drawn from the seed. Each is new, or one that stood
  less than FARTHEST_BACK names before, log-uniformly.
  """
  draw = random.Random(f'{seed}-names').random
  names, written = [], 0
  while written < size:
    if not names or draw() < NEW:
      length = int(SHORTEST * (LONGEST / SHORTEST) ** draw())
      names.append(f'<{_characters(draw, length)}> ')
    else:
      names.append(names[-min(int(FARTHEST_BACK ** draw()), len(names))])
    written += len(names[-1])
  return ''.join(names).encode()[:size]


def _characters(draw: Callable[[], float], number: int) -> str:
  return ''.join(CHARACTERS[int(len(CHARACTERS) * draw())] for _ in range(number))


def is_text(document: bytes) -> np.ndarray:
  """Returns bool is_text_T of the bytes of a whole document: whether they stand outside of all
  names. The last name of a list may be cut, and is then taken for text.
  """
  is_text_T = np.ones(len(document), bool)
  for match in ANY_NAME.finditer(document):
    is_text_T[match.start() : match.end()] = False
  return is_text_T


def distances(window: bytes) -> np.ndarray:
  """Returns int32 distances_T, for each byte of a window: how far back the same character of the
  same name stood the last time, where nothing but that decides it; 0 for those of a name that is
  new in the window; -1 elsewhere. A name that the window's start cuts counts as none, so that what
  follows it is called new though it can be known in part: 1 % of new names in windows of 128.
  """
  distances_T = np.full(len(window), -1, np.int32)
  last = {}
  for match in NAME.finditer(window):
    name, start = match.group(), match.start()
    decided = slice(start + FIRST_DECIDED, start + LAST_DECIDED + 1)
    distances_T[decided] = start - last.get(name, start)
    last[name] = start
  return distances_T
