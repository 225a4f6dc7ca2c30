"""Configurations from files, with overrides laid over them."""

import difflib
import importlib.util
from pathlib import Path
from types import ModuleType

from ml_collections import ConfigDict

from posenc_jax.config.serialization import flat
from posenc_jax.errors import UserError, nearest

# the one section whose keys are not known here: they are the encoding's hyperparameters
OPEN = 'encoding'


def load_study(path: str | Path) -> ModuleType:
  """Executes a configuration file: a module with `get_config()` and, if it is a study, `sweep()`,
  `table()`, ...

  Raises `UserError` where there is no such file or it defines no `get_config`.
  """
  path = Path(path)
  if not path.is_file():
    siblings = [str(p) for p in path.parent.glob('*.py')] or [f'no .py file in {path.parent}']
    raise UserError(f'config: no file {str(path)!r}; {nearest(path, siblings)}')
  spec = importlib.util.spec_from_file_location(path.stem, path)
  if spec is None:
    raise UserError(
      f'config: {str(path)!r} is not a Python file; allowed: a file such as configs/base.py'
    )
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not hasattr(module, 'get_config'):
    raise UserError(
      f'config: {str(path)!r} has no get_config(); allowed: a file such as configs/base.py'
    )
  return module


def load(path: str | Path, overrides: dict[str, object]) -> ConfigDict:
  """The configuration of a file with overrides laid over it, locked. Raises `UserError`."""
  config = load_study(path).get_config().lock()
  overlay(config, overrides)
  return config


def overlay(config: ConfigDict, overrides: dict[str, object]) -> None:
  """Sets `{'dotted.path': value}` in place. Raises `UserError` for an unknown path or a value of
  another type.

  Below `encoding` any path is taken (`encodings.make` checks hyperparameters),
  `encoding.scaling.factor` too where there is no `encoding.scaling` yet, and `{'encoding':
  dict(name=...)}` replaces the whole section.
  """
  for path, value in overrides.items():
    *sections, key = path.split('.')
    section = config
    is_hyperparameter = sections[:1] == [OPEN] and path != f'{OPEN}.name'
    for name in sections:
      if (
        is_hyperparameter
        and isinstance(section, ConfigDict)
        and (name not in section or section[name] is None)
      ):
        _set(section, name, ConfigDict())
      if not isinstance(section, ConfigDict) or name not in section:
        _unknown(path, config)
      section = section[name]
    if path == OPEN:
      if not isinstance(value, dict | ConfigDict) or not isinstance(dict(value).get('name'), str):
        raise UserError(
          f"config.{path}={value!r}: allowed: a dict with a name, such as dict(name='rope')"
        )
      with config.unlocked():
        config[OPEN] = ConfigDict(dict(value))
      config.lock()
    elif is_hyperparameter and isinstance(section, ConfigDict):
      _set(section, key, ConfigDict(value) if isinstance(value, dict) else value)
    elif not isinstance(section, ConfigDict) or key not in section:
      _unknown(path, config)
    else:
      section[key] = typed(path, value, section[key])


def _set(section: ConfigDict, key: str, value: object) -> None:
  """Whatever stood there: types are what `encodings.make` takes."""
  with section.unlocked():
    if key in section:
      del section[key]
    section[key] = value


def _unknown(path: str, config: ConfigDict) -> None:
  names = list(flat(config))
  section = path.partition('.')[0]
  near = difflib.get_close_matches(path, names, n=1)
  names = near or [n for n in names if n.startswith(f'{section}.')] or list(config.keys())
  raise UserError(f'config.{path}: no such field; {nearest(path, names)}')


def typed(path: str, value: object, old: object) -> object:
  """`value` as the type of the value that it replaces.

  An int may stand for a float; for a tuple a list, one element, or, where they are words,
  'one,two'.
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
    allowed = (
      f'fields below it, such as {next(iter(old))}'
      if isinstance(old, ConfigDict)
      else f'like {old!r}'
    )
    raise UserError(
      f'config.{path}={value!r}: is {type(value).__name__}; allowed: {type(old).__name__}, {allowed}'
    )
  return value
