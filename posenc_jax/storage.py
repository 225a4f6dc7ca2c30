"""Files on disk: append-only rows, one JSON object a line; whole files and folders in one step;
locks.

Nothing that is read is trusted. Contents that were read and are wrong raise `Damaged`, which names
file and fault; what cannot be read raises the system's OSError, and is not touched.

Each JSON file and each row ends with a check, `"crc": "1a2b3c4d"`, the CRC-32 of its text without
it, so that a flipped bit is found. Rows are only ever appended. A row is one `write`, so a kill
leaves at most one torn line, at the end: `read_rows` drops it and the next `append_rows` cuts it
off. One process at a time may write to a file of rows: it holds a `file_lock` or, where commands of
several kinds add rows, the lock of that file itself. Every table and figure is made from such rows.
"""

import contextlib
import errno
import fcntl
import glob
import gzip
import io
import json
import os
import re
import shutil
import socket
import stat
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from posenc_jax.errors import Damaged, UserError, one_line, visible

# Where this package lies: in a clone of the repository, if it was installed from one.
REPOSITORY = Path(__file__).resolve().parents[1]
PIECE = 2**24  # bytes that are unpacked at once
MAX_BYTES = 2**31  # of a file when it is unpacked: a small archive can unpack to any size
# Of file systems that have none. The last two are one number on Linux and two on macOS.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
CHECK = re.compile(rb',?"crc":"([0-9a-f]{8})"\}')  # how a row ends
CHECK_BYTES = 18  # with its comma


def exists(path: str | Path) -> bool:
  """Whether there is something at this path. Raises OSError where the system does not tell."""
  try:
    os.stat(path)
  except (FileNotFoundError, NotADirectoryError):
    return False
  return True


def is_folder(path: str | Path) -> bool:
  """Whether there is a folder at this path. Raises OSError where the system does not tell."""
  return exists(path) and stat.S_ISDIR(os.stat(path).st_mode)


def files_below(folder: str | Path, name: str) -> list[Path]:
  """The files `*/name` in the folder, in order. Raises OSError where the system does not tell.

  Unlike `glob`, which passes over a folder that may not be read.
  """
  with os.scandir(folder) as entries:
    below = sorted(entry.name for entry in entries if _is_folder(entry))
  files = [Path(folder) / each / name for each in below]
  return [file for file in files if exists(file)]


def _is_folder(entry: os.DirEntry) -> bool:
  try:
    return entry.is_dir()
  except OSError as error:
    if error.errno != errno.ELOOP:
      raise
    return False  # a link to itself leads nowhere


def is_writable(folder: str | Path) -> bool:
  """Whether this process may make files in a folder that exists."""
  effective = os.access in os.supports_effective_ids
  return os.access(folder, os.W_OK | os.X_OK, effective_ids=effective)


def check_readable(path: str | Path) -> None:
  """Reads a file to its end. Raises OSError, which names it, where that cannot be."""
  with _errors_name(path), open(path, 'rb', opener=_open_regular) as file:
    while file.read(2**24):
      pass


def check_all_readable(folder: str | Path) -> None:
  """`check_readable` of all files below a folder. Raises OSError for a folder, too."""
  for parent, _, names in walk(folder):
    for name in names:
      check_readable(Path(parent) / name)


def walk(folder: str | Path) -> Iterator[tuple[str, list[str], list[str]]]:
  """`os.walk`, but of a folder that cannot be listed, which that skips, it raises OSError."""

  def fail(error):
    raise error

  return os.walk(folder, onerror=fail)


def read_json(path: str | Path, fields: Mapping[str, type] = {}, remedy: str = '') -> dict:
  """The JSON object in a file that `write_json` wrote.

  Args:
    fields: names of fields that it must have, with their types.
    remedy: what the user can do about damage, for the message.
  Raises:
    Damaged: what was read is no such object, or not what was written.
    OSError: it cannot be read; FileNotFoundError: there is no such file.
  """
  try:
    tree = _parse(_contents(path))
    if tree.pop('crc', None) != _check_of(tree):
      raise ValueError('its check differs: it is not what was written')
    for name, kind in fields.items():
      if name not in tree:
        raise ValueError(f'it lacks the field {name!r}')
      if type(tree[name]) is not kind:
        found = type(tree[name]).__name__
        raise ValueError(f'the field {name!r} is {found}, where {kind.__name__} must be')
  except ValueError as error:
    raise Damaged(f'{path} is damaged: {error}{remedy and f"; allowed: {remedy}"}') from None
  return tree


