"""Standard output and error that outlive their readers, `| head` or a terminal that is closed, and
write what their encoding lacks as an escape.
"""

import contextlib
import errno
import io
import os
import stat
import sys
from collections.abc import Iterator

from rich.console import Console


class _Descriptor(io.FileIO):
  """A file descriptor that swallows what is written to it once nobody can read that any more."""

  def __init__(self, fd: int, name: str):
    super().__init__(fd, 'w', closefd=False)
    self._name = name
    self._is_file = stat.S_ISREG(os.fstat(fd).st_mode)

  def write(self, data) -> int | None:
    """Raises OSError, which names the stream, where a file or disk is at fault."""
    try:
      return super().write(data)
    except OSError as error:
      # EIO is what a closed terminal gives; of a file it means that a disk fails
      is_unread = error.errno == errno.EPIPE or (error.errno == errno.EIO and not self._is_file)
      if not is_unread:
        raise OSError(error.errno, error.strerror, self._name) from error
    self.redirect_to_null()
    return len(data)

  def redirect_to_null(self) -> None:
    """Lets all that write to this descriptor, also libraries in C, write to nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, self.fileno())
    os.close(null)


def wide_console(width: int = 640) -> Console:
  """A console of stdout with so many columns where that is no terminal: a file has no width."""
  console = Console()
  if not console.is_terminal:
    console.width = width
  return console


@contextlib.contextmanager
def streams_that_outlive_readers() -> Iterator[None]:
  """Puts such streams in the place of `sys.stdout` and `sys.stderr`.

  A stream that is closed, or that somebody has replaced, stays what it is.
  """
  with contextlib.ExitStack() as stack:
    for name, given in (('stdout', sys.__stdout__), ('stderr', sys.__stderr__)):
      if given is not None and getattr(sys, name) is given:
        stack.enter_context(_replaced(name, given))
    yield


@contextlib.contextmanager
def _replaced(name: str, given: io.TextIOWrapper) -> Iterator[None]:
  given.flush()
  descriptor = _Descriptor(given.fileno(), f'<{name}>')
  stream = io.TextIOWrapper(
    # PYTHONUNBUFFERED makes streams without a buffer
    descriptor if given.write_through else io.BufferedWriter(descriptor),
    encoding=given.encoding,
    # results should not be lost for a sign that a terminal of another encoding lacks
    errors='backslashreplace' if given.errors == 'strict' else given.errors,
    line_buffering=given.line_buffering,
    write_through=given.write_through,
  )
  setattr(sys, name, stream)
  try:
    yield
  finally:
    setattr(sys, name, given)
    try:
      stream.flush()
    except OSError:  # a full disk, of which `print` has told; the rest has no place to go
      descriptor.redirect_to_null()
      stream.flush()
