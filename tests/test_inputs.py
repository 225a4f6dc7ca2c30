"""Wrong inputs: each is named in one line, before anything is written or computed."""

import ast
import collections
import os
import shlex
import sys
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from posenc_jax import cli, config, data, errors, storage, sweep
from posenc_jax.cli import parse_args
from posenc_jax.config import BASE, field_help, load, validate
from posenc_jax.config.checks import MAX_DEPTH
from posenc_jax.config.fields import FIELDS, SECTIONS
from posenc_jax.config.serialization import OWN_TOKENIZER
from posenc_jax.data.documents import SPLITS
from posenc_jax.encodings.core import registry
from posenc_jax.errors import Damaged, Stopped, UserError
from posenc_jax.evaluation import evaluate, generation, long_ppl_evaluator, preflight, runs
from posenc_jax.pretrained import exporting
from posenc_jax.reporting import kept
from posenc_jax.storage import REPOSITORY
from posenc_jax.sweep.plan import PlannedRun, check_runs
from posenc_jax.tasks import make
from posenc_jax.training import own_tokenizer, run_dir, setup, taken_parameters
from scripts import board, figures, keep, prepare_data, table
from scripts.aot import command as aot
from scripts.bench import command as bench
from scripts.maintenance import fuzz_inputs

DEEP = 'x'
for _ in range(3 * MAX_DEPTH):
  DEEP = (DEEP,)


def message(function, *arguments) -> str:
  """The one line of the UserError that a call raises."""
  with pytest.raises(UserError) as error:
    function(*arguments)
  line = str(error.value)
  assert len(line) < fuzz_inputs.LONGEST_MESSAGE
  return line


def study_of(tmp_path: Path, body: str) -> Path:
  path = tmp_path / 'study.py'
  good = f'from posenc_jax.config import *\ndef get_config(): return load({str(BASE)!r})\n'
  path.write_text(good + body)
  return path


OF_NO_FIELD = (
  *(None, object(), b'x', float('nan'), 10**400),
  *(DEEP, ({},), 'a\0b', 'x' * 20_000, {'a': 1}),
)


@pytest.mark.parametrize('path', FIELDS)
def test_validation_takes_any_value_of_any_field(path):
  *sections, key = path.split('.')
  for value in OF_NO_FIELD:
    run = load(BASE)
    section = run[sections[0]] if sections else run
    with section.unlocked():
      del section[key]
      section[key] = value
    assert message(validate, run).startswith('config.'), repr(value)[:40]


@pytest.mark.parametrize(
  ('path', 'value', 'words'),
  [
    ('train.stepz', 3, "config.train.stepz: no such field; did you mean 'train.steps'?"),
    ('train', 3, 'config.train=3; allowed: a section, with train.length and others'),
    ('encoding', 'rope', "config.encoding='rope'; allowed: a section, with encoding.name"),
    ('encoding.scaling', {'a': {1, 2}}, 'config.encoding.scaling.a={1, 2}; allowed: numbers, text'),
    ('encoding.base', 10**30, 'more with a point, as 1e10'),
    ('encoding.members', DEEP, f'config.encoding.members: nested more than {MAX_DEPTH} deep'),
    ('label', 'x' * 201, 'allowed: at most 200 characters'),
    ('data.cache', 'a\0b', r"config.data.cache='a\x00b'; allowed: text without line breaks"),
    ('model.layers', 10**9, '1 to 1000'),
    ('eval.examples', 10**8, '1 to 100000'),
    ('eval.spans', 10**8, '1 to 100000'),
    ('eval.documents', 10**8, '0 to 100000'),
    ('train.batch', 2**30, 'at most 16777215 with train.length=128'),
    ('seeds', (-1,), 'whole numbers from 0 to 2**32 - 1'),
  ],
)
def test_what_a_config_file_sets_is_checked(path, value, words):
  run = load(BASE)
  *sections, key = path.split('.')
  section = run[sections[0]] if sections else run
  with section.unlocked():
    if key in section:
      del section[key]
    section[key] = value
  assert words in message(validate, run)


def test_one_seed_may_stand_for_a_tuple_of_seeds():
  assert load(BASE, {'seeds': 3}).seeds == (3,)
  assert 'config.seeds=(-1,)' in message(validate, load(BASE, {'seeds': -1}))


