"""The memory of a device that is full, told in one line."""

import contextlib
import os
import re
from collections.abc import Iterator

import jax

from posenc_jax.distributed.devices import MEMORY_FRACTIONS, kinds_of_devices
from posenc_jax.errors import MAX_REASON, Stopped, one_line

FULL = re.compile('RESOURCE_EXHAUSTED|out of memory', re.IGNORECASE)
# The memory within a core, of which one tile of a kernel takes too much, however small a batch is.
WITHIN_A_CORE = re.compile('shared memory|memory space (?!hbm)', re.IGNORECASE)


def _of_fraction() -> str:
  """How jax gets more of a GPU than it has taken."""
  for name in MEMORY_FRACTIONS:
    if value := os.environ.get(name):
      return f'jax takes {value} of a GPU by {name}, set by you or by the --jobs of a sweep'
  return f'{MEMORY_FRACTIONS[0]}=0.95 gives jax more than three quarters of a GPU'


@contextlib.contextmanager
def memory_errors(remedy: str) -> Iterator[None]:
  """Turns an error of jax about the main memory of a device into a `Stopped` of one line, whose
  cause it is; also a decorator.

  `remedy`: what takes less.
  """
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    said = str(error)
    if not FULL.search(said) or WITHIN_A_CORE.search(said):
      raise
    if jax.default_backend() == 'gpu':
      remedy += f'; {_of_fraction()}'
    problem = f'{kinds_of_devices()}: {one_line(said, MAX_REASON)}'
    raise Stopped(f'{problem}; to take less: {remedy}') from error
