"""Tables in the forms that papers print, made from rows and nothing else.

`scores.py` says what is added up and compared, `metrics.py` what a score is, `differences.py` what
is significant, and each form is one function: rows in, `page.Table`s out. A study's `table()` names
its form and the form's settings.
"""

from collections.abc import Iterable
from pathlib import Path

from posenc_jax import jsonl_store
from posenc_jax.errors import UserError, nearest, user_errors
from posenc_jax.evaluation import row_schema
from posenc_jax.reporting.layouts.grid import grid, methods
from posenc_jax.reporting.layouts.lengths import columns, lengths
from posenc_jax.reporting.layouts.ranks import ranks
from posenc_jax.reporting.table import Table

FORMS = {
  'lengths': lengths,  # encodings x evaluation lengths
  'columns': columns,  # KERPLE: evaluation lengths x encodings, a block for each corpus or protocol
  'grid': grid,  # ALiBi: training x evaluation length
  'methods': methods,  # PI, YaRN: methods of context extension x evaluation window
  'ranks': ranks,  # Kazemnejad: tasks x encodings, and ranks over tasks
}


def make(
  rows: Iterable[dict], runs: Iterable[str] = (), form: str = 'lengths', **settings
) -> list[Table]:
  """The tables of a form (FORMS); `settings` are its own. Raises UserError."""
  if form not in FORMS:
    raise UserError(f'table: form={form!r}; {nearest(form, FORMS)}')
  return FORMS[form](rows, runs, **settings)


def read(path: str | Path) -> list[dict]:
  """The rows of a file, or of a folder's `rows.jsonl[.gz]`, `eval.jsonl` and `*/eval.jsonl`.
  UserError for none.
  """
  path = Path(path)
  patterns = ('rows.jsonl*', 'eval.jsonl', '*/eval.jsonl')
  files = (
    [path]
    if path.is_file()
    else [file for pattern in patterns for file in sorted(path.glob(pattern))]
  )
  with user_errors(ValueError):
    rows = [row for file in files for row in jsonl_store.read(file)]
  if not rows:
    raise UserError(
      f'{path}: no rows; allowed: a folder with runs (RUN/eval.jsonl) or with rows.jsonl, or such a file'
    )
  if lacking := [
    name for name in (*row_schema.KEY, *row_schema.VALUES) if not all(name in row for row in rows)
  ]:
    raise UserError(
      f'{path}: a row lacks {", ".join(lacking)}; allowed: rows as row_schema.row makes them'
    )
  return rows
