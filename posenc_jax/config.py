"""Run configurations: loading, overriding, checking, saving and comparing them. Imports no jax.

A configuration is a locked `ml_collections.ConfigDict`, all fields and defaults in `configs/base.py`. An override is
`{'dotted.path': value}`. A study takes another file as its base by
`load(pathlib.Path(__file__).with_name('base.py'), {'train.steps': 400})`.
"""

import ast
import contextlib
import difflib
import hashlib
import importlib.util
import itertools
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

from ml_collections import ConfigDict

REQUIRED = object()  # the default of a flag that must be given
OPEN = 'encoding'  # the one section whose keys are not known here: they are the encoding's hyperparameters
NOT_TRAINING = ('eval', 'label')  # may differ between a training and what is done with it later
PROTOCOLS = ('last_k', 'blocks')


class UserError(ValueError):
  """Bad input. Its message is one line that names the field, the value and what is allowed."""

  code = 2


class Stopped(RuntimeError):
  """A run that ends early but in order: one line, and the exit code of its process."""

  def __init__(self, message: str, code: int = 1):
    super().__init__(message)
    self.code = code


def nearest(name: object, names: Iterable[str]) -> str:
  """'did you mean ...' for a misspelt name, or the list of names where none is near."""
  names = sorted(names)
  close = difflib.get_close_matches(str(name), names, n=1)
  return f'did you mean {close[0]!r}?' if close else f'allowed: {", ".join(names)}'


@contextlib.contextmanager
def user_errors(*kinds: type[Exception]) -> Iterator[None]:
  """Turns errors of these kinds, raised where the user's configuration is checked, into one-line `UserError`s."""
  try:
    yield
  except kinds as error:
    raise UserError(' '.join(str(error).split())) from error


# Loading