def read_rows(
  path: str | Path, fault_of: Callable[[dict], str | None] = lambda row: None
) -> list[dict]:
  """All rows of a file; [] if there is no such file.

  A compressed file (`.gz`) has a check of its own, so its rows need none.

  Args:
    fault_of: row -> what is wrong with its fields, or None.
  Raises:
    Damaged: a line is no row with its check, and not the torn last one, or has a fault; it is
      named.
    OSError: the file cannot be read.
  """
  path = Path(path)
  try:
    data = _contents(path)
    is_compressed = path.suffix == '.gz'
    lines = (_unpacked(data) if is_compressed else data).split(b'\n')
  except FileNotFoundError:
    return []
  except ValueError as error:
    raise Damaged(f'{path} is damaged: {error}') from None
  rows = []
  for number, line in enumerate(lines, 1):
    if not line or (number == len(lines) and _is_torn(line)):
      continue
    try:
      row = _row(line, needs_check=not is_compressed)
      if fault := fault_of(row):
        raise ValueError(fault)
    except ValueError as error:
      raise Damaged(f'{path}:{number}: the line is damaged: {error}; {_without(path)}') from None
    rows.append(row)
  return rows


def append_rows(path: str | Path, rows: Iterable[dict], is_shared: bool = False) -> None:
  """Adds rows at the end, each in one write, and waits until they are on the disk.

  Args:
    rows: of eval.jsonl as `row_schema.row` makes them; of other files, objects of JSON.
    is_shared: whether others may add rows, too: then they wait for one another.
  Raises:
    OSError: it names the file.
    Damaged: its last line is neither whole nor torn.
  """
  with _errors_name(path):
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    try:
      if is_shared:
        lock(fd, path, wait=True)
      is_new = os.fstat(fd).st_size == 0
      _repair_torn_tail(fd, path)
      for row in rows:
        _write(fd, _line(row))
      os.fsync(fd)
    finally:
      os.close(fd)
    if is_new:
      _sync_folder(Path(path).parent)


def rewrite_rows(path: str | Path, rows: Iterable[dict]) -> None:
  """Puts these rows in the place of the file, as `atomic_write` does; compressed if it is `.gz`.

  Raises: as `file_of_rows` and `atomic_write`.
  """
  atomic_write(path, file_of_rows(path, rows))


def file_of_rows(path: str | Path, rows: Iterable[dict]) -> bytes:
  """What `rewrite_rows` writes. Raises UserError for an archive that `read_rows` would refuse."""
  content = b''.join(map(_line, rows))
  if Path(path).suffix != '.gz':
    return content
  if len(content) > MAX_BYTES:
    allowed = 'fewer runs in one folder, such as those of each --part in a folder of its own'
    raise UserError(f'{path}: its rows are more than {MAX_BYTES} bytes; allowed: {allowed}')
  return gzip.compress(content, mtime=0)  # equal rows are equal bytes


def atomic_write(path: str | Path, content: str | bytes) -> None:
  """Writes a whole file, or leaves what was there if killed or if the disk is full.

  Waits until it is on the disk. Processes may write the same file at once, also from several hosts
  or containers, whose process ids can be equal: the last one wins.
  Raises OSError, which names the file.
  """
  with new_file(path) as file:
    file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def new_file(path: str | Path) -> Iterator[BinaryIO]:
  """Yields an empty file, which is in the place of `path` once it is filled: `atomic_write` of what
  is written piece by piece.
  """
  path = Path(path)
  new = path.with_name(f'{path.name}.{socket.gethostname()}.{os.getpid()}.new')
  with _errors_name(path):
    try:
      with open(new, 'wb') as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
      os.replace(new, path)
      _sync_folder(path.parent)
    except BaseException:
      new.unlink(missing_ok=True)
      raise


def name_of(folder: str | Path) -> str:
  """The last name of a folder, also of one given as '.'; that of a link is its own."""
  return Path(os.path.abspath(folder)).name


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
  """Yields an empty folder beside `path`, of this process alone, which moves there in one step once
  it is filled. What processes of this machine that were killed have left beside it is removed.

  Raises OSError, also where there is more than an empty folder at `path`.
  """
  path = path.resolve()  # a link to an empty folder stays one
  beginning = f'{path.name}.unfinished.{socket.gethostname()}.'
  for other in path.parent.glob(f'{glob.escape(beginning)}*'):
    if not _is_alive(other.name.removeprefix(beginning)):
      shutil.rmtree(other, ignore_errors=True)
  unfinished = path.with_name(f'{beginning}{os.getpid()}')
  try:
    unfinished.mkdir(parents=True)
    yield unfinished
    os.replace(unfinished, path)
  finally:
    shutil.rmtree(unfinished, ignore_errors=True)


