"""Names of lines: a line is named by its label and by what tells it from the lines of the study.

'rope' keeps its name whatever is evaluated once more: that stands beside it as 'rope, k 32' or
'rope (scaling.factor=4)'.
"""

import functools
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Collection

from posenc_jax.reporting.captions import corpus_names, join_unique
from posenc_jax.reporting.row_files import START, without_seed
from posenc_jax.rows.overrides import DOCUMENTS
from posenc_jax.rows.row_schema import is_of_model, overrides_text

# Fields that a further evaluation of a run may change.
OF_EVALUATION = ('corpus', 'split', 'stride', 'k')


def line_names(
  rows: list[dict],
  label_of: Callable,
  group_fields: tuple[str, ...],
  notes: list[str],
  place_of: Callable[[dict], int] = lambda row: 0,
) -> list[str]:
  """The line of each row: its label, then what sets it apart.

  A field is said where it differs within the label; one that an evaluation may change, only where
  its value is not that of most runs; of several such values the first counts, by `place_of`, the
  place of a row in what was read. An override is said where it differs within the label, and always
  if it changes the model that was trained; which documents a folder has, only where rows of it
  differ.
  """
  labels = [label_of(row) for row in rows]
  overrides = _overrides(rows)
  # tens of thousands of rows have few values among them; typed: 1 is not True
  once = functools.lru_cache(maxsize=None, typed=True)(_text)
  corpora = corpus_names(row['corpus'] for row in rows)
  texts = []
  for row, changed in zip(rows, overrides, strict=True):
    shown = row | {'corpus': corpora[row['corpus']]}
    texts.append({f: _text(changed) if f == 'overrides' else once(shown[f]) for f in group_fields})
  by_label, overrides_of = defaultdict(list), defaultdict(dict)
  for label, changed, of_row in zip(labels, overrides, texts, strict=True):
    by_label[label].append(of_row)
    overrides_of[label][of_row['overrides']] = changed or {}
  fields = [field for field in group_fields if field != 'overrides']
  usual = {
    field: _usual(rows, texts, field, place_of) for field in fields if field in OF_EVALUATION
  }
  differing = {
    label: {
      *(field for field in fields if len({of_row[field] for of_row in some}) > 1),
      *_differing_overrides(overrides_of[label].values()),
    }
    for label, some in by_label.items()
  }
  for field in group_fields:
    notes += _notes_of_field(field, by_label)
  names = []
  for label, changed, of_row in zip(labels, overrides, texts, strict=True):
    name = label
    for field in fields:
      if field in differing[label] and of_row[field] != usual.get(field):
        name += f', {field} {of_row[field]}'
    said = {
      key: value
      for key, value in (changed or {}).items()
      if key in differing[label] or is_of_model(key)
    }
    names.append(f'{name} ({overrides_text(said)})' if said else name)
  return _split_by_config(_split_by_run(names, rows, notes), rows, notes)


def _overrides(rows: list[dict]) -> list[dict | None]:
  """The overrides of each row, without the documents of a folder that are the same in all rows."""
  documents_of = defaultdict(set)
  for row in rows:
    documents_of[row['corpus']].add((row['overrides'] or {}).get(DOCUMENTS))
  found = []
  for row in rows:
    changed = row['overrides']
    if changed and DOCUMENTS in changed and len(documents_of[row['corpus']]) == 1:
      changed = {key: value for key, value in changed.items() if key != DOCUMENTS} or None
    found.append(changed)
  return found


def _usual(
  rows: list[dict], texts: list[dict[str, str]], field: str, place_of: Callable
) -> str | None:
  """The value of a field that most runs have, and of several such values the first."""
  runs, first = defaultdict(set), {}
  for row, of_row in zip(rows, texts, strict=True):
    value = of_row[field]
    runs[value].add(row['run'])
    first[value] = min(place_of(row), first.get(value, math.inf))
  return min(runs, key=lambda value: (-len(runs[value]), first[value]), default=None)


def _differing_overrides(overrides: Collection[dict]) -> set[str]:
  """The overridden fields that not all of these overrides have with one value."""
  keys = {key for some in overrides for key in some}
  absent = object()  # no value that a row can have
  return {
    key
    for key in keys
    if len({_text(some[key]) if key in some else absent for some in overrides}) > 1
  }


def _notes_of_field(field: str, by_label: dict[str, list[dict[str, str]]]) -> list[str]:
  """The note, in a list, that says which values a field has, if it has several."""
  values = {label: {of_row[field] for of_row in some} for label, some in by_label.items()}
  different = set().union(*values.values())
  if any(len(of_label) > 1 for of_label in values.values()):
    return [f'mixed {field}, each a line of its own: {join_unique(different)}']
  if len(different) > 1:
    return [f'{field} differs between lines: {_each(values)}']
  return []


def _each(values: dict[str, set[str]]) -> str:
  """The one value of each label; of more than half of many with one value, that for the others."""
  one_of = {label: value for label, (value,) in values.items()}
  usual = statistics.mode(one_of.values())
  others = {label: value for label, value in one_of.items() if value != usual}
  is_usual = len(one_of) > 3 and len(others) < len(one_of) / 2
  each = '; '.join(f'{label} {value}' for label, value in (others if is_usual else one_of).items())
  return f'{each}; others {usual}' if is_usual else each


def _text(value: object) -> str:
  return json.dumps(value).replace('"', '')


def _split_by_run(names: list[str], rows: list[dict], notes: list[str]) -> list[str]:
  """Adds the run to the names of lines that have several runs of one seed.

  Runs that are equal but for their seed stay one line where that is enough to tell runs apart.
  """
  for shorten in (without_seed, str):
    runs = defaultdict(set)
    for line, row in zip(names, rows, strict=True):
      runs[line, row['seed']].add(row['run'])
    crowded = sorted({line for (line, _), run_names in runs.items() if len(run_names) > 1})
    notes += [f'several runs of one seed, each a line of its own: {line}' for line in crowded]
    names = [
      f'{line} [{shorten(row["run"])}]' if line in crowded else line
      for line, row in zip(names, rows, strict=True)
    ]
  return names


def _split_by_config(names: list[str], rows: list[dict], notes: list[str]) -> list[str]:
  """Adds what runs of one line, which have other seeds, differ in besides, where their configs or
  the code of their encodings are known (`row_files.of_runs`).
  """
  configs, codes = defaultdict(dict), defaultdict(lambda: defaultdict(set))
  for line, row in zip(names, rows, strict=True):
    if 'config' in row:
      configs[line][row['run']] = row['config']
    for field, sha256 in row.get('code', {}).items():
      codes[line][field].add(sha256)
  # runs that keep no hash of their code, as those of earlier versions, are taken as they are
  differing = {
    line: [
      *sorted(_differing_overrides(configs[line].values())),
      *sorted(field for field, some in codes[line].items() if len(some) > 1),
    ]
    for line in dict.fromkeys(names)
  }
  notes += [
    f'runs of {line} differ in {", ".join(fields)}, each value a line of its own'
    for line, fields in differing.items()
    if fields
  ]
  starts = {
    line: _differing_overrides(
      [start for of_run in some.values() if isinstance(start := of_run.get(START), dict)]
    )
    for line, some in configs.items()
  }
  split = []
  for line, row in zip(names, rows, strict=True):
    values = row.get('config', {}) | row.get('code', {})
    own = {field: values[field] for field in differing[line] if field in values}
    if isinstance(start := own.get(START), dict):
      own[START] = {field: start[field] for field in sorted(starts[line] & start.keys())}
    split.append(', '.join([line, *(f'{field} {_text(value)}' for field, value in own.items())]))
  return split
