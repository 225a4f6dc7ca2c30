"""A process that measures, and answers one request at a time through a pipe.

  python -m scripts.bench.worker jax|torch FILE_DESCRIPTOR

It says hello first. ('prepare', case) -> {'facts': ...}, ('run', name, calls) -> {'seconds': of all
calls, 'peak_bytes': ...}; either may be {'refused': why}.
"""

import importlib
import platform
import sys
import time
from multiprocessing.connection import Connection

from . import memory
from .cases import Case
from .subject import Subject, reason


def timed(subject: Subject, calls: int) -> float:
  begin = time.perf_counter()
  for _ in range(calls):
    subject.call()
  return time.perf_counter() - begin


def prepare(subject: Subject, measure_memory: bool) -> dict:
  """Warms it up. Where its builder does not know the temporary memory, that is measured over a
  second call.
  """
  facts = {'temporary_bytes': None, 'warm_seconds': timed(subject, 1)} | subject.facts
  if measure_memory and 'temporary_bytes' not in subject.facts:
    grown = memory.growth(lambda: facts.update(warm_seconds=timed(subject, 1)))
    standing = facts.pop('standing_bytes')
    facts['temporary_bytes'] = None if grown is None else grown + standing
  return facts


def serve(framework: str, pipe: Connection) -> None:
  """Answers requests until the pipe is closed."""
  library = importlib.import_module(f'.{framework}_cases', __package__)
  hello = library.hello()
  on_cpu = hello['platform'] == 'cpu'
  if on_cpu:
    memory.limit_process()
  pipe.send(hello | {'python': platform.python_version()})
  subjects = {}
  while True:
    try:
      request = pipe.recv()
    except EOFError:
      return
    try:
      pipe.send(answer(library, subjects, on_cpu, *request))
    except Exception as error:  # the bench goes on, and the row says what it was
      pipe.send({'refused': reason(error)})


def answer(
  library, subjects: dict[str, Subject], on_cpu: bool, verb: str, what: Case | str, calls: int = 0
) -> dict:
  if verb == 'prepare':
    subjects[what.name] = library.build(what)
    facts = prepare(subjects[what.name], measure_memory=on_cpu and what.section == 'attention')
    if what.section == 'step':
      memory.reset()
    return {'facts': facts}
  return {'seconds': timed(subjects[what], calls), 'peak_bytes': memory.peak() if on_cpu else None}


if __name__ == '__main__':
  serve(sys.argv[1], Connection(int(sys.argv[2])))
