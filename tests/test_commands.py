"""The command lines: bad input is one line on stderr and exit code 2, before anything is
written.
"""

import importlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from flax import nnx
from small_runs import BASE, write_text_corpus

from posenc_jax import cli, config, storage, sweep
from posenc_jax.encodings import ENCODINGS
from posenc_jax.encodings.core.user_code import code_hash
from posenc_jax.errors import UserError
from posenc_jax.evaluation import preflight, runs
from posenc_jax.sweep.plan import check_runs
from posenc_jax.training.run_dir import claim_run_dir

ROOT = Path(__file__).parent.parent
TINY = [
  f'--config={BASE}',
  *(
    '--config.model.layers=1',
    '--config.model.model_dim=8',
    '--config.model.heads=2',
    '--config.model.head_dim=4',
  ),
  *(
    '--config.model.mlp_dim=8',
    '--config.train.length=8',
    '--config.train.batch=2',
    '--config.train.steps=2',
  ),
  *(
    '--config.optim.warmup=1',
    '--config.eval.lengths=8,',
    '--config.eval.target_context=18',
    '--config.eval.k=4',
    '--config.eval.documents=0',
  ),
  '--config.eval.protocols=("last_k",)',
]


@pytest.fixture
def corpus(tmp_path):
  return f'--config.data.corpus={write_text_corpus(tmp_path / "corpus", "to be or not to be")}'


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    (['--wrokdir=x'], ['--wrokdir=x', "did you mean '--workdir'?"]),
    (['--config=confgis/base.py'], ["no file 'confgis/base.py'"]),
    (['--config.train.stepz=3'], ['config.train.stepz', "did you mean 'train.steps'?"]),
    (['--config.train.steps=abc'], ["config.train.steps='abc'", 'int']),
    (['--config.eval.k=9'], ['config.eval.k=9', 'at most the shortest']),
    (['--config.encoding.name=alibbi'], ["encoding.name='alibbi'", 'alibi']),
    (['--config.attention.backend=blokwise'], ["attention.backend='blokwise'", 'blockwise']),
    (
      ['--config.attention.backend=cudnn', '--config.eval.compute_dtype=bfloat16'],
      ['backend cudnn: '],
    ),
    (
      [
        *('--config.attention.backend=diagonals', '--config.eval.controls=windowed_with_sink'),
        '--config.eval.lengths=8,16',
      ],
      [
        "attention.backend='diagonals': last_k windowed_with_sink of 16 tokens",
        "or, in another workdir once it has begun, attention.backend='auto'",
      ],
    ),
    (['--config.data.corpus=stou'], ["config.data.corpus='stou'", "did you mean 'sotu'?"]),
  ],
)
def test_bad_input_to_a_training(command, corpus, tmp_path, arguments, words):
  """One of each stage of reading it; other tests ask for every field and encoding."""
  code, _, error = command('train.py', *TINY, corpus, f'--workdir={tmp_path / "run"}', *arguments)
  assert code == 2
  assert error.startswith('train.py: ')
  assert error.count('\n') == 1, error
  assert all(word in error for word in words), error
  assert not (tmp_path / 'run').exists()


def test_train_then_evaluate_and_what_is_refused_then(command, corpus, tmp_path):
  workdir = tmp_path / 'run'
  settings = [*TINY, corpus, f'--workdir={workdir}']
  code, out, error = command('train.py', *settings)
  assert (code, error) == (None, '')
  assert 'validation' in out
  note = 'eval.lengths=(8,): none is past train.length=8\n'
  assert note in out
  assert note not in command('train.py', *settings, '--config.eval.lengths=8,12')[1]
  code, out, error = command('eval.py', f'--workdir={workdir}', '--config.eval.k=2')
  assert (code, error) == (None, '')
  code, again, error = command('eval.py', *settings)
  assert (code, error) == (None, '')
  assert 'last_k windowed' in out
  assert 'last_k windowed' in again
  rows = [json.loads(line) for line in (workdir / 'eval.jsonl').read_text().splitlines()]
  assert [(r['k'], r['overrides']) for r in rows] == [(2, None)] * 2 + [(4, None)] * 2

  before = {path: path.stat().st_mtime_ns for path in workdir.rglob('*')}
  own = tmp_path / 'own.py'
  own.write_text('')
  for script, arguments, word in (
    ('train.py', [*settings, '--config.seed=1'], 'holds a run of another config: seed'),
    (
      'eval.py',
      [f'--workdir={workdir}', '--config.seed=1'],
      'config.seed=1: the run was trained with 0',
    ),
    ('eval.py', [f'--workdir={workdir}', '--config.eval.lengths=8,19'], '=18 each'),
    ('eval.py', [f'--workdir={workdir}', '--config.eval.split=tset'], "did you mean 'test'?"),
    ('eval.py', [f'--workdir={tmp_path}'], 'no config.json'),
    # a file that registers encodings needs no config there
    ('eval.py', [f'--workdir={tmp_path}', f'--config={own}'], 'no config.json'),
    ('scripts/generate.py', [f'--workdir={tmp_path}', f'--config={own}'], 'no config.json'),
    ('train.py', [f'--workdir={tmp_path}', f'--config={own}'], 'has no get_config(); allowed: '),
    ('eval.py', [], '--workdir: must be given'),
  ):
    code, _, error = command(script, *arguments)
    assert code == 2
    assert error.startswith(f'{Path(script).name}: ')
    assert word in error
    assert error.count('\n') == 1
  assert before == {path: path.stat().st_mtime_ns for path in workdir.rglob('*')}


