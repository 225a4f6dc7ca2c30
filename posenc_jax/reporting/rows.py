"""Reading the rows that tables, figures and pages are made from."""

from pathlib import Path

from posenc_jax import storage
from posenc_jax.errors import UserError, disk_errors, visible
from posenc_jax.evaluation import row_schema
from posenc_jax.reporting.folders import files_below, is_folder

# Names of files, not patterns: `rows.jsonl.123.new` is what a kill left of a write.
FILES = ('rows.jsonl', 'rows.jsonl.gz', 'eval.jsonl')
TEXTS = ('run', 'encoding', 'label', 'corpus', 'document')  # names that may hold any character


def read(path: str | Path) -> list[dict]:
  """The rows of a file, or of a folder's `rows.jsonl[.gz]`, `eval.jsonl` and `*/eval.jsonl`.

  Every field is checked; what cannot be printed in a text stands there as an escape.

  Raises:
    UserError: there are no rows, or one is wrong: its file and line are named.
    Stopped: a file or folder cannot be read.
  """
  rows, by_key = [], {}
  with disk_errors(remedy=''):
    for file in _files(Path(path)):
      rows += storage.read_rows(file, lambda row, file=file: _fault(row, file, by_key))
  if not rows:
    raise UserError(
      f'{path}: no rows; allowed: a folder with runs (RUN/eval.jsonl) or with rows.jsonl, or such '
      'a file'
    )
  for row in rows:
    for name in TEXTS:
      if row[name] is not None:
        row[name] = visible(row[name])
    if row['overrides']:
      row['overrides'] = visible_tree(row['overrides'])
  return rows


def _files(path: Path) -> list[Path]:
  if not is_folder(path):
    return [path]
  own = [path / name for name in FILES]
  return [file for file in own if storage.exists(file)] + files_below(path, 'eval.jsonl')


def _fault(row: dict, file: Path, by_key: dict[str, tuple[dict, Path]]) -> str | None:
  """What is wrong with a row by itself, or beside the rows before it; else it joins `by_key`.

  Equal rows are no fault: a folder may hold runs and their collected rows.
  """
  if fault := row_schema.fault(row):
    return fault
  first, where = by_key.setdefault(row_schema.key(row), (row, file))
  if first != row:
    return f'it measures the same as a row of {where}, with another result'
  return None


def visible_tree(tree: object) -> object:
  """JSON data with `errors.visible` texts."""
  if isinstance(tree, dict):
    return {visible(key): visible_tree(value) for key, value in tree.items()}
  if isinstance(tree, list):
    return [visible_tree(value) for value in tree]
  return visible(tree) if isinstance(tree, str) else tree
