"""The package as others import it."""

import ast
import inspect
import re
import subprocess
import sys
import tomllib
import typing
import warnings
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import posenc_jax
from posenc_jax.attention.tiled.tile import ScoreTile
from posenc_jax.encodings.core.base import HOOKS, OTHER_METHODS
from posenc_jax.storage import REPOSITORY


def test_every_export_is_there_and_type_checkers_see_it():
  tree = ast.parse(Path(posenc_jax.__file__).read_text())
  (block,) = (node for node in tree.body if isinstance(node, ast.If))
  seen = {name.asname: node.module for node in block.body for name in node.names}
  assert seen == posenc_jax._MODULES
  for name, module in seen.items():  # mypy would take a module of that name for what is meant
    package = REPOSITORY / Path(*module.split('.'))
    assert not (package / f'{name}.py').exists(), module
  assert all(hasattr(posenc_jax, name) for name in posenc_jax.__all__)
  assert set(posenc_jax.__all__) <= set(dir(posenc_jax))
  assert Path(posenc_jax.__file__).with_name('py.typed').exists()  # else they take all for Any


def test_a_type_checker_sees_no_names_that_are_not_there():
  """A `__getattr__` within its sight would be one of every name."""
  tree = ast.parse(Path(posenc_jax.__file__).read_text())
  assert '__getattr__' not in [getattr(node, 'name', None) for node in tree.body]
  (block,) = (node for node in tree.body if isinstance(node, ast.If))
  assert ast.unparse(block.test) == 'typing.TYPE_CHECKING'
  assert [node.name for node in block.orelse] == ['__getattr__']


def test_types_say_what_users_call_and_what_they_define():
  """In a class of one's own an editor takes those of the hook of `Encoding` that it defines."""
  exported = [getattr(posenc_jax, name) for name in posenc_jax.__all__]
  hooks = [getattr(posenc_jax.Encoding, name) for name in (*HOOKS, *OTHER_METHODS)]
  for function in (*filter(inspect.isfunction, exported), *hooks):
    hints = typing.get_type_hints(function, localns={'ScoreTile': ScoreTile})
    assert 'return' in hints, function
    for name, p in inspect.signature(function).parameters.items():
      assert function not in hooks or name == 'self' or name in hints, (function, name)
      if p.default is None:
        assert type(None) in typing.get_args(hints[name]), (function, name)


def test_the_version_is_that_of_the_citation():
  assert f'\nversion: {posenc_jax.__version__}\n' in (REPOSITORY / 'CITATION.cff').read_text()


def test_the_versions_that_docs_ask_for_are_those_that_pip_does():
  asked = (REPOSITORY / 'pyproject.toml').read_text()
  (jax,) = set(re.findall(r'"jax(?:\[\w+\])?>=([\d.]+)"', asked))  # in every extra the same
  before = re.search(r'"flax>=([\d.]+); python_version < \'3.12\'"', asked)[1]
  since = re.search(r'"flax>=([\d.]+); python_version >= \'3.12\'"', asked)[1]
  words = f'jax ({jax} or later), flax ({before} or later; from Python 3.12 on, {since} or later)'
  assert words in ' '.join((REPOSITORY / 'docs' / 'attend.md').read_text().split())


def test_an_unknown_name_is_an_attribute_error():
  with pytest.raises(AttributeError, match="module 'posenc_jax' has no attribute 'atend'"):
    posenc_jax.atend  # noqa: B018


@pytest.mark.parametrize('statement', ['from posenc_jax import score', 'posenc_jax.score'])
def test_a_name_whose_dependencies_are_not_installed_says_so(statement):
  code = f'import sys; sys.modules["ml_collections"] = None\nimport posenc_jax\n{statement}'
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
  words = 'posenc_jax.score needs ml_collections: install posenc_jax without --no-deps'
  assert done.stderr.splitlines()[-1] == f'ModuleNotFoundError: {words}'


def test_importing_the_package_imports_no_jax():
  code = (
    'import sys\n'
    'import posenc_jax.reporting, posenc_jax.sweep, posenc_jax.config\n'
    "assert not {'jax', 'flax', 'matplotlib'} & sys.modules.keys()\n"
  )
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr


def test_what_jax_warns_of_on_a_tpu_vm_ends_no_session():
  """At its import, and so in conftest.py; other warnings are errors."""
  warnings.warn('Transparent hugepages are not enabled. TPU runtime startup', stacklevel=1)
  with pytest.raises(UserWarning, match='hugepages'):
    warnings.warn('Other hugepages', stacklevel=1)


@pytest.mark.parametrize('name', ['py311', 'py313'])
def test_constraints_name_a_version_that_pip_may_take(name):
  """Each requirement of the package and its tests has a pinned version within its bounds."""
  lines = (REPOSITORY / 'constraints' / f'{name}.txt').read_text().splitlines()
  pins = {spelled(package): version for package, version in (line.split('==') for line in lines)}
  project = tomllib.loads((REPOSITORY / 'pyproject.toml').read_text())['project']
  extras = project['optional-dependencies']
  tested = ('report', 'code', 'hf', 'pretrained', 'test')
  asked = [*project['dependencies'], *(line for extra in tested for line in extras[extra])]
  python = {'python_version': f'{name[2]}.{name[3:]}'}
  for needed in map(Requirement, asked):
    if needed.name != 'posenc_jax' and (needed.marker is None or needed.marker.evaluate(python)):
      assert needed.specifier.contains(pins[spelled(needed.name)]), needed


def spelled(package):
  """A package's name as pip compares it."""
  return re.sub(r'[-_.]+', '-', package).lower()
