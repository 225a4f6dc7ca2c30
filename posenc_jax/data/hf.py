"""Any set of Hugging Face's library `datasets` as a corpus: of the Hub, or a folder of Parquet,
Arrow, JSON lines or what else the library reads. The extra `hf` installs it.

A name is 'hf:[OWNER/]NAME[:CONFIG][:option=value...]' or 'hf:FOLDER[:option=value...]' with options

  first=N            only the first N documents of each split, streamed: the rest is not fetched
  revision=R         a commit or tag of the Hub
  train=S            the set's split S in the place of train; so with validation and test

A folder that exists is read where it is; what the library's `save_to_disk` wrote is one, too. Each
file of text there, such as .txt.gz, is a document, not each of its lines; the library reads every
line break as a line feed.

Any other name is one of the Hub, unless it begins with '/', '.' or '~': scripts/prepare_data.py
fetches the set once and keeps it in the cache folder. A split that a set lacks is cut off the end
of its train split: the last tenth for test, and the twentieth before it for validation (the last
twentieth where the set has a test split), at least one document each.
"""

import contextlib
import dataclasses
import hashlib
import ssl
import tempfile
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from posenc_jax import storage
from posenc_jax.config.paths import expanded
from posenc_jax.data.building import build_once, not_prepared
from posenc_jax.data.documents import SPLITS, Documents, Listing, identity_of, no_text
from posenc_jax.data.folder import GONE, listing_of, say
from posenc_jax.errors import (
  DISK_ERRORS,
  MAX_REASON,
  UserError,
  imported,
  nearest,
  one_line,
  user_errors,
)

PREFIX = 'hf:'
FORM = (
  'hf:[OWNER/]NAME[:CONFIG] or hf:FOLDER, then :first=N, :revision=R, :train=SPLIT, '
  ':validation=SPLIT or :test=SPLIT'
)
OPTIONS = ('first', 'revision', *SPLITS)
ROWS_AT_ONCE = 64  # of a stream, in memory
SAVED = ('dataset_dict.json', 'state.json')  # what `save_to_disk` leaves in its folder


@dataclasses.dataclass(frozen=True)
class Name:
  """A name in its parts.

  Attributes:
    path: the name on the Hub, or a folder.
    config: the set's configuration, or None.
    first: the number of documents of each split, or None.
    splits: {split: the set's name of it}, where one is given.
  """

  path: str
  config: str | None
  first: int | None
  revision: str | None
  splits: dict[str, str]

  @property
  def is_folder(self) -> bool:
    return Path(self.path).is_dir()


def open_split(name: str, split: str, text_field: str, cache: Path) -> Documents:
  """Returns the documents of a split. Raises `UserError`."""
  field, parts = f'config.data.corpus={name!r}', parse(name)
  datasets = _library(name)
  root = Path(parts.path) if parts.is_folder else _folder(name, cache)
  identity = None  # a folder's README may name files that lie elsewhere
  if parts.is_folder:
    with _one_line(field, 'a folder that the library datasets reads'):
      found = _of_folder(datasets, parts, cache, field)
  elif storage.exists(root):
    with _one_line(field, f'{root} as it was prepared, or without it'):
      identity = identity_of((root / file for file in _files(root)), text_field)
      found = datasets.load_from_disk(str(root))
  else:
    _check_on_hub(field, parts)
    raise not_prepared(name, str(cache), text_field, cache)
  sizes = {key: len(rows) for key, rows in found.items()}
  source, start, stop = _part(field, sizes, parts, split)
  features = found[source].features
  texts = [key for key in features if _is_text(features, key)]
  if text_field not in texts:
    raise no_text(name, text_field, features, texts)
  rows = found[source].select_columns([text_field])
  if nulls := rows.data.column(text_field).null_count:  # as of an empty cell of CSV
    say(f'{name}: {nulls} of {len(rows)} texts of {source} are null, and read as empty')

  def read(index):
    return (rows[start + index][text_field] or '').encode('utf-8', 'surrogatepass')

  if parts.is_folder:
    with user_errors(*GONE, PermissionError):
      listing = _listing(root, sum(sizes.values()))
  else:
    listing = _listing_of_texts(found, text_field)
  return Documents(stop - start, lambda n: f'{source}/{start + n}', read, listing, identity)


def prepare(name: str, cache: Path) -> Path:
  """Fetches a set of the Hub that is not in the cache; returns its folder. Raises `UserError`."""
  parts, datasets = parse(name), _library(name)
  if parts.is_folder:
    return Path(parts.path)
  _check_on_hub(f'config.data.corpus={name!r}', parts)
  folder = _folder(name, cache)

  def make(scratch: Path) -> Path:
    allowed = (
      'a name on the Hub and a way to it; or a copy of '
      f'{folder.relative_to(cache)} from a cache folder where it was prepared'
    )
    with _one_line(f'config.data.corpus={name!r}: cannot be fetched', allowed):
      _load(datasets, parts, scratch / 'cache').save_to_disk(str(scratch / 'set'))
    return scratch / 'set'

  build_once(folder, cache, make)
  return folder


