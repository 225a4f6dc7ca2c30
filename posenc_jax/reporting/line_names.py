"""Names of lines: a line is named by what tells it from other lines of its label, once."""

import json
import re
from collections import defaultdict
from collections.abc import Callable

from posenc_jax.reporting.captions import join_unique


def line_names(
  rows: list[dict], label_of: Callable, group_fields: tuple[str, ...], notes: list[str]
) -> list[str]:
  """The line of each row: its label, then what differs within the label, each field once."""
  labels = [label_of(row) for row in rows]
  settings = [_settings(row, group_fields) for row in rows]
  by_label = defaultdict(dict)
  for label, row, setting in zip(labels, rows, settings, strict=True):
    by_label[label].setdefault(tuple(setting.items()), row)
  for field in group_fields:
    values = {
      label: {_text(row[field]) for row in some.values()} for label, some in by_label.items()
    }
    different = set().union(*values.values())
    if any(len(of_label) > 1 for of_label in values.values()):
      notes.append(f'mixed {field}, each a line of its own: {join_unique(different)}')
    elif len(different) > 1:
      each = '; '.join(f'{label} {value}' for label, (value,) in values.items())
      notes.append(f'{field} differs between lines: {each}')
  keys = {
    label: _differing_keys([dict(setting) for setting in by_label[label]]) for label in by_label
  }
  names = [
    ', '.join([label, *(setting[key] for key in keys[label] if key in setting)])
    for label, setting in zip(labels, settings, strict=True)
  ]
  return _split_by_run(names, rows, notes)


def _settings(row: dict, fields: tuple[str, ...]) -> dict[str, str]:
  """{field or overridden field: what the name of a line says of it}."""
  settings = {field: f'{field} {_text(row[field])}' for field in fields if field != 'overrides'}
  overrides = sorted((row['overrides'] or {}).items())
  return settings | {key: f'{key}={_text(value)}' for key, value in overrides}


def _text(value: object) -> str:
  return json.dumps(value).replace('"', '')


def _differing_keys(settings: list[dict[str, str]]) -> list[str]:
  """The keys that tell settings apart; without an overridden field that a field of rows repeats."""

  def count(keys):
    return len({tuple(map(setting.get, keys)) for setting in settings})

  keys = dict.fromkeys(key for setting in settings for key in setting)
  differing = [key for key in keys if count([key]) > 1]
  for key in list(differing):
    others = [other for other in differing if other != key]
    section, _, field = key.rpartition('.')
    if section and field in others and count(others) == count(differing):
      differing = others
  return differing


def _split_by_run(names: list[str], rows: list[dict], notes: list[str]) -> list[str]:
  """Adds the run to the names of lines that have several runs of one seed.

  Runs that are equal but for their seed stay one line where that is enough to tell runs apart.
  """
  for shorten in (lambda run: re.sub(r'(^|,)seed=\d+', '', run), str):
    runs = defaultdict(set)
    for line, row in zip(names, rows, strict=True):
      runs[line, row['seed']].add(row['run'])
    crowded = sorted({line for (line, _), of_seed in runs.items() if len(of_seed) > 1})
    notes += [f'several runs of one seed, each a line of its own: {line}' for line in crowded]
    names = [
      f'{line} [{shorten(row["run"])}]' if line in crowded else line
      for line, row in zip(names, rows, strict=True)
    ]
  return names
