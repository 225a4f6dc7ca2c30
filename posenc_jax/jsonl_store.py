"""Measurements on disk: one JSON object a line, one file a run. Every table and figure is made from
these rows.

Files are only ever appended to. A row is one `write`, so a kill leaves at most one torn line, at
the end: `read` drops it, the next `append` cuts it off. One process at a time writes a file: it
holds the lock of `locked`.
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
  """All rows of a file (`.gz`: compressed); none where there is no file. Raises ValueError naming a
  damaged line.
  """
  path = Path(path)
  if not path.exists():
    return []
  lines = (gzip.decompress(path.read_bytes()) if path.suffix == '.gz' else path.read_bytes()).split(
    b'\n'
  )
  rows = []
  for number, line in enumerate(lines, 1):
    parsed = _parse(line)
    if parsed is not None:
      rows.append(parsed)
    elif line and number < len(lines):
      raise ValueError(f'{path}:{number}: not a JSON object: {line[:60]!r}')
  return rows


def append(path: str | Path, rows: Iterable[dict]) -> None:
  """Adds rows at the end, each in one write, and waits until they are on the disk. Raises OSError
  naming the file.
  """
  fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
  try:
    _repair_torn_tail(fd)
    for fields in rows:
      _write(fd, json.dumps(fields, allow_nan=False, separators=(',', ':')).encode() + b'\n')
    os.fsync(fd)
  except OSError as error:
    raise OSError(error.errno, error.strerror, str(path)) from error
  finally:
    os.close(fd)


def atomic_write(path: str | Path, content: str | bytes) -> None:
  """Writes the whole file or, if killed meanwhile or the disk is full, leaves it. Raises OSError
  naming it.
  """
  new = Path(path).with_name(Path(path).name + '.new')
  try:
    with open(new, 'wb') as file:
      file.write(content.encode() if isinstance(content, str) else content)
      file.flush()
      os.fsync(file.fileno())
    os.replace(new, path)
  except OSError as error:
    raise OSError(error.errno, error.strerror, str(path)) from error


def atomic_write_json(path: str | Path, tree: dict) -> None:
  """`atomic_write` of a tree as indented JSON."""
  atomic_write(path, json.dumps(tree, indent=2) + '\n')


@contextlib.contextmanager
def file_lock(path: str | Path) -> Iterator[None]:
  """Holds the lock of the file `path`, which names its holder and stays; the kernel frees it when
  the process dies.

  An flock: on NFS the server's, between hosts too, but of a host that went down only once its lease
    ends. Where a file
  system has no locks (some mounts of NFS and Lustre), a line says that they were not taken.

  Raises:
    BlockingIOError: another process holds it.
  """
  fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
  try:
    _lock(fd, path)
    yield
  finally:
    os.close(fd)


def _lock(fd: int, path: str | Path) -> None:
  try:
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    holder = os.pread(fd, 200, 0).decode(errors='replace').strip() or 'it does not say which'
    where = f'workdir={str(Path(path).parent)!r}'
    raise BlockingIOError(
      f'{where}: another process is at work there ({holder}); allowed: one at a time'
    ) from None
  except OSError as error:
    if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
      raise OSError(error.errno, error.strerror, str(path)) from error
    print(
      f'{path}: no lock on this file system ({error.strerror}); see to it that one process at a time works there'
    )
    return
  with contextlib.suppress(OSError):  # it is locked all the same where a full disk takes no name
    os.ftruncate(fd, 0)
    os.pwrite(fd, f'process {os.getpid()} on {socket.gethostname()}\n'.encode(), 0)


def _parse(line: bytes) -> dict | None:
  try:
    parsed = json.loads(line)
  except ValueError:
    return None
  return parsed if isinstance(parsed, dict) else None


def _write(fd: int, data: bytes) -> None:
  while data:  # a full disk takes part of it, and says why the next time
    data = data[os.write(fd, data) :]


def _repair_torn_tail(fd: int) -> None:
  """Ends the file at a line's end: a torn last row goes, a whole one that lacks its line break gets
  it.
  """
  size = os.fstat(fd).st_size
  if size == 0 or os.pread(fd, 1, size - 1) == b'\n':
    return
  text = os.pread(fd, size, 0)
  last = text[text.rfind(b'\n') + 1 :]
  if _parse(last) is not None:
    os.write(fd, b'\n')
  else:
    os.ftruncate(fd, size - len(last))
