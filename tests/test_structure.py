"""The architecture as the folder listing shows it."""

import ast
import functools
import inspect
import re
import typing
from pathlib import Path

import pytest
from conftest import DAILY_OF_CI, LONG, OF_CI
from test_fused import REFUSED as NOT_IN_FUSED
from test_triton import REFUSED as NOT_IN_TRITON

from posenc_jax.config.fields import FIELDS, SECTIONS
from posenc_jax.encodings import ENCODINGS, Encoding, hyperparameter_docs, hyperparameters
from posenc_jax.encodings.core.base import PLACES_OF_PAIRS
from posenc_jax.encodings.core.hyperparameters import KINDS, has_type
from scripts.maintenance import api_page
from scripts.maintenance.encoding_table import costs, page

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / 'posenc_jax'

# Lowest first. A module imports from its own level's folder and from the levels before it.
LEVELS = (
  {'other_words'},
  {'errors', 'protocols', 'target'},
  {'storage', 'xla_ops', 'tasks', 'distributed'},
  {'encodings'},
  {'attention'},
  {'config'},
  {'rows'},
  {'model'},
  {'data'},
  {'cli'},
  {'inspection'},
  {'training'},
  {'pretrained'},
  {'evaluation', 'reporting'},
  {'sweep'},
)
WITHOUT_JAX = (
  'errors',
  'other_words',
  'protocols',
  'storage',
  'tasks',
  'config',
  'cli',
  'rows',
  'reporting',
  'sweep',
)
LEVEL_OF = {name: n for n, names in enumerate(LEVELS) for name in names}
MODULES = sorted(p for p in PACKAGE.rglob('*.py') if p != PACKAGE / '__init__.py')
SOURCES = [
  *MODULES,
  *ROOT.glob('*.py'),
  *(ROOT / 'scripts').rglob('*.py'),
  *(ROOT / 'configs').rglob('*.py'),
]


def dotted(path: Path) -> str:
  return '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')


@functools.cache
def tree_of(path: Path) -> ast.Module:
  return ast.parse(path.read_text())


def test_files_of_text_are_utf_8_whatever_the_locale_says():
  for path in MODULES:
    for node in ast.walk(tree_of(path)):
      if isinstance(node, ast.Attribute) and node.attr in ('read_text', 'write_text'):
        line = path.read_text(encoding='utf-8').splitlines()[node.lineno - 1]
        assert "encoding='utf-8'" in line, f'{path}:{node.lineno}'


@functools.cache
def imports(path: Path, at_import_time: bool = False) -> frozenset[str]:
  """The names that a module imports when it runs, everywhere or outside of its functions."""
  tree = tree_of(path)
  names = 'TYPE_CHECKING', 'typing.TYPE_CHECKING'
  is_for_types = lambda node: isinstance(node, ast.If) and ast.unparse(node.test) in names
  blocks = filter(is_for_types, tree.body)  # whose `else:` runs
  never_run = {node for block in blocks for only in block.body for node in ast.walk(only)}
  found = set()
  for node in tree.body if at_import_time else {*ast.walk(tree)} - never_run:
    if isinstance(node, ast.Import):
      found |= {name.name for name in node.names}
    elif isinstance(node, ast.ImportFrom):
      found |= {f'{node.module}.{name.name}' for name in node.names}
  return frozenset(found)


