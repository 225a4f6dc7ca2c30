"""Any TensorFlow Datasets set as a corpus, read without TensorFlow; it must be prepared as
array_record.

A split that a set lacks is cut off the end of its train split: the last tenth for test, and the
twentieth before it for validation (the last twentieth where the set has a test split).
"""

import contextlib
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from posenc_jax import storage
from posenc_jax.data.building import not_prepared
from posenc_jax.data.documents import SPLITS, Documents, Listing, identity_of, no_text
from posenc_jax.errors import MAX_REASON, UserError, hint, one_line, shown

ENOUGH = 20  # documents of which every cut has some


def open_split(name: str, split: str, text_field: str, cache: Path) -> Documents:
  """Returns the documents of a split. Raises `UserError`."""
  builder = _builder_on_disk(name, cache)
  if builder is None:
    where = f'{cache} or {tfds.core.constants.DATA_DIR}{_near(name)}'
    raise not_prepared(name, where, text_field, cache)
  features = builder.info.features
  texts = [key for key, feature in features.items() if isinstance(feature, tfds.features.Text)]
  if text_field not in texts:
    raise no_text(name, text_field, dict(features), texts)
  part = _split_slices(set(builder.info.splits)).get(split)
  if part is None:
    present = ', '.join(builder.info.splits)
    problem = f'no split {split!r} and no train to cut it from'
    raise UserError(f'config.data.corpus={name!r}: {problem}; it has {present}')
  if not builder.info.splits[part].num_examples:
    total = builder.info.splits['train'].num_examples
    raise UserError(
      f'config.data.corpus={name!r}: split {split!r} is {part}, none of {total} documents; '
      f'allowed: {ENOUGH} or more, or a folder of text with folders {", ".join(SPLITS)}'
    )
  files = sorted(path for path in Path(builder.data_dir).rglob('*') if path.is_file())
  identity = identity_of(files, text_field)
  with _errors_in(builder.data_dir, name):
    rows = builder.as_data_source(part)

  def read(index):
    with _errors_in(builder.data_dir, name):
      if (text := rows[index][text_field]) is None:  # as from a file that is cut off
        raise ValueError(f'{part}/{index} has no {text_field}')
      return text

  return Documents(len(rows), lambda n: f'{part}/{n}', read, _listing(builder.info), identity)


def _listing(info: tfds.core.DatasetInfo) -> Listing:
  """The listing of a set: its version, and how many examples and bytes each split has where."""
  splits = sorted(
    (name, [*split.shard_lengths], split.num_bytes) for name, split in info.splits.items()
  )
  documents = sum(split.num_examples for split in info.splits.values())
  sha256 = hashlib.sha256(repr((info.full_name, splits)).encode()).hexdigest()
  return Listing('.', documents, sha256)


def prepare(name: str, cache: Path) -> Path:
  """Downloads and prepares a set that is not on disk; returns its folder. Raises `UserError`."""
  builder = _builder_on_disk(name, cache)
  if builder is None:
    try:
      builder = tfds.builder(_bare(name), data_dir=cache, file_format='array_record')
      builder.download_and_prepare()
    # A set's own code may raise anything: no network, no TensorFlow, no Beam, no such name.
    except Exception as error:
      reason = f'{type(error).__name__}: {one_line(error, MAX_REASON)}'
      raise UserError(
        f'config.data.corpus={name!r}: cannot be prepared here ({reason}){_near(name)}; '
        f'where it can, run `{_command(name)} --data_dir=DIR` and copy what is in DIR into {cache}'
      ) from error
  return Path(builder.data_dir)


def known() -> list[str]:
  """The names ('tfds:NAME') of the sets whose code TFDS brings along."""
  return [f'tfds:{name}' for name in tfds.list_builders(with_community_datasets=False)]


def _builder_on_disk(name: str, cache: Path) -> tfds.core.DatasetBuilder | None:
  try:
    reference, _ = tfds.core.naming.parse_builder_name_kwargs(_bare(name))
  except ValueError as error:
    raise UserError(
      f'config.data.corpus={name!r}: allowed: tfds:NAME[/CONFIG][:VERSION]'
    ) from error
  for data_dir in (cache, tfds.core.constants.DATA_DIR):
    try:
      with _errors_in(Path(data_dir) / reference.name, name), _no_code_of(name):
        builder = tfds.core.read_only_builder.builder_from_files(_bare(name), data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
      continue
    file_format = builder.info.file_format.value
    if file_format != 'array_record':
      is_in_the_way = Path(builder.data_dir).is_relative_to(cache)
      first = f', after {builder.data_dir} is moved away' if is_in_the_way else ''
      raise UserError(
        f'config.data.corpus={name!r}: is {file_format} in {builder.data_dir}, which takes '
        f'TensorFlow to read; allowed: array_record, as made by '
        f'`{_command(name)} --data_dir={cache}`{first}'
      )
    return builder
  return None


@contextlib.contextmanager
def _errors_in(folder: str | Path, name: str) -> Iterator[None]:
  """Turns whatever is raised of files that are cut off, or damaged, into a `UserError`. Raises
  OSError where the system does not give one.
  """
  try:
    yield
  except (UserError, OSError, MemoryError, tfds.core.DatasetNotFoundError):
    raise
  except Exception as error:
    if storage.exists(folder):
      storage.check_all_readable(folder)  # what the system does not give is not damaged
    problem = f'cannot be read ({type(error).__name__}: {one_line(error, MAX_REASON)})'
    allowed = f'{folder} as it was prepared'
    raise UserError(f'config.data.corpus={name!r}: {problem}; allowed: {allowed}') from error


@contextlib.contextmanager
def _no_code_of(name: str) -> Iterator[None]:
  """Refuses features that are not TFDS' own: it imports the module that a features.json names, and
  a set on disk may be a stranger's.
  """
  connector = tfds.features.FeatureConnector
  original = connector.__dict__['cls_from_name']

  def cls_from_name(cls, python_class_name):
    if not python_class_name.startswith('tensorflow_datasets.'):
      raise UserError(
        f'config.data.corpus={name!r}: its features.json names {shown(python_class_name)}; '
        'allowed: features of tensorflow_datasets'
      )
    return original.__get__(None, cls)(python_class_name)

  connector.cls_from_name = classmethod(cls_from_name)
  try:
    yield
  finally:
    connector.cls_from_name = original


def _split_slices(present: set[str]) -> dict[str, str]:
  """The slice of the set that is each split, for the splits that it has or can be given."""
  cuts = {
    (): {'test': 'train[90%:]', 'validation': 'train[85%:90%]', 'train': 'train[:85%]'},
    ('test',): {'validation': 'train[95%:]', 'train': 'train[:95%]'},
    ('validation',): {'test': 'train[90%:]', 'train': 'train[:90%]'},
    ('test', 'validation'): {},
  }
  cut = cuts[tuple(sorted(present & {'test', 'validation'}))] if 'train' in present else {}
  return {**{split: split for split in present}, **cut}


def _near(name: str) -> str:
  """'; did you mean ...' for a name that TFDS does not know."""
  names = [known_name.removeprefix('tfds:') for known_name in known()]
  # The names are compared without 'tfds:', which would make any two of them alike.
  bare = re.split('[/:]', _bare(name))[0]  # without config and version
  near = '' if bare in names else hint(bare, names)
  return near and '; ' + near.replace("mean '", "mean 'tfds:")


def _command(name: str) -> str:
  return f'tfds build {_bare(name)} --file_format=array_record'


def _bare(name: str) -> str:
  return name.removeprefix('tfds:')
