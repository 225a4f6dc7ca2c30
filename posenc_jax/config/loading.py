"""Configurations from files, with overrides laid over them."""

import contextlib
import functools
import importlib.util
import itertools
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from ml_collections import ConfigDict

from posenc_jax import storage
from posenc_jax.config.schema import validate
from posenc_jax.config.serialization import flat, saved_config, to_json, without_numpy
from posenc_jax.errors import (
  MAX_REASON,
  MAX_SHOWN,
  UserError,
  closest,
  hint,
  nearest,
  one_line,
  shown,
  user_errors,
)

MAX_RUNS = 10_000  # of a study
MAX_SECTIONS = 8  # dots in the path of an override
# The one section whose keys are not known here: they are the encoding's hyperparameters.
OPEN = 'encoding'
# Of a scaling of RoPE: the length that it starts from, and the types that are made for `factor`
# times that.
ORIGINAL = 'original_max_position_embeddings'
REACHING = ('linear', 'ntk', 'yarn', 'yarn_paper')
# What a layer of a pattern has that does not see the whole text.
MASKS = {'attention_window', 'attention_chunk'}
# Fields whose elements may have commas in them: lines for a shell, and options with lists.
WITH_COMMAS = ('config.launch.setup', 'config.launch.options')


def load_study(path: str | Path) -> ModuleType:
  """Executes a configuration file: a module with `get_config()` and, in a study, `sweep()` etc.

  Encodings that the file registers are known to this process from then on. It may import modules
  that lie beside it. What these functions return is checked when they are called. Raises
  `UserError` if there is no such file, if it raises an error, or if it defines no `get_config`; so
  does each function for an error in it.
  """
  path = Path(path)
  with user_errors(OSError):
    is_file = storage.exists(path) and path.is_file()
  if not is_file:
    raise UserError(f'config: no file {str(path)!r}; {_what_is_there(path)}')
  spec = importlib.util.spec_from_file_location(str(path.absolute()), path)
  example = 'allowed: a file such as configs/base.py'
  if spec is None:
    raise UserError(f'config: {str(path)!r} is not a Python file; {example}')
  module = importlib.util.module_from_spec(spec)
  if (beside := str(path.absolute().parent)) not in sys.path:
    sys.path.append(beside)  # last, so that no module there takes the place of another
  sys.modules[module.__name__] = module  # its whole path, which takes no other's place
  with _errors_in(path):
    spec.loader.exec_module(module)
  if not hasattr(module, 'get_config'):
    raise UserError(f'config: {str(path)!r} has no get_config(); {example}')
  for name, check in STUDY_FUNCTIONS.items():
    if hasattr(module, name):
      setattr(module, name, _checked(path, name, getattr(module, name), check))
  return module


@contextlib.contextmanager
def _errors_in(path: Path, function: str = '') -> Iterator[None]:
  """Turns an error in a configuration file into a `UserError` that names file, function and line.

  A study that ends the process by itself is an error too.
  """
  try:
    yield
  except UserError:
    raise
  except (Exception, SystemExit) as error:
    names = (str(path), str(path.absolute()))
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename in names]
    if isinstance(error, SyntaxError) and error.filename in names:
      lines, reason = [error.lineno or 0], error.msg
    else:
      reason = one_line(error, MAX_REASON)
    where = f'{path}:{lines[-1]}' if lines else str(path)
    within = f' in {function}()' if function else ''
    kind = type(error).__name__
    allowed = 'a file such as configs/base.py'
    raise UserError(f'config: {where}{within}: {kind}: {reason}; allowed: {allowed}') from error


def _checked(
  path: Path, name: str, function: object, check: tuple[Callable[[object], bool], str] | None
) -> Callable[[], object]:
  """The function of a study, with its errors in one line and its check made."""
  if not callable(function):
    raise UserError(f'config: {path}: {name}={shown(function)}; allowed: a function')

  @functools.wraps(function)
  def call():
    with _errors_in(path, name):
      value = function()
      if isinstance(value, Iterator):  # a generator, whose errors come while it is read
        value = list(itertools.islice(value, MAX_RUNS + 1))
    if check and not check[0](value):
      raise UserError(f'config: {path}: {name}() returns {shown(value)}; allowed: {check[1]}')
    return without_numpy(value) if check else value

  return call