def load_study(path: str | Path) -> ModuleType:
  """Executes a configuration file: a module with `get_config()` and, if it is a study, `sweep()`, `table()`, ...

  Raises `UserError` where there is no such file or it defines no `get_config`.
  """
  path = Path(path)
  if not path.is_file():
    siblings = [str(p) for p in path.parent.glob('*.py')] or [f'no .py file in {path.parent}']
    raise UserError(f'config: no file {str(path)!r}; {nearest(path, siblings)}')
  spec = importlib.util.spec_from_file_location(path.stem, path)
  if spec is None:
    raise UserError(f'config: {str(path)!r} is not a Python file; allowed: a file such as configs/base.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not hasattr(module, 'get_config'):
    raise UserError(f'config: {str(path)!r} has no get_config(); allowed: a file such as configs/base.py')
  return module


def load(path: str | Path, overrides: dict[str, object]) -> ConfigDict:
  """The configuration of a file with overrides laid over it, locked. Raises `UserError`."""
  config = load_study(path).get_config().lock()
  overlay(config, overrides)
  return config


def overlay(config: ConfigDict, overrides: dict[str, object]) -> None:
  """Sets `{'dotted.path': value}` in place. Raises `UserError` for an unknown path or a value of another type.

  Below `encoding` any path is taken (`encodings.make` checks hyperparameters), and `{'encoding': dict(name=...)}`
  replaces the whole section.
  """
  for path, value in overrides.items():
    *sections, key = path.split('.')
    section = config
    for name in sections:
      if not isinstance(section, ConfigDict) or name not in section:
        _unknown(path, config)
      section = section[name]
    if path == OPEN:
      if not isinstance(value, dict | ConfigDict) or not isinstance(dict(value).get('name'), str):
        raise UserError(f"config.{path}={value!r}: allowed: a dict with a name, such as dict(name='rope')")
      with config.unlocked():
        config[OPEN] = ConfigDict(dict(value))
      config.lock()
    elif sections[:1] == [OPEN] and path != f'{OPEN}.name':
      with section.unlocked():
        section[key] = value
    elif not isinstance(section, ConfigDict) or key not in section:
      _unknown(path, config)
    else:
      section[key] = _typed(path, value, section[key])


def _unknown(path: str, config: ConfigDict) -> None:
  names = list(flat(config))
  section = path.partition('.')[0]
  near = difflib.get_close_matches(path, names, n=1)
  names = near or [n for n in names if n.startswith(f'{section}.')] or list(config.keys())
  raise UserError(f'config.{path}: no such field; {nearest(path, names)}')


def _typed(path: str, value: object, old: object) -> object:
  """`value` as the type of the value that it replaces (an int may stand for a float, a list for a tuple)."""
  if isinstance(old, float) and type(value) is int:
    return float(value)
  if isinstance(old, tuple) and isinstance(value, tuple | list):
    return tuple(_typed(path, v, old[0]) for v in value) if old else tuple(value)
  if type(value) is not type(old):
    allowed = f'fields below it, such as {next(iter(old))}' if isinstance(old, ConfigDict) else f'like {old!r}'
    raise UserError(f'config.{path}={value!r}: is {type(value).__name__}; allowed: {type(old).__name__}, {allowed}')
  return value


# Command lines


def parse_args(argv: list[str], flags: dict[str, object]) -> tuple[SimpleNamespace, dict[str, object]]:
  """Reads `--name=value` and `--config.a.b=value` (also with a space for the `=`).

  Args:
    argv: the arguments after the program's name.
    flags: names with defaults; `REQUIRED` where there is none. The type of the default is the flag's; None: text.
  Returns:
    The flags' values, and the overrides `{'a.b': value}`, each read as a Python literal or else kept as text.
  Raises:
    UserError: for an unknown or missing flag or a value that does not parse. SystemExit(0) for --help.
  """
  values, overrides, words = {}, {}, iter(argv)
  for word in words:
    if word in ('-h', '--help'):
      defaults = (f'--{k}' + ('' if v is REQUIRED else f' (default {v!r})') for k, v in flags.items())
      print(f'{(sys.modules["__main__"].__doc__ or "").strip()}\n\nflags: {", ".join(defaults)}, --config.FIELD=VALUE')
      sys.exit(0)
    name, equals, text = word.removeprefix('--').partition('=')
    is_override = name.startswith('config.')
    if not word.startswith('--') or not (is_override or name in flags):
      raise UserError(f'{word}: no such flag; {nearest(word, [f"--{f}" for f in (*flags, "config.FIELD")])}')
    if not equals:
      is_switch = not is_override and isinstance(flags[name], bool)
      text = 'True' if is_switch else next(words, None)
      if text is None:
        raise UserError(f'--{name}: has no value; allowed: --{name}=VALUE')
    if is_override:
      overrides[name.removeprefix('config.')] = _literal(text)
    elif flags[name] is REQUIRED or flags[name] is None or isinstance(flags[name], str):
      values[name] = text
    else:
      values[name] = _typed(name, _literal(text), flags[name])
  missing = [f'--{name}' for name, default in flags.items() if default is REQUIRED and name not in values]
  if missing:
    raise UserError(f'{", ".join(missing)}: must be given')
  return SimpleNamespace(**{**flags, **values}), overrides


def _literal(text: str) -> object:
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text


def main(function: Callable[[list[str]], int | None]) -> None:
  """Runs a script's `function(argv)`; `UserError` (exit code 2) and `Stopped` become their one line on stderr."""
  try:
    sys.exit(function(sys.argv[1:]))
  except (UserError, Stopped) as error:
    print(f'{Path(sys.argv[0]).name}: {error}', file=sys.stderr)
    sys.exit(error.code)


# Saving and comparing


def to_json(config: ConfigDict) -> dict:
  """Plain dicts, lists and scalars; `from_json` inverts it."""

  def plain(x):
    if isinstance(x, dict | ConfigDict):
      return {k: plain(v) for k, v in x.items()}
    return [plain(v) for v in x] if isinstance(x, tuple | list) else x

  return plain(config)


def from_json(tree: dict) -> ConfigDict:
  """The locked configuration of `to_json`'s tree; lists become tuples."""

  def frozen(x):
    if isinstance(x, dict):
      return {k: frozen(v) for k, v in x.items()}
    return tuple(frozen(v) for v in x) if isinstance(x, list) else x

  return ConfigDict(frozen(tree)).lock()


def flat(config: ConfigDict | dict) -> dict[str, object]:
  """`{'dotted.path': leaf}` of a configuration or of its JSON tree, lists for tuples."""
  leaves = {}

  def walk(tree, prefix):
    for key, value in tree.items():
      if isinstance(value, dict) and value:
        walk(value, f'{prefix}{key}.')
      else:
        leaves[prefix + key] = value

  walk(to_json(config), '')
  return leaves


def differing_keys(a: ConfigDict | dict, b: ConfigDict | dict) -> list[str]:
  """Dotted paths that only one of two configurations has, or that differ in value or type."""
  a, b = flat(a), flat(b)
  return sorted(key for key in a.keys() | b.keys() if json.dumps(a.get(key)) != json.dumps(b.get(key)))


def training_part(config: ConfigDict) -> dict:
  """What decides the trained parameters and the training's logs: no `eval`, no `label`, no place of prepared data."""
  tree = {k: v for k, v in to_json(config).items() if k not in NOT_TRAINING}
  return {**tree, 'data': {k: v for k, v in tree['data'].items() if k != 'cache'}}


def config_hash(config: ConfigDict) -> str:
  """16 hexadecimal digits of everything but the place of prepared data; names what `finished.json` finished."""
  tree = {**training_part(config), **{k: to_json(config)[k] for k in NOT_TRAINING}}
  return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]


# Sweeps: lists of overrides


def over(path: str, *values: object) -> list[dict]:
  """One override a value: `over('seed', 0, 1, 2)`."""
  return [{path: value} for value in values]


