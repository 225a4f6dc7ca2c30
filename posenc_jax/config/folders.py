"""Whether a folder can be made and written to, asked before hours of work end there."""

import os
from pathlib import Path

from posenc_jax import storage
from posenc_jax.errors import UserError


def check_folder(what: str, folder: str | Path) -> None:
  """Raises `UserError` where the folder cannot be made or written to; makes nothing.

  Args:
    what: how the message begins, such as '--out=runs/x'.
  """
  folder = Path(folder).absolute()
  try:
    here = next(parent for parent in (folder, *folder.parents) if storage.exists(parent))
    reason = _why_not(here, folder.relative_to(here).parts)
  except OSError as error:
    reason = error.strerror
  if reason:
    raise UserError(f'{what}: {reason}; allowed: a folder, which need not exist')


def _why_not(here: Path, missing: tuple[str, ...]) -> str | None:
  """Says why the folders `missing` cannot be made below the path `here`, which exists."""
  if not here.is_dir():
    return 'a file is there'
  longest = os.pathconf(here, 'PC_NAME_MAX')
  if any(len(os.fsencode(name)) > longest for name in missing):
    return f'a name of more than {longest} bytes'
  return None if os.access(here, os.W_OK | os.X_OK) else f'{here} cannot be written to'
