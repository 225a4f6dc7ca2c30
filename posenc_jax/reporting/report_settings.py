"""What `table()` and `figures()` of a study may return: plain data, checked before the first run.

The same checks meet what study.json holds, which may be anyone's.
"""

import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping

from ml_collections import ConfigDict

from posenc_jax import tasks
from posenc_jax.errors import UserError, closest, hint, nearest, shown, visible
from posenc_jax.protocols import CONTROLS, PROTOCOLS
from posenc_jax.reporting import table_forms
from posenc_jax.reporting.metrics import METRICS
from posenc_jax.reporting.mpl import figures
from posenc_jax.reporting.mpl.curves import DASHES
from posenc_jax.reporting.table_forms.effective_lengths import FORM, OF_BASELINE, OF_LINE
from posenc_jax.reporting.table_forms.published import check_reference
from posenc_jax.rows.row_schema import MAX_COUNT, is_count, is_number, is_text

MOST = 100  # tables or figures of a study
MOST_RUNS = 100_000
MOST_CHARACTERS = 1_000_000  # of all settings together
DEEPEST = 10  # levels of dicts and lists
LONGEST = 200  # characters of a text
LONGEST_ABOUT = 2000  # characters of the text on what models have in common
FIGURE_NAME = re.compile(r'\w[\w .,=+-]{0,59}')
LENGTHS = {'form': 'lengths'}  # the form that settings without one have
OF_LINES = ('labels', 'references')  # settings that name lines by label
# The share of a metric's or protocol's name that one of a user's own may have in common with it:
# 'accuracy' is no misspelt 'token_accuracy'.
ALIKE = 0.8


def _are_names(value: object) -> bool:
  return type(value) is list and 0 < len(value) <= MOST and all(is_text(v, LONGEST) for v in value)


def _is_baseline(value: object) -> bool:
  if type(value) is not dict:
    return is_text(value, LONGEST)
  texts = [*value, *value.values()]
  return 0 < len(value) <= MOST and all(is_text(v, LONGEST) for v in texts)


def _are_controls(value: object) -> bool:
  is_known = type(value) is list and all(type(v) is str and v in CONTROLS for v in value)
  return is_known and len({*value}) == len(value) <= len(DASHES)


# For each setting of any form: whether a value may stand there, and what may. `reference` has a
# check of its own.
VALUES: dict[str, tuple[Callable[[object], bool], str]] = {
  **dict.fromkeys(
    ('metric', 'protocol'),
    (lambda value: is_text(value, LONGEST), f'a text of at most {LONGEST} characters'),
  ),
  'baseline': (
    _is_baseline,
    f'a text of at most {LONGEST} characters, or {{label: baseline}} of at most {MOST} labels',
  ),
  'controls': (lambda value: type(value) is bool, 'True, False'),
  'drawn_controls': (_are_controls, f'at most {len(DASHES)} of ' + ', '.join(CONTROLS)),
  **dict.fromkeys(('protocols', *OF_LINES), (_are_names, "one or more names, such as ('last_k',)")),
  'score_to_keep': (lambda value: value in (OF_LINE, OF_BASELINE), f'{OF_LINE}, {OF_BASELINE}'),
  'length': (lambda value: is_count(value, 1), f'tokens, 1 to {MAX_COUNT}'),
}


def check_tables(where: str, wanted: object) -> list[dict]:
  """The settings of tables as JSON data: `wanted` is a dict of them, or several in a list.

  Args:
    where: what the settings are of, such as 'configs/quick.py: table()'; messages begin with it.
  Raises:
    UserError: for anything else, and for settings that no form has.
  """
  wanted = as_json(where, [wanted] if isinstance(wanted, Mapping) else wanted)
  if type(wanted) is not list or not all(type(settings) is dict for settings in wanted):
    raise UserError(f'{where} is {shown(wanted)}; allowed: a dict of settings, or a list of these')
  _check_number(where, wanted)
  for settings in wanted:
    _check(where, settings, table_forms.FORMS)
    _check_better_end(where, settings)
    if settings.get('score_to_keep') == OF_BASELINE and not settings.get('baseline'):
      raise UserError(f'{where}: score_to_keep={OF_BASELINE!r}; allowed: with the field baseline')
  return wanted


