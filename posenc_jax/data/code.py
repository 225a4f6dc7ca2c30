"""Python source as a corpus: text in which context far back pays. 23 MB of pinned packages, which
the extra `code` installs; nothing of them is imported or copied.

A document is a package or sub-package: its .py files in order, each after a comment line with its
path. A sub-package of less than 8,192 bytes is part of the one that it is in. Folders `tests` and
empty files are left out. Packages are split as wholes, so no project is in two splits:

  split       documents   of 16 KiB       bytes  packages
  train             135         113  16,129,295  django, networkx, sqlglot, docutils, mpmath
  validation          7           7   1,809,646  pypdf
  test               35          32   5,112,479  boltons, dnspython, lark, more_itertools, parso,
                                                 prompt_toolkit, pycparser, xlsxwriter

The test split is of so many packages because what is shown over documents is shown over packages:
documents of one package are alike.

Of all sequences of 16, 32 and 64 bytes of the test split, 26 %, 4 % and 0.1 % stand in the
training split, too (`scripts/prepare_data.py --corpus=code --overlap`); of sotu 32 %, 4 % and 2 %.

One SHA-256 over the names, splits and bytes of all documents proves that the corpus is the same
everywhere: every process that opens it checks that. The packages are under the licenses BSD
(django, networkx, pypdf, prompt_toolkit, mpmath, boltons, pycparser, xlsxwriter), MIT (sqlglot,
lark, more_itertools, parso), ISC (dnspython), and public domain, BSD and, for an editor's mode that
is not Python, GPL (docutils).
"""

import functools
from importlib import metadata
from pathlib import Path, PurePosixPath

from posenc_jax.data.documents import SPLITS, Documents
from posenc_jax.data.sotu import check_sha256, installed_anew
from posenc_jax.errors import UserError

SHA256 = '7a1ba14013ff6b040342ca6bef7bd1ccfe6fe1f9bcfb2e0b238ea994dc4e64b8'
PACKAGES = {  # in each split; the extra `code` in pyproject.toml pins the same versions
  'train': {
    'django': '5.2.19',
    'networkx': '3.6.1',
    'sqlglot': '30.30.0',
    'docutils': '0.23',
    'mpmath': '1.3.0',
  },
  'validation': {'pypdf': '7.1.1'},
  'test': {
    'boltons': '26.2.0',
    'dnspython': '2.9.2',
    'lark': '1.3.1',
    'more_itertools': '11.2.1',
    'parso': '0.8.7',
    'prompt_toolkit': '3.0.53',
    'pycparser': '3.12',
    'xlsxwriter': '3.3.1',
  },
}
SMALLEST = 8192  # bytes of a sub-package that is a document of its own
LEFT_OUT = 'tests'  # folders
REMEDY = "allowed: what `pip install -e '.[code]'` installs, in a clone of this repository"


def open_split(name: str, split: str, text_field: str, cache: Path) -> Documents:
  """Returns the documents of a split. Raises `UserError`."""
  documents = _verified()[split]
  return Documents(len(documents), lambda n: documents[n][0], lambda n: documents[n][1])


def prepare(name: str, cache: Path) -> Path:
  """Verifies the installed packages; returns the folder that they are in. Raises `UserError`."""
  _verified()
  return Path(metadata.distribution('django').locate_file(''))


@functools.lru_cache(maxsize=1)
def _verified() -> dict[str, list[tuple[str, bytes]]]:
  """{split: (name, text) of each document, by name}. A training opens three splits."""
  splits = {split: [] for split in SPLITS}
  for split, packages in PACKAGES.items():
    for package, version in packages.items():
      splits[split] += _documents(_files(package, version))
    splits[split].sort()
  documents = ((name, split, text) for split, some in splits.items() for name, text in some)
  origin = f'the source of {", ".join(PACKAGES["train"])} and others'
  pinned = [f'{name}=={v}' for packages in PACKAGES.values() for name, v in packages.items()]
  check_sha256(documents, SHA256, origin, installed_anew(*pinned))
  return splits


def _files(package: str, version: str) -> dict[PurePosixPath, bytes]:
  """{path: contents} of the Python files of an installed package. Raises `UserError` where it is
  not installed, of another version or not whole.
  """
  try:
    found = metadata.distribution(package)
    if found.version != version:
      raise UserError(f"config.data.corpus='code': {package} is {found.version}; {REMEDY}")
    if found.files is None:
      # which pip can neither remove nor replace otherwise
      anew = f'pip install --ignore-installed --no-deps {package}=={version}'
      problem = f'{package} has no RECORD, the list of its files'
      raise UserError(f"config.data.corpus='code': {problem}; allowed: after `{anew}`")
    paths = [path for path in found.files if path.suffix == '.py']
    return {
      PurePosixPath(path): Path(found.locate_file(path)).read_bytes()
      for path in paths
      if not {LEFT_OUT, '..'} & {*path.parts[:-1]} and len(path.parts) > 1
    }
  except metadata.PackageNotFoundError:
    raise UserError(
      f"config.data.corpus='code': {package} {version} is not installed; {REMEDY}"
    ) from None
  except FileNotFoundError as error:
    remedy = installed_anew(f'{package}=={version}')
    raise UserError(
      f"config.data.corpus='code': {package} lacks {error.filename}; allowed: {remedy}"
    ) from None


def _documents(files: dict[PurePosixPath, bytes]) -> list[tuple[str, bytes]]:
  """(name, text) of each package and sub-package that is a document of its own."""
  by_folder = {folder: [] for path in files for folder in path.parents if folder.name}
  for path in files:
    by_folder[path.parent].append(path)
  documents = []
  for folder in sorted(by_folder, key=lambda folder: len(folder.parts), reverse=True):
    paths = sorted(by_folder[folder])
    if len(folder.parts) > 1 and sum(len(files[path]) for path in paths) < SMALLEST:
      by_folder[folder.parent] += paths
    else:
      text = b''.join(_with_its_path(path, files[path]) for path in paths)
      documents.append((folder.as_posix(), text))
  return documents


def _with_its_path(path: PurePosixPath, contents: bytes) -> bytes:
  if not contents.strip():
    return b''
  end = b'' if contents.endswith(b'\n') else b'\n'
  return f'# {path}\n'.encode() + contents + end
