"""What a worker makes of a case."""

from collections.abc import Callable
from dataclasses import dataclass, field

from posenc_jax.errors import MAX_REASON, one_line


class Unsupported(Exception):
  """A case that cannot be measured here. The message says why."""


@dataclass
class Work:
  """Something to time. `call` returns when its work is done; `facts` are added to the row."""

  call: Callable[[], object]
  facts: dict = field(default_factory=dict)


def reason(error: BaseException) -> str:
  """What an error says, in one line of some length.

  The name of the error's class stands before it, except for errors that are raised to be read.
  """
  said, name = one_line(error, MAX_REASON), type(error).__name__
  if not said or isinstance(error, Unsupported | NotImplementedError):
    return said or name
  return f'{name}: {said}'
