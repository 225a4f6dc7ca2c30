"""Folders in the cache that are built once: whole or not there, whatever happens in between."""

import contextlib
import os
import shlex
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from posenc_jax import storage
from posenc_jax.config.paths import cache_folder
from posenc_jax.errors import UserError

LOCK, SCRATCH = 'building.lock', '.building-'


def can_build(cache: Path) -> bool:
  """Whether this process may write to a cache that exists, and take its lock."""
  lock = cache / LOCK
  return storage.is_writable(cache) and (not storage.exists(lock) or os.access(lock, os.W_OK))


def not_prepared(name: str, where: str, text_field: str, cache: Path) -> UserError:
  """The error of a set that is not on disk, with the command that prepares it and shows it."""
  flags = {'corpus': name}
  if text_field != 'text':
    flags['config.data.text_field'] = text_field
  with contextlib.suppress(UserError):  # of a user without a home folder
    if cache != cache_folder(''):
      flags['config.data.cache'] = cache
  command = ['python', 'scripts/prepare_data.py', *(f'--{key}={flags[key]}' for key in flags)]
  problem = f'config.data.corpus={name!r}: not in {where}'
  return UserError(f'{problem}; prepare it with `{shlex.join(command)}`')


def build_once(folder: Path, cache: Path, make: Callable[[Path], str | Path]) -> None:
  """Builds `folder` in the cache unless it is there. Of several processes one builds, and the
  others wait for it.

  Args:
    make: builds in the empty directory that it is given; returns the folder there which then moves
      to its final place in one step, so that the final place never holds a part of it.
  Raises:
    UserError: the cache cannot be written, or what `make` raises.
  """
  if storage.exists(folder):
    if any(cache.glob(f'{SCRATCH}*')):  # of a build that was killed, unless one is at work
      # nor may another user's lock keep from reading what is there
      with contextlib.suppress(OSError), storage.file_lock(cache / LOCK):
        _remove_left_over(cache)
    return
  try:
    cache.mkdir(parents=True, exist_ok=True)
    with storage.file_lock(cache / LOCK, wait=True):
      _remove_left_over(cache)
      if storage.exists(folder):
        return
      scratch = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=cache))
      try:
        built = make(scratch)
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.rename(built, folder)
      finally:
        shutil.rmtree(scratch)
  except OSError as error:
    raise UserError(
      f'config.data.cache: cannot write to {error.filename or cache} ({error.strerror}); '
      'allowed: a folder that can be written to'
    ) from error


def _remove_left_over(cache: Path) -> None:
  """Removes what builds that were killed have left; for the holder of the lock."""
  for scratch in cache.glob(f'{SCRATCH}*'):
    shutil.rmtree(scratch, ignore_errors=True)
