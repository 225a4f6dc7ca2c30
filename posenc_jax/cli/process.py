"""How the process of a script ends: in order, by an error that a user can mend, or by a signal."""

import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from posenc_jax.cli.orbax_tracebacks import silence_tracebacks
from posenc_jax.cli.streams import streams_that_outlive_readers
from posenc_jax.errors import Stopped, UserError, disk_errors


def main(function: Callable[[list[str]], int | None]) -> None:
  """Runs a script's `function(argv)`, and ends the process with the code that it returns. Modules
  are looked for in the repository of the script, where scripts have packages of their own, and not
  in the folder of scripts: a study may import what lies beside it.

  `UserError` (exit code 2), `Stopped` and a full disk become one line on stderr. Ctrl-C, and SIGHUP
  of a closed terminal unless nohup is set, end the process at once, unless something else takes
  them: exit code 130 and 129, and no write is waited for. A reader of stdout or stderr that goes
  away ends nothing.
  """
  folders = Path(function.__code__.co_filename).resolve().parents
  if root := next((folder for folder in folders if (folder / 'train.py').exists()), None):
    is_other = lambda folder: Path(folder).resolve() not in (root, root / 'scripts')
    sys.path[:] = [str(root), *filter(is_other, sys.path)]
  silence_tracebacks()
  with streams_that_outlive_readers(), interrupts(signal.SIGHUP) as hangups:
    try:
      with disk_errors():
        code = function(sys.argv[1:])
        print(end='', flush=True)  # a disk that is full is told here, if not before
      sys.exit(code)
    except (UserError, Stopped) as error:
      print(f'{Path(sys.argv[0]).name}: {error}', file=sys.stderr)
      sys.exit(error.code)
    except KeyboardInterrupt:
      print(f'stopped; go on with {same_command()}', file=sys.stderr, flush=True)
      os._exit(129 if hangups else 130)  # sys.exit would wait for a save in the background


def same_command() -> str:
  return f'the same command: {shlex.join(["python", *sys.argv])}'


@contextlib.contextmanager
def interrupts(*numbers: int) -> Iterator[list[int]]:
  """Turns these signals into KeyboardInterrupt, but for those that are ignored; lists what came.

  A terminal that is closed may send SIGHUP twice: it does not count as a second signal.
  """
  received = []

  def interrupt(number, frame):
    del frame
    is_repeated = number == signal.SIGHUP and bool(received)
    received.append(number)
    if not is_repeated:
      raise KeyboardInterrupt

  with _heard_by(interrupt, numbers):
    yield received


@contextlib.contextmanager
def held_back(*numbers: int) -> Iterator[None]:
  """Has the first of these signals that comes, but for those that are ignored, heard only once what
  is inside has ended. Processes that are started inside have them blocked: a terminal sends Ctrl-C
  to these, too.
  """
  received = []
  try:
    with _heard_by(lambda number, frame: received.append(number), numbers):
      before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
      try:
        yield
      finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)  # what came is received before it ends
  finally:
    if received:
      signal.raise_signal(received[0])


@contextlib.contextmanager
def _heard_by(handler: Callable[[int, object], None], numbers: Iterable[int]) -> Iterator[None]:
  """Has these signals handled so, but for those that are ignored."""
  handled = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
  before = {number: signal.signal(number, handler) for number in handled}
  try:
    yield
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
