"""Encodings that change the positions which another encoding sees, and leave all else to it."""

from posenc_jax.encodings.core.base import Dims, Encoding, delegate_to_inner
from posenc_jax.encodings.core.registry import make_from_spec

OWN = (
  'positions_of_tokens',
  'tokens_read',
  'sample_positions',
  'max_sampled_distance',
  'max_length',
  'moves_given_positions',
  'adds_only_bias',
)  # what a subclass may define


class PositionWrapper(Encoding):
  """Acts as the encoding `inner` does, at positions that a subclass samples or reads off tokens."""

  moves_alone = True  # whether a subclass does nothing but to give `inner` other positions
  takes_several = False  # whether `inner` may have several positions a token

  def __init__(self, dims: Dims, rngs, inner: str | dict):
    super().__init__(dims, rngs)
    self.inner = make_from_spec(inner, dims, rngs)
    if self.inner.has('sample_positions'):
      raise ValueError(
        f'inner={inner!r} samples positions itself; allowed: an encoding that does not'
      )
    if self.inner.has('positions_of_tokens'):
      raise ValueError(f'inner={inner!r} reads positions off tokens; allowed: one that does not')
    if self.moves_alone and self.inner.position_kind is None:
      raise ValueError(f'inner={inner!r} reads no positions; allowed: one that does')
    if self.inner.positions_per_token > 1 and not self.takes_several:
      has = f'{self.inner.positions_per_token} positions a token'
      raise ValueError(f'inner={inner!r} has {has}; allowed: an encoding with one')
    self.max_length, self.limit = self.inner.max_length, self.inner.limit
    self.per_layer = tuple(f'inner.{name}' for name in self.inner.per_layer)

  def check_longest(self, longest: int) -> None:
    """Raises ValueError unless sampled positions below `longest` are enough and exist."""
    shortest = self.dims.train_length
    if longest < shortest:
      raise ValueError(f'longest={longest}; allowed: at least the training length {shortest}')
    if self.max_length is not None and self.max_length < longest:
      raise ValueError(f'the inner encoding ends at {self.max_length}, before longest={longest}')

  def has(self, hook: str) -> bool:
    return super().has(hook) if hook in OWN else self.inner.has(hook)


delegate_to_inner(PositionWrapper, OWN)
