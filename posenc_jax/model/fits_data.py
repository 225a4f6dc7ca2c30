"""Whether the encodings of a model go together with its data: with the positions that these carry,
and with their tokens.
"""

from ml_collections import ConfigDict

from posenc_jax.encodings import Encoding
from posenc_jax.model.decoder import LM
from posenc_jax.tasks import is_task


def check_fits_data(config: ConfigDict, model: LM, source) -> None:
  """Raises ValueError, one line, where an encoding does not take the positions of a run's data, or
  looks for tokens that these have not.

  Args:
    source: a corpus or a task, with its `carried_positions` and `largest_position`; None: text.
  """
  carried = None if source is None else source.carried_positions
  for variant in model.encodings.variants:
    _check_tokens(config, variant.encoding, model.vocab)
    if carried is None:
      _check_contiguous(config, variant.encoding)
      _check_end_of_documents(config, variant.encoding)
    else:
      _check_kind(config, variant.encoding.at_input, carried)
      _check_end(config, variant.encoding, source.largest_position(config.train.length))


def _check_tokens(config: ConfigDict, enc: Encoding, vocab: int) -> None:
  tokens = enc.tokens_read
  is_text_in_bytes = config.data.tokenizer == 'bytes' and not is_task(config.data.corpus)
  if isinstance(tokens, bytes) and not is_text_in_bytes:
    raise ValueError(
      f'config.data: its tokens are no bytes, and {_name(enc)} looks for the bytes {tokens}; '
      'allowed: ids of its tokens'
    )
  if max(tokens, default=0) >= vocab:
    raise ValueError(f'{_name(enc)} looks for token {max(tokens)}; allowed: below {vocab}')


def _check_contiguous(config: ConfigDict, enc: Encoding) -> None:
  if enc.takes_carried_positions:
    raise ValueError(
      f'config.data.corpus={config.data.corpus!r}: carries no positions, which {_name(enc)} is '
      "made for; allowed: one that does, such as 'task:addition/reverse=True/positions=abacus'"
    )


def _check_end_of_documents(config: ConfigDict, enc: Encoding) -> None:
  """Refuses positions that end before those of a document that fills a row of several. Lengths of
  documents are data, of which a program says nothing.
  """
  L, end = config.train.length, enc.max_length
  if config.data.packing == 'separate' and end is not None and end < L:
    raise ValueError(
      f'config.train.length={L}: a document may fill a row, but positions of {_name(enc)} end at '
      f'{end}; allowed: at most that'
    )


def _check_kind(config: ConfigDict, enc: Encoding, carried) -> None:
  corpus = f'config.data.corpus={config.data.corpus!r}: carries'
  moves = enc.takes_carried_positions or enc.moves_given_positions
  if enc.has('sample_positions') and not moves:
    raise ValueError(
      f'{corpus} positions, and {_name(enc)} samples its own; allowed: one without the other'
    )
  if enc.has('positions_of_tokens'):
    raise ValueError(
      f'{corpus} positions, and {_name(enc)} reads its own; allowed: one without the other'
    )
  if enc.position_kind is None:
    return
  fits = carried.kind == 'integers' or enc.position_kind == 'floats'
  if not fits or carried.per_token != enc.positions_per_token:
    raise ValueError(
      f'{corpus} {carried.per_token} a token, {carried.kind}; '
      f'allowed: {enc.positions_per_token}, {enc.position_kind}, for {_name(enc)}'
    )


def _check_end(config: ConfigDict, enc: Encoding, largest: int) -> None:
  if enc.has('sample_positions'):
    largest = enc.max_sampled_distance(largest + 1)
  if enc.max_length is not None and enc.max_length <= largest:
    raise ValueError(
      f'config.train.length={config.train.length}: positions reach {largest}, but those of '
      f'{_name(enc)} end at {enc.max_length}; allowed: less than that'
    )


def _name(enc: Encoding) -> str:
  return type(enc).__name__
