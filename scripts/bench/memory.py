"""Memory of this process and of the machine, where the operating system counts it."""

import contextlib
import ctypes
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

GIB = 2**30
# Share of the machine's memory that one process may take: both frameworks have a process, and each
# keeps the memory that it had.
PROCESS_SHARE = 0.45


def total() -> int:
  """Bytes of the machine's memory, or of what the control group allows of it."""
  limit = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  with contextlib.suppress(OSError, ValueError):  # 'max': no limit
    limit = min(limit, int(Path('/sys/fs/cgroup/memory.max').read_text()))
  return limit


def limit_process() -> None:
  """Makes allocations beyond a process's share fail. It bounds each process: with what others hold,
  the machine may run out all the same.
  """
  if sys.platform == 'linux':
    soft_limit = round(PROCESS_SHARE * total())
    resource.setrlimit(resource.RLIMIT_DATA, (soft_limit, resource.RLIM_INFINITY))


def excess(needed: float) -> str | None:
  """'needs x GiB ...' if `needed` bytes are more than a process may take, else None."""
  allowed = PROCESS_SHARE * total()
  if needed <= allowed:
    return None
  return (
    f'needs {needed / GIB:.1f} GiB; a process may take {allowed / GIB:.1f} of {total() / GIB:.1f}'
  )


def peak() -> int | None:
  """The most bytes that were resident in this process since `reset_peak`."""
  try:
    lines = Path('/proc/self/status').read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith('VmHWM:'))
  except (OSError, StopIteration):
    return None


def reset_peak() -> bool:
  """Returns freed memory to the system and restarts the peak. False where that is impossible."""
  try:
    ctypes.CDLL(None).malloc_trim(0)
    Path('/proc/self/clear_refs').write_text('5')
  except (OSError, AttributeError):
    return False
  return peak() is not None


def growth(call: Callable[[], object]) -> int | None:
  """The most bytes that `call`, which is made in any case, takes beyond those resident before it.
  None where the system does not count them.
  """
  before = peak() if reset_peak() else None
  call()
  return None if before is None else peak() - before