@pytest.mark.ci
def test_a_folder_of_text_that_has_changed_is_refused(command, corpus, tmp_path):
  workdir = f'--workdir={tmp_path / "run"}'
  train = ['train.py', *TINY, corpus, workdir]
  kept = tmp_path / 'run' / 'documents.json'
  more, changed = (tmp_path / 'corpus' / split / 'a.txt' for split in ('train', 'test'))
  assert command(*train)[0] is None
  assert storage.read_json(kept)['documents'] == {'train': 1, 'validation': 1}
  assert command('eval.py', workdir)[0] is None
  assert storage.read_json(kept)['documents'] == {'train': 1, 'validation': 1, 'test': 1}
  assert [command(*words)[0] for words in (train, ['eval.py', workdir])] == [None, None]

  before = changed.read_text()
  changed.write_text(f'{before}!')
  code, _, error = command('eval.py', workdir, '--config.eval.k=1')
  says = 'documents in test of data.corpus: 1 when its run began, 1 now, others in name or size;'
  assert (code, says in error, error.count('\n')) == (2, True, 1)
  changed.write_text(before)
  (more.parent / 'more.txt').write_text(before)
  code, _, error = command(*train, '--config.train.steps=3')
  says = 'documents in train of data.corpus: 1 when its run began, 2 now; allowed: the'
  assert (code, says in error, error.count('\n')) == (2, True, 1)
  kept.unlink()  # as a run of an earlier version
  code, out, _ = command(*train, '--config.train.steps=3')
  assert (code, f'{kept}: is new; it has what is there now' in out) == (None, True)
  assert storage.read_json(kept)['documents'] == {'train': 2, 'validation': 1}
  (more.parent / 'more.txt').unlink()
  assert '2 when its run began, 1 now' in command(*train, '--config.train.steps=3')[2]


@pytest.mark.ci
def test_context_extension_of_a_trained_run(command, corpus, tmp_path):
  """Other frequencies or another indexing, on the weights of `rope`; rows say which; a bad field is
  one line.
  """
  workdir = f'--workdir={tmp_path / "run"}'
  assert command('train.py', *TINY, corpus, workdir, '--config.eval.controls=()')[0] is None
  scaled = '--config.encoding.scaling'
  asked = {
    (): None,
    (f'{scaled}.rope_type=yarn', f'{scaled}.factor=4'): {
      'encoding.scaling.rope_type': 'yarn',
      'encoding.scaling.factor': 4,
    },
    (f"{scaled}={{'type': 'dynamic', 'factor': 2.5}}",): {
      'encoding.scaling.type': 'dynamic',
      'encoding.scaling.factor': 2.5,
    },
    ('--config.encoding.base=50.0',): {'encoding.base': 50.0},
    ('--config.encoding.name=rerope', '--config.encoding.window=3'): {
      'encoding.name': 'rerope',
      'encoding.window': 3,
    },
  }
  for arguments in asked:
    code, _, error = command('eval.py', workdir, '--config.eval.lengths=18,', *arguments)
    notes = [line for line in error.splitlines() if line]
    is_scaled = any(scaled in argument for argument in arguments)
    assert (code, [line.endswith('; trained at 8') for line in notes]) == (None, [True] * is_scaled)
  rows = [json.loads(line) for line in (tmp_path / 'run' / 'eval.jsonl').read_text().splitlines()]
  assert [r['overrides'] for r in rows] == list(asked.values())
  assert [r['encoding'] for r in rows] == ['rope'] * 4 + ['rerope']
  assert len({r['nats'] for r in rows}) == len(asked)
  for arguments, words in (
    (
      (f'{scaled}.rope_type=yran', f'{scaled}.factor=4'),
      "rope: scaling.rope_type='yran'; did you mean 'yarn'?",
    ),
    (
      (f'{scaled}.rope_type=yarn', f'{scaled}.facter=4'),
      "rope: scaling.facter is no field of yarn; did you mean 'factor'?",
    ),
    ((f'{scaled}.rope_type=yarn',), 'rope: scaling.factor is missing: yarn needs it'),
    ((f'{scaled}=4',), 'rope: scaling=4; allowed: a dict'),
    (
      ('--config.encoding.name=alibi', f'{scaled}.factor=4'),
      "encoding alibi has no hyperparameter 'scaling'",
    ),
  ):
    code, _, error = command('eval.py', workdir, *arguments)
    *notes, last = error.splitlines()
    assert code == 2
    assert words in last
    assert all(note.endswith('; trained at 8') for note in notes)
  assert len((tmp_path / 'run' / 'eval.jsonl').read_text().splitlines()) == len(asked)

  trained = f'--workdir={tmp_path / "scaled"}'
  assert (
    command('train.py', *TINY, corpus, trained, f'{scaled}.rope_type=yarn', f'{scaled}.factor=4')[0]
    is None
  )
  assert command('eval.py', trained, f'{scaled}.factor=8')[0] is None
  rows = [
    json.loads(line) for line in (tmp_path / 'scaled' / 'eval.jsonl').read_text().splitlines()
  ]
  assert [r['overrides'] for r in rows] == [{'encoding.scaling.factor': 8}] * 2
  code, _, error = command('eval.py', trained, '--config.encoding.name=alibi')
  problem = "scaling is the run's own, of rope, and no hyperparameter of alibi"
  words, flag = f"config.encoding.name='alibi': {problem}", "--config.encoding={'name': 'alibi'}"
  allowed = flag.replace('=', '="', 1) + '"'
  assert (code, error) == (2, f'eval.py: {words}; allowed: {allowed}, which leaves it out\n')
  assert command('eval.py', trained, flag)[0] is None