@pytest.mark.parametrize(
  ('word', 'words'),
  [
    ('--config.encoding.x=' + '[' * 5000, 'allowed: at most 1000 characters'),
    ('--config.encoding.x=' + '-' * 50_000 + '1', 'allowed: a value that is nested less deeply'),
    ('--config.encoding.' + 'a.' * 5000 + 'b=1', 'and at most 8 dots'),
    (
      '--config.encoding.items=1',
      "a field named 'items' in 'encoding.items'; allowed: a name that configs do not have for",
    ),
    ('--config.encoding..x=1', "a field named ''"),
    ('--config.encoding.2d=1', 'digits and underscores, no digit first, and at most'),
    ('--config.encoding.scaling={"a.b": 1}', "a field named 'a.b'"),
    ('--config.optim.clip=' + '9' * 400, 'is int; allowed: float'),
    ('--config.' + 'x' * 5000 + '=1', 'no such field'),
    ('--workdir=', "--workdir='': is empty; allowed: --workdir=VALUE"),
    ('--config=', "--config='': is empty"),
    ('--workdir=a\0b', 'without line breaks, control characters'),
    ('--jobs=two', "--jobs='two': is str; allowed: int"),
    ('--jobs=' + '9' * 400, 'allowed: at most 2147483647 in size'),
    ('--budget=1e999', '--budget=inf; allowed: at most'),
    ('--train.steps=5', "--train.steps=5: no such flag; did you mean '--config.train.steps'?"),
    ('--steps=5', "did you mean '--config.train.steps'?"),
    ('--encoding.name=rope', "did you mean '--config.encoding.name'?"),
    ('--encoding.base=5', "did you mean '--config.encoding.base'?"),
    ('--\x1b[31m', 'no such flag'),
  ],
)
def test_flags_are_checked(word, words):
  flags = {'config': str(BASE), 'workdir': 'x', 'jobs': 1, 'budget': 1.0}

  def run():
    given, overrides = parse_args([word], flags)
    config_of = load(given.config, overrides)
    validate(config_of)
    preflight.check_model(config_of)

  assert words in message(run)


REGISTER = 'import posenc_jax\nposenc_jax.register'


@pytest.mark.parametrize(
  ('source', 'words'),
  [
    ('x = 1\ndef', 'study.py:2: SyntaxError: '),
    ('\0', 'Error: source code string cannot contain null bytes'),
    ('x = 1\n\n1 / 0', 'study.py:3: ZeroDivisionError: division by zero'),
    ('import nothing_like_this', 'study.py:1: ModuleNotFoundError'),
    ('raise SystemExit(3)', 'study.py:1: SystemExit: 3'),
    ('def get_config():\n  return 1 / 0', 'study.py:2 in get_config(): ZeroDivisionError'),
    ('def get_config(): pass', 'get_config() returns None; allowed: a ConfigDict'),
    ('def get_config(): return {}', 'get_config() returns {}; allowed: a ConfigDict'),
    ('def get_config(x): pass', 'in get_config(): TypeError'),
    ('def get_config(): return get_config()', 'study.py:1 in get_config(): RecursionError'),
    ('get_config = 3', 'get_config=3; allowed: a function'),
    ('raise ValueError("a\\nb")', 'ValueError: a b'),
    (f'{REGISTER}("rope", int)', "'rope' is an encoding of posenc_jax; allowed: another name"),
    (f'{REGISTER}("2d", int)', "name='2d'; allowed: letters, digits and underscores, no digit"),
    (f'{REGISTER}("own", int)', 'allowed: a subclass of posenc_jax.Encoding'),
  ],
)
def test_a_broken_config_file_is_one_line_with_file_and_line(source, words, tmp_path):
  path = tmp_path / 'study.py'
  path.write_text(source)
  line = message(load, path)
  assert words in line
  assert str(path) in line


@pytest.mark.parametrize(
  ('source', 'words'),
  [('x = 1\n1 / 0', ':2: ZeroDivisionError'), ('x = 1\n\n)', ':3: SyntaxError: unmatched')],
)
def test_an_error_in_a_module_beside_a_study_is_named_with_its_own_line(source, words, tmp_path):
  beside = tmp_path / f'beside_{words.split()[1][:-1]}.py'
  beside.write_text(source)
  path = tmp_path / 'study.py'
  path.write_text(f'import {beside.stem}\n')
  assert message(load, path).startswith(f'config: {beside}{words}')


OWN = """
import jax.numpy as jnp
from posenc_jax.encodings import Encoding, register

class Own(Encoding):
  def __init__(self, dims, rngs):
    super().__init__(dims, rngs)
    {line}

register('own_with_error', Own)
def sweep(): return vary('encoding.name', 'rope', 'own_with_error')
"""


