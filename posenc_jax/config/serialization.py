"""Configurations on disk, and how two of them differ."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict

from posenc_jax import storage
from posenc_jax.errors import DISK_ERRORS, Damaged, UserError, one_line, shown

# Sections and fields that may differ between a training and what is done with it later.
NOT_TRAINING = ('eval', 'label')
# Sections and fields that say where a run takes place and who follows it. But for rounding on
# another mesh, no number depends on these.
NO_RESULT = ('launch', 'mesh', 'data.cache', 'train.trackers', 'train.profile_steps')

# Fields that say what is kept of a training, which changes no number either. They stay in the hash
# of a config, for what is finished.
CHECKPOINT_FIELDS = ('train.checkpoint_every', 'train.max_to_keep', 'train.keep_every')

# Fields that came when many runs had been made, each with the value that says what these did: a run
# without the field has it, and hashes are the same with it as without.
ADDED = {'optim.name': 'adamw', 'train.keep_every': 0, 'train.first_batch': 0}
ADDED |= {'model.lora_rank': 0, 'model.lora_alpha': 16.0, 'model.lora_matrices': []}
ADDED |= {'launch.warning_seconds': 120, 'train.init_step': 0}

# Likewise fields that a run may lack, of before ADDED: these are in the hashes that were kept.
HASHED_ADDED = {
  'optim.decay': 'cosine',
  'optim.decay_steps': 0,
  'optim.encoding_multiple': 1.0,
  'optim.epsilon': 1e-8,
  'data.packing': 'none',
}

# Fields that are gone, each with the value of which the fields of now say all. `packed=True` joined
# documents for training as no value of `data.packing` does.
REMOVED = {'data.packed': False}

OWN_TOKENIZER = Path('tokenizer') / 'tokenizer.json'  # in the directory of a run that keeps one


def saved_config(workdir: str | Path, *read: str) -> ConfigDict:
  """The config of the run in this directory. The tokenizer that an import left there is named where
  it lies now, whatever lies where the run was made.

  `read`: the sections and fields that the caller reads, 'section' or 'section.field', for another
  version of posenc_jax may have had others.

  Raises UserError if it is missing or damaged or lacks what is read, OSError if it cannot be read.
  """
  path = Path(workdir) / 'config.json'
  remedy = 'the file that train.py wrote, or another workdir'
  try:
    tree = _with_added(storage.read_json(path, remedy=remedy))
    own, data = Path(workdir) / OWN_TOKENIZER, tree.get('data')
    # A run that was tuned from there keeps the name that it began with: it is in its hash.
    is_import = str(dict(leaves(tree)).get('train.init_from')).startswith('sha256:')
    if is_import and isinstance(data, dict) and storage.exists(own):
      tree['data'] = data | {'tokenizer': str(own)}
    config = from_json(tree)
  except (FileNotFoundError, NotADirectoryError):
    runs = sorted(Path(workdir).glob('*/config.json'))
    holds = f', but it holds runs, such as {runs[0].parent}' if runs else ''
    allowed = 'the directory of a run that train.py or scripts/import_model.py made'
    raise UserError(
      f'workdir={shown(str(workdir))}: no config.json{holds}; allowed: {allowed}'
    ) from None
  except OSError as error:
    if error.errno in DISK_ERRORS:
      raise
    raise UserError(f'{shown(str(path))}: {error.strerror}; allowed: {remedy}') from None
  except Damaged:
    raise
  except (ValueError, RecursionError) as error:  # a name with a dot in it, or nested too deeply
    raise Damaged(f'{path} is damaged: {one_line(error)}; allowed: {remedy}') from None
  if lacking := [field for field in read if not _has(tree, *field.split('.'))]:
    raise of_another_version(workdir, f'lacks {lacking[0]}')
  return config


def of_another_version(workdir: str | Path, differing: str) -> UserError:
  """The error of a run whose config is not as this version has it."""
  problem = f'config.json of another version of posenc_jax: it {differing}'
  allowed = 'the version that made it, or another run'
  return UserError(f'workdir={str(workdir)!r}: {problem}; allowed: {allowed}')


def _has(tree: object, *path: str) -> bool:
  """Whether a JSON tree has what stands at this path."""
  for key in path:
    if not isinstance(tree, dict) or key not in tree:
      return False
    tree = tree[key]
  return True


def _with_added(tree: dict) -> dict:
  """The JSON tree of a config of any version with the fields of this one."""
  tree = dict(tree)
  for path, value in (ADDED | HASHED_ADDED).items():
    section, name = path.split('.')
    if isinstance(tree.get(section), dict):
      tree[section] = {name: value} | tree[section]
  for path, value in REMOVED.items():
    section, name = path.split('.')
    if isinstance(tree.get(section), dict) and tree[section].get(name) is value:
      del tree[section][name]
  return tree


def to_json(tree):
  """A config, or a part of one, as plain dicts, lists and scalars; `from_json` inverts it."""
  if isinstance(tree, dict | ConfigDict):
    return {key: to_json(value) for key, value in tree.items()}
  return [to_json(value) for value in tree] if isinstance(tree, tuple | list) else tree


def from_json(tree: dict) -> ConfigDict:
  """The locked configuration of `to_json`'s tree; lists become tuples."""
  return ConfigDict(_with_tuples(tree)).lock()


