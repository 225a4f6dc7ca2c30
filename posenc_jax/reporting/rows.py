"""Reading the rows that tables, figures and pages are made from."""

from pathlib import Path

from posenc_jax import storage
from posenc_jax.errors import UserError, user_errors
from posenc_jax.evaluation import row_schema


def read(path: str | Path) -> list[dict]:
  """The rows of a file, or of a folder's `rows.jsonl[.gz]`, `eval.jsonl` and `*/eval.jsonl`.

  Raises UserError where there are none.
  """
  path = Path(path)
  files = [path]
  if not path.is_file():
    patterns = ('rows.jsonl*', 'eval.jsonl', '*/eval.jsonl')
    files = [file for pattern in patterns for file in sorted(path.glob(pattern))]
  with user_errors(ValueError):
    rows = [row for file in files for row in storage.read_rows(file)]
  if not rows:
    raise UserError(
      f'{path}: no rows; allowed: a folder with runs (RUN/eval.jsonl) or with rows.jsonl, or such '
      'a file'
    )
  fields = (*row_schema.KEY, *row_schema.VALUES)
  if lacking := [name for name in fields if not all(name in row for row in rows)]:
    raise UserError(
      f'{path}: a row lacks {", ".join(lacking)}; allowed: rows as row_schema.row makes them'
    )
  return rows
