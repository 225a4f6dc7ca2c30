"""A workaround for what Orbax 0.12.8 does when a disk fails: look at it when the version changes.
`cli/orbax_tracebacks.py` is another.

Orbax writes through TensorStore, whose threads report errors of the disk in words.
"""

import contextlib
import os
import re
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
