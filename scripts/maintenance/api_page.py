"""Prints the page docs/api.md: what a program of one's own may import.

  python scripts/maintenance/api_page.py > docs/api.md

Arguments are those of signatures. Words are the first sentences of docstrings and, of constants, of
the comments above them. Tests hold docs/api.md to what is printed here, and NAMES to what README
and docs/ import.
"""

import functools
import importlib
import inspect
import re
import sys
from collections.abc import Collection, Iterator

import posenc_jax
from posenc_jax import __version__, cli

# Beside all of `posenc_jax.__all__`: what README, docs/ and studies import, what functions return,
# what hooks are given and what is raised.
CONFIG = ('BASE', 'load', 'load_study', 'product', 'vary', 'with_rates', 'saved_config', 'to_json')
NAMES = {
  'posenc_jax': posenc_jax.__all__,
  'posenc_jax.config': CONFIG,
  'posenc_jax.attention.tiled.tile': ('ScoreTile',),
  'posenc_jax.data': ('Batch',),
  'posenc_jax.encodings': ('hyperparameters', 'hyperparameter_docs'),
  'posenc_jax.encodings.rope': ('ByAngles', 'RoPE', 'split_pairs'),
  'posenc_jax.errors': ('UserError', 'Damaged', 'Stopped'),
  'posenc_jax.evaluation.runs': ('Run',),
  'posenc_jax.evaluation.scoring': ('Score',),
  'posenc_jax.inspection.laws': ('LAWS', 'Verdict'),
  'posenc_jax.inspection.profiles': ('against_distance',),
  'posenc_jax.model.decoder': ('LM',),
  'posenc_jax.model.kv_cache': ('empty_cache', 'take_layers', 'decode'),
  'posenc_jax.model.layer': ('Layer',),
  'posenc_jax.model.layer_pattern': ('LayerPattern',),
  'posenc_jax.reporting.mpl.figures': ('draw',),
  'posenc_jax.reporting.row_files': ('read',),
  'posenc_jax.reporting.study': ('Report', 'load'),
  'posenc_jax.reporting.table': ('Table',),
  'posenc_jax.rows.row_schema': ('KEY_FIELDS', 'OPTIONAL', 'row'),
  'posenc_jax.storage': ('append_rows',),
}
LITERALS = (type(None), bool, int, float, str, tuple, dict)
LONGEST = 20  # characters of a default that is shown
PROPERTIES = (property, functools.cached_property)
HEAD = f"""\
# What a program of your own may import

This page is for those who call posenc_jax from code of their own: all names of `posenc_jax`, and of
its modules what [README](../README.md), the pages here and studies import, what functions return,
what hooks are given and what is raised. Words are the first sentence of a docstring, which
`help(posenc_jax.attend)` prints whole; `...` stands for a default that is long, and [these
letters](../CONTRIBUTING.md#alphabet) for sizes. What else a class of an encoding may declare, such
as `relative`, stands in [base.py](../posenc_jax/encodings/core/base.py).

How to use them: [attend.md](attend.md) (attention in a model of yours),
[encodings.md](encodings.md#an-encoding-of-your-own) (an encoding of yours),
[evaluate.md](evaluate.md#a-run-in-python) (runs, scores, rows) and
[studies.md](studies.md#write-a-study) (configs, tables, figures).

This is version {__version__}. Nothing promises that a later one has the same names and arguments;
what [CONTRIBUTING.md](../CONTRIBUTING.md#adding-an-encoding-to-this-repository) keeps is what
hyperparameters of encodings, options of tasks and names of optimizers and schedules compute.

`python scripts/maintenance/api_page.py` prints this page.
"""


def markdown() -> str:
  """The page: of each part a table of names, and one of the methods of its classes, if any."""
  parts = {'`posenc_jax`': exported('posenc_jax', '')}
  parts['Modules'] = [row for m in NAMES if m != 'posenc_jax' for row in exported(m, f'{m}.')]
  kinds = [value for found in parts.values() for _, value in found if inspect.isclass(value)]
  page = [HEAD]
  for title, found in parts.items():
    page += [f'## {title}\n', table(found)]
    of_classes = [method for _, x in found if x in kinds for method in methods(x, kinds)]
    if of_classes:
      page += ['### Methods and properties\n', table(of_classes)]
  return '\n'.join(page)


def exported(module: str, prefix: str) -> list[tuple[str, object]]:
  """(name, value) of what the page lists of a module."""
  there = importlib.import_module(module)
  return [(f'{prefix}{name}', getattr(there, name)) for name in NAMES[module]]


def methods(kind: type, kinds: Collection[type]) -> Iterator[tuple[str, object]]:
  """(name, value) of public methods and properties of a class, and of its base classes up to the
  first that is listed itself. What a class defines anew without a docstring stands at that one.
  """
  for base in kind.__mro__:
    if not base.__module__.startswith('posenc_jax.') or (base in kinds and base is not kind):
      return
    for name, value in vars(base).items():
      is_method = inspect.isfunction(value) or isinstance(value, PROPERTIES)
      is_new = not any(name in vars(other) for other in base.__mro__[1:])
      is_said_anew = inspect.isfunction(value) and value.__doc__
      is_public = name == '__call__' or not name.startswith('_')
      if is_method and is_public and (is_new or is_said_anew):
        yield f'{kind.__name__}.{name}', value


def table(found: list[tuple[str, object]]) -> str:
  rows = [(f'`{name}{arguments(value)}`', words(name, value)) for name, value in found]
  escaped = [[cell.replace('|', r'\|') for cell in cells] for cells in rows]
  lines = [f'| {" | ".join(cells)} |\n' for cells in escaped]
  return ''.join(['| name | what it is |\n|:--|:--|\n', *lines])


def arguments(value: object) -> str:
  """In parentheses, without types; '' of what is not called, or has Python's own `__init__`."""
  function = value
  if inspect.isclass(value):  # of classes of NNX the signature itself says nothing
    function = value.__new__ if issubclass(value, tuple) else value.__init__
  if not inspect.isfunction(function):
    return ''
  given = inspect.signature(function).parameters.values()
  shown = [shortened(p) for p in given if p.name not in ('self', '_cls')]
  return str(inspect.Signature(shown)).replace('Ellipsis', '...')


def shortened(p: inspect.Parameter) -> inspect.Parameter:
  is_shown = p.default is p.empty or (
    isinstance(p.default, LITERALS) and len(repr(p.default)) <= LONGEST
  )
  return p.replace(annotation=p.empty, default=p.default if is_shown else ...)


def words(name: str, value: object) -> str:
  """The first sentence of a docstring, or of the comment above a constant."""
  is_constant = not (callable(value) or isinstance(value, PROPERTIES))
  doc = comment_above(name.rpartition('.')[2], value) if is_constant else value.__doc__ or ''
  paragraph = ' '.join(inspect.cleandoc(doc).partition('\n\n')[0].split())
  # A full stop, no product (q . k), and no abbreviation: these stand before small letters, numbers.
  sentence = re.match(r'.*?[^\s.]\.(?=$|\s[^a-z\d\s])', paragraph)
  return sentence[0] if sentence else paragraph


def comment_above(name: str, value: object) -> str:
  for path, module in [*sys.modules.items()]:
    if path.startswith('posenc_jax.') and vars(module).get(name) is value:
      above = re.search(rf'((?:^# .*\n)+){name}\b.* = ', inspect.getsource(module), re.MULTILINE)
      if above:
        return above[1].replace('# ', '')
  return ''


def main(argv):
  cli.parse_args(argv, {}, takes_overrides=False)
  print(markdown(), end='')


if __name__ == '__main__':
  cli.main(main)
