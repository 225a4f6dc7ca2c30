"""Measurements on disk: one JSON object a line, one file a run. Every table and figure is made from these rows.

Files are only ever appended to. A row is one `write`, so a kill leaves at most one torn line, at the end: `read` drops
it, the next `append` cuts it off. One process at a time writes a file: it holds the lock of `locked`.
"""

import contextlib
import errno
import fcntl
import gzip
import json
import math
import os
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

MODEL = ('run', 'encoding', 'label', 'seed', 'step', 'corpus', 'split', 'train_length')
QUESTION = ('protocol', 'control', 'length', 'stride', 'k', 'position', 'document', 'overrides')
KEY = MODEL + QUESTION
VALUES = ('status', 'nats', 'tokens', 'bytes', 'ppl', 'bpb', 'metric', 'value')


def row(
  *,
  run: str,
  encoding: str,
  label: str,
  seed: int,
  step: int,
  corpus: str,
  split: str,
  train_length: int,
  protocol: str,
  length: int,
  control: str | None = None,
  stride: int | None = None,
  k: int | None = None,
  position: int | None = None,
  document: str | int | None = None,
  overrides: dict | None = None,
  status: str = 'ok',
  nats: float | None = None,
  tokens: int | None = None,
  bytes: int | None = None,
  metric: str | None = None,
  value: float | None = None,
) -> dict:
  """One measurement of `eval.jsonl`: the fields KEY say what was measured, VALUES what came out.

  Args:
    run: name of the run's directory.
    control: None, or what was changed to see whether far context is used ('windowed': attention limited to
      `train_length` tokens; 'shuffled_far': tokens more than `train_length` before the first scored one are another
      document's).
    length, stride, k: in tokens; None where the protocol has none, as for `position` and `document`.
    position: where the scored tokens begin: in the document (last_k) or in the window (by_position); a distance
      (receptive_field). A row of the latter two goes as far as the next one begins.
    document: where a row is of one document: rows of several are to be added up.
    overrides: what evaluation changed in the trained model's config.
    status: 'ok', or the outcome that stands in the place of a score, such as 'beyond_table'.
    nats, tokens, bytes: sums over the scored tokens; `ppl` (a token) and `bpb` follow from them here, nowhere else.
    metric, value: of what has no likelihood, such as 'gradient' (its share, of receptive_field).
  Raises:
    ValueError: for a status 'ok' without a score. A score that is not finite gets the status 'not_finite'.
  """
  fields = dict(locals())
  score = (nats, tokens, bytes) if metric is None else (value,)
  if status == 'ok' and None in score:
    raise ValueError(f"row: status='ok' of {run!r} has no score; allowed: nats, tokens and bytes, or metric and value")
  if status == 'ok' and not all(map(math.isfinite, score)):
    fields.update(status='not_finite', nats=None, value=None)
  has_likelihood = fields['status'] == 'ok' and metric is None
  fields['ppl'] = math.exp(nats / tokens) if has_likelihood else None
  fields['bpb'] = nats / bytes / math.log(2) if has_likelihood else None
  return {name: fields[name] for name in KEY + VALUES}


def key(row: dict) -> str:
  """What the row measured: equal for two rows if and only if they answer the same question."""
  return json.dumps([row[name] for name in (*KEY, 'metric')], sort_keys=True)


def read(path: str | Path) -> list[dict]:
  """All rows of a file (`.gz`: compressed); none where there is no file. Raises ValueError naming a damaged line."""
  path = Path(path)
  if not path.exists():
    return []
  lines = (gzip.decompress(path.read_bytes()) if path.suffix == '.gz' else path.read_bytes()).split(b'\n')
  rows = []
  for number, line in enumerate(lines, 1):
    parsed = _parse(line)
    if parsed is not None:
      rows.append(parsed)
    elif line and number < len(lines):
      raise ValueError(f'{path}:{number}: not a JSON object: {line[:60]!r}')
  return rows


def append(path: str | Path, rows: Iterable[dict]) -> None:
  """Adds rows at the end, each in one write, and waits until they are on the disk. Raises OSError naming the file."""
  fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
  try:
    _mend_end(fd)
    for fields in rows:
      _write(fd, json.dumps(fields, allow_nan=False, separators=(',', ':')).encode() + b'\n')
    os.fsync(fd)
  except OSError as error:
    raise OSError(error.errno, error.strerror, str(path)) from error
  finally:
    os.close(fd)


def write_whole(path: str | Path, text: str) -> None:
  """Writes the whole file or, if killed meanwhile or the disk is full, leaves it. Raises OSError naming it."""
  new = Path(path).with_name(Path(path).name + '.new')
  try:
    with open(new, 'w', encoding='utf-8') as file:
      file.write(text)
      file.flush()
      os.fsync(file.fileno())
    os.replace(new, path)
  except OSError as error:
    raise OSError(error.errno, error.strerror, str(path)) from error


def write_json(path: str | Path, tree: dict) -> None:
  """`write_whole` of a tree as indented JSON."""
  write_whole(path, json.dumps(tree, indent=2) + '\n')


@contextlib.contextmanager
def locked(path: str | Path) -> Iterator[None]:
  """Holds the lock of the file `path`, which names its holder and stays; the kernel frees it when the process dies.

  An flock: on NFS the server's, between hosts too, but of a host that went down only once its lease ends. Where a file
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
    raise BlockingIOError(f'{where}: another process is at work there ({holder}); allowed: one at a time') from None
  except OSError as error:
    if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
      raise OSError(error.errno, error.strerror, str(path)) from error
    print(f'{path}: no lock on this file system ({error.strerror}); see to it that one process at a time works there')
    return
  with contextlib.suppress(OSError):  # it is locked all the same where a full disk takes no name
    os.ftruncate(fd, 0)
    os.pwrite(fd, f'process {os.getpid()} on {socket.gethostname()}\n'.encode(), 0)


def write_new(path: str | Path, rows: Iterable[dict]) -> int:
  """Appends the rows whose `key` the file does not hold yet, each key once; returns how many."""
  seen = {key(r) for r in read(path)}
  new = {k: r for r in reversed(list(rows)) if (k := key(r)) not in seen}  # reversed: the first of equal keys stays
  append(path, reversed(new.values()))
  return len(new)


def _parse(line: bytes) -> dict | None:
  try:
    parsed = json.loads(line)
  except ValueError:
    return None
  return parsed if isinstance(parsed, dict) else None


def _write(fd: int, data: bytes) -> None:
  while data:  # a full disk takes part of it, and says why the next time
    data = data[os.write(fd, data) :]


def _mend_end(fd: int) -> None:
  """Ends the file at a line's end: a torn last row goes, a whole one that lacks its line break gets it."""
  size = os.fstat(fd).st_size
  if size == 0 or os.pread(fd, 1, size - 1) == b'\n':
    return
  text = os.pread(fd, size, 0)
  last = text[text.rfind(b'\n') + 1 :]
  if _parse(last) is not None:
    os.write(fd, b'\n')
  else:
    os.ftruncate(fd, size - len(last))
