"""What a corpus of text gives of one split, whatever the text is read from."""

from collections.abc import Callable
from typing import NamedTuple

SPLITS = ('train', 'validation', 'test')


class Listing(NamedTuple):
  """What a split is made of, without its text: a run compares it with what it began with.

  Attributes:
    folder: the subfolder of the split, or '.' of all splits together.
    documents: how many there are.
    sha256: the hash of their names and sizes, in order; of a set of TFDS, of its version and of the
      sizes of its files.
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
  """

  count: int
  name_of: Callable[[int], str]
  read: Callable[[int], bytes]
  listing: Listing | None = None