def _check_on_hub(field: str, parts: Name) -> None:
  """Raises `UserError`, of `field`, for the path of a folder that is not there."""
  if parts.path.startswith(('/', '.')):
    raise UserError(f'{field}: no such folder; allowed: a folder, or hf:[OWNER/]NAME of the Hub')


def parse(name: str) -> Name:
  """The parts of a name. Raises `UserError` for what is none."""
  field = f'config.data.corpus={name!r}'
  path, *words = name.removeprefix(PREFIX).split(':')
  configs = [word for word in words if '=' not in word]
  if not path or len(configs) > 1 or words[: len(configs)] != configs or '' in configs:
    raise UserError(f'{field}; allowed: {FORM}')
  options = {}
  for word in words[len(configs) :]:
    key, _, value = word.partition('=')
    if key not in OPTIONS:
      raise UserError(f'{field}: no option {key!r}; {nearest(key, OPTIONS)}')
    if key in options or not value:
      raise UserError(f'{field}: {word}; allowed: each option once, with a value')
    options[key] = value
  first = options.get('first')
  if first is not None and not (first.isascii() and first.isdigit() and int(first)):
    raise UserError(f'{field}: first={first}; allowed: a number of documents, 1 or more')
  return Name(
    expanded(path),
    configs[0] if configs else None,
    None if first is None else int(first),
    options.get('revision'),
    {split: options[split] for split in SPLITS if split in options},
  )


@contextlib.contextmanager
def _one_line(what: str, allowed: str) -> Iterator[None]:
  """Turns whatever the library raises into a `UserError` of one line, with the error that led to
  it. Raises OSError where the disk is full or gives no file, which others say.
  """
  try:
    yield
  except UserError:
    raise
  except Exception as error:  # no network, no such name, no files, a set's own faults
    first = error
    while first.__cause__ is not None:
      first = first.__cause__
    # numbers of TLS errors are of another table
    of_network = isinstance(first, PermissionError | ssl.SSLError) and first.filename is None
    if isinstance(first, OSError) and first.errno in DISK_ERRORS and not of_network:
      raise first from None
    of_both = dict.fromkeys((error, first))
    reason = ', by '.join(f'{type(e).__name__}: {one_line(e, MAX_REASON)}' for e in of_both)
    raise UserError(f'{what} ({reason}); allowed: {allowed}') from error


def _library(name: str) -> ModuleType:
  """The library, told to be quiet. Raises `UserError` where it is not installed."""
  what, packages = f'config.data.corpus={name!r}', ('datasets', 'huggingface_hub')
  datasets, huggingface_hub = (imported(package, what, 'hf') for package in packages)
  datasets.disable_progress_bars()
  datasets.logging.set_verbosity_error()
  huggingface_hub.logging.set_verbosity_error()
  return datasets


def _folder(name: str, cache: Path) -> Path:
  return cache / 'hf' / urllib.parse.quote(name.removeprefix(PREFIX), safe='')


def _listing(folder: Path, documents: int) -> Listing:
  """The listing of a folder that holds so many documents, by its files."""
  files = _files(folder)
  sizes = ((folder / file).stat().st_size for file in files)
  listing = listing_of('.', (file.as_posix() for file in files), sizes)
  return listing._replace(documents=documents)


def _files(folder: Path) -> list[Path]:
  """The files in a folder, seen from it, without hidden ones. Raises OSError where a folder cannot
  be listed.
  """
  files = []
  for parent, folders, names in storage.walk(folder):
    folders[:] = [name for name in folders if not name.startswith('.')]
    files += [Path(parent, name) for name in names if not name.startswith('.')]
  return sorted(file.relative_to(folder) for file in files if file.is_file())


def _is_text(features, name: str) -> bool:
  return getattr(features.get(name), 'dtype', None) in ('string', 'large_string')


def _listing_of_texts(found, text_field: str) -> Listing:
  """The listing of a `DatasetDict`, by the bytes of each text of every split. Arrow has them beside
  the texts, which are not read.
  """
  import pyarrow.compute

  digest, documents = hashlib.sha256(), 0
  for key, rows in sorted(found.items()):
    documents += len(rows)
    digest.update(f'{key}\0{len(rows)}\0'.encode())
    if _is_text(rows.features, text_field):
      sizes = pyarrow.compute.binary_length(rows.data.column(text_field)).fill_null(0)
      digest.update(sizes.to_numpy().astype('<i8').tobytes())
  return Listing('.', documents, digest.hexdigest())


