"""The code of encodings from outside this package, as a hash: whether it is still the same."""

import ast
import hashlib
import importlib.util
import inspect
import sys
from collections import defaultdict
from pathlib import Path

from flax import nnx

from posenc_jax.errors import BUILT_IN, INSTALLED

WHOLE = ''  # the name of all that a module defines
PLAIN = int | float | str | None
SOURCE = '_posenc_jax_source'  # the text of a module, on its spec: one that is reloaded has another


def code_hash(kind: type) -> str | None:
  """The SHA-256 of a class, of its base classes, and of the functions, classes and constants that
  these name, in their own files and in others of the user's that are imported, as `keep_sources`
  found them; of installed code, in the package of the class alone. Comments, docstrings and layout
  do not count.

  Of a class that a function makes, numbers and texts that it was given count, too, where methods or
  class attributes hold them. None where no file of the user's has the class: it is posenc_jax's, or
  was defined at a prompt.
  """
  code = _Code(_package(kind))
  for base in kind.__mro__:
    outermost = base.__qualname__.partition('.')[0]
    code.add(base.__module__, outermost)
    if outermost != base.__qualname__ and (base.__module__, outermost) in code.texts:
      code.texts[base.__module__, base.__qualname__] = _given(base)
  # without names of modules: files may move
  parts = '\n'.join(sorted(code.texts.values()))
  return hashlib.sha256(parts.encode()).hexdigest() if parts else None


def keep_sources(kind: type) -> None:
  """Keeps the texts of all of the user's modules that are loaded, for the hash of a class: what
  their files hold once they were edited is not the code that runs.
  """
  for module in [*sys.modules]:
    _source(module, _package(kind))


def _package(kind: type) -> str:
  """The name of the package, or of the module, that a class is in."""
  return kind.__module__.partition('.')[0]


class _Code:
  """The text of what modules of the user's define, {(module, name): text}."""

  def __init__(self, package: str):
    self.texts, self._package = {}, package
    self._modules = {}  # {module: {name: statements}}

  def add(self, module: str, name: str) -> None:
    """Adds what a module defines as `name`, and all that this needs."""
    if module not in self._modules:
      self._modules[module] = _defined(module, self._package)
    defined = self._modules[module]
    if (module, name) in self.texts or name not in defined:
      return
    self.texts[module, name] = '\n'.join(map(_text, defined[name]))
    for node in defined[name] + defined.get('*', []):
      for part in ast.walk(node):
        if isinstance(part, ast.Name):
          self.add(module, part.id)
        elif isinstance(part, ast.Import):
          for alias in part.names:
            self.add(alias.name, WHOLE)
        elif isinstance(part, ast.ImportFrom):
          source = '.' * part.level + (part.module or '')
          source = importlib.util.resolve_name(source, sys.modules[module].__package__ or module)
          for alias in part.names:
            self.add(source, WHOLE if alias.name == '*' else alias.name)
            self.add(f'{source}.{alias.name}', WHOLE)  # if it is a module


def _defined(module: str, package: str) -> dict[str, list[ast.stmt]]:
  """{name: statements} of what a module of the user's defines, under '*' what it imports so, and
  under WHOLE all; {} of another module.
  """
  defined = defaultdict(list)
  if source := _source(module, package):
    for statement in _without_docstrings(ast.parse(source)).body:
      for node in _one_by_one(statement):
        for name in (WHOLE, *_names(node)):
          defined[name].append(node)
  return dict(defined)


def _one_by_one(node: ast.stmt) -> list[ast.stmt]:
  """An import of several names as an import of each: a name that is added edits none beside it."""
  if not isinstance(node, ast.Import | ast.ImportFrom):
    return [node]
  fields = dict(ast.iter_fields(node))
  return [type(node)(**fields | {'names': [alias]}) for alias in node.names]