ROPE, SINK = {'name': 'rope', 'base': 5e5}, {'name': 'sink'}
LOCAL, CHAIN = ROPE | {'attention_window': 4}, {'name': 'chain', 'members': [ROPE, SINK]}
ALIBI = {'name': 'alibi'}


@pytest.mark.parametrize(
  ('trained', 'overrides', 'allowed'),
  [
    (ROPE, {'encoding.name': 'alibi'}, ALIBI),
    (ROPE, {'encoding.name': 'alibi', 'encoding.factor': 2}, ALIBI | {'factor': 2}),
    (ROPE, {'encoding.name': 'rerope', 'encoding.window': 3}, None),  # which has a base
    (ROPE, {'encoding.name': 'alibi', 'encoding.base': 1e4}, None),  # what was asked for is said
    (ROPE, {'encoding.name': 'unknown'}, None),
    (CHAIN, {'encoding.name': 'alibi'}, CHAIN | {'members': [ALIBI, SINK]}),
    (
      {'name': 'pattern', 'layers': [LOCAL, ROPE, CHAIN]},
      {'encoding.name': 'alibi'},
      {'name': 'pattern', 'layers': [LOCAL, ALIBI, CHAIN | {'members': [ALIBI, SINK]}]},
    ),
    (
      {'name': 'cape', 'inner': ROPE},
      {'encoding.inner.name': 'alibi'},
      {'name': 'cape', 'inner': ALIBI},
    ),
    ({'name': 'pattern', 'layers': ['nope']}, {'encoding.name': 'alibi'}, ALIBI),
    (
      ROPE,
      {'encoding.name': 'pattern', 'encoding.layers': 'nope'},
      {'name': 'pattern', 'layers': 'nope'},
    ),
  ],
)
def test_hyperparameters_of_a_run_that_another_encoding_lacks_are_said(trained, overrides, allowed):
  saved, laid = (config.load(BASE, {'encoding': trained}) for _ in range(2))
  config.overlay(laid, overrides)
  if allowed is None:
    runs.check_kept_hyperparameters(saved, laid)
    return
  with pytest.raises(UserError, match="is the run's own, of") as error:
    runs.check_kept_hyperparameters(saved, laid)
  (flag,) = re.findall('--config.encoding="(.*)", which', str(error.value))
  _, given = cli.parse_args([f'--config.encoding={flag}'], {})
  assert config.to_json(given['encoding']) == allowed


PRIVATE = """
from posenc_jax.config import load, vary
from posenc_jax.encodings import register
from posenc_jax.encodings.alibi import ALiBi

class Mine(ALiBi):
  '''ALiBi whose slopes are learned.'''

  def __init__(self, dims, rngs, *, learned: bool = True):
    super().__init__(dims, rngs, learned=learned)

register('mine', Mine)

def get_config():
  return load({base!r}, {fields!r})

def sweep():
  return vary('encoding.name', 'rope', 'mine')

def table():
  return dict(protocols=('last_k',), metric='bpb')
"""


@pytest.fixture
def private(corpus, tmp_path):
  """A study that registers an encoding of its own, which is forgotten when the test ends."""
  _, *flags = TINY
  fields = cli.parse_args([*flags, corpus, '--config.eval.controls=()'], {})[1]
  study = tmp_path / 'study.py'
  study.write_text(PRIVATE.format(base=str(BASE), fields=fields))
  yield study
  ENCODINGS.pop('mine', None)


def test_a_private_encoding_trains_evaluates_and_stands_in_the_table(command, private, tmp_path):
  """Each command as the sweep starts it: in a process that knows no private encoding yet."""
  out = tmp_path / 'out'

  def run_all():
    for run in sweep.plan(private, out, {}, (Path('train.py'), Path('eval.py'))):
      for _, script, *arguments in run.commands:
        ENCODINGS.pop('mine', None)
        code, _, error = command(script, *arguments)
        assert (code, error) == (None, '')
      assert run.is_finished
    ENCODINGS.pop('mine', None)

  run_all()
  assert command('scripts/table.py', out)[0] is None
  table = (out / 'table.md').read_text()
  assert '| mine ' in table

  before = (out / 'encoding.name=mine' / 'eval.jsonl').read_text().splitlines()
  private.write_text(private.read_text().replace("'eval.k': 4", "'eval.k': 2"))
  run_all()  # the study's evaluation was edited since: more is measured, of the same training
  after = (out / 'encoding.name=mine' / 'eval.jsonl').read_text().splitlines()
  assert after[: len(before)] == before
  assert [json.loads(row)['k'] for row in after[len(before) :]] == [2] * len(before)


