"""The corpus `code`: how packages become documents, what is refused, and what is promised of it."""

import tomllib
from importlib import metadata
from pathlib import Path, PurePosixPath
from unittest import mock

import pytest

from posenc_jax import data
from posenc_jax.data import code
from posenc_jax.errors import UserError

ROOT = Path(__file__).parent.parent


def is_installed():
  names = [name for packages in code.PACKAGES.values() for name in packages]
  return set(names) <= {
    d.metadata['Name'].lower().replace('-', '_') for d in metadata.distributions()
  }


def test_small_sub_packages_are_part_of_the_one_that_they_are_in(monkeypatch):
  monkeypatch.setattr(code, 'SMALLEST', 10)
  files = {
    'a/z.py': b'1\n',
    'a/__init__.py': b'',
    'a/b/x.py': b'x = 1',
    'a/b/c/y.py': b'y = 2\n',
    'a/d/e/w.py': b'0123456789\n',
    'a/d/e/f/v.py': b'v\n',
    'q/only.py': b'q\n',
  }
  files = {PurePosixPath(name): text for name, text in files.items()}
  expected = {
    'a': b'# a/z.py\n1\n',
    'a/b': b'# a/b/c/y.py\ny = 2\n# a/b/x.py\nx = 1\n',
    'a/d/e': b'# a/d/e/f/v.py\nv\n# a/d/e/w.py\n0123456789\n',
    'q': b'# q/only.py\nq\n',
  }
  assert dict(code._documents(files)) == expected
  assert dict(code._documents(dict(reversed(files.items())))) == expected


@pytest.mark.parametrize(
  ('package', 'version', 'says'),
  [
    ('no-such-package', '1.0', 'no-such-package 1.0 is not installed'),
    ('ml-collections', '0.0', f'ml-collections is {metadata.version("ml-collections")}'),
  ],
)
def test_what_is_not_installed_is_one_line(monkeypatch, package, version, says):
  monkeypatch.setattr(code, 'PACKAGES', {'test': {package: version}})
  code._verified.cache_clear()
  for opened in (lambda: data.corpus('code', 'test', 'text', ''), lambda: data.prepare('code', '')):
    with pytest.raises(UserError, match=f"config.data.corpus='code': {says}") as error:
      opened()
    assert "pip install -e '.[code]'" in str(error.value)
    assert r'\n' not in str(error.value)


def test_other_source_is_refused(monkeypatch):
  name = 'ml-collections'
  monkeypatch.setattr(code, 'PACKAGES', {'train': {name: metadata.version(name)}})
  code._verified.cache_clear()
  pinned = f'--force-reinstall --no-deps {name}=={metadata.version(name)}`'
  with pytest.raises(UserError, match=f'is not the embedded corpus: SHA-256.*allowed: .*{pinned}$'):
    data.corpus('code', 'train', 'text', '')


@pytest.mark.parametrize(
  ('files', 'says'),
  [
    (None, 'has no RECORD, .*; allowed: after `pip install --ignore-installed --no-deps p==1`$'),
    (['p/a.py'], r'lacks .*a\.py; allowed: after `pip install --force-reinstall --no-deps p==1`$'),
  ],
)
def test_packages_that_are_not_whole_are_installed_anew(monkeypatch, tmp_path, files, says):
  files = files and [metadata.PackagePath(file) for file in files]
  found = mock.Mock(version='1', files=files, locate_file=tmp_path.joinpath)
  monkeypatch.setattr(metadata, 'distribution', lambda package: found)
  with pytest.raises(UserError, match=f"^config.data.corpus='code': p {says}"):
    code._files('p', '1')


def test_the_extra_pins_the_versions():
  extras = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['optional-dependencies']
  pinned = [f'{name}=={v}' for packages in code.PACKAGES.values() for name, v in packages.items()]
  assert sorted(extras['code']) == sorted(pinned)


@pytest.mark.skipif(not is_installed(), reason="needs pip install -e '.[code]'")
def test_what_is_promised_of_it():
  code._verified.cache_clear()
  splits = {split: data.corpus('code', split, 'text', '') for split in code.SPLITS}
  facts = {
    split: (len(corpus), (corpus.sizes >= 16384).sum(), corpus.sizes.sum())
    for split, corpus in splits.items()
  }
  assert facts == {
    'train': (135, 113, 16_129_295),
    'validation': (7, 7, 1_809_646),
    'test': (35, 32, 5_112_479),
  }
  assert all(f'{size:,}' in code.__doc__ for *_, size in facts.values())
  assert splits['test'].sizes.min() >= 8192
  projects = [{name.partition('/')[0] for name in corpus.names} for corpus in splits.values()]
  assert projects == [
    {'django', 'networkx', 'sqlglot', 'docutils', 'mpmath'},
    {'pypdf'},
    {
      'boltons',
      'dns',
      'lark',
      'more_itertools',
      'parso',
      'prompt_toolkit',
      'pycparser',
      'xlsxwriter',
    },
  ]
  document = splits['train'].documents[list(splits['train'].names).index('mpmath')]
  assert document.startswith(b'# mpmath/__init__.py\n__version__ = ')
  assert b'\n# mpmath/' in document
  assert not any('tests' in name.split('/') for corpus in splits.values() for name in corpus.names)
