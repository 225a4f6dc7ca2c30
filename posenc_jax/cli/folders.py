"""The folders of a command: whether one can be made and written to, asked before hours of work end
there.
"""

import os
import re
from pathlib import Path

from posenc_jax import storage
from posenc_jax.config.paths import cache_folder
from posenc_jax.distributed import devices
from posenc_jax.errors import UserError, user_errors


def check_folder(what: str, folder: str | Path) -> None:
  """Raises `UserError` where the folder cannot be made or written to; makes nothing.

  Args:
    what: how the message begins, such as '--out=runs/x'.
  """
  if reason := _refuse_url(folder) or _why_not(Path(folder).absolute()):
    raise UserError(f'{what}: {reason}; allowed: a folder, which need not exist')


def check_new_folder(what: str, folder: str | Path) -> None:
  """`check_folder`, for one that `storage.new_folder` fills beside its place and moves there."""
  check_folder(what, folder)
  place = Path(folder).resolve()
  if place.is_mount():
    raise UserError(f'{what}: a file system begins there; allowed: a folder below it')
  check_folder(what, place.parent)


def check_file(what: str, path: str | Path) -> None:
  """`check_folder`, for a file. A device or a pipe is refused: a file would take its place."""
  absolute = Path(path).absolute()
  if reason := _refuse_url(path) or _why_not(absolute.parent, absolute):
    raise UserError(f'{what}: {reason}; allowed: a file, whose folder need not exist')


def keep_compiled_programs() -> None:
  """Lets jax keep the programs that it compiles, for all runs of this user."""
  devices.enable_compilation_cache(cache_folder('') / 'compiled')


def make_folder(folder: str | Path) -> None:
  """Makes a folder where there is none. Raises `UserError` where the system refuses."""
  with user_errors(OSError):
    Path(folder).mkdir(parents=True, exist_ok=True)


def _refuse_url(path: str | Path) -> str | None:
  """Says what gs://BUCKET is, or gs:/BUCKET, as a Path has it: it would be a folder 'gs:' here."""
  return 'the address of something elsewhere' if re.match(r'[\w+.-]+:/', str(path)) else None


def _why_not(folder: Path, file: Path | None = None) -> str | None:
  """Says why nothing can be written into a folder, or not to a file in it; None where it can."""
  try:
    here = next(parent for parent in (folder, *folder.parents) if storage.exists(parent))
    if not here.is_dir():
      return 'a file is there'
    longest = os.pathconf(here, 'PC_NAME_MAX')
    if any(len(os.fsencode(name)) > longest for name in (file or folder).relative_to(here).parts):
      return f'a name of more than {longest} bytes'
    if not os.access(here, os.W_OK | os.X_OK):
      return f'{here} cannot be written to'
    is_taken = file is not None and storage.exists(file) and not file.is_file()
    return 'what is there is no file' if is_taken else None
  except OSError as error:
    return error.strerror
