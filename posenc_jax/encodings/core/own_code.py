"""The code of encodings from outside this package, as a hash: whether it is still the same."""

import ast
import hashlib
import inspect
from pathlib import Path

# Packages whose classes are not a user's own.
OTHERS = ('posenc_jax', 'flax', 'builtins')


def code_hash(kind: type) -> str | None:
  """The SHA-256 of a class, of its base classes, and of the functions, classes and constants of the
  same files that these name. Comments, docstrings and layout do not count.

  None where no file has the class: it was defined at a prompt.
  """
  parts = []
  for base in kind.__mro__:
    if base.__module__.partition('.')[0] not in OTHERS and (file := _file_of(base)):
      parts += _definitions(file.read_text(), base.__qualname__.partition('.')[0])
  return hashlib.sha256('\n'.join(parts).encode()).hexdigest() if parts else None


def _file_of(kind: type) -> Path | None:
  """The file that defines a class. Its module may be a study, which Python does not list."""
  for value in vars(kind).values():
    function = inspect.unwrap(getattr(value, 'fget', None) or getattr(value, '__func__', value))
    if inspect.isfunction(function) and function.__module__ == kind.__module__:
      file = Path(function.__code__.co_filename)
      if file.is_file():
        return file
  return None


def _definitions(source: str, name: str) -> list[str]:
  """The text of what a file defines as `name`, and of all that this needs of the file."""
  defined = {}
  for node in ast.parse(source).body:
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, 'target', node)]
    for target in targets:
      for part in ast.walk(target) if isinstance(target, ast.expr) else [target]:
        if own := getattr(part, 'name', getattr(part, 'id', None)):
          defined[own] = node
  found, waiting = {}, [name]
  while waiting:
    name = waiting.pop()
    if name in found or name not in defined:
      continue
    node = _without_docstrings(defined[name])
    found[name] = ast.unparse(node)
    waiting += [part.id for part in ast.walk(node) if isinstance(part, ast.Name)]
  return [found[name] for name in sorted(found)]


def _without_docstrings(node: ast.stmt) -> ast.stmt:
  for part in ast.walk(node):
    body = getattr(part, 'body', None)
    first = body[0] if isinstance(body, list) and body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
      part.body = [*body[1:], ast.Pass()]
  return node
