"""Files on disk: append-only rows, one JSON object a line; whole files in one step; locks.

Rows are only ever appended. A row is one `write`, so a kill leaves at most one torn line, at the
end: `read` drops it and the next `append` cuts it off. One process at a time may write to a file of
rows; it holds a `file_lock`. Every table and figure is made from such rows.
"""

import contextlib
import errno
import fcntl
import gzip
import json
import os
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path


def read(path: str | Path) -> list[dict]:
  """All rows of a file, which may be compressed (`.gz`); [] if there is no such file.

  Raises ValueError, which names the line, if a line is no row and not the torn last one.
  """
  path = Path(path)
  if not path.exists():
    return []
  data = path.read_bytes()
  lines = (gzip.decompress(data) if path.suffix == '.gz' else data).split(b'\n')
  rows = []
  for number, line in enumerate(lines, 1):
    row = _parse(line)
    if row is not None:
      rows.append(row)
    elif line and number < len(lines):
      raise ValueError(f'{path}:{number}: not a JSON object: {line[:60]!r}')
  return rows


def append(path: str | Path, rows: Iterable[dict]) -> None:
  """Adds rows at the end, each in one write, and waits until they are on the disk.

  Raises OSError, which names the file.
  """
  with _errors_name(path):
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    try:
      _repair_torn_tail(fd)
      for row in rows:
        _write(fd, _line(row))
      os.fsync(fd)
    finally:
      os.close(fd)


def rewrite(path: str | Path, rows: Iterable[dict]) -> None:
  """Puts these rows in the place of the file, as `atomic_write` does."""
  atomic_write(path, b''.join(map(_line, rows)))


def atomic_write(path: str | Path, content: str | bytes) -> None:
  """Writes a whole file, or leaves what was there if killed or if the disk is full.

  Processes may write the same file at once: the last one wins. Raises OSError, which names the
  file.
  """
  path = Path(path)
  new = path.with_name(f'{path.name}.{os.getpid()}.new')
  with _errors_name(path):
    try:
      with open(new, 'wb') as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
      os.replace(new, path)
    except BaseException:
      new.unlink(missing_ok=True)
      raise


def atomic_write_json(path: str | Path, tree: dict) -> None:
  """`atomic_write` of a tree as indented JSON."""
  atomic_write(path, json.dumps(tree, indent=2) + '\n')


@contextlib.contextmanager
def file_lock(path: str | Path) -> Iterator[None]:
  """Holds the lock of the file `path`. The file names the holder, and stays.

  The kernel frees the lock when the process dies. On NFS the server keeps it, and hosts see each
  other's locks; that of a host that went down ends with its lease.

  Raises BlockingIOError, which says who the holder is, if another process holds the lock.
  """
  with _errors_name(path):
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
  try:
    try:
      lock(fd, path)
    except BlockingIOError:
      holder = os.pread(fd, 200, 0).decode(errors='replace').strip() or 'it does not say which'
      raise BlockingIOError(
        f'workdir={str(Path(path).parent)!r}: another process is at work there ({holder}); '
        'allowed: one at a time'
      ) from None
    with contextlib.suppress(OSError):  # the lock holds even if a full disk takes no name
      os.ftruncate(fd, 0)
      os.pwrite(fd, f'process {os.getpid()} on {socket.gethostname()}\n'.encode(), 0)
    yield
  finally:
    os.close(fd)


def lock(fd: int, path: str | Path) -> None:
  """Locks an open file until this process, and all that inherit the file from it, have closed it.

  Some file systems have no locks (some mounts of NFS and Lustre): there, a line says so. Raises
  BlockingIOError if another process holds the lock.
  """
  try:
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    raise
  except OSError as error:
    if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
      raise OSError(error.errno, error.strerror, str(path)) from error
    print(
      f'{path}: no lock on this file system ({error.strerror}); '
      'see to it that one process at a time works there'
    )


def is_locked(path: str | Path) -> bool:
  """Whether a process holds the lock of the file, on any machine whose locks are seen here."""
  if not Path(path).exists():
    return False
  with open(path, 'rb') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
      return True
  return False


@contextlib.contextmanager
def _errors_name(path: str | Path) -> Iterator[None]:
  """Lets an OSError name the file that it is about."""
  try:
    yield
  except OSError as error:
    raise OSError(error.errno, error.strerror, str(path)) from error


def _line(row: dict) -> bytes:
  return json.dumps(row, allow_nan=False, separators=(',', ':')).encode() + b'\n'


def _parse(line: bytes) -> dict | None:
  try:
    row = json.loads(line)
  except ValueError:
    return None
  return row if isinstance(row, dict) else None


def _write(fd: int, data: bytes) -> None:
  while data:  # a full disk takes a piece, and refuses the next one with an error
    data = data[os.write(fd, data) :]


def _repair_torn_tail(fd: int) -> None:
  """Makes the file end with a line break: cuts off a torn row, completes a whole one."""
  size = os.fstat(fd).st_size
  if size == 0 or os.pread(fd, 1, size - 1) == b'\n':
    return
  text = os.pread(fd, size, 0)
  last = text[text.rfind(b'\n') + 1 :]
  if _parse(last) is not None:
    os.write(fd, b'\n')
  else:
    os.ftruncate(fd, size - len(last))
