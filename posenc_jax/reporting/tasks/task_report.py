"""Tables and figures of tasks that are made though no study names them.

Exact match of n answers falls as the n-th power of the share of answers right, so at other lengths
it says little of the model: what a study prints or draws of exact match by length is followed by
the same of single answers, where rows have that. A study that names no tables or figures gets those
of all its tasks.
"""

import json
from collections.abc import Iterable

from posenc_jax.rows import row_schema

PROTOCOL = 'last_k'  # of the figure of likelihoods that a study without figures gets
EXACT = 'exact_match'
# {metric of single answers: what the name of its figure ends with}
SINGLE = {'token_accuracy': 'accuracy', 'symbol_nats': 'nats'}


def tables(wanted: list[dict], rows: Iterable[dict]) -> list[dict]:
  """The settings of the tables to make: those of a study, with the tables of single answers."""
  rows, made = list(rows), []
  for settings in with_defaults(wanted, rows):
    made += [settings, *_of_single_answers(settings, settings.get('protocols'), rows)]
  return made


def with_defaults(wanted: list[dict], rows: Iterable[dict]) -> list[dict]:
  """The settings of a study's tables; {}, of no study, as those of what rows have: text, tasks."""
  rows, made = list(rows), []
  tasks, has_text = _tasks(rows), any(row['metric'] is None for row in rows)
  for settings in wanted:
    if settings or has_text or not tasks:
      made.append(settings)
    if tasks and not settings:
      made.append({'metric': EXACT, 'protocols': tasks})
  return made


def figures(wanted: dict[str, dict], rows: Iterable[dict]) -> dict[str, dict]:
  """{name: settings} of the figures to draw: those of a study, with the figures of single answers.

  A name that the study has taken stays with its figure.
  """
  rows, made = list(rows), {}
  for name, settings in wanted.items():
    tasks = [] if settings else _tasks(rows)
    if settings or not tasks or any(row['protocol'] == PROTOCOL for row in rows):
      made[name] = settings
    free = [task for task in tasks if task not in made and not wanted.get(task)]
    made |= {task: {'protocol': task, 'metric': EXACT} for task in free}
  more = {}
  for name, settings in made.items():
    for extra in _of_single_answers(settings, [settings.get('protocol')], rows):
      more[f'{name}-{SINGLE[extra["metric"]]}'] = extra
  return more | made


def _tasks(rows: list[dict]) -> list[str]:
  """The protocols that rows have an exact match of, in the order of their names."""
  return sorted({row['protocol'] for row in rows if row['metric'] == EXACT})


def _of_single_answers(settings: dict, protocols: list[str] | None, rows: list[dict]) -> list[dict]:
  """The settings for each metric of SINGLE that rows of these protocols (None: of any) have; []
  unless `settings` are of exact match by length.
  """
  if settings.get('metric') != EXACT or settings.get('form', 'lengths') != 'lengths':
    return []
  values = {}
  for row in rows:
    if protocols is None or row['protocol'] in protocols:
      values.setdefault(row['metric'], {})[_place(row)] = row['value']
  of_study = {name: value for name, value in settings.items() if name != 'reference'}
  # where examples have one answer, its accuracy is the exact match
  return [
    of_study | {'metric': metric}
    for metric in SINGLE
    if metric in values and values[metric] != values.get(EXACT)
  ]


def _place(row: dict) -> str:
  """What a row measured but for its metric."""
  return json.dumps([row[name] for name in row_schema.KEY_FIELDS], sort_keys=True)
