"""Opens a corpus by name: the embedded one, a TFDS set, a folder of text files, or a task.

Documents are bytes, read and cut into tokens when they are asked for.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from posenc_jax import tasks
from posenc_jax.config import cache_folder
from posenc_jax.data import folder
from posenc_jax.data.batches import Batch, Batches
from posenc_jax.data.task_corpus import TaskCorpus
from posenc_jax.data.tokenizers import BYTES, Bytes, SentencePiece, learned
from posenc_jax.errors import UserError, closest

SPLITS = ('train', 'validation', 'test')
RECENT = 1024  # documents kept in memory; every one of the embedded corpus


class Lazy(Sequence):
  """A sequence whose elements are made when they are asked for; the `RECENT` last used are kept."""

  def __init__(self, count: int, make: Callable[[int], object]):
    self._count = count
    self._make = functools.lru_cache(RECENT)(make)

  def __len__(self):
    return self._count

  def __getitem__(self, index):
    positions = range(self._count)[index]
    return (
      [self._make(i) for i in positions] if isinstance(positions, range) else self._make(positions)
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
  """One split of a corpus, always in the same order."""

  name: str
  split: str
  names: Sequence[str]  # of documents
  documents: Sequence[bytes]
  tokenizer: Bytes | SentencePiece = BYTES
  unit = 'bits/byte'

  def __len__(self) -> int:
    return len(self.documents)

  @functools.cached_property
  def sizes(self) -> np.ndarray:
    """Bytes of each document, int64 [documents]. The first use reads the whole split."""
    return np.fromiter(map(len, self.documents), np.int64, len(self))

  @functools.cached_property
  def tokens(self) -> Sequence[np.ndarray]:
    """Integer tokens_T of each document."""
    return Lazy(len(self), lambda index: self.tokenizer.encode(self.documents[index]))

  @functools.cached_property
  def counts(self) -> np.ndarray:
    """Tokens of each document, int64 [documents]. The first use reads the whole split."""
    return np.fromiter(map(len, self.tokens), np.int64, len(self))

  @property
  def vocab(self) -> int:
    """Symbols, the last of which is BOS."""
    return self.tokenizer.vocab

  @property
  def sha256(self) -> str | None:
    """Of the learned tokenizer; None: tokens are bytes."""
    return self.tokenizer.sha256

  def batches(self, length: int, size: int, seed: int) -> Batches:
    return Batches(self, length, size, seed)

  def bytes_per_token(self, batch: Batch) -> float:
    """Of the tokens of a batch, which count all."""
    return float(self.tokenizer.lengths[batch.tokens_BT].mean())


def source(data: ConfigDict, split: str) -> Corpus | TaskCorpus:
  """What a run's section `data` says, one split of it: text in tokens, or a task. Raises
  `UserError`.
  """
  if data.corpus.startswith(tasks.PREFIX):
    task = _task(data, lambda: corpus('sotu', split, data.text_field, data.cache).documents)
    name, _ = tasks.parse(data.corpus.removeprefix(tasks.PREFIX))
    return TaskCorpus(data.corpus, split, name, task, data.shortest or task.shortest)
  text = corpus(data.corpus, split, data.text_field, data.cache)
  if data.tokenizer == 'bytes':
    return text
  train = corpus(data.corpus, 'train', data.text_field, data.cache).documents
  return dataclasses.replace(text, tokenizer=learned(train, data.vocab, cache_folder(data.cache)))


def vocab(data: ConfigDict) -> int:
  """Symbols of what a run's section `data` says, BOS included, without opening it. Raises
  `UserError`.
  """
  if data.corpus.startswith(tasks.PREFIX):
    return _task(data, tuple).vocab
  return BYTES.vocab if data.tokenizer == 'bytes' else data.vocab


def _task(data: ConfigDict, texts: Callable[[], Sequence[bytes]]) -> tasks.Task:
  try:
    return tasks.make(data.corpus.removeprefix(tasks.PREFIX), texts)
  except ValueError as error:
    raise UserError(f'config.data.corpus={data.corpus!r}: {error}') from error


def corpus(name: str, split: str, text_field: str, cache: str) -> Corpus:
  """Opens one split of a corpus of text, its tokens bytes.

  Args:
    name: 'sotu', 'tfds:NAME[/CONFIG][:VERSION]', or a folder of .txt and .jsonl files (see
      `folder.py`).
    split: 'train', 'validation' or 'test'.
    text_field: where a TFDS example or a line of a .jsonl file holds its text.
    cache: the folder of prepared corpora; '': posenc_jax in the user's cache folder.
  Raises:
    UserError: in one line, where there is no such corpus, split or field, or the split has no
      documents.
  """
  if split not in SPLITS:
    raise UserError(f'split={split!r}; allowed: {", ".join(SPLITS)}')
  kind = _kind(name)
  if kind == 'folder':
    count, name_of, read = folder.open_split(name, split, text_field)
  elif kind == 'sotu':
    from posenc_jax.data import sotu  # TFDS takes a quarter of a second to import

    count, name_of, read = sotu.open_split(split, cache_folder(cache))
  else:
    from posenc_jax.data import tfds

    count, name_of, read = tfds.open_split(name, split, text_field, cache_folder(cache))
  if count == 0:
    raise UserError(f'config.data.corpus={name!r}: split {split!r} has no documents')
  return Corpus(name, split, Lazy(count, name_of), Lazy(count, read))


def prepare(name: str, cache: str) -> Path:
  """Makes a corpus ready to be opened, downloading a TFDS set if need be; returns its folder.
  Raises `UserError`.
  """
  kind = _kind(name)
  if kind == 'folder':
    return Path(name)
  if kind == 'sotu':
    from posenc_jax.data import sotu

    return sotu.prepare(cache_folder(cache))
  from posenc_jax.data import tfds

  return tfds.prepare(name, cache_folder(cache))


def _kind(name: str) -> str:
  if name == 'sotu':
    return 'sotu'
  if name.startswith('tfds:') and name != 'tfds:':
    return 'tfds'
  if name and Path(name).is_dir():
    return 'folder'
  from posenc_jax.data import tfds

  parent = Path(name).parent
  folders = (
    {str(path): str(path) for path in parent.iterdir() if path.is_dir()} if parent.is_dir() else {}
  )
  names = {**folders, **{bare: f'tfds:{bare}' for bare in tfds.known()}, 'sotu': 'sotu'}
  near = closest(name, names)
  hint = f' (did you mean {names[near]!r}?)' if near else ''
  allowed = "'sotu', 'tfds:NAME[/CONFIG][:VERSION]', 'task:NAME[/option=value]' or an existing folder of .txt or .jsonl files"
  raise UserError(f'config.data.corpus={name!r}: no such corpus{hint}; allowed: {allowed}')