def _with_tuples(tree):
  if isinstance(tree, dict):
    return {key: _with_tuples(value) for key, value in tree.items()}
  return tuple(_with_tuples(value) for value in tree) if isinstance(tree, list) else tree


def leaves(config: ConfigDict | dict, prefix: str = '') -> Iterator[tuple[str, object]]:
  """('dotted.path', value) of every field."""
  for key, value in config.items():
    if isinstance(value, dict | ConfigDict) and value:
      yield from leaves(value, f'{prefix}{key}.')
    else:
      yield f'{prefix}{key}', value


def flat(config: ConfigDict | dict) -> dict[str, object]:
  """`{'dotted.path': value}` of a configuration or of its JSON tree, with lists for tuples."""
  return {path: to_json(value) for path, value in leaves(config)}


def differing_keys(a: ConfigDict | dict, b: ConfigDict | dict) -> list[str]:
  """Dotted paths that only one of two configurations has, or that differ in value or type."""
  a, b = ({key: json.dumps(value) for key, value in flat(x).items()} for x in (a, b))
  return sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))


def training_part(config: ConfigDict) -> dict:
  """The JSON tree of what decides the trained parameters and the logs of the training."""
  tree = _deciding(to_json(config), '')
  return {key: value for key, value in tree.items() if key not in NOT_TRAINING}


def decides_results(path: str) -> bool:
  """Whether numbers depend on the field of this dotted path."""
  return not f'{path}.'.startswith(tuple(f'{name}.' for name in NO_RESULT))


def _deciding(tree: dict, prefix: str) -> dict:
  kept = {key: value for key, value in tree.items() if decides_results(prefix + key)}
  return {
    key: _deciding(value, f'{prefix}{key}.') if isinstance(value, dict) else value
    for key, value in kept.items()
  }


def config_hash(config: ConfigDict) -> str:
  """16 hexadecimal digits of all that decides results. By them finished.json lists what is
  finished, and study.json says what is planned.
  """
  tree = _deciding(to_json(config), '')
  for path, value in ADDED.items():
    section, name = path.split('.')
    if tree.get(section, {}).get(name) == value:
      del tree[section][name]
  # On any mesh a run is the same one. The section itself stays in the hash, for what is finished.
  tree['mesh'] = dict.fromkeys(config.mesh, 1)
  if source := tree['train'].get('init_from'):
    # Folders may move, and each of several seeds starts from its own.
    name = Path(source).name or source
    own_name = name.removesuffix(f',seed={config.seed}')
    tree['train'] = {**tree['train'], 'init_from': own_name}
  return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]
