"""The architecture as the folder listing shows it: imports go downward only."""

import ast
import re
from pathlib import Path

import pytest
from flax import nnx

from posenc_jax.config import flat, load
from posenc_jax.encodings import ENCODINGS, make

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / 'posenc_jax'

# Lowest first. A module imports from rows above its own.
LEVELS = (
  {'products'},
  {'encodings'},
  {'attention'},
  {'model'},
  {'config', 'records', 'statistics'},
  {'data', 'optim', 'logs', 'launch', 'tables'},
  {'checkpoint'},
  {'evals', 'trainer', 'figures', 'render'},
  {'report', 'pictures'},
  {'sweep', 'bench', 'page'},
)
WITHOUT_JAX = ('config', 'records', 'statistics', 'tables', 'figures', 'sweep', 'report', 'render')


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
  is_one_encoding = path.parent.name == 'encodings' and path.name != '__init__.py'
  assert lines <= (100 if is_one_encoding else 280)


def test_no_default_at_the_point_of_use():
  """All defaults stand in configs/base.py."""
  for path in [*MODULES, *ROOT.glob('*.py'), *(ROOT / 'scripts').glob('*.py'), *(ROOT / 'configs').glob('*.py')]:
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == 'get':
        assert 'config' not in ast.unparse(node.func.value), f'{path}:{node.lineno}'


def test_every_field_of_the_config_is_read():
  source = '\n'.join(path.read_text() for path in MODULES if path.parent.name != 'config')
  for path in flat(load(ROOT / 'configs' / 'base.py', {})):
    assert re.search(rf'\.{path.split(".")[-1]}\b', source), f'config.{path}: nothing reads it'


def test_readme_lists_the_encodings_as_they_are():
  rows = re.findall(r'^\| `(\w+)` \| ([^|]*) \|', (ROOT / 'README.md').read_text(), re.MULTILINE)
  sizes = {'model_dim': 8, 'heads': 2, 'head_dim': 4, 'train_length': 8, 'rngs': nnx.Rngs(0)}
  assert rows == [(name, ', '.join(make(name, **sizes).places()) or 'nothing') for name in ENCODINGS]
