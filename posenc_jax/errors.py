"""Errors that a user can mend, each said in one line; imported by all others."""

import contextlib
import difflib
import errno
import importlib
import os
import re
import traceback
import types
from collections.abc import Iterable, Iterator
from pathlib import Path

from posenc_jax.other_words import ELSEWHERE, MEANT

DIVERGED = 'training stopped'  # in the last line of a training whose loss was not finite
MAX_SHOWN = 120  # characters of a value in a message
MAX_REASON = 160  # of what another library says
# What the operating system says of a disk that is full, read-only or failing.
DISK_ERRORS = {
  getattr(errno, name)
  for name in ('ENOSPC', 'EDQUOT', 'EFBIG', 'EROFS', 'EACCES', 'EPERM', 'EIO', 'ESTALE', 'ELOOP')
}

# Beginnings of files of this package and of the standard library, as modules name them: with links
# not followed. `sysconfig` has a link for the latter in Homebrew's Python.
_PACKAGE = Path(__file__).parent
BUILT_IN = tuple(f'{folder}{os.sep}' for folder in (_PACKAGE, os.path.dirname(os.__file__)))
# Those of all files whose code is not a user's own, and folders of installed code.
OTHERS = (
  *BUILT_IN,
  f'{_PACKAGE.parent / "scripts"}{os.sep}',
  *(str(_PACKAGE.parent / name) for name in ('train.py', 'eval.py')),
)
INSTALLED = tuple(f'{os.sep}{name}{os.sep}' for name in ('site-packages', 'dist-packages'))


def visible(text: str) -> str:
  """The text in one line of what can be printed: all else stands there as an escape, such as \\x1b.

  Names come from files, too: a line break, a control sequence of a terminal or a mark that turns
  the direction of writing would make a name look like something that it is not.
  """
  if text.isprintable():
    return text
  return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in text)


class UserError(ValueError):
  """Bad input, in one line that names the field, the value and what is allowed."""

  code = 2

  def __init__(self, message: str):
    super().__init__(visible(message))


class Damaged(UserError):
  """A file that was read and whose contents are wrong. Its message names file and fault."""


class Stopped(RuntimeError):
  """A run ends early but in order: the error has one line, and the exit code of the process."""

  def __init__(self, message: str, code: int = 1):
    super().__init__(visible(message))
    self.code = code


def not_finite(what: str) -> Stopped:
  """The error that ends a training at a value that is not finite, before it is saved."""
  return Stopped(f'{what}; {DIVERGED}, and checkpoints are from steps before that')


def nearest(name: object, names: Iterable[str]) -> str:
  """'did you mean ...?' for a misspelt name, or 'allowed: ...' with all names if none is near."""
  names = sorted(names)
  return hint(name, names) or f'allowed: {", ".join(names) or "none"}'


def nearest_of_all(name: object, names: Iterable[str]) -> str:
  """'did you mean ...?; allowed: ...' with all names, where there are few."""
  names = sorted(names)
  near = hint(name, names)
  return f'{near and f"{near}; "}allowed: {", ".join(names) or "none"}'


def nearest_field(path: str, paths: Iterable[str]) -> str:
  """'did you mean ...?' for a misspelt 'section.field', or 'allowed: ...' with the fields of its
  section, or all sections; for a word of ELSEWHERE what that says. The field's own name must be
  near, too: all of a section begin alike.
  """
  paths, own_name = sorted(paths), lambda path: path.rpartition('.')[2]
  if own_name(path) in ELSEWHERE:
    return ELSEWHERE[own_name(path)]
  # A cutoff of 1 leaves other words for a field.
  near = [p for p in paths if closest(path, [p], 1.0) or hint(own_name(path), [own_name(p)])]
  section = path.partition('.')[0]
  of_section = [p for p in paths if p.startswith(f'{section}.')]
  allowed = of_section or sorted({p.partition('.')[0] for p in paths})
  return hint(path, near) or f'allowed: {", ".join(allowed)}'


def hint(name: object, names: Iterable[str]) -> str:
  """'did you mean ...?' for a misspelt name, or '' if no name is near."""
  close = closest(name, names)
  return f'did you mean {close!r}?' if close else ''


