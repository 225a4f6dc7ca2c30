"""Starting run processes: what must be set before one starts, what it says when it has started, and
how it ends.
"""

import contextlib
import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

# XLA:CPU allocates and frees buffers of many megabytes each step. Kept by the process and on huge
# pages, large matrix products are faster and a train step is 1.3 times as fast: by default, glibc
# maps and faults them in anew.
GLIBC_TUNABLES = ':'.join(
  (
    'glibc.malloc.hugetlb=1',
    'glibc.malloc.mmap_threshold=8000000000',
    'glibc.malloc.trim_threshold=16000000000',
    'glibc.malloc.arena_max=1',
  )
)


def environment() -> dict[str, str]:
  """Variables to add to a run process's environment; none that the user has set."""
  wanted = {'PYTHONUNBUFFERED': '1'}  # its log is read while it runs
  if sys.platform == 'linux':
    wanted['GLIBC_TUNABLES'] = GLIBC_TUNABLES
  return {name: value for name, value in wanted.items() if name not in os.environ}


def run_process(
  command: list[str], log: str | Path, cpus: set[int] | None = None
) -> subprocess.Popen:
  """Starts a command, on the given CPUs only (None: on all); `log` gets the command and its output,
  at the end.

  It has a session of its own, so that Ctrl-C reaches the starter alone. It holds a lock on `log`
  until it ends, also when its starter is killed. Raises BlockingIOError where another process holds
  it. SIGUSR2 does not reach it: SLURM sends that to all processes of a job, and it is for the
  starter to act on.
  """
  with open(log, 'ab', buffering=0) as file, _affinity(cpus), _deaf_to(signal.SIGUSR2):
    _lock(file)
    file.write(f'$ {shlex.join(command)}\n'.encode())
    return subprocess.Popen(
      command,
      stdin=subprocess.DEVNULL,
      stdout=file,
      stderr=subprocess.STDOUT,
      env=os.environ | environment(),
      start_new_session=True,
    )


def _lock(file: IO[bytes]) -> None:
  for patience in (0.05, 0.2, 0.5, None):  # `is_locked` of another process may hold it for a moment
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      return
    except BlockingIOError:
      if patience is None:
        raise
      time.sleep(patience)


def is_locked(log: str | Path) -> bool:
  """Whether a process that `run_process` started with this log has not ended, on whatever machine
  locks reach.
  """
  if not Path(log).exists():
    return False
  with open(log, 'rb') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
      return True
  return False


@contextlib.contextmanager
def _deaf_to(number: signal.Signals) -> Iterator[None]:
  """Blocks a signal in this thread and, for good, in the processes that it starts meanwhile."""
  before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _affinity(cpus: set[int] | None) -> Iterator[None]:
  """Pins this thread and so, from their first instruction on, the processes that it starts
  meanwhile.
  """
  if cpus is None:
    yield
    return
  before = os.sched_getaffinity(0)
  os.sched_setaffinity(0, cpus)
  try:
    yield
  finally:
    os.sched_setaffinity(0, before)


def cpu_shares(jobs: int) -> list[set[int] | None]:
  """The CPUs of each of `jobs` processes that run side by side; None: not pinned."""
  if jobs == 1 or not hasattr(os, 'sched_getaffinity'):
    return [None] * jobs
  cpus = sorted(os.sched_getaffinity(0))
  if jobs > len(cpus):
    return [{cpus[job % len(cpus)]} for job in range(jobs)]
  return [set(cpus[job * len(cpus) // jobs : (job + 1) * len(cpus) // jobs]) for job in range(jobs)]


def stop(processes: list[subprocess.Popen], patience: float = 60.0) -> None:
  """Asks processes to end (a training then saves its state first); after `patience` seconds, kills
  them.
  """
  for process in processes:
    process.terminate()
  try:
    with contextlib.suppress(subprocess.TimeoutExpired):
      for process in processes:
        process.wait(patience)
  finally:  # after a second Ctrl-C, too
    for process in processes:
      process.kill()
      process.wait()
