"""Memory of this process and of the machine, where the system counts it."""

import contextlib
import ctypes
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

GIB = 2**30
# of the machine's memory that one process may take: each framework has one that keeps what it had
SHARE = 0.45


def total() -> int:
  """Bytes of the machine's memory, or of what the control group leaves of it."""
  limit = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  with contextlib.suppress(OSError, ValueError):  # 'max': no limit
    limit = min(limit, int(Path('/sys/fs/cgroup/memory.max').read_text()))
  return limit


def limit_process() -> None:
  """An allocation beyond the share of one process fails, so the machine never runs out of
  memory.
  """
  if sys.platform == 'linux':
    resource.setrlimit(resource.RLIMIT_DATA, (round(SHARE * total()), resource.RLIM_INFINITY))


def too_much(needed: float) -> str | None:
  """'needs x GiB ...' for more bytes than a process may take, else None."""
  if needed <= SHARE * total():
    return None
  return f'needs {needed / GIB:.1f} GiB; a process may take {SHARE * total() / GIB:.1f} of {total() / GIB:.1f}'


def peak() -> int | None:
  """The most bytes this process has held since `reset`."""
  try:
    lines = Path('/proc/self/status').read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith('VmHWM:'))
  except (OSError, StopIteration):
    return None


def reset() -> bool:
  """Gives freed memory back and starts the peak anew; False where the system cannot."""
  try:
    ctypes.CDLL(None).malloc_trim(0)
    Path('/proc/self/clear_refs').write_text('5')
  except (OSError, AttributeError):
    return False
  return peak() is not None


def growth(call: Callable[[], object]) -> int | None:
  """Bytes that `call` takes beyond what the process holds before."""
  if not reset():
    return None
  before = peak()
  call()
  return peak() - before