def _source(module: str, package: str) -> str | None:
  """The text of a module of the user's own, as it was when it was first asked for; None of another,
  or where it has none. That package is the user's, even if it is installed.
  """
  loaded = sys.modules.get(module)
  holder = getattr(loaded, '__spec__', None) or loaded
  if not hasattr(holder, SOURCE) and (file := _file_of(module, package)):
    setattr(holder, SOURCE, importlib.util.decode_source(file.read_bytes()))
  return getattr(holder, SOURCE, None)


def _file_of(module: str, package: str) -> Path | None:
  """The file of a module that is a user's own; None of another, or where it has none."""
  file = str(getattr(sys.modules.get(module), '__file__', None) or '')
  # installed code is a user's own where its package has the encoding
  is_installed = any(folder in file for folder in INSTALLED)
  is_other = is_installed and module.partition('.')[0] != package
  is_other |= file.startswith(BUILT_IN)
  return Path(file) if file.endswith('.py') and not is_other and Path(file).is_file() else None


def _names(node: ast.stmt) -> set[str]:
  """The names that a statement of a module defines, imports or changes: `TABLE[0] = 1`,
  `Mine.rate = 2` or, alone, `TABLE.append(3)`.
  """
  if isinstance(node, ast.FunctionDef | ast.ClassDef):
    return {node.name}
  found = set()
  for part in ast.walk(node):  # also what stands below `if` or `try`
    if isinstance(part, ast.alias):
      found.add((part.asname or part.name).partition('.')[0])
    elif isinstance(part, ast.FunctionDef | ast.ClassDef):
      found.add(part.name)
    elif isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
      found.add(part.id)
    elif isinstance(part, ast.Attribute | ast.Subscript) and not isinstance(part.ctx, ast.Load):
      found |= _base(part)
    elif isinstance(part, ast.Expr) and isinstance(part.value, ast.Call):
      found |= _base(part.value.func)
  return found


def _text(part: object) -> str:
  """A part of a syntax tree as a text that every version of Python makes the same: `ast.unparse`
  chooses other quotes from version to version, and `ast.dump` writes other fields.
  """
  if isinstance(part, ast.AST):
    fields = [(name, value) for name, value in ast.iter_fields(part) if value not in (None, [])]
    return f'{type(part).__name__}({",".join(f"{name}={_text(value)}" for name, value in fields)})'
  return f'[{",".join(map(_text, part))}]' if isinstance(part, list) else repr(part)


def _base(place: ast.expr) -> set[str]:
  """The name, in a set, that a place is of: {'a'} of `a.b[0].c`."""
  while isinstance(place, ast.Attribute | ast.Subscript):
    place = place.value
  return {place.id} if isinstance(place, ast.Name) else set()


def _given(kind: type) -> str:
  """The numbers and texts that a class holds in its attributes, and in closures and defaults of its
  methods.
  """
  found = {}
  for name, value in vars(kind).items():
    function = inspect.unwrap(getattr(value, 'fget', None) or getattr(value, '__func__', value))
    if inspect.isfunction(function):
      defaults = {p.name: p.default for p in inspect.signature(function).parameters.values()}
      held = inspect.getclosurevars(function).nonlocals | defaults
      found |= {f'{name} {key}': given for key, given in held.items()}
    elif not name.startswith('__') and name not in vars(nnx.Module):  # of Python and of Flax
      found[name] = value
  is_plain = lambda value: all(
    isinstance(part, PLAIN) for part in (value if isinstance(value, tuple) else (value,))
  )
  return repr(sorted((name, repr(value)) for name, value in found.items() if is_plain(value)))


def _without_docstrings(tree: ast.Module) -> ast.Module:
  for part in ast.walk(tree):
    body = getattr(part, 'body', None)
    first = body[0] if isinstance(body, list) and body else None
    if isinstance(first, ast.Expr) and isinstance(getattr(first.value, 'value', None), str):
      part.body = body[1:] or [ast.Pass()]
  return tree