@pytest.mark.parametrize(
  ('line', 'reason'),
  [
    ('dims.head', "AttributeError: 'Dims' object has no attribute 'head'"),
    ('jnp.broadcast_to(jnp.zeros(3), 4)', 'own_with_error: '),
    ('jnp.zeros(dims)', 'TypeError: Shapes must be '),
  ],
)
def test_an_error_in_an_encoding_of_the_users_own_is_named_with_its_line(line, reason, tmp_path):
  path = study_of(tmp_path, OWN.format(line=line))
  runs = sweep.plan(path, tmp_path / 'out', {})
  try:
    number, said = preflight.check_all([(config.to_json(run.config), []) for run in runs])
  finally:
    registry.ENCODINGS.pop('own_with_error')
  number_of_line = path.read_text().splitlines().index(f'    {line}') + 1
  assert (number, said.startswith(reason)) == (1, True), said
  assert said.endswith(f' ({path}:{number_of_line})')


def test_an_error_that_a_study_names_passes_through(tmp_path):
  path = tmp_path / 'study.py'
  path.write_text('from posenc_jax.errors import *\ndef get_config(): raise UserError("a=1; b")')
  assert message(load, path) == 'a=1; b'


@pytest.mark.parametrize(
  ('body', 'words'),
  [
    ('', 'has no sweep()'),
    ('def sweep(): return []', 'sweep() returns []; allowed: 1 to 10000 dicts'),
    ('def sweep(): pass', 'sweep() returns None; allowed: 1 to 10000 dicts of overrides'),
    ('def sweep(): return [3]', 'sweep() returns [3]'),
    ('def sweep():\n  while True:\n    yield {"seed": 0}', 'allowed: 1 to 10000 dicts'),
    ('def sweep():\n  yield {"seed": 0}\n  1 / 0', 'study.py:5 in sweep(): ZeroDivisionError'),
    ('def sweep(): return vary("seed", 0, 1, 0)', 'one run twice, as number 1 and 3'),
    (
      'def sweep(): return vary("encoding.base", 1, "1")',
      'two different runs have one name, encoding.base=1',
    ),
    (
      'def sweep(): return vary("label", "RoPE", "rope")',
      'label=RoPE and label=rope differ in case alone; allowed: names that differ otherwise',
    ),
    ('def sweep(): return vary("seed", 10**400)', 'allowed: at most 4294967296 in size'),
    (
      'def sweep(): return vary("train.init_from", "nowhere")',
      "config.train.init_from='nowhere': no config.json",
    ),
  ],
)
def test_a_broken_sweep_is_one_line(body, words, tmp_path):
  path = study_of(tmp_path, body)
  assert words in message(sweep.plan, path, tmp_path / 'out', {})
  assert not (tmp_path / 'out').exists()


NUMPY = """
import numpy as np
from ml_collections import ConfigDict
def get_config():
  config = load({base!r})
  with config.unlocked():
    config.encoding.period = np.int64(64)
  return config
def sweep():
  layers = (dict(name='rope', base=np.float32(8)), 'nope')
  return product(vary('encoding.base', *np.geomspace(1e3, 1e5, 3)),
                 vary('encoding.layers', layers), vary('encoding.is_far', np.bool_(True)),
                 vary('encoding.scaling', ConfigDict({{'factor': np.int64(2), 'beta': (1, 2)}})),
                 vary('optim.learning_rate', np.float64(0.5)), vary('seed', *np.arange(2)))
"""


def test_numbers_of_numpy_and_sections_become_those_of_python(tmp_path):
  path = study_of(tmp_path, NUMPY.format(base=str(BASE)))
  runs = sweep.plan(path, tmp_path / 'out', {}, (Path('train.py'),))
  assert len({run.name for run in runs}) == 6
  for run in runs:
    assert 'np.' not in run.name
    _, overrides = parse_args(run.commands[0][5:], {})  # as train.py reads them
    again = load(path, overrides)
    assert config.differing_keys(again, run.config) == []
    validate(again)
  assert runs[0].config.encoding.base == 1000
  assert runs[0].config.encoding.scaling.to_dict() == {'factor': 2, 'beta': (1, 2)}
  assert runs[0].config.encoding.layers == ({'name': 'rope', 'base': 8.0}, 'nope')
  for value in config.flat(run.config).values():
    assert type(value).__module__ == 'builtins'