def test_checks_before_seeds_start_read_what_the_first_one_starts_from(
  command, corpus, tmp_path, monkeypatch
):
  """Its tokenizer, if that is learned; the directory of all seeds keeps none."""
  start, study = tmp_path / 'start', tmp_path / 'study.py'
  claim_run_dir(start, config.load(BASE, {'seeds': (3, 0)}))
  for seed in (3, 0):
    folder, of_seed = Path(f'{start},seed={seed}'), config.load(BASE, {'seed': seed})
    claim_run_dir(folder, of_seed)
    (folder / 'checkpoints' / str(of_seed.train.steps)).mkdir(parents=True)
  asked = []

  def check(c):
    asked.append(c.train.init_from)
    raise UserError('seen')

  monkeypatch.setattr(preflight, 'check_evaluation', check)
  flags = [corpus, '--config.seeds=3,0', f'--config.train.init_from={start}']
  assert (
    command('train.py', *TINY, *flags, f'--workdir={tmp_path / "run"}')[2] == 'train.py: seen\n'
  )

  fields = {'seeds': (3, 0), 'train.init_from': str(start)}
  study.write_text(
    f'from posenc_jax.config import load\n'
    f'def get_config(): return load({str(BASE)!r}, {fields!r})\n'
    f'def sweep(): return [{{}}]\n'
  )

  def run(*_, input, **__):
    asked.append(json.loads(input)['runs'][0][0]['train']['init_from'])
    return SimpleNamespace(returncode=0, stdout='null')

  monkeypatch.setattr(subprocess, 'run', run)
  check_runs(study, sweep.plan(study, tmp_path / 'out', {}))
  assert asked == [f'{start},seed=3'] * 2


@pytest.mark.ci
def test_a_private_encoding_that_was_edited_neither_goes_on_nor_is_evaluated(
  command, private, tmp_path
):
  """Nor counts its run as finished: another formula is another line."""
  out, source = tmp_path / 'out', private.read_text()
  run = sweep.plan(private, out, {}, (Path('train.py'), Path('eval.py')))[1]
  for _, script, *arguments in run.commands:
    ENCODINGS.pop('mine', None)
    assert command(script, *arguments)[0] is None

  def checked():
    """As the process does that a sweep starts."""
    ENCODINGS.pop('mine', None)
    config.load_study(private)
    return preflight.check_all([(config.to_json(run.config), [str(run.workdir)])])

  private.write_text(
    source.replace("'eval.k': 4", "'eval.k': 2").replace('ALiBi whose', 'One whose')
  )
  assert checked() is None
  private.write_text(source.replace('learned=learned', 'learned=not learned'))
  ENCODINGS.pop('mine', None)
  edited = "encoding 'mine' was edited since its run began; allowed: its code of then, "
  again = f'{edited}that run removed and the same sweep again, or without encodings.json there'
  with pytest.raises(UserError, match=again):
    check_runs(private, [run])
  for _, script, *arguments in run.commands:
    ENCODINGS.pop('mine', None)
    assert f'{edited}another workdir, or without' in command(script, *arguments)[2]
  (run.workdir / 'encodings.json').unlink()
  assert checked() is None

  before = (run.workdir / 'eval.jsonl').read_bytes()
  for number, (_, script, *arguments) in enumerate(run.commands[::-1]):
    (run.workdir / 'encodings.json').unlink(missing_ok=True)
    # numbers are the same: it is the one before in other words
    private.write_text(source.replace('learned=learned', f'learned=(learned, {number})[0]'))
    ENCODINGS.pop('mine', None)
    code, said, _ = command(script, *arguments)
    assert (code, 'encodings.json: is new; it has what is there now' in said) == (None, True)
  assert (run.workdir / 'eval.jsonl').read_bytes() == before
  private.write_text(source)
  assert edited in checked()[1]


def test_the_code_of_an_encoding_is_what_it_needs_of_its_files(tmp_path, monkeypatch):
  """Not its comments and docstrings, nor what else is there, but its helpers, constants and base
  classes, those of other files of the user's too.
  """
  monkeypatch.setattr(sys, 'path', [*sys.path])
  study = (
    'from posenc_jax import Encoding\nfrom own_helpers import *\nimport own_maths as maths\n'
    'RATE = 2\nSLOPES, TABLE = [], {}\n'
    'def double(x):\n  return RATE * decay(x) + SLOPES[0] + TABLE["a"]\n'
    'class Base(Encoding):\n  def bias(self, r_R):\n    """A bias."""\n    return double(r_R)\n'
    'class Mine(Base):\n  bias_in_scale = True\ndef sweep():\n  return []\n'
    'def get_config():\n  pass\n'
  )
  study += 'for n in range(4):\n  SLOPES.append(2.0**-n)\nTABLE["a"] = 5\nMine.shift = 7\n'
  files = {
    'study': study,
    'own_helpers': 'from own_maths import HALF\ndef decay(x):\n  return HALF * x\n',
    'own_maths': 'import math\n"""Maths."""\nHALF = 1 / 2\n',
  }

  def hash_of(old, new):
    assert any(old in text for text in files.values())
    for name, text in files.items():
      (tmp_path / f'{name}.py').write_text(text.replace(old, new))
      sys.modules.pop(name, None)  # else it is the one that was imported before
    return code_hash(config.load_study(tmp_path / 'study.py').Mine)

  same = [('RATE = 2', 'RATE = 2  # a comment'), ('A bias.', 'Another.'), ('return []', 'return 1')]
  same += [('    """A bias."""\n', ''), ('HALF = 1 / 2', '\n\nHALF = 1 / 2')]
  same += [('import Encoding', 'import check_laws, Encoding')]
  others = [('RATE = 2', 'RATE = 3'), ('RATE * d', '2 * d'), ('return double', 'return -double')]
  others += [('2.0**-n', '3.0**-n'), ('] = 5', '] = 6'), ('shift = 7', 'shift = 8')]
  others += [('scale = True', 'scale = False'), ('HALF * x', 'x'), ('1 / 2', '1 / 3')]
  hashes = {pair: hash_of(*pair) for pair in [*same, *others]}
  assert len({hashes[pair] for pair in same}) == 1
  assert len(set(hashes.values())) == 1 + len(others)
  assert code_hash(ENCODINGS['alibi']) is None