def with_baseline(where: str, tables: list[dict], baseline: str) -> list[dict]:
  """The settings of tables, in which those that compare lines have this baseline. Raises UserError
  for what can be none, and where no table compares lines.
  """
  form_of = lambda settings: table_forms.FORMS[{**LENGTHS, **settings}['form']]
  takes_one = [
    'baseline' in inspect.signature(form_of(settings)).parameters
    and settings.get('metric') in (None, *_with_better_end())
    and (settings.get('form') != FORM or settings.get('score_to_keep') == OF_BASELINE)
    for settings in tables
  ]
  if not any(takes_one):
    raise UserError(f'{where}={baseline}: no table here compares lines')
  changed = [
    settings | {'baseline': baseline} if takes else settings
    for settings, takes in zip(tables, takes_one, strict=True)
  ]
  return check_tables(where, changed)


def check_figures(where: str, wanted: object) -> dict[str, dict]:
  """The settings of figures as JSON data: {name of the file: settings}. Raises UserError."""
  wanted = as_json(where, wanted)
  if type(wanted) is not dict or not all(type(settings) is dict for settings in wanted.values()):
    raise UserError(f'{where} is {shown(wanted)}; allowed: {{name: dict of settings}}')
  _check_number(where, wanted)
  for name, settings in wanted.items():
    if not FIGURE_NAME.fullmatch(name):
      allowed = 'the name of a file without .png, of at most 60 letters, digits and _ .,=+-'
      raise UserError(f'{where}: {shown(name)} names a figure; allowed: {allowed}')
    _check(f'{where}[{name!r}]', settings, figures.FORMS)
  return wanted


def check_about(where: str, wanted: object) -> str:
  """The text on what all models of a study have in common, in one line. Raises UserError."""
  if type(wanted) is not str or len(wanted) > LONGEST_ABOUT:
    allowed = f'a text of at most {LONGEST_ABOUT} characters'
    raise UserError(f'{where}={shown(wanted)}; allowed: {allowed}')
  return visible(' '.join(wanted.split()))


def check_names(where: str, names: list, noun: str = 'runs') -> list[str]:
  """Names of what `noun` says, made printable. Raises UserError for what can be none."""
  if len(names) > MOST_RUNS:
    raise UserError(f'{where}: {len(names)} {noun}; allowed: at most {MOST_RUNS}')
  for name in names:
    if not is_text(name, 255):
      raise UserError(f'{where}: {noun}: {shown(name)}; allowed: names of 1 to 255 characters')
  return list(map(visible, names))


def check_planned(
  where: str, every_settings: Iterable[dict], planned: Iterable[ConfigDict]
) -> None:
  """Raises UserError for a baseline or protocols that no run of the study will have, and for a
  label that is almost one of the study's.

  Args:
    planned: the configs of all runs.
  """
  labels, protocols = set(), set()
  for c in planned:
    labels.add(visible(c.label or c.encoding.name))
    is_task = tasks.is_task(c.data.corpus)
    task = c.data.corpus.removeprefix(tasks.PREFIX).partition('/')[0]
    protocols |= {task} if is_task else {*c.eval.protocols}
  for settings in every_settings:
    wanted = settings.get('baseline')
    for baseline in [*wanted, *wanted.values()] if type(wanted) is dict else filter(None, [wanted]):
      # The name of a line is a label, or begins with it: 'rope, L = 128, 600 steps'.
      begins = baseline.startswith(tuple(f'{label}{end}' for label in labels for end in ', '))
      if baseline not in labels and not begins:
        raise UserError(
          f'{where}: baseline={baseline!r} is no label of the study; {nearest(baseline, labels)}'
        )
    for name, label in ((field, x) for field in OF_LINES for x in settings.get(field, ())):
      # one that is far from all may be that of an n-gram, which no study plans
      if label not in labels and (near := hint(label, labels)):
        raise UserError(f'{where}: {name}: {label!r} is no label of the study; {near}')
    wanted = settings.get('protocols') or [settings.get('protocol')]
    if wanted != [None] and not protocols & {*wanted}:
      allowed = ', '.join(sorted(protocols))
      raise UserError(f'{where}: protocols={wanted}: no run is evaluated so; allowed: {allowed}')


