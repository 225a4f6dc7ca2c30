"""What goes wrong in a way that a user can mend, said in one line."""

import contextlib
import difflib
import errno
from collections.abc import Iterable, Iterator

DISK = {
  getattr(errno, name)
  for name in ('ENOSPC', 'EDQUOT', 'EFBIG', 'EROFS', 'EACCES', 'EPERM', 'EIO', 'ESTALE')
}


class UserError(ValueError):
  """Bad input. Its message is one line that names the field, the value and what is allowed."""

  code = 2


class Stopped(RuntimeError):
  """A run that ends early but in order: one line, and the exit code of its process."""

  def __init__(self, message: str, code: int = 1):
    super().__init__(message)
    self.code = code


def nearest(name: object, names: Iterable[str]) -> str:
  """'did you mean ...' for a misspelt name, or the list of names where none is near."""
  names = sorted(names)
  return hint(name, names) or f'allowed: {", ".join(names)}'


def hint(name: object, names: Iterable[str]) -> str:
  """'did you mean ...' for a misspelt name, or ''."""
  close = difflib.get_close_matches(str(name), names, n=1)
  return f'did you mean {close[0]!r}?' if close else ''


@contextlib.contextmanager
def user_errors(*kinds: type[Exception]) -> Iterator[None]:
  """Turns errors of these kinds, raised where the user's configuration is checked, into one-line
  `UserError`s.
  """
  try:
    yield
  except kinds as error:
    raise UserError(' '.join(str(error).split())) from error


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
  """Turns a disk that is full, read-only or failing into a one-line `Stopped`; a decorator, too."""
  try:
    yield
  except OSError as error:
    if error.errno not in DISK:
      raise
    after = 'what was written before is whole, and the same command goes on once this is mended'
    raise Stopped(f'{error.filename}: {error.strerror}; {after}') from error
