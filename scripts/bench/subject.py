"""What a case becomes in a worker."""

from collections.abc import Callable
from dataclasses import dataclass, field


class Refused(Exception):
  """What is asked for cannot be done here; the message says why."""


@dataclass
class Subject:
  """Something to time: `call` works and returns when the work is done. `facts` go into its row."""

  call: Callable[[], object]
  facts: dict = field(default_factory=dict)


def reason(error: BaseException) -> str:
  """The first line of what an error says that says something; its kind too where it was not raised
  to be read.
  """
  lines = [line.strip() for line in str(error).splitlines() if line.strip()]
  if isinstance(error, Refused | NotImplementedError):
    return lines[0] if lines else type(error).__name__
  return ': '.join([type(error).__name__, *lines[:1]])