def as_json(where: str, value: object, depth: int = 0) -> object:
  """The value as JSON data: tuples as lists, whole numbers that are keys as text.

  Raises UserError for what is no data, such as a set or a function.
  """
  if depth > DEEPEST:
    raise UserError(f'{where}: dicts and lists in each other; allowed: at most {DEEPEST} levels')
  if isinstance(value, Mapping):
    for key in value:
      if type(key) not in (str, int):
        raise UserError(f'{where}: the key {shown(key)}; allowed: text and whole numbers')
    return {visible(str(key)): as_json(where, v, depth + 1) for key, v in value.items()}
  if type(value) in (list, tuple):
    return [as_json(where, v, depth + 1) for v in value]
  if type(value) is str:
    return visible(value)
  if value is None or type(value) is bool or is_number(value):
    return value
  raise UserError(
    f'{where}: {shown(value)} is {type(value).__name__}; '
    'allowed: text, finite numbers, True, False, None, and dicts, lists and tuples of these'
  )


def _check_number(where: str, wanted: list | dict) -> None:
  if len(wanted) > MOST:
    raise UserError(f'{where}: {len(wanted)} of them; allowed: at most {MOST}')
  if len(json.dumps(wanted)) > MOST_CHARACTERS:
    raise UserError(f'{where}: settings of more than {MOST_CHARACTERS} characters')


def _check(where: str, settings: dict, forms: dict[str, Callable]) -> None:
  """Raises UserError for a form or a setting that there is not, and for values of other types."""
  form = {**LENGTHS, **settings}['form']
  if type(form) is not str or form not in forms:
    raise UserError(f'{where}: form={shown(form)}; {nearest(form, forms)}')
  parameters = inspect.signature(forms[form]).parameters
  allowed = parameters.keys() - {'rows', 'runs'} | {'form'}
  for name, value in settings.items():
    if name not in allowed:
      raise UserError(f'{where}: no setting {shown(name)} of {form}; {nearest(name, allowed)}')
    may_be_none = name in parameters and parameters[name].default is None
    if name == 'form' or (value is None and may_be_none):
      continue
    if name == 'reference':
      check_reference(f'{where}: ', value)
      continue
    holds, what = VALUES[name]
    if not holds(value):
      raise UserError(f'{where}: {name}={shown(value)}; allowed: {what}')
    _check_known(where, name, value)


def _check_known(where: str, name: str, value: object) -> None:
  """Raises UserError for a name that is almost one of those known here; rows may have others."""
  known = {
    'metric': METRICS,
    'protocol': {*PROTOCOLS, *tasks.TASKS},
    'protocols': {*PROTOCOLS, *tasks.TASKS},
  }
  for word in value if type(value) is list else [value]:
    near = closest(word, known[name], ALIKE) if name in known else word
    if near not in (None, word):
      raise UserError(f'{where}: {name}={shown(value)}; did you mean {near!r}?')


def _with_better_end() -> list[str]:
  return [name for name, metric in METRICS.items() if metric.best is not None]


def _check_better_end(where: str, settings: dict) -> None:
  """Raises UserError for a comparison by a metric of which neither more nor less is better, such as
  one of a user's own.
  """
  name = settings.get('metric')
  if name is not None and settings.get('baseline') and name not in _with_better_end():
    allowed = f'a metric with a better end: {", ".join(_with_better_end())}'
    raise UserError(f'{where}: metric={name!r} compared; allowed: {allowed}')