def _is_sweep(value: object) -> bool:
  return (
    isinstance(value, list | tuple)
    and 0 < len(value) <= MAX_RUNS
    and all(isinstance(run, dict) and all(isinstance(path, str) for path in run) for run in value)
  )


# What the functions of a study return: whether a value is that, and in words. None: settings, which
# reporting.report_settings checks.
STUDY_FUNCTIONS = {
  'get_config': (lambda value: isinstance(value, ConfigDict), 'a ConfigDict'),
  'lines': (_is_sweep, f'1 to {MAX_RUNS} dicts of overrides in a list'),
  'sweep': (
    _is_sweep,
    f"1 to {MAX_RUNS} dicts of overrides in a list, such as [{{'seed': 0}}, {{'seed': 1}}]",
  ),
  'table': None,
  'figures': None,
}


def _what_is_there(path: Path) -> str:
  """Names the deepest folder of the path that exists, and what in it could be meant."""
  if path.is_dir():
    return 'it is a folder; allowed: a file such as configs/base.py'
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
  config = study.get_config()
  with user_errors(Exception):  # references that a study has set up wrongly raise many kinds
    config = config.copy_and_resolve_references()
    _replace_numpy(config)
  overlay(config.lock(), overrides or {})
  return config


def trained_config(workdir: str | Path, overrides: dict[str, object]) -> ConfigDict:
  """The config of the trained run in a directory, with overrides, checked. A line says what another
  scaling of RoPE comes to. Raises `UserError`, also where that is made for less than the run was
  trained at, by an original length that the overrides do not say.
  """
  config = saved_config(workdir)
  before, L = _scalings(to_json(config.encoding)), config.train.length
  overlay(config, overrides)
  validate(config, is_trained=True)
  is_said = any(ORIGINAL in f'{path} {value}' for path, value in overrides.items())
  own = f', in the place of {" and ".join(_in_words(said, L)[0] for said in before)}'
  for scaling in _scalings(to_json(config.encoding)):
    if scaling in before:
      continue
    words, reach = _in_words(scaling, L)
    if reach is not None and reach < L and ORIGINAL in scaling and not is_said:
      needed = (
        f'the length that is wanted / {scaling[ORIGINAL]:,}, {L / scaling[ORIGINAL]:g} or more'
      )
      problem = f'is made for {reach:,.0f} tokens, and the run was trained at {L:,}'
      allowed = f'a factor of {needed}; or with scaling.{ORIGINAL}'
      raise UserError(f'config.encoding.scaling: {words} {problem}; allowed: {allowed}')
    made = '' if reach is None else f', made for {reach:,.0f} tokens'
    print(f'{workdir}: {words}{made}{own if before else ""}; trained at {L:,}')
  return config


def _scalings(encoding: object) -> list[dict]:
  """The scalings of RoPE, each once, in a section `encoding`, its layers and its members."""
  if isinstance(encoding, list):
    found = [scaling for part in encoding for scaling in _scalings(part)]
  elif isinstance(encoding, dict):
    own = encoding.get('scaling')
    found = [own] if isinstance(own, dict) else _scalings([*encoding.values()])
  else:
    found = []
  return [scaling for n, scaling in enumerate(found) if scaling not in found[:n]]


def _in_words(scaling: dict, train_length: int) -> tuple[str, float | None]:
  """(a scaling of RoPE in words, the length that it is made for); None: it is made for none."""
  kind = str(scaling.get('rope_type') or scaling.get('type'))
  factor, original = scaling.get('factor'), scaling.get(ORIGINAL) or train_length
  if type(factor) not in (int, float) or type(original) is not int:
    return kind, None
  return f'{kind} by {factor:g} from {original:,}', factor * original if kind in REACHING else None


