"""Whether the encodings of a model and the positions that its data carries go together."""

from ml_collections import ConfigDict

from posenc_jax.encodings import Encoding
from posenc_jax.model.decoder import LM


def check_carried_positions(config: ConfigDict, model: LM, source) -> None:
  """Raises ValueError, one line, where an encoding does not take the positions of a run's data.

  Args:
    source: a corpus or a task, with its `carried_positions` and `largest_position`; None: text.
  """
  carried = None if source is None else source.carried_positions
  for variant in model.encodings.variants:
    if carried is None:
      _check_contiguous(config, variant.encoding)
    else:
      _check_kind(config, variant.encoding.at_input, carried)
      _check_end(config, variant.encoding, source.largest_position(config.train.length))


def _check_contiguous(config: ConfigDict, enc: Encoding) -> None:
  if enc.takes_carried_positions:
    raise ValueError(
      f'config.data.corpus={config.data.corpus!r}: carries no positions, which {_name(enc)} is '
      "made for; allowed: one that does, such as 'task:addition/reverse=True/positions=abacus'"
    )


def _check_kind(config: ConfigDict, enc: Encoding, carried) -> None:
  corpus = f'config.data.corpus={config.data.corpus!r}: carries'
  if enc.has('sample_positions') and not enc.takes_carried_positions:
    raise ValueError(
      f'{corpus} positions, and {_name(enc)} samples its own; allowed: one without the other'
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
