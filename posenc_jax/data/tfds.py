"""Any TensorFlow Datasets set as a corpus, read without TensorFlow: it has to be prepared as
array_record.

A split that a set lacks is cut off the end of its train split: of the last tenth for test, and a
twentieth before it (or, where there is a test split, the last twentieth) for validation.
"""

from collections.abc import Callable
from pathlib import Path

import tensorflow_datasets as tfds

from posenc_jax.errors import UserError, closest


def open_split(
  name: str, split: str, text_field: str, cache: Path
) -> tuple[int, Callable[[int], str], Callable[[int], bytes]]:
  """The number of documents of a split, their names and their bytes by index. Raises
  `UserError`.
  """
  builder = _on_disk(name, cache)
  if builder is None:
    raise UserError(
      f'config.data.corpus={name!r}: not in {cache} or {tfds.core.constants.DATA_DIR}{_near(name)}; prepare it with '
      f'`python scripts/prepare_data.py --corpus={name}`'
    )
  features = builder.info.features
  texts = [field for field, feature in features.items() if isinstance(feature, tfds.features.Text)]
  if text_field not in texts:
    raise UserError(
      f'config.data.text_field={text_field!r}: not a text of {name}; allowed: {", ".join(texts) or "-"}'
    )
  part = _parts(set(builder.info.splits)).get(split)
  if part is None:
    have = ', '.join(builder.info.splits)
    raise UserError(
      f'config.data.corpus={name!r}: no split {split!r} and no train to cut it from; it has {have}'
    )
  source = builder.as_data_source(part)
  return len(source), lambda index: f'{part}/{index}', lambda index: source[index][text_field]


def prepare(name: str, cache: Path) -> Path:
  """Downloads and prepares a set that is not on disk; returns its folder. Raises `UserError`."""
  builder = _on_disk(name, cache)
  if builder is None:
    try:
      builder = tfds.builder(_bare(name), data_dir=cache, file_format='array_record')
      builder.download_and_prepare()
    # whatever the code of a set raises: no network, no TensorFlow, no Beam, no such name
    except Exception as error:
      reason = f'{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:120]}'
      raise UserError(
        f'config.data.corpus={name!r}: cannot be prepared here ({reason}){_near(name)}; where it can, run '
        f'`{_command(name)} --data_dir=DIR` and copy what is in DIR into {cache}'
      ) from error
  return Path(builder.data_dir)


def known() -> list[str]:
  """Names of the sets that TFDS has code for here."""
  return tfds.list_builders(with_community_datasets=False)


def _on_disk(name: str, cache: Path) -> tfds.core.DatasetBuilder | None:
  for data_dir in (cache, tfds.core.constants.DATA_DIR):
    try:
      builder = tfds.core.read_only_builder.builder_from_files(_bare(name), data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
      continue
    except ValueError as error:
      raise UserError(
        f'config.data.corpus={name!r}: allowed: tfds:NAME[/CONFIG][:VERSION]'
      ) from error
    if (file_format := builder.info.file_format.value) != 'array_record':
      raise UserError(
        f'config.data.corpus={name!r}: is {file_format} in {builder.data_dir}, which takes TensorFlow to read; '
        f'allowed: array_record, as made by `{_command(name)} --data_dir={cache}`'
      )
    return builder
  return None


def _parts(have: set[str]) -> dict[str, str]:
  """Which slice of the set is which split, for the splits that it has or can be given."""
  cuts = {
    (): {'test': 'train[90%:]', 'validation': 'train[85%:90%]', 'train': 'train[:85%]'},
    ('test',): {'validation': 'train[95%:]', 'train': 'train[:95%]'},
    ('validation',): {'test': 'train[90%:]', 'train': 'train[:90%]'},
    ('test', 'validation'): {},
  }
  cut = cuts[tuple(sorted(have & {'test', 'validation'}))] if 'train' in have else {}
  return {**{split: split for split in have}, **cut}


def _near(name: str) -> str:
  bare = _bare(name)
  near = closest(bare, known())
  return f'; did you mean {"tfds:" + near!r}?' if near and near != bare else ''


def _command(name: str) -> str:
  return f'tfds build {_bare(name)} --file_format=array_record'


def _bare(name: str) -> str:
  return name.removeprefix('tfds:')