def test_the_code_of_an_encoding_has_one_hash_on_every_python(tmp_path):
  """As `ast.unparse` writes these, versions of Python differ in quotes."""
  (tmp_path / 'study.py').write_text(
    'from posenc_jax import Encoding\nKINDS = "a", "b"\ndef plain(f):\n  return f\n'
    'class Mine(Encoding):\n  @plain\n  def bias(self, r_R, *more: int, by: float | None = None):\n'
    '    name = f\'{", ".join(KINDS)}: {r_R!r:>{len("x")}} "\\n"\'\n'
    '    match more:\n      case [1, *rest]:\n        return r_R[..., None], *rest\n'
    '    return -1.5e-3 * r_R if by is None else {**{name: b"1"}}[name]\n'
    'def get_config():\n  pass\n'
  )
  found = code_hash(config.load_study(tmp_path / 'study.py').Mine)
  assert found == 'a37d843cd33f7b0ef12384b8ff5c5aa524a85f3e9c084713100a31c7b3995949'


def test_the_standard_library_is_no_code_of_an_encoding_where_python_names_it_by_a_link(tmp_path):
  """As Homebrew's Python does, whose `sitecustomize` moves the prefix."""
  (tmp_path / 'link').symlink_to(sys.base_prefix)
  (tmp_path / 'sitecustomize.py').write_text(f"import sys\nsys.base_prefix = '{tmp_path}/link'\n")
  (tmp_path / 'own_power.py').write_text(
    'import functools\nclass Mine:\n  power = functools.partial(pow, 2.0)\n'
  )
  code = (
    'import own_power, sysconfig; from posenc_jax.encodings.core.user_code import code_hash; '
    'print(sysconfig.get_path("stdlib"), code_hash(own_power.Mine))'
  )
  hashes = []
  for is_link in (True, False):
    done = subprocess.run(
      [sys.executable, '-c', code],
      capture_output=True,
      check=True,
      text=True,
      env=os.environ | {'PYTHONPATH': f'{tmp_path}{os.pathsep}{os.environ["PYTHONPATH"]}'},
    )
    stdlib, sha256 = done.stdout.split()
    assert stdlib.startswith(str(tmp_path)) == is_link
    hashes.append(sha256)
    (tmp_path / 'sitecustomize.py').unlink(missing_ok=True)
  assert hashes[0] == hashes[1]


def test_an_installed_package_is_the_code_of_its_own_encodings_alone(tmp_path, monkeypatch):
  """Another version of it is another formula; what it imports of others is theirs."""
  installed = tmp_path / 'lib' / 'site-packages'
  monkeypatch.syspath_prepend(installed)
  (installed / 'mylab').mkdir(parents=True)
  files = {
    'mylab/encodings': 'from posenc_jax import Encoding\nfrom mylab.maths import half\n'
    'from theirs import third\nclass Mine(Encoding):\n  def bias(self, r):\n'
    '    return half(third(r))\n',
    'mylab/maths': 'def half(x):\n  return x / 2\n',
    'theirs': 'def third(x):\n  return x / 3\n',
  }

  def hash_of(old='', new=''):
    for name, text in files.items():
      (installed / f'{name}.py').write_text(text.replace(old, new))
      sys.modules.pop(name.replace('/', '.'), None)
    importlib.invalidate_caches()
    return code_hash(importlib.import_module('mylab.encodings').Mine)

  first = hash_of()
  assert first is not None
  assert hash_of('x / 3', 'x / 4') == first
  assert hash_of('x / 2', 'x / 5') not in (None, first)


def test_the_code_of_an_encoding_is_what_was_loaded(private, tmp_path):
  """Whatever was saved since: a training asks for it long after the study was read."""
  config.load_study(private)
  before = code_hash(ENCODINGS['mine'])
  private.write_text(private.read_text().replace('learned=learned', 'learned=not learned'))
  assert code_hash(ENCODINGS['mine']) == before
  config.load_study(private)
  assert code_hash(ENCODINGS['mine']) != before


def test_the_code_of_an_encoding_that_a_function_makes_has_what_it_was_given(tmp_path):
  (tmp_path / 'study.py').write_text(
    'from posenc_jax import Encoding\ndef make(a=0, b=0, c=0, d=0, e=0):\n'
    '  class Mine(Encoding):\n    rate, _slope = a, d\n'
    '    def bias(self, r_R, e=e, *, by=b):\n      return r_R * c\n  return Mine\n'
    'def get_config():\n  pass\n'
  )
  make = config.load_study(tmp_path / 'study.py').make
  given = ({}, {'a': 1}, {'b': 1}, {'c': 1}, {'d': 1}, {'e': 1})
  assert code_hash(make()) == code_hash(make())
  assert len({code_hash(make(**some)) for some in given}) == len(given)


