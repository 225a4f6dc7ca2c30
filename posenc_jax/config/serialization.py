"""Configurations on disk, and what of them differs."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict

from posenc_jax.errors import UserError

NOT_TRAINING = ('eval', 'label')  # may differ between a training and what is done with it later
# Where a run takes place and who looks on: no number depends on them, but for rounding on another
# mesh.
NO_RESULT = ('launch', 'mesh', 'data.cache', 'train.trackers', 'train.profile_steps')


def saved_config(workdir: str | Path) -> ConfigDict:
  """The config that the directory's run was made with. Raises `UserError` where there is no run or
  it is damaged.
  """
  path = Path(workdir) / 'config.json'
  if not path.exists():
    raise UserError(
      f'workdir={str(workdir)!r}: no config.json; allowed: the directory of a run that train.py made'
    )
  try:
    return from_json(json.loads(path.read_text()))
  except ValueError as error:
    raise UserError(
      f'{path} is damaged: {error}; allowed: the file that train.py wrote, or another workdir'
    ) from None


def to_json(config: ConfigDict) -> dict:
  """Plain dicts, lists and scalars; `from_json` inverts it."""
  return _plain(config)


def _plain(x):
  if isinstance(x, dict | ConfigDict):
    return {key: _plain(value) for key, value in x.items()}
  return [_plain(value) for value in x] if isinstance(x, tuple | list) else x


def from_json(tree: dict) -> ConfigDict:
  """The locked configuration of `to_json`'s tree; lists become tuples."""

  def frozen(x):
    if isinstance(x, dict):
      return {k: frozen(v) for k, v in x.items()}
    return tuple(frozen(v) for v in x) if isinstance(x, list) else x

  return ConfigDict(frozen(tree)).lock()


def leaves(config: ConfigDict | dict, prefix: str = '') -> Iterator[tuple[str, object]]:
  """('dotted.path', value) of every field."""
  for key, value in config.items():
    if isinstance(value, dict | ConfigDict) and value:
      yield from leaves(value, f'{prefix}{key}.')
    else:
      yield prefix + key, value


def flat(config: ConfigDict | dict) -> dict[str, object]:
  """`{'dotted.path': value}` of a configuration or of its JSON tree, lists for tuples."""
  return {path: _plain(value) for path, value in leaves(config)}


def differing_keys(a: ConfigDict | dict, b: ConfigDict | dict) -> list[str]:
  """Dotted paths that only one of two configurations has, or that differ in value or type."""
  a, b = ({key: json.dumps(value) for key, value in flat(x).items()} for x in (a, b))
  return sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))


def training_part(config: ConfigDict) -> dict:
  """What decides the trained parameters and the training's logs: no `eval` or `label`, nothing of
  NO_RESULT.
  """
  return {k: v for k, v in _of_results(to_json(config), '').items() if k not in NOT_TRAINING}


def decides_results(path: str) -> bool:
  """Whether numbers depend on the field of this dotted path: it is none of NO_RESULT and lies in
  none of them.
  """
  return not f'{path}.'.startswith(tuple(f'{name}.' for name in NO_RESULT))


def _of_results(tree: dict, prefix: str) -> dict:
  kept = {k: v for k, v in tree.items() if decides_results(prefix + k)}
  return {k: _of_results(v, f'{prefix}{k}.') if isinstance(v, dict) else v for k, v in kept.items()}


def config_hash(config: ConfigDict) -> str:
  """16 hexadecimal digits of everything but NO_RESULT; names what `finished.json` finished."""
  # for any mesh: what earlier versions finished keeps its hash
  one_device = dict.fromkeys(config.mesh, 1)
  tree = {
    **training_part(config),
    **{k: to_json(config)[k] for k in NOT_TRAINING},
    'mesh': one_device,
  }
  return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]