@pytest.mark.parametrize('path', MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_downward(path):
  """And not to what an installed package lacks."""
  here = path.relative_to(PACKAGE).parts[0].removesuffix('.py')
  for module in imports(path):
    if module.startswith('posenc_jax.'):
      other = module.split('.')[1]
      assert other == here or LEVEL_OF[other] < LEVEL_OF[here], f'{here} imports {other}'
    assert module.split('.')[0] not in ('configs', 'scripts')
  if here in WITHOUT_JAX:
    assert not {m.split('.')[0] for m in imports(path)} & {'jax', 'flax', 'optax', 'orbax'}


def test_no_module_imports_itself_by_way_of_others():
  modules = {dotted(path): path for path in MODULES}
  graph = {
    name: {
      imported if imported in modules else imported.rpartition('.')[0]
      for imported in imports(path, at_import_time=True)
    }
    & modules.keys()
    for name, path in modules.items()
  }
  seen, on_path = set(), []

  def visit(name):
    assert name not in on_path, f'cycle: {" -> ".join([*on_path[on_path.index(name) :], name])}'
    if name not in seen:
      on_path.append(name)
      for target in graph[name]:
        visit(target)
      on_path.pop()
      seen.add(name)

  for name in graph:
    visit(name)


def test_attention_knows_no_encoding_and_encodings_no_list_of_names():
  for path in (PACKAGE / 'attention').rglob('*.py'):
    named = {m for m in imports(path) if m.startswith('posenc_jax.encodings')}
    allowed = ('posenc_jax.encodings.core.base', 'posenc_jax.encodings.core.declarations')
    allowed += ('posenc_jax.encodings.Encoding',)
    assert all(m.startswith(allowed) for m in named), path
  for path in (PACKAGE / 'encodings' / 'core').rglob('*.py'):
    named = {m for m in imports(path) if m.startswith('posenc_jax.encodings')}
    assert all(m.startswith('posenc_jax.encodings.core') for m in named), path


def test_the_registry_alone_lists_encodings():
  """No other module has a constant that holds three or more of their names.

  But for colors, where an encoding need not be listed: its look follows from its name.
  """
  names = {*ENCODINGS}
  for path in MODULES:
    if path.name in ('registry.py', 'colors.py'):
      continue
    constants = [n for n in tree_of(path).body if isinstance(n, ast.Assign)]
    for node in (inner for constant in constants for inner in ast.walk(constant)):
      elements = getattr(node, 'elts', None) or getattr(node, 'keys', None) or []
      listed = [e.value for e in elements if isinstance(e, ast.Constant) and e.value in names]
      assert len(listed) < 3, f'{path}:{node.lineno}: {listed}'


def test_every_room_has_a_level_and_no_folder_is_crowded():
  assert {p.relative_to(PACKAGE).parts[0].removesuffix('.py') for p in MODULES} == {*LEVEL_OF}
  folders = {p.parent for p in MODULES} - {PACKAGE / 'encodings'}  # one file a paper
  for folder in (PACKAGE, *folders):
    entries = [p for p in folder.iterdir() if p.suffix == '.py' or (p / '__init__.py').exists()]
    assert len(entries) <= 22, folder


def test_only_errors_looks_for_near_names():
  """So that every misspelt name is met with the same words."""
  for path in SOURCES:
    if path != PACKAGE / 'errors.py':
      assert 'difflib' not in {module.partition('.')[0] for module in imports(path)}, path


def test_one_module_asks_for_what_a_program_is_traced():
  """All else that is traced takes it from there, so that it can be compiled for another machine.

  But for cudnn: of the width of heads jax itself asks the GPU that is there.
  """
  rooms = ('attention', 'encodings', 'model', 'xla_ops.py')
  for path in MODULES:
    if path.relative_to(PACKAGE).parts[0] in rooms and path.name != 'cudnn.py':
      source = path.read_text()
      assert 'default_backend' not in source, path
      assert not re.search(r'jax\.(local_)?devices\(', source), path


# Parameters that are a section of the config.
PARAMETERS = {
  'data/corpora.py': {'data': 'data'},
  'distributed/mesh.py': {'sizes': 'mesh'},
  'evaluation/preflight.py': {'section': 'data'},
  'model/decoder.py': {'config': 'model'},
  'model/layer.py': {'config': 'model'},
  'training/log.py': {'c': 'train', 'self._config': 'train'},
  'training/optimizer.py': {'optim': 'optim'},
}


def sections(node: ast.expr, names: dict[str, set[str]]) -> set[str]:
  """The sections of the config that an expression may be, by its name; '' is the whole config."""
  text = ast.unparse(node)
  found = set(names.get(text, ()))
  if 'config' in text or text == 'c':
    found.add('')
  if isinstance(node, ast.Attribute) and node.attr in SECTIONS and sections(node.value, {}):
    found.add(node.attr)
  return found


@functools.cache
def taken_from_config(path: Path) -> frozenset[tuple[str, int]]:
  """('train.steps', line) of all that a module takes from a config; ('train.get', line), too."""
  tree = tree_of(path)
  named = PARAMETERS.get(path.relative_to(ROOT).as_posix().removeprefix('posenc_jax/'), {})
  names, taken = {name: {section} for name, section in named.items()}, set()
  for node in ast.walk(tree):
    if isinstance(node, ast.Assign):  # c = config.train
      target, value = node.targets[0], node.value
      parts = [x.elts if isinstance(x, ast.Tuple) else [x] for x in (target, value)]
      pairs = zip(*parts, strict=True) if len(parts[0]) == len(parts[1]) else [(target, value)]
      for name, section in pairs:
        names.setdefault(ast.unparse(name), set()).update(sections(section, {}) - {''})
  for node in ast.walk(tree):
    if isinstance(node, ast.Attribute):
      owner, name = node.value, node.attr
    elif isinstance(node, ast.Call) and ast.unparse(node.func) == 'getattr' and node.args[2:]:
      owner, name = node.args[0], 'get'
    else:
      continue
    found = sections(owner, names)
    taken |= {(f'{section}.{name}'.removeprefix('.'), node.lineno) for section in found}
  return frozenset(taken)


def test_no_default_at_the_point_of_use():
  """All defaults stand in configs/base.py."""
  for path in SOURCES:
    for taken, line in taken_from_config(path):
      assert taken.rpartition('.')[2] != 'get', f'{path}:{line}'


def test_docstrings_begin_with_what_they_describe():
  """Not with 'Of ...', 'That of ...' or 'What of ...', which lack the noun that is meant."""
  for path in SOURCES:
    for node in ast.walk(tree_of(path)):
      if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
        doc = ast.get_docstring(node) or ''
        assert not re.match(r'(Of|That of|Those of|What of|Who|The same,) ', doc), f'{path}: {doc}'


def test_every_field_of_the_config_is_read():
  """And no section seems to have a field of another one, as it would where owners are mistaken."""
  readers = [path for path in MODULES if path.parent.name != 'config']
  taken = {taken for path in readers for taken, _ in taken_from_config(path)}
  names = {path.rpartition('.')[2] for path in FIELDS}
  assert {path for path in taken if '.' in path and path.rpartition('.')[2] in names} <= {*FIELDS}
  assert not {*FIELDS} - taken


@pytest.mark.ci
def test_the_page_of_encodings_is_up_to_date():
  """Where it is not: python scripts/maintenance/encoding_table.py > ENCODINGS.md"""
  assert (ROOT / 'ENCODINGS.md').read_text() == page.markdown()


def test_the_page_of_the_api_is_up_to_date():
  """Where it is not: python scripts/maintenance/api_page.py > docs/api.md"""
  assert (ROOT / 'docs' / 'api.md').read_text() == api_page.markdown()


def test_every_name_of_the_api_has_a_sentence_of_its_own():
  cells = re.findall(r'^\| `(.*?)` \| (.*) \|$', api_page.markdown(), re.MULTILINE)
  assert len(cells) > 100
  assert not [name for name, words in cells if not re.match(r'.+\S\.$', words)]


def test_what_pages_import_is_on_the_page_of_the_api():
  names = api_page.NAMES
  listed = {*names, *(path for m in names for path, _ in api_page.exported(m, f'{m}.'))}
  statement = r'from (posenc_jax[\w.]*) import (\([\w,\s]+\)|[\w, ]+)'
  imported = {
    f'{module}.{name}'
    for path in (ROOT / 'README.md', *(ROOT / 'docs').glob('*.md'))
    for module, names in re.findall(statement, path.read_text())
    for name in re.findall(r'\w+', names)
  }
  assert len(imported) > 20
  assert imported <= listed


def test_the_page_tells_multiply_adds_over_channels_in_widths_of_a_head():
  for number, words in ((1, 'K'), (11, '11 K'), (21, '21 K')):
    assert costs.in_words(number * costs.K, {costs.K}, set()) == [f'{words} multiply-adds']


def test_the_page_tells_encodings_apart():
  said = [page.what_it_is(ENCODINGS[name]) for name in page.BUILT_IN]
  assert not {what for what in said if said.count(what) > 1}


def test_an_encoding_from_outside_is_not_on_the_page(monkeypatch):
  monkeypatch.setitem(ENCODINGS, 'outside', type('Outside', (Encoding,), {}))
  assert 'outside' in ENCODINGS
  assert 'outside' not in page.BUILT_IN, 'what the page goes through'


@pytest.mark.parametrize('name', ENCODINGS)
def test_every_encoding_says_what_the_table_of_them_needs(name):
  """A summary of its parameters and what is reported, in few words; backends follow from hooks."""
  kind = ENCODINGS[name]
  summary = page.class_attribute(kind, 'parameter_summary')
  reported = page.class_attribute(kind, 'reported_extrapolation')
  assert 0 < len(summary) <= 50
  assert reported is None or 0 < len(reported) <= 90
  cells = page.row(name)
  assert len(cells) == len(page.COLUMNS)
  assert all(cells)
  what_it_is, acts_on, _, cost, backends = cells[1:6]
  assert len(what_it_is) <= 100
  assert (ROOT / re.search(r'\((.*)\)', cells[0])[1]).is_file()
  fused = not {*PLACES_OF_PAIRS, 'softmax'} & {*acts_on.split(', ')} and 'width' not in cost
  in_tiles = '`dense`' if kind.normalizer == 'rows' else '`dense`, `blockwise`'
  if name not in NOT_IN_FUSED:
    in_tiles += ', `fused`'
  if name not in NOT_IN_TRITON:
    in_tiles += ', `triton`'
  assert backends == ('all' if fused else in_tiles)


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
    ('xpos', 'tokens, K multiply-adds, elementwise'),  # it makes q . k itself
    ('dape', 'bias by distance, 96 multiply-adds, elementwise'),  # (2H 32 + 32 H) / H
    ('cope', 'sums along keys, elementwise'),
    ('entmax', 'rows sorted'),
    ('dape_v2', 'bias by distance, 288 multiply-adds, elementwise'),  # 3 of those of `dape`
  ],
)
def test_cost_is_what_hooks_do(name, cost):
  assert page.row(name)[page.COLUMNS.index('cost')] == cost


