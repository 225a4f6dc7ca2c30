"""The architecture as the folder listing shows it: imports go downward only."""

import ast
import inspect
import re
import typing
from pathlib import Path

import pytest

from posenc_jax.config import flat, load
from posenc_jax.encodings import ENCODINGS, Encoding
from posenc_jax.encodings.core.hyperparameters import KINDS, fits
from scripts import encoding_table

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / 'posenc_jax'

# Lowest first. A module imports from its own level's folder and from levels above its own in this
# list.
LEVELS = (
  {'errors'},
  {'jsonl_store', 'xla_ops', 'tasks', 'distributed'},
  {'encodings'},
  {'attention'},
  {'config'},
  {'model'},
  {'data'},
  {'training'},
  {'evaluation'},
  {'reporting'},
  {'sweep'},
)
WITHOUT_JAX = ('errors', 'jsonl_store', 'tasks', 'config', 'reporting', 'sweep')


def imports(path: Path, top_level_only: bool = False) -> set[str]:
  tree = ast.parse(path.read_text())
  found = set()
  for node in tree.body if top_level_only else ast.walk(tree):
    if isinstance(node, ast.Import):
      found |= {name.name for name in node.names}
    elif isinstance(node, ast.ImportFrom):
      found |= {f'{node.module}.{name.name}' for name in node.names}
  return found


def unit(module: str) -> str:
  return module.split('.')[1]


MODULES = sorted(p for p in PACKAGE.rglob('*.py') if p != PACKAGE / '__init__.py')


@pytest.mark.parametrize('path', MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_downward(path):
  level = {name: n for n, names in enumerate(LEVELS) for name in names}
  here = path.relative_to(PACKAGE).parts[0].removesuffix('.py')
  for module in imports(path):
    if module.startswith('posenc_jax.') and unit(module) in level:
      other = unit(module)
      assert other == here or level[other] < level[here], f'{here} imports {other}'
  if here in WITHOUT_JAX:
    assert not {m.split('.')[0] for m in imports(path)} & {'jax', 'flax', 'optax', 'orbax'}


def test_attention_names_no_encoding_and_every_module_has_a_level():
  for path in (PACKAGE / 'attention').glob('*.py'):
    concrete = {m for m in imports(path) if m.startswith('posenc_jax.encodings')}
    assert all(m.startswith('posenc_jax.encodings.base') for m in concrete), path
  known = set().union(*LEVELS)
  assert {p.relative_to(PACKAGE).parts[0].removesuffix('.py') for p in MODULES} == known


@pytest.mark.parametrize('path', MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_stay_readable(path):
  lines = len(path.read_text().splitlines())
  is_one_encoding = path.parent.name == 'encodings'
  assert lines <= (100 if is_one_encoding else 280)


def test_no_default_at_the_point_of_use():
  """All defaults stand in configs/base.py."""
  for path in [
    *MODULES,
    *ROOT.glob('*.py'),
    *(ROOT / 'scripts').glob('*.py'),
    *(ROOT / 'configs').glob('*.py'),
  ]:
    for node in ast.walk(ast.parse(path.read_text())):
      if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == 'get'
      ):
        assert 'config' not in ast.unparse(node.func.value), f'{path}:{node.lineno}'


def test_every_field_of_the_config_is_read():
  source = '\n'.join(path.read_text() for path in MODULES if path.parent.name != 'config')
  for path in flat(load(ROOT / 'configs' / 'base.py', {})):
    assert re.search(rf'\.{path.split(".")[-1]}\b', source), f'config.{path}: nothing reads it'


def test_readme_lists_the_encodings_as_they_are():
  """Where it does not: what `python scripts/explain.py --map` prints goes there."""
  readme, made = (ROOT / 'README.md').read_text(), encoding_table.markdown()
  section = readme[readme.index('## Encodings') : readme.index('\nBackends: ')]
  assert section.partition('\n\n')[2].splitlines() == made.splitlines()


@pytest.mark.parametrize('name', ENCODINGS)
def test_every_encoding_says_what_the_table_of_them_needs(name):
  """`weights` and `claims` beside `paper`, in few words; what takes it is what its hooks leave
  alone.
  """
  kind = ENCODINGS[name]
  weights, claims = encoding_table.said(kind, 'weights'), encoding_table.said(kind, 'claims')
  assert 0 < len(weights) <= 50
  assert claims is None or 0 < len(claims) <= 90
  cells = encoding_table.row(name)
  assert len(cells) == len(encoding_table.COLUMNS)
  assert all(cells)
  places, cost, backends = cells[1], cells[3], cells[4]
  fused = 'scores' not in places and 'values' not in places and 'width' not in cost
  assert backends == ('all' if fused else '`dense`, `blockwise`')


@pytest.mark.parametrize(
  ('name', 'cost'),
  [
    ('nope', 'none'),
    ('learned', 'tokens, once'),
    ('shaw', 'queries x rows, weights x rows'),
    ('deberta', 'queries x rows, keys x rows'),
    ('alibi', 'bias by distance'),
    ('fox', 'tokens, adding'),
    ('pope', 'tokens, width x 2'),
    ('xpos', 'tokens, K multiply-adds, elementwise'),  # q . k again
    ('dape', 'bias by distance, 96 multiply-adds, elementwise'),  # (2H 32 + 32 H) / H
    ('cope', 'sums along keys, elementwise'),
  ],
)
def test_cost_is_what_hooks_do(name, cost):
  assert encoding_table.row(name)[3] == cost


def test_an_encoding_that_says_nothing_of_itself_is_told_what_to_add(monkeypatch):
  """What another encoding says of itself is not inherited."""
  bare = type('Bare', (Encoding,), {'weights': 'none'})
  child = type('Child', (ENCODINGS['rope'],), {})
  for kind, attribute in ((bare, 'claims'), (child, 'weights'), (child, 'claims')):
    monkeypatch.setitem(ENCODINGS, 'toy', kind)
    with pytest.raises(
      ValueError,
      match=f"{kind.__name__}: `{attribute}` is missing beside `paper`, .*{attribute} = '",
    ):
      encoding_table.said(kind, attribute)


@pytest.mark.parametrize('name', ENCODINGS)
def test_hyperparameters_are_annotated_and_their_defaults_fit(name):
  parameters = inspect.signature(ENCODINGS[name].__init__, eval_str=True).parameters.values()
  for p in [p for p in parameters if p.kind is p.KEYWORD_ONLY]:
    kinds = typing.get_args(p.annotation) or [p.annotation]
    assert {typing.get_origin(kind) or kind for kind in kinds} <= set(KINDS), (
      f'{name}: annotate {p.name}'
    )
    assert fits(p.default, p.annotation), f'{name}: {p.name}={p.default!r} is no {p.annotation}'
