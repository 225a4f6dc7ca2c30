"""The file state.json of a run, in which its launcher says what it knows of the run.

It serves people and `--status`, and decides nothing: a damaged file is one that says nothing, and
the next write replaces it.
"""

import dataclasses
import socket
from pathlib import Path

from posenc_jax import storage
from posenc_jax.errors import Damaged

STATES = ('queued', 'running', 'failed', 'ended')
MAX_SECONDS = 1e9  # more is no duration
MAX_CHARACTERS = 400  # of a line that is shown


@dataclasses.dataclass
class RunState:
  """What a launcher said last.

  Attributes:
    state: one of STATES, or '': nothing is known. A launcher that is killed leaves 'running': then
      the lock of the log tells.
    host: the machine of the launcher.
    job: the job of a cluster, if it is one.
    reason: why the run is in this state, in one line.
    seconds: how long each of its scripts took, {'train': 60.0}.
  """

  state: str = ''
  host: str = ''
  job: str = ''
  reason: str = ''
  seconds: dict[str, float] = dataclasses.field(default_factory=dict)


def read(path: Path) -> RunState:
  """The state in a file; that of which nothing is known where it is missing or damaged.

  Raises OSError where the file cannot be read.
  """
  try:
    found = RunState(**storage.read_json(path, {'state': str, 'host': str}))
  except (FileNotFoundError, NotADirectoryError, Damaged, TypeError):
    return RunState()
  words = (found.host, found.job, found.reason)
  if found.state not in STATES or not all(isinstance(word, str) for word in words):
    return RunState()
  if not isinstance(found.seconds, dict) or not all(map(is_duration, found.seconds.values())):
    return RunState()
  found.host, found.job, found.reason = map(printable, words)
  return found


def write(path: Path, state: str, **fields: object) -> None:
  """Writes a state with some of the other attributes of `RunState`."""
  fields = {'state': state, 'host': socket.gethostname(), **fields}
  storage.write_json(path, {name: value for name, value in fields.items() if value})


def is_duration(value: object) -> bool:
  """Whether a value that was read is a number of seconds."""
  return type(value) in (int, float) and 0 <= value < MAX_SECONDS


def printable(text: str) -> str:
  """The text as one line of limited length, without what would control a terminal."""
  line = ' '.join(text[: 4 * MAX_CHARACTERS].split())
  line = ''.join(c if c.isprintable() else '\N{REPLACEMENT CHARACTER}' for c in line)
  return line if len(line) <= MAX_CHARACTERS else f'{line[:MAX_CHARACTERS]} ...'