def closest(name: object, names: Iterable[str], cutoff: float = 0.6) -> str | None:
  """The name that a misspelt one, or another word for it, is most likely meant to be; None if no
  name is near: none of which a share of `cutoff` is the same.
  """
  names = list(names)
  if same := [known for known in names if known.lower() == str(name).lower()]:
    return same[0]
  word = str(name).lower()
  for said in (word, word.rpartition('.')[2]):
    if (meant := MEANT.get(said)) in names:
      return meant
  return next(iter(difflib.get_close_matches(str(name), names, 1, cutoff)), None)


# What jax writes below an error, in the place of frames that it left out of a traceback.
NOTE_OF_JAX = 'For simplicity, JAX has removed its internal frames'


def last_line(text: str) -> str:
  """The last line that says something, such as the error at the end of a traceback; '' if none."""
  lines = (line.strip() for line in re.split(r'[\r\n]', text))
  says = lambda line: line.strip('-') and not line.startswith(NOTE_OF_JAX)
  return next(filter(says, reversed([*lines])), '')


def shown(value: object) -> str:
  """The value as Python writes it, in one line of at most MAX_SHOWN characters, for a message."""
  try:
    text = repr(value)
  except (ValueError, RecursionError):  # an int of thousands of digits, or nested without end
    return f'<{type(value).__name__}>'
  text = ' '.join(text.split())
  text = text if text.isprintable() else ascii(text)
  return text if len(text) <= MAX_SHOWN else f'{text[: MAX_SHOWN - 20]}...{text[-10:]}'


def one_line(said: object, most: int | None = None) -> str:
  """What an error of another library says, in one line: the first `most` characters of it."""
  return ' '.join(str(said).split())[:most]


def place_of(error: BaseException) -> str:
  """The last line of the user's own code that an error, or the one that caused it, came through, as
  'file:line'; '' where it came through none.
  """
  frames = traceback.walk_tb(error.__traceback__)
  places = [(frame.f_code.co_filename, line) for frame, line in frames]
  if isinstance(error, SyntaxError) and error.filename:
    places.append((error.filename, error.lineno or 0))
  for file, line in reversed(places):
    path = os.path.abspath(file)
    is_installed = any(folder in path for folder in INSTALLED)
    if not is_installed and not path.startswith(OTHERS) and os.path.isfile(path):
      here = os.path.relpath(path)
      return f'{path if here.startswith(os.pardir) else here}:{line}'
  cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
  return '' if cause is None else place_of(cause)


def with_place(error: BaseException, said: str) -> str:
  """What is said of an error, and behind it the line of the user's own code, if there is one."""
  place = place_of(error)
  return said if not place or place in said else f'{said} ({place})'


def not_installed(what: str, package: str, extra: str) -> UserError:
  """The error of a field or flag that needs a package, which an extra of this one installs."""
  allowed = f"after pip install -e '.[{extra}]'"
  return UserError(f'{what}: {package} is not installed; allowed: {allowed}')


def imported(module: str, what: str, extra: str) -> types.ModuleType:
  """The module of a package that an extra of this one installs. Raises UserError: that it is not
  installed, or why it cannot be imported. A folder that happens to have its name is no package.
  """
  package = module.partition('.')[0]
  try:
    found = importlib.import_module(module)
    if (spec := getattr(found, '__spec__', None)) and spec.origin is None:
      raise not_installed(what, package, extra)
    return found
  except ImportError as error:
    if isinstance(error, ModuleNotFoundError) and error.name == package:
      raise not_installed(what, package, extra) from None
    why = one_line(error, MAX_REASON)
    raise UserError(f'{what}: {package} cannot be imported: {why}') from error


@contextlib.contextmanager
def user_errors(*kinds: type[Exception]) -> Iterator[None]:
  """Turns errors of these kinds into `UserError`s of one line; also a decorator.

  It is for code that checks user input. Of an error in the user's own code it says the line.
  """
  try:
    yield
  except kinds as error:
    raise UserError(with_place(error, one_line(error))) from error


GOES_ON = 'what was written before is whole, and the same command goes on once this is mended'


@contextlib.contextmanager
def disk_errors(remedy: str = GOES_ON) -> Iterator[None]:
  """Turns an error of the system about a file into a `Stopped` of one line; also a decorator."""
  try:
    yield
  except OSError as error:
    if error.filename is None and error.errno not in DISK_ERRORS:  # it is about no file
      raise
    where = 'output' if error.filename is None else error.filename
    raise Stopped(f'{where}: {error.strerror}{remedy and f"; {remedy}"}') from error