def _replace_numpy(section: ConfigDict) -> None:
  with section.unlocked(), section.ignore_type():
    for key, value in section.items():
      if isinstance(value, ConfigDict):
        _replace_numpy(value)
      else:
        section[key] = without_numpy(value)


def overlay(config: ConfigDict, overrides: dict[str, object]) -> None:
  """Sets `{'dotted.path': value}` in place.

  Below `encoding` any path is taken (`encodings.make` checks hyperparameters), also
  `encoding.scaling.factor` where there is no `encoding.scaling` yet; and `{'encoding':
  dict(name=...)}` replaces the whole section, before hyperparameters are set. Another `rope_type`
  drops the fields of the one before, but for the length that both start from. In a pattern,
  `encoding.FIELD` is set in the layers that are rope and see the whole text. A chain put in the
  place of an encoding that is one of its members keeps that one's hyperparameters there. Raises
  `UserError` for an unknown path or a value of another type.
  """
  overrides = without_numpy(overrides)
  if OPEN in config:
    encoding = to_json(config[OPEN])
    overrides = _put_in_chain(encoding, _set_in_layers(encoding, overrides))
  # stable: of a whole section and a name alone, the later one counts
  is_within = lambda item: item[0].startswith(f'{OPEN}.') and item[0] != f'{OPEN}.name'
  for path, value in sorted(overrides.items(), key=is_within):
    *sections, key = path.split('.')
    section = config
    is_hyperparameter = sections[:1] == [OPEN] and path != f'{OPEN}.name'
    if is_hyperparameter:
      _check_names(path, (*sections, key))
    for name in sections:
      if is_hyperparameter and isinstance(section, ConfigDict) and section.get(name) is None:
        _set(section, name, ConfigDict())
      if not isinstance(section, ConfigDict) or name not in section:
        _refuse_unknown(path, config)
      section = section[name]
    if path == OPEN:
      if not isinstance(value, dict | ConfigDict) or not isinstance(dict(value).get('name'), str):
        example = "a dict with a name, such as dict(name='rope'), or config.encoding.name"
        raise UserError(f'config.{path}={shown(value)}: allowed: {example}')
      _set(config, OPEN, _section(path, value))
    elif is_hyperparameter and isinstance(section, ConfigDict):
      if key == 'rope_type' and value not in (section.get('rope_type'), section.get('type')):
        own = [name for name in section if path.removesuffix(key) + name in overrides]
        _drop_all_but(section, [*own, ORIGINAL])
      _set(section, key, _section(path, value) if isinstance(value, dict) else value)
    elif not isinstance(section, ConfigDict) or key not in section:
      _refuse_unknown(path, config)
    else:
      section[key] = typed(f'config.{path}', value, section[key])


def _set_in_layers(encoding: object, overrides: dict[str, object]) -> dict[str, object]:
  """The overrides, where the encoding is a pattern with its fields set in layers.

  Those are its layers of RoPE that see all tokens. Overrides stay as they are where they name
  another encoding or the layers, and where there is no such layer.
  """
  if not isinstance(encoding, dict) or encoding.get('name') != 'pattern':
    return overrides
  own = {path: value for path, value in overrides.items() if path.startswith(f'{OPEN}.')}
  is_new = OPEN in overrides or f'{OPEN}.layers' in own or own.get(f'{OPEN}.name') == 'pattern'
  layers = encoding.get('layers')
  layers = layers.split(',') if isinstance(layers, str) else layers
  if not own or is_new or not isinstance(layers, list):
    return overrides
  layers = [{'name': layer} if isinstance(layer, str) else layer for layer in layers]
  is_taken = [
    isinstance(layer, dict) and layer.get('name') == 'rope' and not MASKS & layer.keys()
    for layer in layers
  ]
  if not any(is_taken):
    return overrides
  for n, layer in enumerate(layers):
    if is_taken[n]:
      section = ConfigDict({OPEN: layer})
      overlay(section, own)
      layers[n] = to_json(section)[OPEN]
  others = {path: value for path, value in overrides.items() if path not in own}
  return others | {OPEN: {'name': 'pattern', 'layers': tuple(layers)}}