def _is_alive(pid: str) -> bool:
  """Whether another process of this machine has the number `pid`, or what is no number."""
  try:
    return not pid.isdecimal() or (int(pid) != os.getpid() and os.kill(int(pid), 0) is None)
  except PermissionError:  # that of another user
    return True
  except (ProcessLookupError, OverflowError):
    return False


def write_json(path: str | Path, tree: dict) -> None:
  """`atomic_write` of a tree as indented JSON, with a check as its last field."""
  atomic_write(path, json.dumps({**tree, 'crc': _check_of(tree)}, indent=2) + '\n')


def without_numpy(value):
  """A value with Python's numbers in the place of numpy's, in tuples, lists and dicts, too; other
  mappings become dicts.

  Numpy's are neither JSON nor literals of the command line, are no instances of int, and overflow
  without an error.
  """
  if isinstance(value, np.generic):
    return value.item()
  if isinstance(value, tuple | list):
    values = [without_numpy(part) for part in value]
    return tuple(values) if isinstance(value, tuple) else values
  if hasattr(type(value), 'keys'):
    return {key: without_numpy(value[key]) for key in value}
  return value


def _check_of(tree: dict) -> str:
  return f'{zlib.crc32(_text(tree)):08x}'


class Locked(BlockingIOError):
  """Another process holds a lock; `holder` says which, as the file names it, in one line."""

  def __init__(self, path: str | Path, holder: str):
    self.holder = visible(one_line(holder)) or 'it does not say which'
    problem = f'another process is at work there ({self.holder})'
    super().__init__(f'workdir={str(Path(path).parent)!r}: {problem}; allowed: one at a time')


@contextlib.contextmanager
def file_lock(path: str | Path, wait: bool = False) -> Iterator[None]:
  """Holds the lock of the file `path`. The file names the holder, and stays.

  In a folder that cannot be written to nobody works, so there is nothing to lock. The kernel frees
  the lock when the process dies. On NFS the server keeps it, and hosts see each other's locks; that
  of a host that went down ends with its lease.

  Args:
    wait: whether to wait for another process that holds the lock.
  Raises:
    Locked: another process holds the lock.
  """
  if not is_writable(Path(path).parent):
    yield
    return
  with _errors_name(path):
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
  try:
    try:
      lock(fd, path, wait)
    except BlockingIOError:
      raise Locked(path, os.pread(fd, 200, 0).decode(errors='replace')) from None
    with contextlib.suppress(OSError):  # the lock holds even if a full disk takes no name
      os.ftruncate(fd, 0)
      os.pwrite(fd, f'process {os.getpid()} on {socket.gethostname()}\n'.encode(), 0)
    yield
  finally:
    os.close(fd)


def lock(fd: int, path: str | Path, wait: bool = False) -> None:
  """Locks an open file until this process, and all that inherit the file from it, have closed it.

  With `wait`, waits for another process that holds the lock; else raises BlockingIOError. Some file
  systems have no locks (some mounts of NFS and Lustre): there, a line says so.
  """
  try:
    fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
  except BlockingIOError:
    raise
  except OSError as error:
    if error.errno not in NO_LOCKS:
      raise OSError(error.errno, error.strerror, str(path)) from error
    print(
      f'{path}: no lock on this file system ({error.strerror}); '
      'see to it that one process at a time works there',
      file=sys.stderr,  # text or JSON goes to stdout
    )


def is_locked(path: str | Path) -> bool:
  """Whether a process holds the lock of the file, on any machine whose locks are seen here."""
  if not exists(path):
    return False
  with open(path, 'rb') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
      return True
    except OSError as error:
      if error.errno not in NO_LOCKS:
        raise OSError(error.errno, error.strerror, str(path)) from error
  return False


@contextlib.contextmanager
def _errors_name(path: str | Path) -> Iterator[None]:
  """Lets an OSError name the file that it is about."""
  try:
    yield
  except OSError as error:
    raise OSError(error.errno, error.strerror, str(path)) from error


def _contents(path: str | Path) -> bytes:
  """The bytes of a regular file; another kind, such as a pipe, could make the reader wait."""
  with _errors_name(path), open(path, 'rb', opener=_open_regular) as file:
    return file.read()


def _open_regular(path: str, flags: int) -> int:
  fd = os.open(path, flags | os.O_NONBLOCK)  # the other end of a pipe may never come
  mode = os.fstat(fd).st_mode
  if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # of a folder, the system says so itself
    os.close(fd)
    raise OSError(errno.EINVAL, 'not a regular file', path)
  return fd


