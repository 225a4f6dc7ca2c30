"""Tokens of text: bytes, pieces that SentencePiece learns from a corpus, or integers that the text
spells; those of a tokenizer.json stand in `tokenizer_json`. Decoding bytes and learned pieces gives
back every byte of the text.
"""

import hashlib
import io
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from posenc_jax.data.documents import sampled
from posenc_jax.errors import MAX_REASON, UserError, one_line, shown
from posenc_jax.storage import atomic_write

MAX_TRAINING_BYTES = 2**26  # of the training split, from which a model is learned
# Characters of a line that SentencePiece learns from: of longer ones it may learn nothing, or end
# the process.
LONGEST_LINE = 2**15
NOT_UTF8 = '[\udc80-\udcff]'  # as Python writes bytes that are not UTF-8
SPACE = '\u2581'  # SentencePiece writes a space as this character and gives it back as a space


class OtherText(UserError):
  """A text is none that the tokenizer cuts; whoever knows the name of its document adds it."""


class Cut(NamedTuple):
  """A text in tokens.

  Attributes:
    tokens_T: integers.
    bytes_T: how many bytes of the text each of them stands for, which add up to all of it; of
      `Integers`, 1.
    unknown: how many bytes of the text the tokenizer does not know.
    replaced: how many bytes of the text are not UTF-8 and are read as U+FFFD.
    example: a short piece of the text that the tokenizer does not know, for a message; '' if none.
  """

  tokens_T: np.ndarray
  bytes_T: np.ndarray
  unknown: int = 0
  replaced: int = 0
  example: str = ''


class Unread(NamedTuple):
  """What a tokenizer could not read of the texts of a corpus, or of documents scored together.

  Attributes:
    unknown: how many bytes it does not know.
    replaced: how many bytes are not UTF-8 and are read as U+FFFD.
    size: how many bytes there are in all.
    example: as that of a `Cut`.
    first_unknown: the name of the first text that has unknown bytes; '' if it has no name.
    first_replaced: that of the first text that has replaced ones.
  """

  unknown: int
  replaced: int
  size: int
  example: str = ''
  first_unknown: str = ''
  first_replaced: str = ''


class Bytes:
  """Every byte is a token.

  Attributes:
    vocab: the number of symbols; the last one is BOS.
    lengths: int64 [vocab], the number of bytes that each symbol stands for; None where that
      depends on where the symbol stands.
    sha256: the hash of the learned model, of the file or of how many integers there are; None of
      bytes.
    learned: the learned model; None where nothing was learned, or it is a file of the user's.
    package: the package that makes the tokens, whose version they may depend on; None: this one.
  """

  vocab, sha256, learned, package = 257, None, None, None
  lengths = np.append(np.ones(256, np.int64), 0)

  def encode(self, text: bytes) -> np.ndarray:
    """Returns integer tokens_T."""
    return np.frombuffer(text, np.uint8)

  def cut(self, texts: list[bytes]) -> Iterator[Cut]:
    """Yields each text in tokens."""
    for text in texts:
      tokens_T = self.encode(text)
      yield Cut(tokens_T, self.lengths[tokens_T])

  def check_unread(self, unread: Unread) -> None:
    """Raises `UserError` where too many bytes are unknown or replaced."""

  def change(self, text: bytes) -> str:
    """An example of how the tokenizer changes the text before it cuts it; '' where it does not."""
    del text
    return ''

  def decode(self, tokens: Iterable[int]) -> bytes:
    return bytes(tokens)


BYTES = Bytes()


class Integers(Bytes):
  """Every decimal number of a text is a token, with its value as its number. It counts as one byte
  however it is spelled, so that bits a byte are bits a token.
  """

  def __init__(self, count: int):
    """The numbers are those from 0 to `count` - 1."""
    self._count, self.vocab = count, count + 1
    self.sha256 = hashlib.sha256(b'integers %d' % count).hexdigest()
    self.lengths = np.append(np.ones(count, np.int64), 0)

  def encode(self, text: bytes) -> np.ndarray:
    """Returns int64 tokens_T. Raises `OtherText` for what is no such number."""
    text = bytes(text)  # it may be a file in memory
    if not text.strip():
      return np.zeros(0, np.int64)  # NumPy would read a 0
    tokens_T = None
    if not re.search(rb'[^0-9\s]', text):
      tokens_T = np.fromstring(text, np.int64, sep=' ')
    if tokens_T is None or tokens_T.max() >= self._count:
      is_known = lambda word: word.isdigit() and float(word) < self._count
      wrong = next(word for word in text.split() if not is_known(word)).decode('utf-8', 'replace')
      allowed = f'whole numbers below data.vocab={self._count}, with spaces or line breaks'
      raise OtherText(f"config.data.tokenizer='integers': {shown(wrong)}; allowed: {allowed}")
    return tokens_T

  def decode(self, tokens: Iterable[int]) -> bytes:
    """Returns the numbers, each with a space before it."""
    return b''.join(b' %d' % token for token in tokens)


