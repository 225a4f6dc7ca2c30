"""Configurations from files, with overrides laid over them."""

import contextlib
import functools
import importlib.util
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from posenc_jax import storage
from posenc_jax.config.fields import FIELDS
from posenc_jax.config.overlays import MASKS, ORIGINAL, overlay, takes_mask
from posenc_jax.config.relations import EMBEDDED
from posenc_jax.config.schema import validate
from posenc_jax.config.serialization import leaves, of_another_version, saved_config, to_json
from posenc_jax.config.tokenizer_file import with_its_symbols
from posenc_jax.errors import MAX_REASON, UserError, hint, one_line, place_of, shown, user_errors

# The file of all fields of a config, with their defaults.
BASE = storage.REPOSITORY / 'configs' / 'base.py'
MAX_RUNS = 10_000  # of a study
# The types of a scaling of RoPE that are made for `factor` times the length that they start from.
REACHING = (
  *('linear', 'ntk', 'ntk_mixed', 'yarn', 'yarn_paper', 'yarn_log', 'mrrope_uni', 'mrrope_pro'),
  *('alpha_rope', 'theta_scale'),
)
# Those among them whose formula has no such length: it is known only where the scaling says it.
WITHOUT_START = ('linear', 'ntk', 'ntk_mixed')


def load_study(
  path: str | Path, needs_config: bool = True
) -> Any:  # a module, of which callers may set constants
  """Executes a configuration file, a module with `get_config()` and, in a study, `sweep()`.

  Encodings that the file registers are known to this process from then on. It may import modules
  that lie beside it. What these functions return is checked when they are called. Raises
  `UserError` if there is no such file, if it raises an error, or, where it `needs_config`, if it
  defines no `get_config`; so does each function for an error in it.
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
    # from its text: of a file edited within a second Python may take the bytecode of before
    exec(compile(path.read_bytes(), spec.origin, 'exec', dont_inherit=True), module.__dict__)
  if needs_config and not hasattr(module, 'get_config'):
    raise UserError(f'config: {str(path)!r} has no get_config(); {example}')
  for name, check in STUDY_FUNCTIONS.items():
    if hasattr(module, name):
      setattr(module, name, _checked(path, name, getattr(module, name), check))
  return module


@contextlib.contextmanager
def _errors_in(path: Path, function: str = '') -> Iterator[None]:
  """Turns an error in a configuration file into a `UserError` that names function, file and line:
  of the file itself, or of a module of the user's own that it calls.

  A study that ends the process by itself is an error too.
  """
  try:
    yield
  except UserError:
    raise
  except (Exception, SystemExit) as error:
    reason = error.msg if isinstance(error, SyntaxError) else one_line(error, MAX_REASON)
    where = place_of(error) or path
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
    is_data = check and not isinstance(value, ConfigDict)  # in a config `load` replaces them
    return storage.without_numpy(value) if is_data else value

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


def load(study: str | Path | ModuleType, overrides: dict[str, Any] | None = None) -> ConfigDict:
  """The configuration of a file, or of a study that was loaded from it, with overrides; locked. The
  symbols of a tokenizer.json that `data.vocab` leaves to it are counted.

  Raises `UserError`.
  """
  study = study if isinstance(study, ModuleType) else load_study(study)
  # a copy: a study may give out one object again and again
  config = study.get_config()
  with user_errors(Exception):  # references that a study has set up wrongly raise many kinds
    config = config.copy_and_resolve_references()
    _replace_numpy(config)
  overlay(config.lock(), overrides or {})
  return with_its_symbols(_with_plain_folder(config))


def _with_plain_folder(config: ConfigDict) -> ConfigDict:
  """The config with its folder of text as rows name it: 'texts' for 'texts/' and './texts'."""
  has_name = 'data' in config and isinstance(config.data, ConfigDict) and 'corpus' in config.data
  name = config.data.corpus if has_name else None
  if isinstance(name, str) and name and ':' not in name:
    plain = str(Path(name))  # '..' stays: behind a link it leads elsewhere
    if plain not in EMBEDDED:
      config.data.corpus = plain
  return config


def trained_config(workdir: str | Path, overrides: dict[str, Any]) -> ConfigDict:
  """The config of the trained run in a directory, with overrides, checked. A line says what another
  scaling of RoPE comes to. Raises `UserError`, also for what `check_laid_over` refuses.
  """
  saved, config = saved_config(workdir), saved_config(workdir)
  check_version(workdir, saved)
  overlay(config, overrides)
  if 'data.corpus' in overrides:
    _with_plain_folder(config)
  validate(with_its_symbols(config), is_trained=True)
  is_said = any(ORIGINAL in f'{path} {value}' for path, value in overrides.items())
  check_laid_over(saved, config, is_said)
  before, L = scalings(to_json(saved.encoding)), saved.train.length
  own = f', in the place of {" and ".join(_in_words(said, L)[0] for said in before)}'
  for scaling in scalings(to_json(config.encoding)):
    if scaling not in before:
      words, reach = _in_words(scaling, L)
      made = '' if reach is None else f', made for {reach:,.0f} tokens'
      said = f'{workdir}: {words}{made}{own if before else ""}; trained at {L:,}'
      print(said, file=sys.stderr)  # a run's text goes to stdout
  return config


def check_version(workdir: str | Path, saved: ConfigDict) -> None:
  """Raises `UserError` where the config of a run has other fields than those of this version."""
  fields = [path for path, _ in leaves(saved)]
  others = [path for path in fields if path not in FIELDS and not path.startswith('encoding.')]
  differing = [f'lacks {path}' for path in FIELDS if path not in fields]
  differing += [f'has {shown(path)}' for path in others]
  if differing:
    raise of_another_version(workdir, ', '.join(differing[:3]))


def check_laid_over(trained: ConfigDict, config: ConfigDict, is_said: bool = False) -> None:
  """Raises `UserError` for what is not to be laid over a trained model that is evaluated at once.

  That is what shows layers first tokens past their own window; and a scaling of RoPE that is made
  for less than the model was trained at, or takes the place of one of another type that starts from
  an unknown length, unless it starts from another length than any before it.

  Args:
    trained: the config that the model was trained with.
    is_said: whether somebody says what length scalings start from, be it the one of before.
  """
  _check_first_tokens(trained, config)
  before, after = (scalings(to_json(c.encoding)) for c in (trained, config))
  starts_before = [None, *(scaling.get(ORIGINAL) for scaling in before)]
  if is_said or any(scaling.get(ORIGINAL) not in starts_before for scaling in after):
    return
  L = trained.train.length
  lost = [said for said in before if said not in after and _lacks_start(said)]
  for scaling in after:
    if scaling in before:
      continue
    words, reach = _in_words(scaling, L)
    kind = scaling_type(scaling)
    if others := [scaling_type(said) for said in lost if scaling_type(said) != kind]:
      problem = f'{kind} would take the place of {others[0]}, whose start is not known'
      allowed = f'with scaling.{ORIGINAL}, the length that {others[0]} starts from'
      if kind == 'default':
        allowed = "RoPE without one, by --config.encoding=\"{'name':'rope','base':X}\""
      raise UserError(f'config.encoding.scaling: {problem}; allowed: {allowed}')
    if reach is not None and reach < L and scaling.get(ORIGINAL):
      needed = (
        f'the length that is wanted / {scaling[ORIGINAL]:,}, {L / scaling[ORIGINAL]:g} or more'
      )
      problem = f'is made for {reach:,.0f} tokens, and the run was trained at {L:,}'
      allowed = f'a factor of {needed}; or another scaling.{ORIGINAL}'
      raise UserError(f'config.encoding.scaling: {words} {problem}; allowed: {allowed}')


def _check_first_tokens(trained: ConfigDict, config: ConfigDict) -> None:
  """Raises `UserError` where first tokens are shown, as they were not in training, to layers of a
  pattern whose own window hides them: these would see them at distances that they do not know.
  """
  tokens, encoding = config.attention.sink_tokens, to_json(config.encoding)
  layers = encoding.get('layers')
  if tokens in (0, trained.attention.sink_tokens) or not isinstance(layers, list):
    return
  hides = lambda layer: MASKS & layer.keys() and not layer.get('attention_sink_tokens')
  if any(isinstance(layer, dict) and hides(layer) for layer in layers):
    problem = 'layers with a window of their own would see first tokens past it'
    flags = f'--config.encoding.attention_window=N --config.encoding.attention_sink_tokens={tokens}'
    allowed = f'{flags}, which change RoPE layers without one'
    if not takes_mask(to_json(trained.encoding)):
      allowed = ' or '.join(map(str, sorted({0, trained.attention.sink_tokens})))
    raise UserError(f'config.attention.sink_tokens={tokens}: {problem}; allowed: {allowed}')


def scalings(encoding: object) -> list[dict]:
  """The scalings of RoPE, each once, in a section `encoding`, its layers and its members."""
  if isinstance(encoding, list):
    found = [scaling for part in encoding for scaling in scalings(part)]
  elif isinstance(encoding, dict):
    own = encoding.get('scaling')
    found = [own] if isinstance(own, dict) else scalings([*encoding.values()])
  else:
    found = []
  return [scaling for n, scaling in enumerate(found) if scaling not in found[:n]]


def scaling_type(scaling: dict) -> str:
  """The type of a scaling, by its newer name or its older one."""
  return str(scaling.get('rope_type') or scaling.get('type'))


def _lacks_start(scaling: dict) -> bool:
  """Whether the length that a scaling of RoPE starts from is neither said nor that of training."""
  return scaling_type(scaling) in WITHOUT_START and scaling.get(ORIGINAL) is None


def _in_words(scaling: dict, train_length: int) -> tuple[str, float | None]:
  """(a scaling of RoPE in words, the length that it is made for); None: it is made for none."""
  kind = scaling_type(scaling)
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
        section[key] = storage.without_numpy(value)