def test_what_flax_sets_on_every_class_is_no_code_of_an_encoding(tmp_path, monkeypatch):
  """Whatever its next version sets there."""
  (tmp_path / 'study.py').write_text(
    'from posenc_jax import Encoding\ndef make():\n  class Mine(Encoding):\n    pass\n'
    '  return Mine\ndef get_config():\n  pass\n'
  )
  kind = config.load_study(tmp_path / 'study.py').make()
  before = code_hash(kind)
  for holder in (nnx.Module, kind):
    monkeypatch.setattr(holder, '_flag_of_flax', True, raising=False)
  assert code_hash(kind) == before
  kind._flag_of_its_own = True
  assert code_hash(kind) != before


def test_a_private_encoding_is_evaluated_with_the_file_that_registers_it(
  command, private, tmp_path
):
  workdir = f'--workdir={tmp_path / "run"}'
  settings = ['--config.encoding.name=mine', '--config.seed=3']
  code, printed, _ = command('train.py', f'--config={private}', workdir, *settings)
  assert (code, printed.splitlines()[-1]) == (
    None,
    f'next: python eval.py {workdir} --config={private}',
  )
  ENCODINGS.pop('mine')
  code, _, error = command('eval.py', workdir)
  allowed = 'allowed: with --config=STUDY.py, the file that registers it'
  assert code == 2
  assert error == f"eval.py: config.encoding: 'mine' is not registered; {allowed}\n"
  # Nothing else of the file is read: the run's own config is evaluated, its seed too.
  code, _, error = command('eval.py', workdir, f'--config={private}', '--config.eval.k=1')
  assert (code, error) == (None, '')
  rows = [json.loads(row) for row in (tmp_path / 'run' / 'eval.jsonl').read_text().splitlines()]
  assert {(r['encoding'], r['seed'], r['k'], r['overrides']) for r in rows} == {
    ('mine', 3, 1, None)
  }


def test_a_training_that_ends_says_how_it_is_evaluated_but_not_in_a_sweep(
  command, corpus, tmp_path
):
  arguments = [*TINY, corpus, f'--workdir={tmp_path / "a run"}']
  for _ in range(2):  # it ends, and is started again
    lines = command('train.py', *arguments)[1].splitlines()
    assert lines[-2:] == [
      f'{tmp_path / "a run"}: training is finished (2 steps)',
      f"next: python eval.py '--workdir={tmp_path / 'a run'}'",
    ]
  (tmp_path / 'a run' / 'state.json').write_text('{}')
  assert 'next:' not in command('train.py', *arguments)[1]


@pytest.mark.parametrize(
  'section',
  [
    {'name': 'mine'},
    {'name': 'chain', 'members': 'kv_shift,mine'},
    {'name': 'heads', 'members': ({'name': 'rope', 'heads': 1}, {'name': 'mine', 'heads': 3})},
    {'name': 'pattern', 'layers': ('rope', {'name': 'dape', 'inner': 'mine'})},
    {'name': 'pose', 'inner': {'name': 'mine', 'name_of_its_own': 'x'}},
  ],
)
def test_an_encoding_inside_another_is_found_not_to_be_registered(section):
  run = config.load(BASE, {'encoding': section})
  with pytest.raises(UserError, match=r"^config.encoding: 'mine' is not registered; allowed: with"):
    runs.check_registered(run, {'eval.k': 4})
  runs.check_registered(run, {'encoding.inner.name': 'mine'})


def test_a_run_whose_encoding_is_not_registered_is_loaded_and_exported_with_the_way_out(
  command, tmp_path
):
  """Not with a list of names that are near."""
  run = config.load(BASE, {'encoding.name': 'mine'})
  (tmp_path / 'run').mkdir()
  storage.write_json(tmp_path / 'run' / 'config.json', config.to_json(run))
  where = "config.encoding: 'mine' is not registered; allowed: "
  with pytest.raises(UserError, match=f'^{where}after the module that registers it is imported$'):
    runs.load_run(tmp_path / 'run')
  figures = ['scripts/figures.py', f'--workdir={tmp_path / "run"}', f'--out={tmp_path / "figures"}']
  by_study = 'with --config=STUDY.py, the file that registers it'
  assert command(*figures) == (2, '', f'figures.py: {where}{by_study}\n')
  export = ['scripts/export_model.py', f'--workdir={tmp_path / "run"}', f'--out={tmp_path / "out"}']
  own = 'one of posenc_jax, since no family has one of your own'
  assert command(*export) == (2, '', f'export_model.py: {where}{own}\n')
  assert "did you mean 'rope'?" in command(*export, '--config.encoding.name=rop')[2]


@pytest.mark.parametrize('script', ['train.py', 'eval.py'])
def test_bad_input_is_refused_before_jax_starts(script, tmp_path):
  base = config.load(BASE)
  storage.write_json(tmp_path / 'config.json', config.to_json(base))
  code = (
    'import runpy, sys; sys.modules["jax"] = None; runpy.run_path(sys.argv[0], run_name="__main__")'
  )
  arguments = [f'--config={BASE}', f'--workdir={tmp_path}', '--config.train.steps=0']
  argv = [str(ROOT / script), *arguments]
  launcher = f'import sys; sys.argv = {argv!r}; sys.path.insert(0, {str(ROOT)!r}); {code}'
  ended = subprocess.run(
    [sys.executable, '-c', launcher], capture_output=True, text=True, check=False
  )
  assert (ended.returncode, ended.stdout) == (2, '')
  assert (
    ended.stderr == f'{script}: config.train.steps=0; allowed: 1 or more; 0 with train.init_from\n'
  )


