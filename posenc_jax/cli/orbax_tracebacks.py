"""A workaround for tracebacks that Orbax 0.12.8 prints of errors that it raises as well: look at it
when the version changes. For commands alone: hooks and filters are those of the whole process.
"""

import functools
import logging
import os
import sys
from collections.abc import Callable

CLOSED = 'Event loop is closed'  # what asyncio says
# A file of Orbax, or what errors of TensorStore, through which it reads and writes, have in them.
OF_ORBAX = (f'{os.sep}orbax{os.sep}', 'tensorstore_spec=', 'in OCDBT database', 'os_error_code=')


def silence_tracebacks() -> None:
  """Prints no traceback of errors that Orbax raises as well, from now on.

  It logs them. Threads of TensorStore that come back after it closed their event loop, because it
  read or wrote in vain, have one more, and so have tasks of its that nobody waits for.
  """
  for name in ('absl', 'asyncio'):
    logging.getLogger(name).addFilter(_is_not_of_orbax)
  for name, filtered in (('excepthook', _report), ('unraisablehook', _report_unraisable)):
    hook = getattr(sys, name)
    if not (isinstance(hook, functools.partial) and hook.func is filtered):
      setattr(sys, name, functools.partial(filtered, hook))


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
  error = record.exc_info[1] if record.exc_info else ''
  text = f'{record.pathname} {record.getMessage()} {error}'
  return not any(part in text for part in OF_ORBAX)


def _report(report: Callable[..., None], kind: type, error: BaseException, trace) -> None:
  if str(error) != CLOSED:
    report(kind, error, trace)


def _report_unraisable(report: Callable[..., None], unraisable) -> None:
  if str(unraisable.exc_value) != CLOSED:
    report(unraisable)
