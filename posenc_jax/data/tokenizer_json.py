"""Tokens of text as a tokenizer.json cuts it."""

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from posenc_jax.config import tokenizer_file
from posenc_jax.data.tokenizers import (
  NOT_UTF8,
  SPACE,
  Bytes,
  Cut,
  OtherText,
  Unread,
  characters,
  not_utf8,
)
from posenc_jax.errors import MAX_REASON, UserError, one_line, shown

MOST_UNKNOWN = 0.01  # of the bytes of a text
MAX_EXAMPLE = 20  # characters of a piece of text in a message
# Byte-level pieces write bytes as characters: those that can be printed as themselves, the others
# in their order as the characters from U+0100 on (GPT-2's table).
PRINTED = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
BYTE_OF_CHARACTER = {chr(byte): byte for byte in PRINTED} | {
  chr(0x100 + place): byte
  for place, byte in enumerate(byte for byte in range(256) if byte not in PRINTED)
}


class TokenizerJson(Bytes):
  """The tokens of a tokenizer.json, as the library `tokenizers` reads it; it adds none of its own
  at the ends of a text.
  """

  lengths, package = None, 'tokenizers'

  def __init__(self, contents: bytes, path: str):
    """Takes the contents of a file, and its path for messages. Raises `UserError` for what is no
    tokenizer, for one that draws its tokens, and without the library.
    """
    field = f'config.data.tokenizer={path!r}'
    self._tokenizer = tokenizer_file.parsed(contents, path)
    if getattr(self._tokenizer.model, 'dropout', None):
      raise UserError(f'{field}: draws its tokens; allowed: a model without dropout')
    # Whatever the file says of batches, a text is encoded whole and as it is.
    self._tokenizer.no_truncation()
    self._tokenizer.no_padding()
    self._tokenizer.post_processor = None  # some leave the spaces out of what a token spans
    self.vocab = tokenizer_file.symbols(self._tokenizer)
    tree = json.loads(contents)
    self._field, model = field, tree['model']
    self._unknown = model.get('unk_id')  # Unigram's; other models name it
    if (unknown := model.get('unk_token')) is not None:
      self._unknown = self._tokenizer.token_to_id(unknown)
    self._unknown_piece = None
    if self._unknown is not None:
      self._unknown_piece = self._tokenizer.id_to_token(self._unknown)
    self._within_word, self._ends_word = _marks(model)
    splitter = None if tree.get('decoder') else self._tokenizer.pre_tokenizer
    # Whether pieces are words, and nothing says how they are joined again.
    self._is_of_words = (
      splitter is not None
      and model.get('type') == 'WordLevel'
      and [part for part, _ in splitter.pre_tokenize_str('a a')] == ['a', 'a']
    )
    self._is_of_bytes, self._alphabet = _alphabet(tree)
    self.sha256 = hashlib.sha256(contents).hexdigest()
    self._is_byte_level = 'ByteLevel' in json.dumps(tree.get('decoder'))
    self._writes_bytes = 'ByteLevel' in json.dumps(tree.get('normalizer'))  # as characters

  def encode(self, text: bytes) -> np.ndarray:
    """Returns int32 tokens_T. Bytes that are not UTF-8 are encoded as U+FFFD."""
    (cut,) = self.cut([text])
    return cut.tokens_T

  def cut(self, texts: list[bytes]) -> Iterator[Cut]:
    """As that of `Bytes`; bytes_T is int64.

    A token stands for what lies from the end of the tokens before it to its own end; the last one
    also for what is left. Of the tokens that share a character, the first has its bytes. Where a
    special token stands literally in a text, such as '<|endoftext|>', it is that token, as it is in
    transformers and in evaluation harnesses. Raises `OtherText` for a text that it cannot cut.
    """
    originals, texts = texts, list(map(characters, texts))
    readable = [re.sub(NOT_UTF8, '\ufffd', text) for text in texts]
    try:
      encodings = self._tokenizer.encode_batch(readable, add_special_tokens=False)
    except Exception as error:  # the library raises nothing more special
      if len(texts) > 1:  # one by one, so that it is seen which it is
        yield from itertools.chain.from_iterable(self.cut([text]) for text in originals)
        return
      problem = f'cannot cut a text ({one_line(error, MAX_REASON)})'
      allowed = 'a tokenizer with an unknown token'
      raise OtherText(f'{self._field}: {problem}; allowed: {allowed}') from None
    for text, sent, encoding in zip(texts, readable, encodings, strict=True):
      tokens_T = np.array(encoding.ids, np.int32)
      spans = itertools.chain.from_iterable(encoding.offsets)
      spans_T2 = np.fromiter(spans, int, 2 * len(tokens_T)).reshape(-1, 2)
      sizes = _sizes(text)
      # A text may say the unknown token itself, as WikiText-2 does.
      unknown_N2 = [
        (start, end)
        for start, end in spans_T2[tokens_T == self._unknown]
        if sent[start:end].strip() != self._unknown_piece
      ]
      unknown_N2 = np.array(unknown_N2, int).reshape(-1, 2)
      unknown = int(sizes[_within(unknown_N2, len(text))].sum())
      first = next((sent[start:end] for start, end in unknown_N2 if end > start), None)
      if self._alphabet is not None:
        dropped = self._dropped(sent)
        unknown = min(dropped.total(), int(sizes.sum()))
        first = next(iter(dropped), None)
      replaced = len(re.findall(NOT_UTF8, text))
      example = shown(first[:MAX_EXAMPLE]) if first else ''
      bytes_T = _bytes_between(sizes, spans_T2[:, 1])
      yield Cut(tokens_T, bytes_T, unknown, replaced, example)

  def _dropped(self, text: str) -> Counter[str | bytes]:
    """How many bytes of each character, or of each byte, become no token, by the alphabet: spans do
    not say it, since those behind a character that is left out are shifted. Spaces at which words
    are cut apart do not count, other characters that are taken out there do.
    """
    normalizer, splitter = self._tokenizer.normalizer, self._tokenizer.pre_tokenizer
    text = text if normalizer is None else normalizer.normalize_str(text)
    parts = [(text, ())] if splitter is None else splitter.pre_tokenize_str(text)
    counts = Counter(itertools.chain.from_iterable(part for part, _ in parts))
    unknown = Counter({c: n for c, n in counts.items() if c not in self._alphabet})
    if self._is_of_bytes:
      as_byte = lambda c: bytes([BYTE_OF_CHARACTER[c]]) if c in BYTE_OF_CHARACTER else c
      return Counter({as_byte(c): n for c, n in unknown.items()})
    taken_out = Counter(c for c in text if not c.isspace()) - counts
    return Counter({c: n * len(c.encode()) for c, n in (taken_out + unknown).items()})

  def _normalized(self, text: str) -> str:
    """What the tokenizer makes of a text before it cuts it; bytes that are written as characters
    are read again.
    """
    normalizer = self._tokenizer.normalizer
    text = text if normalizer is None else normalizer.normalize_str(text)
    if not self._writes_bytes or not set(text) <= BYTE_OF_CHARACTER.keys():
      return text
    return bytes(map(BYTE_OF_CHARACTER.get, text)).decode('utf-8', 'replace')

  def check_unread(self, unread: Unread) -> None:
    """Raises `UserError` where more than MOST_UNKNOWN of the bytes are unknown or replaced: to
    predict the unknown token, U+FFFD, or none, says nothing of the text whose bytes a score is
    divided by. A short text may well have one.
    """
    named = lambda first: f', first in {first}' if first else ''
    if unread.replaced > MOST_UNKNOWN * unread.size:
      what = not_utf8(unread.replaced, unread.size) + named(unread.first_replaced)
      allowed = "text in UTF-8, or data.tokenizer='bytes'"
      raise UserError(f'{self._field}: {what}; allowed: {allowed}')
    if unread.unknown > MOST_UNKNOWN * unread.size:
      such = f', such as {unread.example}' if unread.example else ''
      where = named(unread.first_unknown)
      what = f'{unread.unknown / unread.size:.2%} of the text is unknown to it{such}{where}'
      allowed = f'a tokenizer that leaves at most {MOST_UNKNOWN:.0%} unknown'
      raise UserError(f'{self._field}: {what}; allowed: {allowed}')

  def change(self, text: bytes) -> str:
    """As that of `Bytes`; spaces that come, go or have a sign of their own are no change."""
    before = text.decode('utf-8', 'replace')
    plain = lambda characters: ''.join(characters.replace(SPACE, ' ').split())
    before, after = plain(before), plain(self._normalized(before))
    if before == after:
      return ''
    pairs = enumerate(zip(before, after, strict=False))
    start = next((n for n, (own, other) in pairs if own != other), min(len(before), len(after)))
    end = start + MAX_EXAMPLE
    return f'{before[start:end]!r} to {after[start:end]!r}'

  def decode(self, tokens: Iterable[int]) -> bytes:
    """Returns the text that the tokens write: what was normalized away is not in it. Where pieces
    are words, or have marks of words, a space stands before or behind each word.
    """
    return b''.join(self._bytes_of(self._tokenizer.id_to_token(int(token))) for token in tokens)

  def _bytes_of(self, piece: str | None) -> bytes:
    if piece is None:  # a number between others that no piece has
      return b''
    if self._is_of_words:
      return f' {piece}'.encode()
    if self._ends_word and piece.endswith(self._ends_word):
      return self._bytes_of(piece.removesuffix(self._ends_word)) + b' '
    if self._within_word:
      is_within = piece.startswith(self._within_word)
      return (piece.removeprefix(self._within_word) if is_within else f' {piece}').encode()
    if self._is_byte_level and set(piece) <= BYTE_OF_CHARACTER.keys():
      return bytes(map(BYTE_OF_CHARACTER.get, piece))
    if byte := re.fullmatch('<0x([0-9A-F]{2})>', piece):
      return bytes.fromhex(byte[1])
    return piece.replace(SPACE, ' ').encode()


