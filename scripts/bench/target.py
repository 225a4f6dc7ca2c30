"""What a worker makes of a case."""

from collections.abc import Callable
from dataclasses import dataclass, field


class Unsupported(Exception):
  """A case that cannot be measured here. The message says why."""


@dataclass
class Target:
  """Something to time. `call` returns when its work is done; `facts` are added to the row."""

  call: Callable[[], object]
  facts: dict = field(default_factory=dict)


def reason(error: BaseException) -> str:
  """The first line of an error's message that is not empty.

  The name of the error's class stands before it, except for errors that are raised to be read.
  """
  lines = [line.strip() for line in str(error).splitlines() if line.strip()]
  if isinstance(error, Unsupported | NotImplementedError):
    return lines[0] if lines else type(error).__name__
  return ': '.join([type(error).__name__, *lines[:1]])