def _unpacked(data: bytes) -> bytes:
  """Raises ValueError where the archive is damaged, or too large."""
  try:
    if not data:
      raise EOFError('it is empty')
    pieces = []
    with gzip.open(io.BytesIO(data)) as file:
      # piece by piece: Python takes room for all that a read may return
      while sum(map(len, pieces)) <= MAX_BYTES and (piece := file.read(PIECE)):
        pieces.append(piece)
  except (OSError, EOFError, zlib.error) as error:
    raise ValueError(f'it cannot be unpacked ({error})') from None
  if sum(map(len, pieces)) > MAX_BYTES:
    raise ValueError(f'it unpacks to more than {MAX_BYTES} bytes')
  return b''.join(pieces)


def _text(tree: dict) -> bytes:
  return json.dumps(tree, allow_nan=False, separators=(',', ':')).encode()


def _line(row: dict) -> bytes:
  text = _text(row)
  comma = ',' if row else ''
  return text[:-1] + f'{comma}"crc":"{zlib.crc32(text):08x}"}}\n'.encode()


def _row(line: bytes, needs_check: bool = True) -> dict:
  """The row of a line, without its check. Raises ValueError, which names what is wrong."""
  check = CHECK.search(line, max(0, len(line) - CHECK_BYTES))
  if check is None or check.end() < len(line):
    if needs_check:
      _parse(line)  # says more precisely what is wrong, where something is
      raise ValueError('it does not end with its check, such as "crc":"1a2b3c4d"')
    return _parse(line)
  text = line[: check.start()] + b'}'
  if zlib.crc32(text) != int(check[1], 16):
    raise ValueError('its check differs: it is not what was written')
  return _parse(text)


def _is_torn(line: bytes) -> bool:
  """Whether the last line, which has no line break, is the beginning of a row."""
  if CHECK.search(line):
    return False
  try:
    _parse(line)
  except ValueError:
    return True
  return False


def _parse(text: bytes) -> dict:
  """The JSON object in `text`. Raises ValueError, which names what is wrong."""
  if not text.strip():
    raise ValueError('it is empty')
  try:
    tree = json.loads(text.decode('utf-8'), **PARSING)
  except UnicodeDecodeError as error:
    raise ValueError(f'byte {error.start} is not UTF-8') from None
  except json.JSONDecodeError as error:
    place = f'line {error.lineno}, column {error.colno}'
    raise ValueError(f'it is no JSON, or ends too early ({place}: {error.msg})') from None
  except RecursionError:
    raise ValueError('it is nested too deeply') from None
  if not isinstance(tree, dict):
    raise ValueError(f'it holds {type(tree).__name__}, where an object must be')
  return tree


def _refuse_constant(name: str) -> None:
  raise ValueError(f'it holds {name}, where a number must be')


def _with_one_text_a_key(pairs: list[tuple[str, object]]) -> dict:
  return {sys.intern(key): value for key, value in pairs}


# Else each of hundreds of thousands of rows would keep texts of its own for its keys.
PARSING = {'parse_constant': _refuse_constant, 'object_pairs_hook': _with_one_text_a_key}


def _write(fd: int, data: bytes) -> None:
  while data:  # a full disk takes a piece, and refuses the next one with an error
    data = data[os.write(fd, data) :]


def _sync_folder(folder: Path) -> None:
  """Waits until the names in the folder are on the disk, where its file system can do that."""
  fd = os.open(folder, os.O_RDONLY)
  try:
    with contextlib.suppress(OSError):
      os.fsync(fd)
  finally:
    os.close(fd)


def _without(path: str | Path) -> str:
  """What is allowed of a file of rows with a damaged line."""
  path, allowed = Path(path), 'allowed: the file without that line'
  if path.name != 'eval.jsonl' or not (path.parent / 'config.json').is_file():
    return allowed
  again = f'the command that measured it, such as eval.py --workdir={path.parent}, does so again'
  return f'{allowed}; {again}'


def _repair_torn_tail(fd: int, path: str | Path) -> None:
  """Makes the file end with a line break: cuts off a torn row, completes a whole one."""
  size = os.fstat(fd).st_size
  if size == 0 or os.pread(fd, 1, size - 1) == b'\n':
    return
  text = os.pread(fd, size, 0)
  last = text[text.rfind(b'\n') + 1 :]
  if _is_torn(last):
    os.ftruncate(fd, size - len(last))
    return
  try:
    _row(last)
  except ValueError as error:
    raise Damaged(f'{path}: the last line is damaged: {error}; {_without(path)}') from None
  os.write(fd, b'\n')