def _sizes(text: str) -> np.ndarray:
  """How many bytes, int64, each character of `characters` stands for."""
  points = np.frombuffer(text.encode('utf-32-le', 'surrogatepass'), '<u4')
  is_raw = (points >= 0xDC80) & (points <= 0xDCFF)
  sizes = 1 + (points >= 0x80) + (points >= 0x800).astype(int) + (points >= 0x10000)
  return np.where(is_raw, 1, sizes)


def _bytes_between(sizes: np.ndarray, ends_T: np.ndarray) -> np.ndarray:
  """The bytes, int64, from the end of each token to the next, where tokens end after so many
  characters; the last one ends with the text.
  """
  starts = np.append(0, np.cumsum(sizes))
  if len(ends_T):
    ends_T = np.maximum.accumulate(ends_T)
    ends_T[-1] = len(sizes)
  return np.diff(starts[ends_T], prepend=0)


def _within(spans_T2: np.ndarray, count: int) -> np.ndarray:
  """Which of so many characters, bool, lie within a span (start, end)."""
  steps = np.zeros(count + 1, int)
  np.add.at(steps, spans_T2[:, 0], 1)
  np.add.at(steps, spans_T2[:, 1], -1)
  return np.cumsum(steps)[:-1] > 0


def _marks(model: dict) -> tuple[str, str]:
  """What pieces begin with within a word, and what they end with at its end; '' for no mark."""
  names = 'continuing_subword_prefix', 'end_of_word_suffix'
  return tuple(model.get(name) or '' for name in names)


