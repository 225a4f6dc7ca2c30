"""Workarounds for what Orbax 0.12.8 does when a disk fails: look at each when the version changes.

Orbax writes through TensorStore, whose threads report errors of the disk in words, log tracebacks
of errors that are raised as well, and print one more when Orbax closes their event loop.
"""

import contextlib
import logging
import os
import re
import sys
from collections.abc import Iterator
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


def silence_logged_tracebacks() -> None:
  """Drops log records of Orbax: they hold tracebacks of errors that it raises as well."""
  for name in ('absl', 'asyncio'):
    logging.getLogger(name).addFilter(_is_not_of_orbax)


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
  return 'orbax' not in record.pathname + record.getMessage()


@contextlib.contextmanager
def closed_event_loop_ignored() -> Iterator[None]:
  """Prints no traceback of threads whose event loop Orbax closed because a write failed."""
  excepthook = sys.excepthook

  def report(kind, error, trace):
    if str(error) != 'Event loop is closed':
      excepthook(kind, error, trace)

  sys.excepthook = report
  try:
    yield
  finally:
    sys.excepthook = excepthook
