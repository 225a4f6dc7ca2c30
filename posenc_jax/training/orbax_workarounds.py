"""Workarounds for what Orbax 0.12.8 does when a disk fails: look at each when the version changes.

Orbax writes through TensorStore, whose threads report errors of the disk in words, log tracebacks
of errors that are raised as well, and print one more when Orbax closes their event loop.
"""

import contextlib
import functools
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

CLOSED = 'Event loop is closed'  # what asyncio says


@contextlib.contextmanager
def disk_errors_as_oserror(folder: Path) -> Iterator[None]:
  """Raises OSError, naming a file or `folder`, where TensorStore's ValueError has its number."""
  try:
    yield
  except OSError as error:
    raise OSError(error.errno, error.strerror, str(error.filename or folder)) from error
  except ValueError as error:
    code = re.search(r"OS error (\d+)|os_error_code='(\d+)'", str(error))
    if code is None:
      raise
    number = int(code[1] or code[2])
    raise OSError(number, os.strerror(number), str(folder)) from error


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
  text = f'{record.pathname} {record.getMessage()} {error}'.lower()
  return not any(word in text for word in ('orbax', 'ocdbt', 'zarr'))


def _report(report: Callable[..., None], kind: type, error: BaseException, trace) -> None:
  if str(error) != CLOSED:
    report(kind, error, trace)


def _report_unraisable(report: Callable[..., None], unraisable) -> None:
  if str(unraisable.exc_value) != CLOSED:
    report(unraisable)