def _alphabet(tree: dict) -> tuple[bool, frozenset[str] | None]:
  """(whether a tokenizer.json cuts bytes rather than characters, those that it knows if it leaves
  out all others: byte pairs without an unknown token do). A byte is the character that pieces have
  of it.
  """
  model = tree['model']
  is_of_bytes = 'ByteLevel' in json.dumps([tree.get('normalizer'), tree.get('pre_tokenizer')])
  if 'merges' not in model or model.get('unk_token') is not None or model.get('byte_fallback'):
    return is_of_bytes, None
  prefix, suffix = _marks(model)
  pieces = (piece.removeprefix(prefix).removesuffix(suffix) for piece in model['vocab'])
  known = frozenset(piece for piece in pieces if len(piece) == 1)
  return is_of_bytes, None if is_of_bytes and known >= BYTE_OF_CHARACTER.keys() else known


def read_tokenizer_json(path: str, vocab: int) -> TokenizerJson:
  """Returns the tokenizer in a file. Raises `UserError` where it cannot be read, or has not `vocab`
  symbols with BOS.
  """
  tokenizer = TokenizerJson(tokenizer_file.contents_of(path), path)
  if tokenizer.vocab != vocab:
    raise UserError(
      f'config.data.vocab={vocab}; allowed: {tokenizer.vocab}, the symbols of {path} and BOS'
    )
  return tokenizer
