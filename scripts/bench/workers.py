"""Worker processes, as their parent sees them: one of them works at a time, the others wait."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

from posenc_jax import storage
from posenc_jax.distributed import devices
from posenc_jax.errors import last_line
from posenc_jax.sweep import subprocesses

from .cases import Case

MIN_TIMEOUT = 60.0  # seconds that an answer may always take


class WorkerDied(Exception):
  """A worker ended, or was ended, in the middle of a request. The message is one line."""


class Worker:
  """A process and the pipe to it. Workers of both frameworks get the same environment."""

  def __init__(self, framework: str, log: Path):
    self.log, self.prepared = log, set()
    self.pipe, other_end = multiprocessing.Pipe()
    with open(log, 'ab') as file:
      self.process = subprocess.Popen(
        [sys.executable, '-m', 'scripts.bench.worker', framework, str(other_end.fileno())],
        pass_fds=[other_end.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=file,
        stderr=file,
        cwd=storage.REPOSITORY,
        # jax and PyTorch share a GPU, so jax must not take most of its memory at once.
        env={'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'} | os.environ | subprocesses.environment(),
        start_new_session=True,  # Ctrl-C reaches the parent alone
      )
    other_end.close()
    self.description = self._receive(2 * MIN_TIMEOUT)

  def request(self, timeout: float, *request) -> dict:
    """The answer to a request. Raises `WorkerDied` if the process ends, or is ended at `timeout`
    seconds, without one.
    """
    with contextlib.suppress(OSError):  # the process has ended; receiving says how
      self.pipe.send(request)
    return self._receive(timeout)

  def _receive(self, timeout: float) -> dict:
    if not self.pipe.poll(timeout):
      self.stop()
      raise WorkerDied(f'no answer within {timeout:.0f} s')
    try:
      return self.pipe.recv()
    except (EOFError, OSError):
      raise WorkerDied(self._cause_of_death()) from None

  def _cause_of_death(self) -> str:
    code = self.process.wait()
    if code < 0:
      often_memory = -code in (signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV)
      hint = ', perhaps out of memory' if often_memory else ''
      return f'its process ended with signal {signal.Signals(-code).name}{hint}'
    said = last_line(self.log.read_text(errors='replace'))
    return f'its process ended with exit code {code}' + (f': {said[:200]}' if said else '')

  def stop(self) -> None:
    self.process.kill()
    self.process.wait()
    self.pipe.close()


class Workers:
  """The workers of a group, as a context: each starts when it is first needed, and again after it
  died.

  Cases of `attention` share one process per framework, except those of the backend `dense`: these
  leave too little of the memory that a process may take. Every case of `step` has its own process,
  so that the memory is its own too. All cases in jax share one on a TPU, which no two can have.
  """

  def __init__(self, out: Path):
    self.out, self.workers, self.on_tpu = out, {}, devices.has_tpu()

  def __enter__(self):
    return self

  def __exit__(self, *_):
    for worker in self.workers.values():
      worker.stop()

  def worker_for(self, case: Case) -> Worker:
    key = (case.framework, case.method == 'dense') if case.section == 'attention' else case.name
    if self.on_tpu and case.framework == 'jax':
      key = 'jax'
    worker = self.workers.get(key)
    if worker is None or worker.process.poll() is not None:
      self.workers[key] = worker = Worker(case.framework, self.out / f'{case.framework}.log')
    return worker

  def prepare(self, case: Case, timeout: float) -> dict:
    """{'facts': ...} or {'refused': reason}."""
    try:
      worker = self.worker_for(case)
      answer = worker.request(timeout, 'prepare', case)
    except WorkerDied as error:
      return {'refused': str(error)}
    if 'facts' in answer:
      worker.prepared.add(case.name)
      answer['facts'] |= {
        name: worker.description[name] for name in ('version', 'python', 'device')
      }
    return answer

  def run(self, case: Case, calls: int, timeout: float) -> dict:
    """{'seconds': of all calls, 'peak_bytes': ...} or {'refused': reason}.

    Prepares the case again if its worker has died.
    """
    try:
      worker = self.worker_for(case)
      if case.name not in worker.prepared:
        answer = self.prepare(case, timeout)
        if 'refused' in answer:
          return answer
      return worker.request(timeout, 'run', case.name, calls)
    except WorkerDied as error:
      return {'refused': str(error)}