@pytest.mark.parametrize(
  ('encoding', 'varied'),
  [
    ({'name': 'pattern', 'layers': ('rope', 'nope')}, "'name', 'rope', 'alibi'"),
    ({'name': 'pattern', 'layers': ('rope', 'nope')}, "'attention_window', 512, 256"),
    ({'name': 'chain', 'members': ('kv_shift', 'rope')}, "'name', 'rope', 'alibi'"),
  ],
)
def test_what_is_evaluated_of_a_pattern_or_a_chain_is_the_planned_run(encoding, varied, tmp_path):
  """Other parts would be rope once the fields of a run have acted."""
  base = f'def get_config(): return load({str(BASE)!r}, {{"encoding": {encoding!r}}})'
  path = study_of(tmp_path, f'{base}\ndef sweep(): return vary("encoding." {varied})')
  runs = sweep.plan(path, tmp_path / 'out', {'eval.k': 4}, (Path('train.py'), Path('eval.py')))
  assert len(runs) == 2
  for run in runs:
    training, evaluation = (parse_args(command[5:], {})[1] for command in run.commands)
    run.workdir.mkdir(parents=True)
    storage.write_json(run.workdir / 'config.json', config.to_json(load(path, training)))
    evaluated = config.trained_config(run.workdir, evaluation)
    assert config.config_hash(evaluated) == config.config_hash(run.config)


def test_overrides_that_make_runs_equal_are_refused_but_for_seeds(tmp_path):
  body = 'def sweep(): return product(vary("encoding.name", "rope", "nope"), vary("seed", 0, 1, 2))'
  path = study_of(tmp_path, body)
  line = message(sweep.plan, path, tmp_path / 'out', {'encoding.name': 'rope'})
  assert "config.encoding.name='rope': makes 6 runs of the study 3; allowed: a field" in line
  for overrides, count in (({'seed': 7}, 2), ({'seeds': (0, 1)}, 2), ({'eval.k': 8}, 6)):
    assert len(sweep.plan(path, tmp_path / 'out', overrides)) == count
  # A varied field that merges nothing beside labels, alone and with a seed that merges.
  labelled = '[{"label": "a", "train.steps": 300}, {"label": "b"}], vary("seed", 0, 1)'
  path = study_of(tmp_path, f'def sweep(): return product({labelled})')
  for overrides, count in (({'train.steps': 99}, 4), ({'train.steps': 99, 'seed': 0}, 2)):
    assert len(sweep.plan(path, tmp_path / 'out', overrides)) == count


def test_a_seed_that_the_sweep_has_leaves_the_runs_that_have_it(tmp_path):
  body = """
def sweep():
  start = {'label': 'start', 'seed': 0}
  once = [start, {'label': 'tuned', 'seed': 1, 'train.init_from': start}, {'label': 'default'}]
  return once + product(vary('label', 'a', 'b'), vary('seed', 0, 1)) + [{'label': 'b', 'seed': 2}]
"""
  path = study_of(tmp_path, body)
  for seed, labels in (
    (0, ['start', 'default', 'a', 'b']),
    (1, ['start', 'tuned', 'a', 'b']),
    (2, ['b']),
    (9, ['start', 'tuned', 'default', 'a', 'b']),
  ):
    runs = sweep.plan(path, tmp_path / 'out', {'seed': seed})
    assert [run.config.label for run in runs] == labels
    # what a run of seed 1 starts from is that of the study
    assert [run.config.seed for run in runs] == [
      0 if (seed, label) == (1, 'start') else seed for label in labels
    ]


@pytest.mark.parametrize(
  ('body', 'words'),
  [
    (
      'vary("encoding.name", "rope", "roppe")',
      "encoding.name=roppe: encoding.name='roppe': no such",
    ),
    ('vary("encoding.buckets", 3)', "encoding rope has no hyperparameter 'buckets'"),
    ('[{"encoding": dict(name="pattern", layers=5)}]', 'encoding.layers=5; allowed: names'),
    (
      '[{"encoding": dict(name="chain", members=("rope", 5))}]',
      "members=('rope', 5); allowed: names",
    ),
    ('[{"encoding": dict(name="learned", max_length=4)}]', 'positions of learned end at 4'),
    ('vary("eval.target_context", 10**6)', 'config.eval.target_context=1000000: no documents'),
    ('vary("eval.documents", 9000)', 'config.eval.documents=9000: only'),
    ('vary("train.length", 10**6)', 'config.train.length=1000000: the longest document'),
  ],
)
def test_a_run_that_cannot_be_is_refused_before_the_first_one_starts(body, words, tmp_path):
  """The check that a sweep starts in a process of its own; here in this one."""
  path = study_of(tmp_path, f'def sweep(): return {body}')
  runs = sweep.plan(path, tmp_path / 'out', {})
  number, reason = preflight.check_all([(config.to_json(run.config), []) for run in runs])
  assert words in f'{runs[number].name}: {reason}'


