"""Worker processes, seen from their parent: one case works at a time, the others wait."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

from posenc_jax.sweep import subprocesses

from .cases import Case

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0  # seconds that an answer may always take


class Died(Exception):
  """A worker ended, or was ended, in the middle of a request. The message is one line."""


class Worker:
  """A process and the pipe to it. It reads its environment when it starts: both frameworks get the
  same.
  """

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
        cwd=ROOT,
        # A GPU is shared by jax and PyTorch, so jax must not take most of its memory at once.
        env={'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'} | os.environ | subprocesses.environment(),
        start_new_session=True,  # Ctrl-C reaches the parent alone
      )
    other_end.close()
    self.hello = self._answer(2 * PATIENCE)

  def ask(self, seconds: float, *request) -> dict:
    """The answer to a request. Raises `Died` without one, also after `seconds`; the process is gone
    then.
    """
    with contextlib.suppress(OSError):  # it has ended: found below
      self.pipe.send(request)
    return self._answer(seconds)

  def _answer(self, seconds: float) -> dict:
    if not self.pipe.poll(seconds):
      self.stop()
      raise Died(f'no answer within {seconds:.0f} s')
    try:
      return self.pipe.recv()
    except (EOFError, OSError):
      raise Died(self._end()) from None

  def _end(self) -> str:
    code = self.process.wait()
    if code < 0:
      hint = (
        ', perhaps out of memory'
        if -code in (signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV)
        else ''
      )
      return f'its process ended with signal {signal.Signals(-code).name}{hint}'
    said = [
      line.strip() for line in self.log.read_text(errors='replace').splitlines() if line.strip()
    ]
    return f'its process ended with exit code {code}' + (f': {said[-1][:200]}' if said else '')

  def stop(self) -> None:
    self.process.kill()
    self.process.wait()
    self.pipe.close()


class Workers:
  """The workers of a group, started when first needed and again after one died; `with` ends them.

  Cases of `attention` share one process a framework, but for those of `dense`: what they leave of
  the memory that a process may take is too little for others. Every case of `step` has its own, so
  that its memory is its own.
  """

  def __init__(self, out: Path):
    self.out, self.workers = out, {}

  def __enter__(self):
    return self

  def __exit__(self, *_):
    for worker in self.workers.values():
      worker.stop()

  def of(self, case: Case) -> Worker:
    key = (case.framework, case.method == 'dense') if case.section == 'attention' else case.name
    worker = self.workers.get(key)
    if worker is None or worker.process.poll() is not None:
      self.workers[key] = worker = Worker(case.framework, self.out / f'{case.framework}.log')
    return worker

  def prepare(self, case: Case, seconds: float) -> dict:
    """{'facts': ...} or {'refused': why}."""
    try:
      worker = self.of(case)
      answer = worker.ask(seconds, 'prepare', case)
    except Died as error:
      return {'refused': str(error)}
    if 'facts' in answer:
      worker.prepared.add(case.name)
      answer['facts'] |= {name: worker.hello[name] for name in ('version', 'python', 'device')}
    return answer

  def run(self, case: Case, calls: int, seconds: float) -> dict:
    """{'seconds': of all calls, 'peak_bytes': ...} or {'refused': why}; prepares anew where the
    worker has died.
    """
    try:
      worker = self.of(case)
      if case.name not in worker.prepared:
        answer = self.prepare(case, seconds)
        if 'refused' in answer:
          return answer
      return worker.ask(seconds, 'run', case.name, calls)
    except Died as error:
      return {'refused': str(error)}
