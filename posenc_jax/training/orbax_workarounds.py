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

  It logs them, and threads of TensorStore that come back after it closed their event loop, because
  it read or wrote in vain, print one more.
  """
  for name in ('absl', 'asyncio'):
    logging.getLogger(name).addFilter(_is_not_of_orbax)
  if not (isinstance(sys.excepthook, functools.partial) and sys.excepthook.func is _report):
    sys.excepthook = functools.partial(_report, sys.excepthook)


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
  return 'orbax' not in record.pathname + record.getMessage()


def _report(report: Callable[..., None], kind: type, error: BaseException, trace) -> None:
  if str(error) != 'Event loop is closed':
    report(kind, error, trace)
