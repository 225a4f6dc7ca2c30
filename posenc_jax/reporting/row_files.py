"""Reading the rows that tables, figures and pages are made from."""

import functools
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from posenc_jax import config, storage
from posenc_jax.errors import UserError, disk_errors, visible
from posenc_jax.rows import row_schema
from posenc_jax.rows.overrides import HARMLESS, IN_ROWS
from posenc_jax.training.provenance import kept_code

# Names of files, not patterns: `rows.jsonl.123.new` is what a kill left of a write.
FILES = ('rows.jsonl', 'rows.jsonl.gz', 'eval.jsonl')
TEXTS = ('run', 'encoding', 'label', 'corpus', 'document')  # names that may hold any character
# Fields of a config on which no score depends, or in which seeds differ.
UNLIKE_SEEDS = (
  *('seed', 'seeds', 'vmap_seeds', 'train.log_every'),
  *('train.validate_every', 'train.validate_batches', 'train.max_nonfinite_updates'),
  *(*HARMLESS, *config.CHECKPOINT_FIELDS),
)
DRAWS = ('seed', 'eval_seed')  # hyperparameters of encodings, in which seeds may differ, too
START, CORPUS = 'train.init_from', 'data.corpus'
# Fields in which runs of one line may differ, besides: rows state them. The corpus that they state
# is the one of the evaluation.
STATED = ('train.steps', 'train.length', *(field for field in IN_ROWS if field != CORPUS))


def of_runs(folder: str | Path) -> list[dict]:
  """The rows of a folder as `read` gives them, with up to two fields more: `config` of runs whose
  config.json is there, {field: value} of what makes runs with other seeds another line; and `code`,
  the same of encodings of the user's own, where the run says it or, of kept results, the folder.

  Prints a line, to the error stream, of each config.json that is wrong.
  """
  rows, saved, codes = read(folder), {}, {}
  with disk_errors(remedy=''):
    kept = _code(folder)
    for file in storage.files_below(folder, 'config.json') if storage.is_folder(folder) else []:
      try:
        fields = config.flat(config.saved_config(file.parent))
      except UserError as error:
        problem = 'its run may stand in one line with runs of other settings'
        print(f'{error}; {problem}', file=sys.stderr)
        continue
      run = visible(file.parent.name)
      codes[run] = _code(file.parent)
      saved[run] = fields | codes[run]
  found = {run: _fields_of_line(run, saved, (*STATED, *codes[run])) for run in saved}
  more = lambda run: {'config': found.get(run), 'code': codes.get(run, kept)}
  for row in rows:
    row.update({key: x for key, x in more(row['run']).items() if x})
  return rows


def _code(folder: str | Path) -> dict[str, str]:
  hashes = kept_code(folder)
  return {f'code of {visible(name)}': visible(sha256[:8]) for name, sha256 in hashes.items()}


def _fields_of_line(
  run: str, saved: dict[str, dict[str, object]], stated: tuple[str, ...]
) -> dict[str, object]:
  """{field: value} of what a run has in common with those of other seeds, but for what is stated
  elsewhere; of `train.init_from`, if the config of the run that it names is known, that run's.

  Args:
    saved: {run: {field: value}} of this run and of those beside it.
  """
  left_out = {*UNLIKE_SEEDS, *stated}
  fields = {
    field: value
    for field, value in without_draws(saved[run]).items()
    if config.decides_results(field) and not {field, field.partition('.')[0]} & left_out
  }
  if ':' not in (corpus := str(fields.get(CORPUS))):
    fields[CORPUS] = visible(Path(corpus).name)  # a folder may lie elsewhere
  if start := fields.get(START):
    start = visible(Path(str(start)).name)
    others = {other: of_other for other, of_other in saved.items() if other != run}
    is_known = start in others
    fields[START] = (
      _fields_of_line(start, others, config.NOT_TRAINING) if is_known else without_seed(start)
    )
  return fields


def without_draws(fields: dict[str, object]) -> dict[str, object]:
  """{field: value} of a config without DRAWS of its encoding, members and inner ones too."""

  def cut(value):
    if isinstance(value, dict):
      return {name: cut(part) for name, part in value.items() if name not in DRAWS}
    return [cut(part) for part in value] if isinstance(value, list) else value

  is_of_encoding = lambda field: field.startswith('encoding.')
  return {
    field: cut(value) if is_of_encoding(field) else value
    for field, value in fields.items()
    if not (is_of_encoding(field) and field.rpartition('.')[2] in DRAWS)
  }


