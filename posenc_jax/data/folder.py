"""A folder of text as a corpus: a .txt file is one document, a line of a .jsonl file is one, at any
depth.

The subfolders train/, validation/ and test/ are the splits if there is any of them. Otherwise
documents are ranked by the SHA-256 of their names: the first tenth is the test split, the next
twentieth validation (at least one document each), the rest trains. Adding a file can then move
others; a corpus that grows should have the subfolders.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from posenc_jax.errors import UserError


def open_split(
  name: str, split: str, text_field: str
) -> tuple[int, Callable[[int], str], Callable[[int], bytes]]:
  """The number of documents of a split, their names and their bytes by index. Raises
  `UserError`.
  """
  root = Path(name)
  divided = [path.name for s in ('train', 'validation', 'test') if (path := root / s).is_dir()]
  if divided and split not in divided:
    raise UserError(
      f'config.data.corpus={name!r}: no split {split!r}; its folders are {", ".join(divided)}'
    )
  documents = _documents(root / split if divided else root)
  if not documents:
    raise UserError(
      f'config.data.corpus={name!r}: no documents for split {split!r}; allowed: .txt or .jsonl files'
    )
  if not divided:
    total, documents = len(documents), _share(documents, split)
    if not documents:
      allowed = '3 documents or more, or folders train, validation and test'
      raise UserError(
        f'config.data.corpus={name!r}: no document of {total} left for {split!r}; allowed: {allowed}'
      )

  def read(index: int) -> bytes:
    document, path, offset = documents[index]
    return path.read_bytes() if offset is None else _line(document, path, offset, text_field)

  return len(documents), lambda index: documents[index][0], read


def _documents(root: Path) -> list[tuple[str, Path, int | None]]:
  """(name, file, offset of its line or None) of each document, sorted by name of file; hidden ones
  are left out.
  """
  documents = []
  paths = (path for path in root.rglob('*') if path.suffix in ('.txt', '.jsonl') and path.is_file())
  for name, path in sorted((path.relative_to(root).as_posix(), path) for path in paths):
    if any(part.startswith('.') for part in name.split('/')):
      continue
    if path.suffix == '.txt':
      documents.append((name, path, None))
      continue
    offset = 0
    with path.open('rb') as lines:
      for number, line in enumerate(lines, 1):
        if line.strip():
          documents.append((f'{name}:{number}', path, offset))
        offset += len(line)
  return documents


def _share(documents: list[tuple], split: str) -> list[tuple]:
  ranked = sorted(documents, key=lambda document: hashlib.sha256(document[0].encode()).digest())
  test = max(1, len(ranked) // 10)
  validation = test + max(1, len(ranked) // 20)
  bounds = {'test': (0, test), 'validation': (test, validation), 'train': (validation, None)}
  chosen = set(ranked[slice(*bounds[split])])
  return [document for document in documents if document in chosen]


def _line(document: str, path: Path, offset: int, text_field: str) -> bytes:
  with path.open('rb') as lines:
    lines.seek(offset)
    try:
      row = json.loads(lines.readline())
    except ValueError as error:
      raise UserError(
        f'config.data.corpus: {document} of {path.parent} is not JSON: {error}'
      ) from error
  text = row[text_field] if isinstance(row, dict) and text_field in row else None
  if not isinstance(text, str):
    fields = ', '.join(row) if isinstance(row, dict) else 'none'
    raise UserError(
      f'config.data.text_field={text_field!r}: no such text in {document}; its fields: {fields}'
    )
  return text.encode('utf-8', 'surrogatepass')
