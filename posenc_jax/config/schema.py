"""The schema: checks a configuration, its fields one by one and how they fit each other.

It takes any tree, also one that a stranger's file or a mistaken study made. What needs jax is
checked elsewhere, before anything is compiled: encodings and backends by `model.decoder.build`,
corpora by `data.corpus`; for all runs of a study together, by `evaluation.preflight`.
"""

import math
from collections.abc import Mapping

from ml_collections import ConfigDict

from posenc_jax import tasks
from posenc_jax.config import relations
from posenc_jax.config.checks import MAX_DEPTH, Check, text
from posenc_jax.config.fields import FIELDS, SECTIONS, TASK_FIELDS, TEXT_FIELDS
from posenc_jax.config.serialization import leaves
from posenc_jax.errors import UserError, nearest_field, shown


def validate(config: ConfigDict, is_trained: bool = False) -> None:
  """Raises `UserError`, which names field, value and what is allowed, for what may be in no config.

  A run that is trained may be evaluated on a task that has no examples of its training length, and
  on a corpus or by a backend for which a field of its training has no effect.
  """
  fields = _known_fields(config)
  _check_values(fields, FIELDS)
  task = tasks.of_corpus(config.data.corpus)
  _check_values(fields, TEXT_FIELDS if task is None else TASK_FIELDS)
  fitting = [relations.seeds, relations.sizes, relations.training]
  fitting += [relations.windows] * (task is None)
  fitting += [relations.effects, relations.lora, relations.backends] * (not is_trained)
  for relation in fitting:
    for path, holds, allowed in relation(config):
      if not holds:
        _refuse(path, fields[path], allowed)
  if task is not None:
    relations.check_lengths(config, task, is_trained)


def validate_data(config: ConfigDict) -> None:
  """Raises `UserError` for what may not be in `data`, and for lengths of the evaluation.

  It is for those who only look at a corpus: the other fields may be meant for another one.
  """
  fields = _known_fields(config)
  of_data = lambda checks: {path: checks[path] for path in checks if path.startswith('data.')}
  _check_values(fields, of_data(FIELDS) | {'eval.lengths': FIELDS['eval.lengths']})
  by_corpus = TEXT_FIELDS if tasks.of_corpus(config.data.corpus) is None else TASK_FIELDS
  _check_values(fields, of_data(by_corpus))


def _known_fields(config: ConfigDict) -> dict[str, object]:
  """{'dotted.path': value}. Raises `UserError` for fields that base.py lacks or alone has."""
  _check_sections(config)
  fields = dict(leaves(config))
  for path in fields:
    if path not in FIELDS and not path.startswith('encoding.'):
      raise UserError(f'config.{path}: no such field; {nearest_field(path, FIELDS)}')
  for path in FIELDS:
    if path not in fields:
      all_fields = 'all fields of configs/base.py (an earlier version left it out)'
      raise UserError(f'config.{path}: missing; allowed: {all_fields}')
  return fields


def _check_values(fields: dict[str, object], checks: dict[str, Check]) -> None:
  for path, check in checks.items():
    if allowed := check(fields[path]):
      _refuse(path, fields[path], allowed)


def _refuse(path: str, value: object, allowed: str) -> None:
  raise UserError(f'config.{path}={shown(value)}; allowed: {allowed}')


def _check_sections(config: ConfigDict) -> None:
  """Raises `UserError` where a section is none, or the encoding's hyperparameters are no tree."""
  for name in SECTIONS:
    if name and name in config and not isinstance(config[name], Mapping | ConfigDict):
      example = next(iter(SECTIONS[name]))
      raise UserError(
        f'config.{name}={shown(config[name])}; allowed: a section, with {name}.{example} and others'
      )
  for name, value in config.items():
    check_tree(str(name), value)


def check_tree(path: str, value: object, depth: int = MAX_DEPTH) -> None:
  """Raises `UserError` for what cannot be written to config.json and read back."""
  if isinstance(value, Mapping | ConfigDict | tuple | list):
    if depth == 0:
      raise UserError(f'config.{path}: nested more than {MAX_DEPTH} deep; allowed: less')
    if isinstance(value, Mapping | ConfigDict):
      for key, element in value.items():
        if text()(key) or not key:
          raise UserError(f'config.{path}: has a field {shown(key)}; allowed: names')
        check_tree(f'{path}.{key}', element, depth - 1)
      return
    for element in value:
      check_tree(path, element, depth - 1)
  elif allowed := _leaf(value):
    raise UserError(f'config.{path}={shown(value)}; allowed: {allowed}')


def _leaf(value: object) -> str | None:
  """Takes what may be a value in a config.json."""
  if isinstance(value, str):
    return text()(value)
  if isinstance(value, float):
    return None if math.isfinite(value) else 'a finite number'
  if isinstance(value, bool) or value is None:
    return None
  if not isinstance(value, int):
    return 'numbers, text, True, False, None, and tuples and dicts of these'
  return None if abs(value) <= 2**32 else f'at most {2**32} in size; more with a point, as 1e10'