def test_of_finished_runs_own_encodings_alone_are_checked(tmp_path):
  """Their corpus may be gone."""
  runs = [(config.to_json(load(BASE, {'data.corpus': str(tmp_path / 'gone')})), [])]
  assert preflight.check_all(runs)[0] == 0
  assert preflight.check_all(runs, finished=[0]) is None


def test_a_sweep_checks_all_its_runs_in_one_process(tmp_path):
  path = study_of(tmp_path, 'def sweep(): return vary("encoding.name", "rope", "roppe")')
  runs = sweep.plan(path, tmp_path / 'out', {})
  line = message(check_runs, path, runs)
  assert line.startswith("encoding.name=roppe: encoding.name='roppe': no such encoding; did you")
  assert not (tmp_path / 'out').exists()


def test_whether_a_run_is_finished_is_asked_once_before_checks(tmp_path, monkeypatch):
  path = study_of(tmp_path, 'def sweep(): return vary("encoding.name", "rope", "alibi")')
  runs, asked = sweep.plan(path, tmp_path / 'out', {}), []
  is_finished = property(lambda run: asked.append(run.name) or True)
  monkeypatch.setattr(PlannedRun, 'is_finished', is_finished)
  check_runs(path, runs)
  assert asked == [run.name for run in runs]


def test_checks_that_die_are_one_line_below_what_they_said(tmp_path, monkeypatch, capfd):
  path = study_of(tmp_path, 'def sweep(): return vary("encoding.name", "rope")')
  runs = sweep.plan(path, tmp_path / 'out', {})
  for text, reason in (('', 'exit code 3'), ('>&2 echo killed;', 'killed')):
    interpreter = tmp_path / 'python'
    interpreter.write_text(f'#!/bin/sh\n{text} exit 3\n')
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, 'executable', str(interpreter))
    with pytest.raises(Stopped, match=f'its runs cannot be checked: {reason}$'):
      check_runs(path, runs)
    assert ('killed' in capfd.readouterr().err) == (reason == 'killed')


def test_what_is_equal_is_checked_once(monkeypatch):
  calls = collections.Counter()
  checks = {
    (lambda run, name=name: calls.update([name])): fields
    for name, fields in [('model', ('encoding', 'model')), ('evaluation', ('eval', 'data'))]
  }
  for check, name in zip(checks, ('model', 'evaluation'), strict=True):
    check.__name__ = name
  monkeypatch.setattr(preflight, 'CHECKS', checks)
  runs = [load(BASE, {'seed': seed, 'encoding.name': name}) for seed in (0, 1) for name in 'ab']
  assert preflight.check_all([(config.to_json(run), []) for run in runs]) is None
  assert calls == {'model': 2, 'evaluation': 1}


@pytest.mark.parametrize('name', ['tfds:pg19', 'hf:them/books'])
def test_a_sweep_over_a_set_that_is_not_on_disk_is_refused_once(name, tmp_path, monkeypatch):
  """In one line and before anything is written; the command that it names is one that takes the
  set's field and the cache.
  """
  if name.startswith('hf:'):
    pytest.importorskip('datasets')
  cache, out = tmp_path / 'their cache', tmp_path / 'out'
  scripts = REPOSITORY / 'train.py', REPOSITORY / 'eval.py'
  fields = {'data.corpus': name, 'data.text_field': 'book_text', 'data.cache': str(cache)}
  line = message(sweep.sweep, REPOSITORY / 'configs' / 'quick.py', out, fields, scripts)
  command = line.partition('prepare it with `')[2].removesuffix('`')
  assert [*tmp_path.iterdir()] == []
  taken = []
  monkeypatch.setattr(prepare_data, 'describe_text', lambda data: taken.append(data))
  python, script, *flags = shlex.split(command)
  assert (python, script) == ('python', 'scripts/prepare_data.py')
  prepare_data.main(flags)
  assert [(data.corpus, data.text_field, data.cache) for data in taken] == [(*fields.values(),)]


