"""Paths as users write them, in a field or a flag: '~', and '' for the cache."""

import os
from pathlib import Path

from posenc_jax.errors import UserError, shown


def expanded(path: str) -> str:
  """The path with the user's folder in the place of '~'. Raises `UserError` where there is none."""
  if not path.startswith('~'):
    return path
  try:
    return str(Path(path).expanduser())
  except RuntimeError:
    raise UserError(f'{shown(path)}: there is no such user; allowed: ~/FOLDER') from None


def cache_folder(cache: str) -> Path:
  """`config.data.cache` as a folder; '' is posenc_jax in the user's cache folder."""
  if cache:
    return Path(expanded(cache))
  if elsewhere := os.environ.get('XDG_CACHE_HOME'):
    return Path(elsewhere) / 'posenc_jax'
  try:
    return Path.home() / '.cache' / 'posenc_jax'
  except RuntimeError:
    raise UserError('this user has no home folder; allowed: with HOME or XDG_CACHE_HOME') from None