@pytest.mark.parametrize(
  ('path', 'message', 'is_hidden'),
  [
    ('/x/zarr-lm/a.py', 'a task failed: /x/orbax-lm/ocdbt is no file', False),
    ('/x/site-packages/orbax/checkpoint/futures.py', 'it raised an exception', True),
    ('/x/asyncio/base_events.py', "NOT_FOUND: Error opening [tensorstore_spec='{}']", True),
  ],
)
@pytest.mark.usefixtures('orbax_is_silent')
def test_a_command_hides_what_orbax_logs_and_nothing_else(path, message, is_hidden):
  record = logging.LogRecord('absl', logging.ERROR, path, 1, message, (), None)
  assert bool(logging.getLogger('absl').filter(record)) != is_hidden


def test_ctrl_c_before_a_step_is_one_line_and_ends_at_once():
  code = (
    'import atexit\n'
    'from posenc_jax import cli\n'
    'def stop(argv):\n'
    '  atexit.register(print, "late")\n'
    '  raise KeyboardInterrupt\n'
    'cli.main(stop)\n'
  )
  command = [sys.executable, '-c', code, '--a=b c']
  ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
  words = "stopped; go on with the same command: python -c '--a=b c'\n"
  assert (ended.returncode, ended.stdout, ended.stderr) == (130, '', words)


SCRIPT = """
import fcntl, os, signal, sys, termios, time
from pathlib import Path
from rich.console import Console
from posenc_jax import cli
from posenc_jax.errors import UserError
from posenc_jax.training.stop_signal import StopRequest, stopped_by

{before}

def work(argv):
  {work}

cli.main(work)
"""
# They wait for `go`, print more than a pipe holds, and leave `done`.
PRINT_ON = """
  print('ready', flush=True)
  while not Path('go').exists():
    time.sleep(0.01)
  for _ in range(2000):
    print('x' * 100)
    print('y', file=sys.stderr)
  Console().print('z' * 100)
  Path('done').touch()
"""
HEAR_HANGUP = '\nsignal.signal(signal.SIGHUP, signal.SIG_DFL)'  # also where tests run under nohup
TRAIN_ON = """
  with StopRequest() as request:
    print('ready', flush=True)
    while not request.signal:
      time.sleep(0.01)
    time.sleep(0.2)
    print('x', flush=True)
    Path('done').touch()
    raise stopped_by(request.signal, 3)
"""


def start(work, folder, before='', shell=(), **options):
  """Starts a script of its own in `folder`, without the PYTHONUNBUFFERED of this process."""
  environment = {**os.environ, 'PYTHONUNBUFFERED': ''}
  environment |= options.pop('env', {})
  script = SCRIPT.format(work=work.strip(), before=before)
  command = [*shell, sys.executable, '-c', script]
  return subprocess.Popen(command, cwd=folder, env=environment, text=True, **options)


@pytest.mark.parametrize(('unbuffered', 'is_stderr'), [('', True), ('1', False)])
def test_a_reader_that_goes_away_ends_no_script(tmp_path, unbuffered, is_stderr):
  stderr = subprocess.STDOUT if is_stderr else subprocess.PIPE
  environment = {'PYTHONUNBUFFERED': unbuffered}
  pipes = {'stdout': subprocess.PIPE, 'stderr': stderr}
  with start(PRINT_ON, tmp_path, env=environment, **pipes) as process:
    first = process.stdout.readline()  # whatever it is: the process waits for `go`
    process.stdout.close()
    (tmp_path / 'go').touch()
    error = '' if is_stderr else process.stderr.read()
  assert first == 'ready\n'
  assert process.returncode == 0
  assert {*error.splitlines()} == (set() if is_stderr else {'y'})
  assert (tmp_path / 'done').exists()


def test_a_script_whose_output_nobody_reads_keeps_its_exit_code(tmp_path):
  work = "print('x'); raise UserError('y')"
  process = start(work, tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
  process.stdout.close()
  assert process.wait(timeout=30) == 2


def test_signs_that_the_encoding_of_stdout_lacks_are_escapes(tmp_path):
  work = "print('\u2713 \u00e9')"
  pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE}
  (tmp_path / 'go').touch()
  process = start(work, tmp_path, env={'PYTHONIOENCODING': 'latin-1'}, **pipes)
  process.stdout.reconfigure(encoding='latin-1')
  output, error = process.communicate(timeout=30)
  assert (process.returncode, error) == (0, '')
  assert output.splitlines()[-1] == r'\u2713 é'


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='needs /dev/full')
def test_a_full_disk_below_stdout_is_one_line(tmp_path):
  for work in ("print('x')", "print('x', flush=True)"):
    with open('/dev/full', 'w') as full:
      process = start(work, tmp_path, stdout=full, stderr=subprocess.PIPE)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 1
    assert error.startswith('-c: <stdout>: No space left on device; what was written before')
    assert error.count('\n') == 1