def test_a_command_that_prepares_a_set_says_no_defaults(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  line = message(data.corpus, 'tfds:lm1b', 'train', 'text', '')
  assert line.endswith('prepare it with `python scripts/prepare_data.py --corpus=tfds:lm1b`')


@pytest.mark.parametrize('name', ['new/' + 'x' * 300, 'x' * 300, 'file/below', 'file'])
def test_a_folder_that_cannot_be_made_is_found_before_work(name, tmp_path):
  (tmp_path / 'file').write_text('')
  assert message(cli.check_folder, '--out=x', tmp_path / name).startswith('--out=x: ')
  assert [path.name for path in tmp_path.iterdir()] == ['file']


@pytest.mark.parametrize('name', ['new/' + 'x' * 300, 'file/below', 'folder', 'pipe', 'loop', '/'])
def test_a_file_that_cannot_be_written_is_found_before_work(name, tmp_path):
  """Nor what is no file, such as /dev/null, whose place a written file would take."""
  (tmp_path / 'file').write_text('')
  (tmp_path / 'folder').mkdir()
  (tmp_path / 'loop').symlink_to('loop')
  os.mkfifo(tmp_path / 'pipe')
  assert message(cli.check_file, '--out=x', tmp_path / name).startswith('--out=x: ')
  assert len(list(tmp_path.iterdir())) == 4


def test_an_address_is_no_folder(tmp_path, monkeypatch):
  """It would be a folder named 'gs:' here."""
  monkeypatch.chdir(tmp_path)
  for check in (cli.check_folder, cli.check_file):
    said = message(check, '--workdir=gs://bucket/run', 'gs://bucket/run')
    assert said.startswith(
      '--workdir=gs://bucket/run: the address of something elsewhere; allowed: a'
    )


@pytest.mark.parametrize(
  ('main', 'arguments'),
  [
    (table.main, ['.', '--out=gs://bucket/run']),
    (figures.main, ['.', '--out=gs://bucket/run']),
    (keep.main, ['.', '--out=gs://bucket/run']),
    (board.main, ['.', '--out=gs://bucket/run']),
    (bench.main, ['--out=gs://bucket/run']),
    (aot.main, ['--target=tpu-v5e-1', '--attention', '--hlo=gs://bucket/run']),
  ],
)
def test_an_address_is_no_place_for_results(main, arguments, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert 'the address of something elsewhere; allowed: a folder' in message(main, arguments)
  assert not [*tmp_path.iterdir()]


def test_what_can_be_made_is_not_made(tmp_path):
  cli.check_folder('--out=x', tmp_path / 'new' / 'folder')
  cli.check_folder('--out=x', tmp_path)
  cli.check_file('--out=x', tmp_path / 'new' / 'file')
  cli.check_new_folder('--out=x', tmp_path / 'new' / 'folder')
  assert not list(tmp_path.iterdir())


def test_a_folder_that_nothing_can_be_moved_to_is_refused(tmp_path, monkeypatch):
  """A new run is made beside its place, which is in another folder where a link leads there."""
  target, link = tmp_path / 'locked' / 'target', tmp_path / 'link'
  target.mkdir(parents=True)
  link.symlink_to(target)
  cli.check_new_folder('--out=x', link)
  can = os.access
  refuse = lambda path, mode: path != target.parent and can(path, mode)
  with monkeypatch.context() as patch:
    patch.setattr(os, 'access', refuse)
    says = message(cli.check_new_folder, '--out=x', link)
  assert (
    says
    == f'--out=x: {target.parent} cannot be written to; allowed: a folder, which need not exist'
  )
  monkeypatch.setattr(Path, 'is_mount', lambda path: path == target)
  assert 'a file system begins there' in message(cli.check_new_folder, '--out=x', link)


@pytest.mark.parametrize(
  ('files', 'words'),
  [
    ({'a.txt': b'\x1f\x8bxx'}, 'a.txt of '),
    ({'a.txt': b'BZh91AY&SY\xee\x10'}, 'a.txt of '),
    ({'a.txt': b'a\0b'}, 'is compressed, binary or UTF-16 (byte 1 is NUL); allowed: text in UTF-8'),
    ({'a.jsonl': b'[' * 100_000}, 'is not JSON: '),
    ({'a.jsonl': b'{"text": ' + b'9' * 5000 + b'}'}, 'is not JSON: '),
    (
      {'a.txt.gz': b'x', 'b.md': b'x'},
      'only .gz, .md; allowed: .txt or .jsonl files; '
      "Parquet, Arrow, CSV, JSON and what is compressed, with the extra hf, as data.corpus='hf:",
    ),
    ({'a.parquet': b'x'}, 'only .parquet; allowed: .txt or .jsonl files; Parquet, '),
  ],
)
def test_files_that_are_no_text(files, words, tmp_path):
  for split in SPLITS:
    (tmp_path / split).mkdir()
    for name, content in files.items():
      (tmp_path / split / name).write_bytes(content)
  assert words in message(lambda: data.corpus(str(tmp_path), 'train', 'text', '').sizes)


def test_names_of_corpora_that_are_none(tmp_path):
  file = tmp_path / 'book.txt'
  file.write_text('x')
  line = message(data.corpus, str(file), 'train', 'text', '')
  assert line.endswith('is a file; allowed: the folder that it is in')
  assert 'File name too long' in message(data.corpus, 'x' * 300, 'train', 'text', '')
  for name in ('tfds:', 'tfds::', 'tfds:../..', 'tfds:a/b/c'):
    assert 'tfds:' in message(data.corpus, name, 'train', 'text', str(tmp_path))
  line = message(data.corpus, 'tfds:lm1b:9.9.9', 'train', 'text', str(tmp_path))
  assert 'did you mean' not in line  # the set is known; it is not here


@pytest.mark.parametrize(
  ('text', 'words'),
  [
    ('copy/symbols=100000000000000000000', 'allowed: at most 100000 in size'),
    ('mqar/power=x', "power='x'; allowed: a number"),
    ('counting/passes=()', 'passes=(); allowed: a number'),
    ('flip_flop/ignore=1e999', 'ignore=inf; allowed: at most 100000 in size'),
  ],
)
def test_options_of_tasks_are_bounded(text, words):
  with pytest.raises(ValueError, match=r'.') as error:
    make(text, tuple)
  assert words in str(error.value)


def test_an_unknown_task_is_named_before_its_protocol():
  assert "no task 'copi'" in message(validate, load(BASE, {'data.corpus': 'task:copi'}))


def test_too_many_examples_of_a_task():
  overrides = {
    'data.corpus': 'task:copy',
    'eval.protocols': ('answers',),
    'eval.lengths': (10**6,),
    'eval.examples': 10**5,
  }
  assert 'allowed: 1 to 2147 with eval.lengths' in message(validate, load(BASE, overrides))


def test_all_hyperparameters_are_listed_and_integers_bounded():
  with pytest.raises(ValueError, match=r"did you mean 'base'\?; allowed: base, fraction, layout"):
    registry.check('rope', {'bass': 1.0})
  with pytest.raises(ValueError, match='distance=2147483647; allowed: at most 16777216 in size'):
    registry.check('shaw', {'max_distance': 2**31 - 1})
  with pytest.raises(ValueError, match=r'base=<int>; allowed: at most 1\.79769\d*e\+308 in size'):
    registry.check('rope', {'base': 10**5000})


def test_a_sweeps_folder_is_no_run_but_holds_some(tmp_path):
  (tmp_path / 'a').mkdir()
  (tmp_path / 'a' / 'config.json').write_text('{}')
  assert f'but it holds runs, such as {tmp_path}/a' in message(config.saved_config, tmp_path)
  assert 'File name too long' in message(config.saved_config, tmp_path / ('x' * 300))


@pytest.mark.parametrize('tree', ['{"a.b": 1}', '{"a":' * 400 + '1' + '}' * 400])
def test_a_config_json_that_no_run_wrote_is_damaged(tree, tmp_path):
  (tmp_path / 'config.json').write_text(tree)
  if '.' in tree:
    with pytest.raises(Damaged, match=r'config\.json is damaged'):
      config.saved_config(tmp_path)
  else:
    message(lambda: validate(config.saved_config(tmp_path)))


def test_help_lists_every_field_with_its_comment(capsys):
  with pytest.raises(SystemExit):
    parse_args(['--help'], {'config': 'x'}, lists_fields=True)
  lines = capsys.readouterr().out.splitlines()
  run = config.flat(load(BASE))
  said = field_help.comments(BASE.read_text())
  for path in FIELDS:
    (number,) = [n for n, line in enumerate(lines) if line.startswith(f'  --config.{path}=')]
    shown = ast.literal_eval(lines[number].partition('=')[2])
    assert (list(shown) if isinstance(shown, tuple) else shown) == run[path]
    assert said[path].split()[0] in lines[number + 1]
  assert {line[1:].partition(']')[0] for line in lines if line.startswith('[')} == {*SECTIONS} - {
    ''
  }


def test_help_shows_what_the_given_file_sets(tmp_path, capsys):
  path = study_of(tmp_path, f'get_config = lambda: load({str(BASE)!r}, {{"train.steps": 9}})')
  for words in (
    [f'--config={path}', '--help'],
    ['--help', '--config', str(path)],
    ['--config=no.py', '--config', str(path), '--help'],
    ['--config', 'no.py', f'--config={path}', '--help'],
  ):
    with pytest.raises(SystemExit):
      parse_args(words, {'config': 'x'}, lists_fields=True)
    assert '  --config.train.steps=9\n      updates; 0, only' in capsys.readouterr().out
  for words in (['--help', '--config'], ['--config', '--help']):
    with pytest.raises(SystemExit):
      parse_args(words, {'config': 'x'}, lists_fields=True)
    assert 'fields of configs/base.py:' in capsys.readouterr().out


@pytest.mark.parametrize(
  'value', ['x' * 500, 'a\nb\x1b', pytest.param(10**5000, id='int'), [[]], ConfigDict({'a': {}})]
)
def test_values_are_shown_in_one_short_line(value):
  line = errors.shown(value)
  assert line.isprintable()
  assert len(line) <= 120


def test_wrong_inputs_by_the_dozen():
  """Sixty inputs of fuzz_inputs.py, of every kind; the command runs thousands."""
  counts, bad = fuzz_inputs.run_all(60, seed=0, kinds=[], seconds=60.0)
  assert [(of.words, end, text) for of, end, text in bad] == []
  assert sum(counts.values()) == 60
  assert len({kind for kind, _ in counts}) == 7


def _raise(error: Exception):
  raise error


def _refuse_and_leave(folder: Path):
  (folder / 'file').write_text('')
  raise UserError('refused')


@pytest.mark.parametrize(
  ('end', 'run'),
  [
    ('taken', lambda folder: None),
    ('one line', lambda folder: validate(load(BASE, {'seed': -1}))),
    ('many lines', lambda folder: _raise(UserError('a' * 3000))),
    ('traceback', lambda folder: 1 / 0),
    ('left files', _refuse_and_leave),
  ],
)
def test_the_fuzzer_sees_how_an_input_ends(end, run):
  assert fuzz_inputs.outcome(fuzz_inputs.Input('kind', end, run), seconds=60.0)[0] == end


def path_of_kept_tokenizer(run: Path) -> Path:
  (run / OWN_TOKENIZER).parent.mkdir()
  (run / OWN_TOKENIZER).touch()
  return own_tokenizer.tokenizer_path(run, load(BASE).data)


READERS = {  # of a run's config, and a field that each reads there
  'start': (run_dir.finished_config, 'seeds', 'train', 'encoding.name'),
  'no training of its own': (runs.parameters_of, 'train', 'train.steps'),
  'started': (taken_parameters.start_of, 'train.init_from'),
  'with a tokenizer of its own': (path_of_kept_tokenizer, 'data.tokenizer'),
  'exported': (exporting._trained_config, 'train.init_from', 'train.length'),
  'kept': (lambda run: kept._starts_with_other_results([run], [], []), 'train.init_from'),
  'evaluated': (lambda run: evaluate.evaluate(load(BASE), run), 'data', 'encoding'),
  'generating': (
    lambda run: next(generation.generate(load(BASE), run, b'a', 1, generation.Sampling())),
    'data.tokenizer',
  ),
  'tuned in no steps': (
    lambda run: setup._check_start(
      [(load(BASE, {'train.init_from': str(run), 'train.steps': 0}), run)], None
    ),
    'train.length',
  ),
  'evaluator': (
    lambda run: long_ppl_evaluator.check_evaluator(
      load(BASE, {'eval.long_ppl_evaluator': str(run), 'eval.protocols': ('long_ppl',)}), None
    ),
    *('seeds', 'model', 'encoding.name'),
  ),
}


def run_without(field: str, folder: Path) -> Path:
  """The directory of a run whose config.json lacks a section or a field."""
  tree = config.to_json(load(BASE))
  section, _, name = field.partition('.')
  del (tree[section] if name else tree)[name or section]
  folder.mkdir(exist_ok=True)
  storage.write_json(folder / 'config.json', tree)
  return folder


@pytest.mark.parametrize(
  ('reader', 'field'), [(name, field) for name, (_, *fields) in READERS.items() for field in fields]
)
def test_what_a_run_of_another_version_lacks_is_said_where_it_is_read(reader, field, tmp_path):
  line = message(READERS[reader][0], run_without(field, tmp_path))
  of_run = f'workdir={str(tmp_path)!r}: config.json of another version of posenc_jax: it lacks'
  assert line.startswith(f'{of_run} {field}')
  assert line.endswith('; allowed: the version that made it, or another run')


def test_what_the_start_of_a_run_lacks_is_said_of_the_start(tmp_path):
  start = run_without('train.steps', tmp_path / 'start')
  tree = config.to_json(load(BASE, {'train.init_from': str(start)}))
  storage.write_json(tmp_path / 'config.json', tree)
  line = message(taken_parameters.start_of, tmp_path)
  of_start = f'workdir={str(start)!r}: config.json of another version of posenc_jax: it lacks'
  assert line.startswith(f'{of_start} train.steps')


def test_a_run_of_another_version_without_a_corpus_is_another_one(tmp_path):
  line = message(run_dir.check_same_config, run_without('data.corpus', tmp_path), load(BASE))
  assert "another config: data.corpus (there None, here 'sotu'); allowed: another workdir" in line
