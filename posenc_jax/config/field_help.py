"""The fields of a configuration as text, each with its value and its comment in the file."""

import ast
import io
import textwrap
import tokenize
from pathlib import Path

from posenc_jax.config.loading import BASE, load
from posenc_jax.config.serialization import leaves
from posenc_jax.errors import shown

WIDTH = 100
INDENT = {'initial_indent': 6 * ' ', 'subsequent_indent': 6 * ' '}


def text(path: str | Path | None) -> str:
  """All fields, section by section: values as the file says, comments of it and of configs/base.py.

  Args:
    path: a configuration file; None: configs/base.py. Where there is none, as in an installed
      package, one line says so.
  Raises:
    UserError: as `load` does.
  """
  if path is None and not BASE.is_file():
    return 'fields: see configs/base.py in a clone of the repository, or give --config=FILE'
  said = {}
  for file in (BASE, path):
    if file and Path(file).is_file():
      said |= comments(Path(file).read_text(encoding='utf-8', errors='replace'))
  values = dict(leaves(load(path or BASE)))
  # In the order of the file; fields without a comment, such as hyperparameters, come last.
  fields = [field for field in said if field in values]
  fields += [field for field in values if field not in said]
  sections = dict.fromkeys(field.partition('.')[0] if '.' in field else '' for field in fields)
  lines = [f'fields of {path or "configs/base.py"}:']
  for section in sections:
    if section:
      lines += ['', *textwrap.wrap(f'[{section}] {said.get(section, "")}', WIDTH)]
    for field in fields:
      if section == (field.partition('.')[0] if '.' in field else ''):
        lines.append(f'  --config.{field}={shown(values[field])}')
        lines += textwrap.wrap(said.get(field, ''), WIDTH, **INDENT)
  return '\n'.join(lines)


def comments(source: str) -> dict[str, str]:
  """{'dotted.path': comment} of the keywords of nested `dict(...)` calls: beside a field, or above.

  A file that is no Python has none.
  """
  try:
    tree = ast.parse(source)
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
  except (SyntaxError, ValueError, tokenize.TokenError):
    return {}
  at = {}  # of each line with a comment: the comment, and whether it has the line to itself
  for token in tokens:
    if token.type == tokenize.COMMENT:
      is_alone = not token.line[: token.start[1]].strip()
      at[token.start[0]] = token.string.removeprefix('#').strip(), is_alone
  return {
    path: comment
    for path, keyword in _keywords(tree, '')
    if (comment := _comment(keyword, at, is_section=isinstance(keyword.value, ast.Call)))
  }


def _keywords(node: ast.AST, prefix: str):
  """(dotted path, keyword) of nested calls of `dict`."""
  for child in ast.iter_child_nodes(node):
    if isinstance(child, ast.keyword) and child.arg:
      yield f'{prefix}{child.arg}', child
      yield from _keywords(child, f'{prefix}{child.arg}.')
    else:
      yield from _keywords(child, prefix)


def _comment(keyword: ast.keyword, at: dict[int, tuple[str, bool]], is_section: bool) -> str:
  """The comment at the end of the field's line, or the lines of comments above it."""
  last = keyword.lineno if is_section else keyword.value.end_lineno
  if last in at and not at[last][1]:
    return at[last][0]
  lines, number = [], keyword.lineno - 1
  while number in at and at[number][1]:
    lines.insert(0, at[number][0])
    number -= 1
  return ' '.join(lines)