def test_what_an_encoding_says_of_itself_is_not_inherited_by_another():
  child = type('Child', (ENCODINGS['learned'],), {})
  for attribute, default in page.DEFAULTS.items():
    assert page.class_attribute(ENCODINGS['learned'], attribute) != default
    assert page.class_attribute(child, attribute) == default


@pytest.mark.parametrize('name', ENCODINGS)
def test_hyperparameters_are_annotated_and_their_defaults_fit(name):
  for kind in ENCODINGS[name].__mro__:
    if '__init__' not in vars(kind) or not issubclass(kind, Encoding):
      continue
    for p in inspect.signature(kind.__init__, eval_str=True).parameters.values():
      if p.kind is not p.KEYWORD_ONLY or p.default is p.empty:
        continue
      kinds = typing.get_args(p.annotation) or [p.annotation]
      assert {typing.get_origin(k) or k for k in kinds} <= {*KINDS}, f'{name}: annotate {p.name}'
      assert has_type(p.default, p.annotation), f'{name}: {p.name}={p.default!r}'


@pytest.mark.parametrize('name', ENCODINGS)
def test_the_code_says_what_each_hyperparameter_is(name):
  """As scripts/explain.py prints it."""
  said = hyperparameter_docs(name)
  assert said.keys() == hyperparameters(name).keys()
  # who have the code
  of_readers = r'see above|formula above|as above|one of [A-Z]|TwoRange|see `|_row`|;$|^$'
  assert not [words for words in said.values() if re.search(of_readers, words)]
  by_default = [said[key] for key, value in hyperparameters(name).items() if value is None]
  assert all(re.search(r'\bNone\b', words) for words in by_default)


def test_what_is_not_of_every_day_is_there():
  """A name that no test has any longer would leave a file without its daily test, in silence."""
  find = lambda path: {*re.findall(r'^def (test_\w+)', path.read_text(), re.M)}
  defined = {path.name: find(path) for path in (ROOT / 'tests').glob('test_*.py')}
  assert defined.keys() >= OF_CI
  of_ci = set().union(*(defined[name] for name in OF_CI))
  assert {name.split('[')[0] for name in DAILY_OF_CI} <= of_ci
  assert set().union(*defined.values()) - of_ci >= LONG
