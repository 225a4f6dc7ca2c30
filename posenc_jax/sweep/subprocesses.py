"""How processes of runs are started, with what must be set before, and how they are stopped."""

import contextlib
import itertools
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from posenc_jax import storage
from posenc_jax.distributed.devices import MEMORY_FRACTIONS, PREALLOCATE
from posenc_jax.errors import Stopped

# XLA:CPU allocates and frees buffers of many megabytes in each step. By default, glibc maps and
# faults them in anew. If the process keeps them, and on huge pages, large matrix products are
# faster, and a train step is 1.3 times as fast.
GLIBC_TUNABLES = (
  'glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=8000000000:'
  'glibc.malloc.trim_threshold=16000000000:glibc.malloc.arena_max=1'
)


def environment(jobs: int = 1) -> dict[str, str]:
  """Variables to add to the environment of a run's process, of which `jobs` are at work at a time;
  none that the user has set.
  """
  wanted = {'PYTHONUNBUFFERED': '1'}  # its log is read while it runs
  if jobs > 1 and not any(name in os.environ for name in (*MEMORY_FRACTIONS, PREALLOCATE)):
    # else each would take three quarters of a GPU's memory at once
    wanted[MEMORY_FRACTIONS[0]] = f'{0.9 / jobs:.4f}'
  if sys.platform == 'linux':
    wanted['GLIBC_TUNABLES'] = GLIBC_TUNABLES
  return {name: value for name, value in wanted.items() if name not in os.environ}


def run_process(
  command: list[str], log: str | Path, cpus: set[int] | None = None, jobs: int = 1
) -> subprocess.Popen:
  """Starts a command on these CPUs only (None: on all), one of `jobs` at a time; `log` gets the
  command and its output.

  The process has a session of its own, so that Ctrl-C reaches only the starter. It holds the lock
  of `log` until it ends, even if its starter is killed: then it is an `Orphan`. SIGUSR2 does not
  reach it: SLURM sends that to all processes of a job, and the starter acts on it.

  Raises BlockingIOError if another process holds the lock, Stopped if the system starts no process.
  """
  with open(log, 'ab', buffering=0) as file, _inherited(cpus):
    # `is_locked` in another process may hold the lock for a moment
    for seconds in (0.05, 0.2, 0.5):
      with contextlib.suppress(BlockingIOError):
        storage.lock(file.fileno(), log)
        break
      time.sleep(seconds)
    else:
      storage.lock(file.fileno(), log)
    file.write(f'$ {shlex.join(command)}\n'.encode())
    try:
      return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=file,
        stderr=subprocess.STDOUT,
        env=os.environ | environment(jobs),
        start_new_session=True,
      )
    except BlockingIOError as error:  # not the lock: there are too many processes
      raise Stopped(f'{command[0]}: cannot be started: {error.strerror}') from error


@contextlib.contextmanager
def _inherited(cpus: set[int] | None) -> Iterator[None]:
  """Pins this thread to CPUs and blocks SIGUSR2 in it, for processes that it starts meanwhile.

  These inherit both, from their first instruction on.
  """
  mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
  before = None if cpus is None else os.sched_getaffinity(0)
  try:
    if cpus is not None:
      os.sched_setaffinity(0, cpus)
    yield
  finally:
    if before is not None:
      os.sched_setaffinity(0, before)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def cpu_partition(jobs: int) -> list[set[int] | None]:
  """The CPUs of each of `jobs` processes that run side by side; None stands for not pinned."""
  if jobs == 1 or not hasattr(os, 'sched_getaffinity'):
    return [None] * jobs
  cpus = sorted(os.sched_getaffinity(0))
  if jobs > len(cpus):
    return [{cpus[job % len(cpus)]} for job in range(jobs)]
  ends = [job * len(cpus) // jobs for job in range(jobs + 1)]
  return [set(cpus[start:end]) for start, end in itertools.pairwise(ends)]


class Orphan:
  """A process that `run_process` started and whose starter is gone; it is at work on `log`.

  It is known by the lock of `log`, not by a number that the system may have given to another
  process since. It has the methods of subprocess.Popen that `stop` uses.
  """

  def __init__(self, log: str | Path):
    self.log = log

  def poll(self) -> int | None:
    """None while the process is at work; then 0, for how it ended is not known."""
    return None if storage.is_locked(self.log) else 0

  def terminate(self) -> None:
    for pid in self._pids():
      with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)

  def kill(self) -> None:
    """Ends the process, and those that it started and that hold the lock, too."""
    for pid in self._pids():
      with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)

  def wait(self, timeout: float | None = 10.0) -> None:
    """Waits for the end. Raises subprocess.TimeoutExpired; never where `timeout` is None."""
    begin = time.monotonic()
    while self.poll() is None:
      if timeout is not None and time.monotonic() > begin + timeout:
        raise subprocess.TimeoutExpired(str(self.log), timeout)
      time.sleep(0.05)

  def cpus(self) -> set[int] | None:
    """The CPUs that the process was given; None where it is not at work, or out of reach."""
    for pid in self._pids():
      with contextlib.suppress(ProcessLookupError):
        return os.sched_getaffinity(pid)
    return None

  def is_within_reach(self) -> bool:
    """Whether it gets signals from here: it is on this machine, a Linux, and of this user."""
    return bool(self._pids())

  def _pids(self) -> list[int]:
    """The leaders of sessions that write to the log, as all that `run_process` starts."""
    if not storage.is_locked(self.log):
      return []
    found, log = [], os.stat(self.log)
    for folder in Path('/proc').glob('[0-9]*'):
      with contextlib.suppress(OSError):  # it ended meanwhile, or belongs to another user
        pid = int(folder.name)
        if os.getsid(pid) == pid and os.path.samestat(os.stat(folder / 'fd' / '1'), log):
          found.append(pid)
    return found


def stop(processes: list[subprocess.Popen | Orphan], patience: float | None = None) -> None:
  """Asks processes to end, at which a training ends its step and saves its state; kills them after
  `patience` s (None: never), or where the wait is interrupted.
  """
  for process in processes:
    process.terminate()
  begin = time.monotonic()
  try:
    with contextlib.suppress(subprocess.TimeoutExpired):
      for process in processes:
        left = None if patience is None else max(0.0, begin + patience - time.monotonic())
        process.wait(left)
  finally:  # also after a second Ctrl-C
    for process in processes:
      _kill(process)
    for process in processes:
      process.wait()


def _kill(process: subprocess.Popen | Orphan) -> None:
  """Ends a process that still runs, and those that it started, which may hold its log's lock."""
  if not isinstance(process, subprocess.Popen):
    process.kill()
  elif process.poll() is None:
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, signal.SIGKILL)  # it has a session of its own