def test_a_script_without_any_output_runs(tmp_path):
  (tmp_path / 'go').touch()
  process = start(PRINT_ON, tmp_path, shell=['sh', '-c', 'exec "$@" >&- 2>&-', 'sh'])
  assert process.wait(timeout=30) == 0
  assert (tmp_path / 'done').exists()


def in_terminal(work, folder, hears_hangup):
  """Starts a script in a terminal of its own, and returns the process and the terminal, once it is
  ready.
  """
  terminal, inside = os.openpty()
  before = 'fcntl.ioctl(0, termios.TIOCSCTTY, 0)'
  streams = dict.fromkeys(('stdin', 'stdout', 'stderr'), inside)
  before += HEAR_HANGUP if hears_hangup else HEAR_HANGUP.replace('SIG_DFL', 'SIG_IGN')
  process = start(work, folder, before, start_new_session=True, **streams)
  os.close(inside)
  text = b''
  while b'ready' not in text:
    text += os.read(terminal, 1000)
  return process, terminal


def test_a_training_whose_terminal_is_closed_saves(tmp_path):
  process, terminal = in_terminal(TRAIN_ON, tmp_path, hears_hangup=True)
  os.close(terminal)
  time.sleep(0.1)
  process.send_signal(signal.SIGHUP)  # as a shell does that ends
  assert process.wait(timeout=30) == 128 + signal.SIGHUP
  assert (tmp_path / 'done').exists()


def test_under_nohup_a_closed_terminal_ends_nothing(tmp_path):
  process, terminal = in_terminal(PRINT_ON, tmp_path, hears_hangup=False)
  os.close(terminal)
  (tmp_path / 'go').touch()
  assert process.wait(timeout=30) == 0
  assert (tmp_path / 'done').exists()


def test_a_training_under_nohup_does_not_hear_sighup(tmp_path):
  process, terminal = in_terminal(TRAIN_ON, tmp_path, hears_hangup=False)
  process.send_signal(signal.SIGHUP)
  time.sleep(1)  # it ends 0.2 s after a signal that it hears
  assert process.poll() is None
  assert not (tmp_path / 'done').exists()
  process.send_signal(signal.SIGTERM)
  assert process.wait(timeout=30) == 128 + signal.SIGTERM
  os.close(terminal)


def test_a_script_whose_terminal_is_closed_ends_in_order(tmp_path):
  """Such as eval.py: what is open is closed, and one line says how to go on."""
  work = """
  try:
    print('ready', flush=True)
    time.sleep(60)
  finally:
    os.kill(os.getpid(), signal.SIGHUP)  # a second one
    Path('done').touch()
"""
  process = start(work, tmp_path, HEAR_HANGUP, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
  assert process.stdout.readline() == 'ready\n'
  process.send_signal(signal.SIGHUP)
  assert process.communicate(timeout=30) == (
    '',
    'stopped; go on with the same command: python -c\n',
  )
  assert process.returncode == 129
  assert (tmp_path / 'done').exists()


@pytest.mark.slow
def test_a_training_whose_reader_goes_away_trains_to_its_end(corpus, tmp_path):
  arguments = [*TINY, corpus, f'--workdir={tmp_path / "run"}', '--config.train.steps=5']
  command = [sys.executable, ROOT / 'train.py', *arguments]
  with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
    process.stdout.close()
    error = process.stderr.read()
  assert (process.returncode, error) == (0, b'')
  assert (tmp_path / 'run' / 'checkpoints' / '5').exists()


SCRIPTS = [
  path.relative_to(ROOT).as_posix()
  for folder in ('scripts', 'scripts/maintenance')
  for path in sorted((ROOT / folder).glob('*.py'))
]
FLAGS = {
  'train.py': '--workdir',
  'eval.py': '--workdir',
  'scripts/table.py': '--config',
  'scripts/html_report.py': '--out',
  'scripts/maintenance/api_page.py': 'none',
  'scripts/maintenance/conformance.py': 'none',
  'scripts/maintenance/encoding_table.py': 'none',
}


def test_a_helper_beside_a_study_is_no_script_of_the_same_name(command, tmp_path, monkeypatch):
  """As where one starts a script: its folder is then the first where modules are looked for."""
  others = [folder for folder in sys.path if folder != str(ROOT)]
  monkeypatch.setattr(sys, 'path', [str(ROOT / 'scripts'), *others])
  monkeypatch.delitem(sys.modules, 'explain', raising=False)
  (tmp_path / 'explain.py').write_text('CORPUS = "nowhere"')
  study = tmp_path / 'study.py'
  study.write_text(
    'import explain\nfrom posenc_jax.config import load\n'
    f'def get_config(): return load({str(BASE)!r}, {{"data.corpus": explain.CORPUS}})\n'
    'def sweep(): return [{}]\n'
  )
  code, _, error = command('scripts/sweep.py', f'--config={study}', f'--out={tmp_path / "out"}')
  sys.modules.pop('explain', None)
  assert code == 2
  assert "config.data.corpus='nowhere': no such corpus" in error
  assert sys.path[0] == str(ROOT), 'where packages of scripts are found'


@pytest.mark.parametrize('word', ['-h', '--help'])
@pytest.mark.parametrize('script', dict.fromkeys((*FLAGS, *SCRIPTS)))
def test_help(command, script, word):
  code, out, _ = command(script, word)
  assert not code
  assert f'python {script}' in out
  assert FLAGS.get(script, '') in out.partition('flags: ')[2]
