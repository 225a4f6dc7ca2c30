"""Configurations from files, with overrides laid over them."""

import importlib.util
import os
from pathlib import Path
from types import ModuleType

from ml_collections import ConfigDict

from posenc_jax.config.serialization import flat
from posenc_jax.errors import UserError, closest, hint, nearest

# The one section whose keys are not known here: they are the encoding's hyperparameters.
OPEN = 'encoding'


def load_study(path: str | Path) -> ModuleType:
  """Executes a configuration file: a module with `get_config()` and, in a study, `sweep()` etc.

  Encodings that the file registers are known to this process from then on. Raises `UserError` if
  there is no such file or it defines no `get_config`.
  """
  path = Path(path)
  if not path.is_file():
    raise UserError(f'config: no file {str(path)!r}; {_what_is_there(path)}')
  spec = importlib.util.spec_from_file_location(path.stem, path)
  example = 'allowed: a file such as configs/base.py'
  if spec is None:
    raise UserError(f'config: {str(path)!r} is not a Python file; {example}')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not hasattr(module, 'get_config'):
    raise UserError(f'config: {str(path)!r} has no get_config(); {example}')
  return module


def _what_is_there(path: Path) -> str:
  """Names the deepest folder of the path that exists, and what in it could be meant."""
  here = next(folder for folder in path.absolute().parents if folder.is_dir())
  missing = path.absolute().relative_to(here).parts[0]
  if path.absolute().parent == here:
    kind, names = 'Python file', [file.name for file in here.glob('*.py')]
  else:
    kind, names = 'folder', [folder.name for folder in here.iterdir() if folder.is_dir()]
  allowed = 'allowed: a path from the current folder, or a whole path'
  return f'{str(here)!r} has no {kind} {missing!r}; {hint(missing, names) or allowed}'


def load(study: str | Path | ModuleType, overrides: dict[str, object] | None = None) -> ConfigDict:
  """The configuration of a file, or of a study that was loaded from it, with overrides; locked.

  Raises `UserError`.
  """
  study = study if isinstance(study, ModuleType) else load_study(study)
  # a copy: a study may give out one object again and again
  config = study.get_config().copy_and_resolve_references().lock()
  overlay(config, overrides or {})
  return config


def overlay(config: ConfigDict, overrides: dict[str, object]) -> None:
  """Sets `{'dotted.path': value}` in place.

  Below `encoding` any path is taken (`encodings.make` checks hyperparameters), also
  `encoding.scaling.factor` where there is no `encoding.scaling` yet; and `{'encoding':
  dict(name=...)}` replaces the whole section. Raises `UserError` for an unknown path or a value of
  another type.
  """
  for path, value in overrides.items():
    *sections, key = path.split('.')
    section = config
    is_hyperparameter = sections[:1] == [OPEN] and path != f'{OPEN}.name'
    for name in sections:
      if is_hyperparameter and isinstance(section, ConfigDict) and section.get(name) is None:
        _set(section, name, ConfigDict())
      if not isinstance(section, ConfigDict) or name not in section:
        _refuse_unknown(path, config)
      section = section[name]
    if path == OPEN:
      if not isinstance(value, dict | ConfigDict) or not isinstance(dict(value).get('name'), str):
        example = "a dict with a name, such as dict(name='rope')"
        raise UserError(f'config.{path}={value!r}: allowed: {example}')
      _set(config, OPEN, ConfigDict(dict(value)))
    elif is_hyperparameter and isinstance(section, ConfigDict):
      _set(section, key, ConfigDict(value) if isinstance(value, dict) else value)
    elif not isinstance(section, ConfigDict) or key not in section:
      _refuse_unknown(path, config)
    else:
      section[key] = typed(path, value, section[key])


def _set(section: ConfigDict, key: str, value: object) -> None:
  """Sets a key whatever type its value had: `encodings.make` says which types it takes."""
  with section.unlocked():
    if key in section:
      del section[key]
    section[key] = value


def _refuse_unknown(path: str, config: ConfigDict) -> None:
  names = list(flat(config))
  if closest(path, names) is None:
    section = path.partition('.')[0]
    names = [name for name in names if name.startswith(f'{section}.')] or list(config.keys())
  raise UserError(f'config.{path}: no such field; {nearest(path, names)}')


def typed(path: str, value: object, old: object) -> object:
  """`value` in the type of the value that it replaces.

  An int may stand for a float; and for a tuple a list, a single element, or, if the elements are
  words, 'one,two'. Raises `UserError` for any other type.
  """
  if isinstance(old, float) and type(value) is int:
    return float(value)
  if isinstance(old, tuple) and isinstance(value, str) and isinstance((*old, '')[0], str):
    return tuple(word.strip() for word in value.split(',') if word.strip())
  if old and isinstance(old, tuple) and isinstance(value, int | float):
    value = (value,)
  if isinstance(old, tuple) and isinstance(value, tuple | list):
    return tuple(typed(path, v, old[0]) for v in value) if old else tuple(value)
  if type(value) is not type(old):
    like = f'like {old!r}'
    if isinstance(old, ConfigDict):
      like = f'fields below it, such as {next(iter(old))}'
    raise UserError(
      f'config.{path}={value!r}: is {type(value).__name__}; allowed: {type(old).__name__}, {like}'
    )
  return value


def cache_folder(cache: str) -> Path:
  """`config.data.cache` as a folder; '' is posenc_jax in the user's cache folder."""
  if cache:
    return Path(cache).expanduser()
  return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'posenc_jax'