def _put_in_chain(encoding: object, overrides: dict[str, object]) -> dict[str, object]:
  """The overrides, where they put a chain in the place of an encoding with hyperparameters: these
  go into the member of its name, beside what that says itself.

  Overrides stay as they are where no member, or more than one, has this name.
  """
  name, path = f'{OPEN}.name', f'{OPEN}.members'
  members = overrides.get(path)
  members = members.split(',') if isinstance(members, str) else members
  is_chain = overrides.get(name) == 'chain' and OPEN not in overrides
  has_own = isinstance(encoding, dict) and encoding.keys() - {'name'}
  if not is_chain or not has_own or not isinstance(members, list | tuple):
    return overrides
  members = [{'name': spec} if isinstance(spec, str) else spec for spec in members]
  is_own = [isinstance(spec, dict) and spec.get('name') == encoding.get('name') for spec in members]
  if is_own.count(True) != 1:
    return overrides
  members[is_own.index(True)] = encoding | members[is_own.index(True)]
  others = {key: value for key, value in overrides.items() if key not in (name, path)}
  return others | {OPEN: {'name': 'chain', 'members': tuple(members)}}


def _drop_all_but(section: ConfigDict, names: list[str]) -> None:
  with section.unlocked():
    for name in set(section) - set(names):
      del section[name]


def _check_names(path: str, names: tuple[str, ...]) -> None:
  """Raises `UserError` where names of a path, or below it, cannot be those of hyperparameters."""
  for name in names:
    if not _is_name(name) or path.count('.') > MAX_SECTIONS:
      allowed = f'letters, digits and underscores, and at most {MAX_SECTIONS} dots'
      where = f'a field named {shown(name)} in {shown(path)}'
      raise UserError(f'config: {where}; allowed: {allowed}')


def _is_name(name: object) -> bool:
  """Whether a hyperparameter may have this name; those of ConfigDict's methods are taken."""
  return isinstance(name, str) and name.isidentifier() and not hasattr(ConfigDict, name)


def _section(path: str, tree: dict | ConfigDict) -> ConfigDict:
  """The section that a dict describes."""
  _check_names(path, tuple(tree.keys()))
  section = ConfigDict()
  for name, value in tree.items():
    is_section = isinstance(value, dict | ConfigDict)
    section[name] = _section(f'{path}.{name}', value) if is_section else value
  return section


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
  shown_path = path if path.isprintable() and len(path) <= MAX_SHOWN else shown(path)
  raise UserError(f'config.{shown_path}: no such field; {nearest(path, names)}')


def typed(name: str, value: object, old: object) -> object:
  """`value` in the type of the value that it replaces; `name` is for the message.

  An int may stand for a float; and for a tuple a list, a single element, or, if the elements are
  words, 'one,two'; a comma in one of WITH_COMMAS divides nothing. Raises `UserError` for any other
  type.
  """
  if isinstance(old, float) and type(value) is int and abs(value) < 2**1000:
    return float(value)
  if isinstance(old, tuple) and isinstance(value, str) and isinstance((*old, '')[0], str):
    words = [value] if name in WITH_COMMAS else value.split(',')
    return tuple(word.strip() for word in words if word.strip())
  if isinstance(old, tuple) and isinstance(value, int | float):
    value = (value,)
  if isinstance(old, tuple) and isinstance(value, tuple | list):
    return tuple(typed(name, v, old[0]) for v in value) if old else tuple(value)
  if type(value) is not type(old):
    like = f'like {old!r}'
    if isinstance(old, ConfigDict):
      like = f'fields below it, such as {next(iter(old))}'
    kind = type(old).__name__
    raise UserError(f'{name}={shown(value)}: is {type(value).__name__}; allowed: {kind}, {like}')
  return value