def fixed(overrides: dict[str, object]) -> list[dict]:
  """The sweep of one run, to multiply others by."""
  return [dict(overrides)]


def product(*sweeps: Iterable[dict]) -> list[dict]:
  """Every combination, the last sweep varying fastest. Raises `UserError` where two set the same path."""
  return [_merge(parts) for parts in itertools.product(*sweeps)]


def zipped(*sweeps: Iterable[dict]) -> list[dict]:
  """First with first, second with second. Raises `UserError` where the sweeps differ in length or set one path."""
  sweeps = [list(sweep) for sweep in sweeps]
  if len({len(sweep) for sweep in sweeps}) > 1:
    raise UserError(f'zipped: sweeps of {[len(s) for s in sweeps]} runs; allowed: equal numbers of runs')
  return [_merge(parts) for parts in zip(*sweeps, strict=True)]


def chain(*sweeps: Iterable[dict]) -> list[dict]:
  """One sweep after another."""
  return list(itertools.chain(*sweeps))


def _merge(parts: Iterable[dict]) -> dict:
  merged = {}
  for part in parts:
    if twice := merged.keys() & part.keys():
      raise UserError(f'sweep: {", ".join(sorted(twice))} set by two factors; allowed: each path once')
    merged |= part
  return merged


# Checking


def validate(config: ConfigDict) -> None:
  """Checks all that can be checked without jax. Raises `UserError` naming field, value and what is allowed.

  Encodings and backends are checked by `model.build`, corpora by `data.corpus`, before anything is compiled.
  """
  at_least = {
    1: 'model.layers model.model_dim model.heads model.head_dim model.mlp_dim train.length train.batch train.steps '
    'train.log_every train.validate_batches train.checkpoint_every train.keep eval.k eval.spans eval.batch_tokens',
    0: 'seed model.kv_heads model.unroll attention.window train.validate_every optim.warmup eval.documents '
    'eval.document_tokens',
  }
  fields = {path: value for path, value in _leaves(config)}

  def require(path, holds, allowed):
    if not holds:
      raise UserError(f'config.{path}={fields[path]!r}; allowed: {allowed}')

  def one_of(path, names):
    require(path, fields[path] in names, f'{", ".join(names)} ({nearest(fields[path], names)})')

  for bound, paths in at_least.items():
    for path in paths.split():
      require(path, fields[path] >= bound, f'{bound} or more')
  for path, value in fields.items():
    require(path, not isinstance(value, float) or math.isfinite(value), 'a finite number')
  model, attention, train, optim, evals = (config[s] for s in ('model', 'attention', 'train', 'optim', 'eval'))

  require('seed', config.seed < 2**32, 'less than 2**32')
  require('encoding.name', config.encoding.name, 'a name in posenc_jax.encodings.ENCODINGS')
  divides = model.kv_heads == 0 or model.heads % model.kv_heads == 0
  require('model.kv_heads', divides, f'a divisor of model.heads={model.heads}, or 0')
  one_of('model.share_encoding', ('paper', 'all', 'none'))
  require('model.logit_softcap', model.logit_softcap >= 0, '0 (off) or more')
  block_ok = len(attention.block) == 2 and min(attention.block) >= 0
  require('attention.block', block_ok, '(query rows, key columns), each 0 or more')

  one_of('train.compute_dtype', ('float32', 'bfloat16'))
  one_of('train.matmul_precision', ('default', 'high', 'highest'))
  require('optim.learning_rate', optim.learning_rate > 0, 'more than 0')
  require('optim.warmup', optim.warmup <= train.steps, f'at most train.steps={train.steps}')
  require('optim.final_fraction', 0 <= optim.final_fraction <= 1, '0 to 1')
  for beta in ('beta1', 'beta2'):
    require(f'optim.{beta}', 0 <= optim[beta] < 1, '0 or more, less than 1')
  for path in ('optim.weight_decay', 'optim.clip'):
    require(path, fields[path] >= 0, '0 (off) or more')

  one_of('eval.split', ('train', 'validation', 'test'))
  for name in evals.protocols:
    require('eval.protocols', name in PROTOCOLS, f'{", ".join(PROTOCOLS)} (not {name!r}; {nearest(name, PROTOCOLS)})')
  for path in ('eval.protocols', 'eval.lengths'):
    require(path, fields[path] and len(set(fields[path])) == len(fields[path]), 'one or more, none twice')
  require('eval.lengths', min(evals.lengths) >= 1, '1 or more tokens each')
  require('eval.k', evals.k <= min(evals.lengths), f'at most the shortest of eval.lengths={evals.lengths}')


def _leaves(config: ConfigDict, prefix: str = '') -> Iterator[tuple[str, object]]:
  for key, value in config.items():
    if isinstance(value, ConfigDict):
      yield from _leaves(value, f'{prefix}{key}.')
    else:
      yield prefix + key, value