class SentencePiece(Bytes):
  """The tokens are pieces of a learned model."""

  package = 'sentencepiece'

  def __init__(self, model: bytes):
    """Raises RuntimeError where the bytes are no model."""
    import sentencepiece

    self._model = sentencepiece.SentencePieceProcessor(model_proto=model)
    self._pieces = [self._bytes_of(token) for token in range(self._model.vocab_size())]
    byte_tokens = [self._model.piece_to_id(f'<0x{byte:02X}>') for byte in range(256)]
    self._byte_tokens = np.array(byte_tokens, np.int32)
    self.vocab = len(self._pieces) + 1
    self.sha256, self.learned = hashlib.sha256(model).hexdigest(), model
    self.lengths = np.array([*map(len, self._pieces), 0], np.int64)

  def _bytes_of(self, token: int) -> bytes:
    if self._model.is_unknown(token):
      return b''  # it never occurs, since text outside all pieces becomes byte tokens
    piece = self._model.id_to_piece(token)
    if self._model.is_byte(token):
      return bytes([int(piece[3:5], 16)])
    return piece.replace(SPACE, ' ').encode()

  def encode(self, text: bytes) -> np.ndarray:
    """Returns int32 tokens_T. Bytes that are not UTF-8, and the character SPACE itself, become byte
    tokens.
    """
    runs = re.split(f'([\udc80-\udcff{SPACE}]+)', characters(text))
    tokens = []
    for i, run in enumerate(runs):
      if i % 2:  # `re.split` puts the runs that matched at odd places
        tokens.append(self._byte_tokens[list(run.encode('utf-8', 'surrogateescape'))])
      else:
        tokens.append(self._model.encode(run))
    return np.concatenate(tokens).astype(np.int32)

  def decode(self, tokens: Iterable[int]) -> bytes:
    return b''.join(self._pieces[token] for token in tokens)


def not_utf8(replaced: int, size: int) -> str:
  """Says how many of so many bytes are replaced."""
  share = f'{replaced:,} bytes ({replaced / size:.2%})'
  return f'{share} of the text are not UTF-8 and are read as U+FFFD'


def characters(text: bytes) -> str:
  """The text, in which each byte that is not UTF-8 is one of the code points of NOT_UTF8."""
  return str(text, 'utf-8', 'surrogateescape')  # which takes a file in memory, too


def learned(texts: Sequence[bytes], vocab: int, cache: Path) -> SentencePiece:
  """Returns the model of `vocab` symbols (BOS included) for these texts. It is read from the cache,
  or learned now and kept there.

  The model has byte pairs and all single bytes as pieces, and does not normalize text. Raises
  `UserError`.
  """
  sample = sampled(texts, MAX_TRAINING_BYTES)
  digest = hashlib.sha256(b'%d %d' % (vocab, LONGEST_LINE))
  for text in sample:
    digest.update(b' %d ' % len(text))
    digest.update(text)
  path = cache / 'tokenizers' / f'sentencepiece-{vocab}-{digest.hexdigest()[:16]}.model'
  if not path.exists():
    model = _learn(sample, vocab)
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
      atomic_write(path, model)
    except OSError as error:
      raise UserError(
        f'config.data.cache: cannot write {path} ({error.strerror}); allowed: a folder'
      ) from error
  return learned_before(path, vocab)


def learned_before(path: Path, vocab: int) -> SentencePiece:
  """Returns the model in a file. Raises `UserError` where it is damaged, or has not `vocab` symbols
  with BOS.
  """
  try:
    tokenizer = SentencePiece(path.read_bytes())
  except RuntimeError as error:
    raise UserError(f'the tokenizer {path} is damaged; delete it and run again') from error
  if tokenizer.vocab != vocab:
    allowed = f'{tokenizer.vocab}, the symbols of {path} and BOS'
    raise UserError(f'config.data.vocab={vocab}; allowed: {allowed}')
  return tokenizer


def _learn(texts: Sequence[bytes], vocab: int) -> bytes:
  import sentencepiece

  model = io.BytesIO()
  if replaced := sum(len(re.findall(NOT_UTF8, characters(text))) for text in texts):
    what = not_utf8(replaced, sum(map(len, texts)))
    print(f"config.data.tokenizer='sentencepiece' learns: {what}", file=sys.stderr, flush=True)
  lines = (line for text in texts for line in str(text, 'utf-8', 'replace').split('\n') if line)
  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=(
        line[start : start + LONGEST_LINE]
        for line in lines
        for start in range(0, len(line), LONGEST_LINE)
      ),
      model_writer=model,
      vocab_size=vocab - 1,
      model_type='bpe',
      normalization_rule_name='identity',
      add_dummy_prefix=False,
      remove_extra_whitespaces=False,
      byte_fallback=True,
      character_coverage=0.9999,
      max_sentence_length=2**20,
      unk_id=0,
      bos_id=-1,
      eos_id=-1,
      pad_id=-1,
      num_threads=1,  # with more threads, pieces may differ from one time to the next
      minloglevel=2,
    )
  except (RuntimeError, OSError) as error:
    reason = one_line(error)[-MAX_REASON:]
    raise UserError(
      f'config.data.vocab={vocab}: SentencePiece refuses ({reason}); allowed: what it takes'
    ) from error
  return model.getvalue()
