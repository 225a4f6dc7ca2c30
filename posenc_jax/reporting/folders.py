"""Folders of runs and of kept rows, as they are read and written: nothing in them is trusted."""

import errno
import os
import stat
from pathlib import Path

from posenc_jax import storage


def is_folder(path: str | Path) -> bool:
  """Whether there is a folder at this path. Raises OSError where the system does not tell."""
  return storage.exists(path) and stat.S_ISDIR(os.stat(path).st_mode)


def files_below(folder: str | Path, name: str) -> list[Path]:
  """The files `*/name` in the folder, in order. Raises OSError where the system does not tell.

  Unlike `glob`, which passes over a folder that may not be read.
  """
  with os.scandir(folder) as entries:
    runs = sorted(entry.name for entry in entries if _is_folder(entry))
  files = [Path(folder) / run / name for run in runs]
  return [file for file in files if storage.exists(file)]


def _is_folder(entry: os.DirEntry) -> bool:
  try:
    return entry.is_dir()
  except OSError as error:
    if error.errno != errno.ELOOP:
      raise
    return False  # a link to itself leads nowhere
