"""The command line of the scripts: flags and overrides, where they write, and how they end. Imports
no jax.
"""

from posenc_jax.cli.arguments import (
  REQUIRED,
  check_names,
  check_unused,
  encoding_of,
  names_of,
  parse_args,
  words_of,
)
from posenc_jax.cli.folders import (
  check_file,
  check_folder,
  check_new_folder,
  keep_compiled_programs,
  make_folder,
)
from posenc_jax.cli.process import main
from posenc_jax.cli.streams import wide_console

__all__ = [
  'REQUIRED',
  'check_file',
  'check_folder',
  'check_names',
  'check_new_folder',
  'check_unused',
  'encoding_of',
  'keep_compiled_programs',
  'main',
  'make_folder',
  'names_of',
  'parse_args',
  'wide_console',
  'words_of',
]
