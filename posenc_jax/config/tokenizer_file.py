"""A tokenizer.json, as the library `tokenizers` reads it, and how many symbols it has."""

from pathlib import Path

from ml_collections import ConfigDict

from posenc_jax.config.serialization import flat
from posenc_jax.errors import MAX_REASON, UserError, imported, one_line


def contents_of(path: str) -> bytes:
  """The bytes of the file. Raises `UserError`."""
  try:
    return Path(path).read_bytes()
  except OSError as error:
    field = f'config.data.tokenizer={path!r}'
    raise UserError(f'{field}: {error.strerror}; allowed: a tokenizer.json') from None


def parsed(contents: bytes, path: str):
  """The `tokenizers.Tokenizer` in the contents of a file; the path is for messages. Raises
  `UserError`, also without the library.
  """
  field = f'config.data.tokenizer={path!r}'
  tokenizers = imported('tokenizers', field, 'hf')
  try:
    return tokenizers.Tokenizer.from_str(contents.decode())
  except Exception as error:  # the library raises nothing more special
    reason = one_line(error, MAX_REASON)
    raise UserError(f'{field}: no tokenizer ({reason}); allowed: a tokenizer.json') from None


def symbols(tokenizer) -> int:
  """How many symbols a `tokenizers.Tokenizer` has, with BOS behind its own."""
  return max(tokenizer.get_vocab().values(), default=0) + 2


def with_its_symbols(config: ConfigDict) -> ConfigDict:
  """The config with the symbols of its tokenizer.json in the place of a `data.vocab` of 0. Raises
  `UserError` where the file cannot be read.
  """
  fields = flat(config)
  if {'data.tokenizer', 'data.vocab'} <= fields.keys():
    path, vocab = fields['data.tokenizer'], fields['data.vocab']
    if type(vocab) is int and vocab == 0 and str(path).endswith('.json'):
      config.data.vocab = symbols(parsed(contents_of(path), path))
  return config