def without_seed(run: str) -> str:
  """The name of a run without its seed and those of the runs that it starts from, and without the
  hash of a long one, which is of the seed, too (`sweep.run_name`).
  """
  seedless = re.sub(r'(^|[,/])(train\.init_from\.)*seed=\d+,?', r'\1', run)
  return re.sub(r'-[0-9a-f]{8}$', '', seedless).rstrip(',')


def read(path: str | Path) -> list[dict]:
  """The rows of a file, or of a folder's `rows.jsonl[.gz]`, `eval.jsonl` and `*/eval.jsonl`.

  Every field is checked; what cannot be printed in a text stands there as an escape. Rows in a
  run's directory are of the run of its name, whatever its name was when they were written.

  Raises:
    UserError: there are no rows, or one is wrong: its file and line are named.
    Stopped: a file or folder cannot be read.
  """
  rows, known = [], Known({}, defaultdict(set))
  with disk_errors(remedy=''):
    for file in _files(Path(path)):
      check = functools.partial(_fault, file=file, run=_run_of(file), known=known)
      rows += storage.read_rows(file, check)
  _settle_names(rows, known)
  if not rows:
    raise UserError(
      f'{path}: no rows; allowed: a folder with runs (RUN/eval.jsonl) or with rows.jsonl, or such '
      'a file'
    )
  for row in rows:
    for name in TEXTS:
      if row[name] is not None:
        row[name] = visible(row[name])
    for name in ('overrides', row_schema.PARAMETERS):
      if row.get(name):
        row[name] = visible_tree(row[name])
  return rows


def _files(path: Path) -> list[Path]:
  if not storage.is_folder(path):
    return [path]
  own = [path / name for name in FILES]
  return [file for file in own if storage.exists(file)] + storage.files_below(path, 'eval.jsonl')


class Known(NamedTuple):
  """What was read so far.

  Attributes:
    by_key: {key: (row, its file, whether it was written under another name of its run)}.
    old_names: {run: the other names that its rows had}.
  """

  by_key: dict[str, tuple[dict, Path, bool]]
  old_names: dict[str, set[str]]


def _run_of(file: Path) -> str | None:
  """The name of the run in whose directory a file of rows is; None elsewhere."""
  is_run = any(
    storage.exists(file.parent / name) for name in ('config.json', row_schema.N_GRAM_FILE)
  )
  return storage.name_of(file.parent) if file.name == 'eval.jsonl' and is_run else None


def _fault(row: dict, file: Path, run: str | None, known: Known) -> str | None:
  """What is wrong with a row by itself, or beside the rows before it; else it is `known`, as a row
  of `run` unless that is None.

  Equal rows are no fault: a folder may hold runs and their collected rows.
  """
  if fault := row_schema.fault(row):
    return fault
  is_old = run is not None and row['run'] != run
  if is_old:
    known.old_names[run].add(row['run'])
    row['run'] = run
  key = row_schema.key(row)
  first, where, was_old = known.by_key.setdefault(key, (row, file, is_old))
  if first == row:
    return None
  if where != file or is_old == was_old:
    return f'it measures the same as a row of {where}, with another result'
  # measured again since the directory was renamed: what was found then counts
  old, new = (row, first) if is_old else (first, row)
  old.clear()
  old.update(new)
  known.by_key[key] = new, file, False
  return None


def _settle_names(rows: list[dict], known: Known) -> None:
  """Gives rows of a copy, which lies beside the run that it was copied from, or of a link to that,
  this run's name again; and what was laid over a run the name that its rows have now.
  """
  now = {}
  for run, old_names in known.old_names.items():
    of_run = [row for row in rows if row['run'] == run]
    for name in old_names:
      written = [row | {'run': name} for row in of_run]
      same = (known.by_key.get(row_schema.key(row), (None,))[0] == row for row in written)
      is_copy = all(same)
      now |= {run: name} if is_copy else {name: run}
      for row in of_run if is_copy else ():
        row['run'] = name
  present = {row['run'] for row in rows}
  for row in rows:
    start = row.get(row_schema.PARAMETERS)
    if start and start['run'] in now.keys() - present:
      row[row_schema.PARAMETERS] = start | {'run': now[start['run']]}


def visible_tree(tree: object) -> object:
  """JSON data with `errors.visible` texts."""
  if isinstance(tree, dict):
    return {visible(key): visible_tree(value) for key, value in tree.items()}
  if isinstance(tree, list):
    return [visible_tree(value) for value in tree]
  return visible(tree) if isinstance(tree, str) else tree