def _of_folder(datasets: ModuleType, parts: Name, cache: Path, field: str):
  """The `DatasetDict` of a folder. Raises `UserError`, of `field`."""
  saved = any(storage.exists(Path(parts.path) / file) for file in SAVED)
  if parts.revision is not None:
    raise UserError(f'{field}: revision={parts.revision}; allowed: none of a folder')
  if saved and parts.config is not None:
    raise UserError(f'{field}: {parts.config}; allowed: none of what save_to_disk wrote')
  if not saved:
    return _load(datasets, parts, cache / 'hf' / 'folders')
  found = datasets.load_from_disk(parts.path)
  if not isinstance(found, datasets.DatasetDict):
    found = datasets.DatasetDict(train=found)
  if parts.first is None:
    return found
  firsts = {key: rows.take(min(parts.first, len(rows))) for key, rows in found.items()}
  return datasets.DatasetDict(firsts)


def _load(datasets: ModuleType, parts: Name, cache: Path):
  """The `DatasetDict` of a name or of a folder of files, streamed if only the first documents of
  splits are wanted.
  """
  options = {'name': parts.config, 'revision': parts.revision, 'cache_dir': str(cache)}
  if parts.is_folder:
    about = datasets.load_dataset_builder(parts.path, **options).config
    if getattr(about, 'sample_by', None) == 'line':  # the library's default for files of text
      options['sample_by'] = 'document'
  if parts.first is None:
    return datasets.load_dataset(parts.path, **options)
  streamed = datasets.load_dataset(parts.path, streaming=True, **options)
  firsts = {key: rows.take(parts.first) for key, rows in streamed.items()}
  cache.mkdir(parents=True, exist_ok=True)
  # a file system of a network may not remove a file that is still mapped
  with tempfile.TemporaryDirectory(dir=cache, ignore_cleanup_errors=True) as scratch:
    return datasets.DatasetDict(
      {
        key: _written(datasets, rows, Path(scratch, f'{number}.arrow'))
        for number, (key, rows) in enumerate(firsts.items())
      }
    )


def _written(datasets: ModuleType, rows, file: Path):
  """The `Dataset` of streamed rows, which it keeps in a file: it stays readable where that is
  removed. So no more than ROWS_AT_ONCE rows are in memory; but all where the set does not say of
  what types its columns are, which only all rows can tell.
  """
  if rows.features is None:
    return datasets.Dataset.from_list(list(rows))
  about = {'path': str(file), 'features': rows.features, 'writer_batch_size': ROWS_AT_ONCE}
  with datasets.arrow_writer.ArrowWriter(**about) as writer:
    for row in rows:
      writer.write(row)
    writer.finalize()
  return datasets.Dataset.from_file(str(file))


def _part(field: str, sizes: dict[str, int], parts: Name, split: str) -> tuple[str, int, int]:
  """(the set's split, start, stop) of a split. Raises `UserError`.

  `sizes`: {the set's split: its number of documents}.
  """
  theirs = {ours: parts.splits.get(ours, ours) for ours in SPLITS}
  for ours, name in parts.splits.items():
    if name not in sizes:
      raise UserError(f'{field}: {ours}={name}; allowed: {", ".join(sizes)}')
  train = theirs['train']
  if theirs['validation'] == theirs['test'] != train:
    raise UserError(f'{field}: validation and test are both {theirs["test"]}; allowed: two splits')
  own = {ours for ours in SPLITS if theirs[ours] in sizes and theirs[ours] != train}
  if split in own:
    if not sizes[theirs[split]]:
      others = ', '.join(name for name, size in sizes.items() if size)
      problem = f'{theirs[split]} has no documents'
      raise UserError(f'{field}: {problem}; allowed: :{split}=SPLIT, of {others}')
    return theirs[split], 0, sizes[theirs[split]]
  if train not in sizes:
    raise UserError(
      f'{field}: no split {split!r} and no train to cut it from; allowed: :train=SPLIT, of '
      f'{", ".join(sizes)}'
    )
  total = sizes[train]
  test = 0 if 'test' in own else max(1, total // 10)
  validation = 0 if 'validation' in own else max(1, total // 20)
  bounds = {
    'train': (0, total - test - validation),
    'validation': (total - test - validation, total - test),
    'test': (total - test, total),
  }
  start, stop = bounds[split]
  if not 0 <= start < stop:
    raise UserError(
      f'{field}: documents of {train}: {total}, none is left for {split!r}; '
      f'allowed: {1 + test + validation} or more'
    )
  return train, start, stop
