"""Tokens of text: bytes, or pieces that SentencePiece finds in a corpus. Both give back every
byte.
"""

import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from posenc_jax import jsonl_store
from posenc_jax.errors import UserError

LEARNED_FROM = 2**26  # bytes of the training split, from its start, or less where it has less
SPACE = '\u2581'  # SentencePiece writes spaces as this character, and gives it back as a space


class Bytes:
  """Every byte is a token.

  Attributes:
    vocab: symbols, the last of which is BOS.
    lengths: int64 [vocab], how many bytes each stands for.
    sha256: of what was learned; None: nothing was.
  """

  vocab, sha256 = 257, None
  lengths = np.append(np.ones(256, np.int64), 0)

  def encode(self, text: bytes) -> np.ndarray:
    return np.frombuffer(text, np.uint8)

  def decode(self, tokens: Iterable[int]) -> bytes:
    return bytes(tokens)


BYTES = Bytes()


class SentencePiece:
  """The pieces of a learned model. Attributes and methods are those of `Bytes`."""

  def __init__(self, model: bytes):
    """Raises RuntimeError for what is no model."""
    import sentencepiece

    self._model = sentencepiece.SentencePieceProcessor(model_proto=model)
    self._pieces = [self._bytes_of(token) for token in range(self._model.vocab_size())]
    self._byte_tokens = np.array(
      [self._model.piece_to_id(f'<0x{byte:02X}>') for byte in range(256)], np.int32
    )
    self.vocab, self.sha256 = len(self._pieces) + 1, hashlib.sha256(model).hexdigest()
    self.lengths = np.array([*map(len, self._pieces), 0], np.int64)

  def _bytes_of(self, token: int) -> bytes:
    if self._model.is_unknown(token):
      return b''  # what is in no piece is said in bytes, so it never occurs
    piece = self._model.id_to_piece(token)
    return (
      bytes([int(piece[3:5], 16)])
      if self._model.is_byte(token)
      else piece.replace(SPACE, ' ').encode()
    )

  def encode(self, text: bytes) -> np.ndarray:
    """int32 tokens_T. What is not UTF-8, and the character that stands for a space, are said in
    bytes.
    """
    parts = re.split(f'([\udc80-\udcff{SPACE}]+)', text.decode('utf-8', 'surrogateescape'))
    tokens = [
      self._byte_tokens[list(part.encode('utf-8', 'surrogateescape'))]
      if i % 2
      else self._model.encode(part)
      for i, part in enumerate(parts)
    ]
    return np.concatenate(tokens).astype(np.int32)

  def decode(self, tokens: Iterable[int]) -> bytes:
    return b''.join(self._pieces[token] for token in tokens)


def learned(texts: Sequence[bytes], vocab: int, cache: Path) -> SentencePiece:
  """The model of `vocab` symbols (BOS included) for these texts, from the cache or learned now and
  kept there.

  Byte pairs, no normalization, with all bytes as pieces. Raises `UserError`.
  """
  some, size = [], 0
  for text in texts:
    if size >= LEARNED_FROM:
      break
    some.append(text)
    size += len(text)
  digest = hashlib.sha256(b'%d' % vocab)
  for text in some:
    digest.update(b' %d ' % len(text) + text)
  path = cache / 'tokenizers' / f'sentencepiece-{vocab}-{digest.hexdigest()[:16]}.model'
  if not path.exists():
    _write(path, _learn(some, vocab))
  try:
    return SentencePiece(path.read_bytes())
  except RuntimeError as error:
    raise UserError(f'the tokenizer {path} is damaged; delete it and run again') from error


def _learn(texts: Sequence[bytes], vocab: int) -> bytes:
  import sentencepiece

  model = io.BytesIO()
  lines = (line for text in texts for line in text.decode('utf-8', 'replace').split('\n') if line)
  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=lines,
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
      num_threads=1,  # with more, the pieces may differ from one time to the next
      minloglevel=2,
    )
  except (RuntimeError, OSError) as error:
    reason = ' '.join(str(error).split())[-160:]
    raise UserError(
      f'config.data.vocab={vocab}: SentencePiece refuses ({reason}); allowed: what it takes'
    ) from error
  return model.getvalue()


def _write(path: Path, content: bytes) -> None:
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    jsonl_store.atomic_write(path, content)
  except OSError as error:
    raise UserError(
      f'config.data.cache: cannot write {path} ({error.strerror}); allowed: a folder'
    ) from error
