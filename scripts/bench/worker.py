"""A process that measures. It answers one request at a time through a pipe.

  python -m scripts.bench.worker jax|torch FILE_DESCRIPTOR

First it sends a description of its framework and device. Then it answers ('prepare', case) with
{'facts': ...} and ('run', name, calls) with {'seconds': of all calls, 'peak_bytes': ...}. The
answer to either may be {'refused': reason}.
"""

import importlib
import platform
import sys
import time
from multiprocessing.connection import Connection

from . import memory
from .cases import Case
from .work import Work, reason


def seconds_of_calls(work: Work, calls: int) -> float:
  begin = time.perf_counter()
  for _ in range(calls):
    work.call()
  return time.perf_counter() - begin


def warm_up(work: Work, measure_memory: bool) -> dict:
  """Calls the work once and returns its facts.

  The call may add to them. Where they do not tell its temporary memory, a second call measures
  that, if the system counts it, and its time stands for that of the first, which may have compiled.
  """
  facts = {'temporary_bytes': None, 'warm_seconds': seconds_of_calls(work, 1)} | work.facts
  if measure_memory and 'temporary_bytes' not in work.facts:
    growth = memory.growth(lambda: facts.update(warm_seconds=seconds_of_calls(work, 1)))
    bias_bytes = facts.pop('bias_bytes')
    facts['temporary_bytes'] = None if growth is None else growth + bias_bytes
  return facts


def serve(framework: str, pipe: Connection) -> None:
  """Answers requests until the pipe is closed."""
  library = importlib.import_module(f'.{framework}_cases', __package__)
  description = library.describe()
  on_cpu = description['platform'] == 'cpu'
  if on_cpu:
    memory.limit_process()
  pipe.send(description | {'python': platform.python_version()})
  prepared = {}
  while True:
    try:
      request = pipe.recv()
    except EOFError:
      return
    try:
      pipe.send(answer(library, prepared, on_cpu, *request))
    except Exception as error:  # the benchmark goes on, and the row says what happened
      pipe.send({'refused': reason(error)})


def answer(
  library, prepared: dict[str, Work], on_cpu: bool, verb: str, what: Case | str, calls: int = 0
) -> dict:
  """Carries out one request. `what` is a case to prepare, or the name of one to run."""
  if verb == 'prepare':
    prepared[what.name] = getattr(library, what.kind)(what)
    facts = warm_up(prepared[what.name], measure_memory=on_cpu and what.section == 'attention')
    if what.section != 'attention':
      facts['prepare_peak_bytes'] = memory.peak()
      memory.reset_peak()
    return {'facts': facts}
  seconds = seconds_of_calls(prepared[what], calls)
  return {'seconds': seconds, 'peak_bytes': memory.peak() if on_cpu else None}


if __name__ == '__main__':
  serve(sys.argv[1], Connection(int(sys.argv[2])))
