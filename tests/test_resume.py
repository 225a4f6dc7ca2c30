"""A training loses nothing: when killed at the worst points, on a full disk, at a loss of NaN.

`scripts/maintenance/torture.py` kills at random points for minutes; these tests kill at the few
points that it is likely to miss.
"""

import errno
import gc
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from rich.console import Console
from small_runs import STEPS, tiny, write_text_corpus

from posenc_jax import config, data, storage
from posenc_jax.config import serialization
from posenc_jax.data.documents import SPLITS
from posenc_jax.errors import Stopped, UserError
from posenc_jax.evaluation import evaluate, preflight
from posenc_jax.model.decoder import build
from posenc_jax.rows.overrides import overrides_between
from posenc_jax.training import log as training_log
from posenc_jax.training import loop, run_dir, setup, step
from posenc_jax.training.checkpoints import Checkpoints
from posenc_jax.training.optimizer import NO_OPTIMIZER, learning_rate, make_optimizer

OWN = {'encoding.name': 't5', 'train.max_to_keep': 1, 'eval.lengths': (16,), 'eval.documents': 0}


@pytest.fixture(scope='module')
def make(tmp_path_factory):
  """make(a__b=value) returns a config with the field a.b set."""
  folder = tmp_path_factory.mktemp('corpus')
  texts = [f'{name}: the quick brown fox jumps over the lazy dog; ' * 8 for name in 'abc']
  corpus = write_text_corpus(folder, dict.fromkeys(SPLITS, texts))
  return lambda **fields: tiny(OWN | {'data.corpus': corpus}, **fields)


@pytest.fixture(scope='module')
def unbroken(make, tmp_path_factory):
  """The directory of a run that nothing interrupted."""
  workdir = tmp_path_factory.mktemp('unbroken') / 'run'
  loop.train(make(), workdir)
  evaluate.evaluate(make(), workdir)
  return workdir


def last_state(workdir, c):
  model = build(c, data.VOCAB, nnx.Rngs(7))
  with Checkpoints(workdir) as checkpoints:
    return checkpoints.restore(
      model=model, opt_state=make_optimizer(c.optim, c.train.steps).init(model)
    )


def assert_same_run(a, b, c):
  assert (a / 'metrics.jsonl').read_bytes() == (b / 'metrics.jsonl').read_bytes()
  jax.tree.map(np.testing.assert_array_equal, last_state(a, c), last_state(b, c))


# A process that has imported everything, but uses no device yet. Each fork of it is a run that dies
# at one point. They share the compiled programs of the session.
KILLS = """
import json, os, shutil, signal, sys
from pathlib import Path
from posenc_jax import config, storage
from posenc_jax.evaluation import evaluate
from posenc_jax.training import loop
import jax
jax.config.update('jax_default_matmul_precision', 'highest')
workdir = Path(sys.argv[1])
c = config.from_json(json.loads(sys.argv[2]))
real = {'rename': os.rename, 'rmtree': shutil.rmtree, 'write': storage._write}

def die():
  os.kill(os.getpid(), signal.SIGKILL)
  signal.pause()

def half_a_row(what):
  def write(fd, line):
    if what in line:
      os.write(fd, line[:len(line) // 2])
      die()
    real['write'](fd, line)
  storage._write = write

def uncommitted(step):
  def rename(source, target, **options):
    if Path(target).name == str(step):
      die()
    real['rename'](source, target, **options)
  os.rename = rename

def half_deleted(step):
  def rmtree(path, **options):
    if Path(path).name == str(step):
      real['rmtree'](Path(path) / 'model')
      die()
    real['rmtree'](path, **options)
  shutil.rmtree = rmtree

for name, command, kill in (
  ('half a row', loop.train, lambda: half_a_row(b'"step":6,')),
  ('uncommitted', loop.train, lambda: uncommitted(8)),
  ('half deleted', loop.train, lambda: half_deleted(4)),
  ('left alone', loop.train, lambda: None),
  ('half an evaluation', evaluate.evaluate, lambda: half_a_row(b'"document":"b.txt"')),
):
  if not (child := os.fork()):
    sys.stdout = sys.stderr
    kill()
    command(c, workdir)
    os._exit(0)
  code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
  saved = [path.name for path in (workdir / 'checkpoints').glob('*')]
  saved.sort(key=lambda name: (len(name), name))
  print(f'{name}:', code, *saved, flush=True)
"""


@pytest.mark.ci
def test_a_run_killed_at_the_nastiest_points_ends_as_if_it_had_not_been(unbroken, make, tmp_path):
  workdir, c = tmp_path / 'run', make()
  arguments = [str(workdir), json.dumps(config.to_json(c))]
  done = subprocess.run(
    [sys.executable, '-W', 'ignore', '-c', KILLS, *arguments], capture_output=True, text=True
  )
  first, *others = done.stdout.splitlines()
  assert first in ('half a row: -9 4', 'half a row: -9 4.orbax-checkpoint-tmp'), done.stderr
  assert others == [
    'uncommitted: -9 4 8.orbax-checkpoint-tmp',
    'half deleted: -9 4 8',
    'left alone: 0 12',
    'half an evaluation: -9 12',
  ], done.stderr
  assert_same_run(workdir, unbroken, c)
  rows, whole = ((path / 'eval.jsonl').read_bytes() for path in (workdir, unbroken))
  assert whole.startswith(rows)
  assert not rows.endswith(b'\n')
  evaluate.evaluate(c, workdir)
  assert (workdir / 'eval.jsonl').read_bytes() == whole


@pytest.fixture(scope='module')
def stopped(make, tmp_path_factory):
  """The directory of a run that SIGTERM has stopped after step 7."""
  workdir, read = tmp_path_factory.mktemp('stopped') / 'run', data.Batches.__getitem__
  heard = lambda: [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
  handlers = heard()
  with pytest.MonkeyPatch.context() as patch:
    send = lambda n: os.kill(os.getpid(), signal.SIGTERM) if n == 6 else None
    patch.setattr(data.Batches, '__getitem__', lambda self, n: (send(n), read(self, n))[1])
    with pytest.raises(Stopped, match='step 7 is saved; go on with the same command') as stopped:
      loop.train(make(), workdir)
  assert stopped.value.code == 143
  assert heard() == handlers
  return workdir


def test_a_run_that_goes_on_holds_its_state_once(unbroken, stopped, make, tmp_path, monkeypatch):
  """Its parameters are read, and none is drawn beside them."""
  monkeypatch.setattr(setup, 'build', lambda *_: pytest.fail('parameters were drawn'))
  c, workdir = make(), tmp_path / 'run'
  shutil.copytree(stopped, workdir)
  training = setup.prepare(c, workdir)
  state = training.model, training.opt_state
  assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(state))
  loop.train(c, workdir)
  assert_same_run(workdir, unbroken, c)


@pytest.mark.parametrize(
  'fields',
  [
    {},
    pytest.param(
      {'optim__name': 'muon', 'train__trained_parameters': ('encodings/*', 'layers/*')},
      marks=pytest.mark.ci,
    ),
    pytest.param({'seeds': (2, 0), 'vmap_seeds': True}, marks=pytest.mark.ci),
  ],
)
def test_a_run_that_goes_on_is_the_program_of_one_that_begins(make, tmp_path, monkeypatch, fields):
  c = make(**fields)
  begun = setup.prepare(c, tmp_path / 'run')
  monkeypatch.setattr(setup, 'latest_step', lambda _: 4)
  going_on = setup.prepare(c, tmp_path / 'run')
  for attribute in ('train_step', 'val_step'):
    texts = [getattr(training, attribute).as_text() for training in (begun, going_on)]
    assert texts[0] == texts[1]
  states = [(training.model, training.opt_state) for training in (begun, going_on)]
  of = lambda x: (x.shape, x.dtype, x.sharding)
  jax.tree.map(lambda *leaves: np.testing.assert_equal(*map(of, leaves)), *states)
  removed = 'its checkpoints were removed meanwhile; allowed: the same command again'
  with pytest.raises(UserError, match=removed), setup.restored(going_on):
    pass


def test_a_run_that_falls_back_on_a_checkpoint_of_step_0_has_a_new_optimizer(make, tmp_path):
  c = make(train__max_to_keep=2)
  begun = setup.prepare(c, tmp_path)
  run_dir.claim_run_dir(tmp_path, c)
  with Checkpoints(tmp_path, max_to_keep=2) as checkpoints:
    checkpoints.save(0, begun.model, NO_OPTIMIZER.init(begun.model))
    checkpoints.save(4, begun.model, begun.opt_state)
  shutil.rmtree(tmp_path / 'checkpoints' / '4' / 'model')
  training = setup.prepare(c, tmp_path)
  with setup.restored(training):
    assert training.start_step == 0
  for attribute in ('model', 'opt_state'):
    states = [getattr(of, attribute) for of in (training, begun)]
    jax.tree.map(np.testing.assert_array_equal, *states)


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
@pytest.mark.usefixtures('orbax_cleans_up')
@pytest.mark.parametrize(
  ('file', 'size'),
  [
    ('checkpoints', 4000),
    pytest.param('config.json', 500, marks=pytest.mark.slow),
    pytest.param('metrics.jsonl', None, marks=pytest.mark.slow),
  ],
)
def test_a_full_disk_is_one_line_and_harms_nothing(
  unbroken, stopped, make, tmp_path, capsys, file, size
):
  """While the disk is full, no file may grow beyond `size` bytes; then there is room again, and a
  run that was stopped goes on as if it had not been.
  """
  c, workdir, left = make(), tmp_path / 'run', []
  if file != 'config.json':
    shutil.copytree(stopped, workdir)
    left = ['7']
  if file == 'metrics.jsonl':
    # half a row more, and room for the one session of the run that goes on
    size = max((workdir / file).stat().st_size + 50, 400)
    (workdir / 'timing.jsonl').unlink()
    (workdir / 'sessions.jsonl').unlink()
  before = {
    path: path.read_bytes()
    for path in workdir.rglob('*')
    if path.is_file() and path.suffix != '.lock'
  }
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
  try:
    with pytest.raises(
      Stopped, match=rf'run/{file}: File too large; what was written before is whole'
    ) as error:
      loop.train(c, workdir)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert (str(error.value).count('\n'), error.value.code) == (0, 1)
  assert all(path.read_bytes().startswith(content) for path, content in before.items())
  assert [path.name for path in (workdir / 'checkpoints').glob('*') if path.name.isdigit()] == left
  if left:
    loop.train(c, workdir)
    assert 'going on from step 7' in capsys.readouterr().out
    stopped_metrics, metrics = (f / 'metrics.jsonl' for f in (stopped, unbroken))
    assert metrics.read_bytes() != stopped_metrics.read_bytes()
    assert metrics.read_bytes().startswith(stopped_metrics.read_bytes())
    assert_same_run(workdir, unbroken, c)


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
@pytest.mark.usefixtures('orbax_cleans_up', 'orbax_is_silent')
def test_what_a_full_disk_does_to_a_save_shows_soon_and_in_no_other_words(tmp_path, caplog):
  model, limits = (
    {'w': jax.random.normal(jax.random.key(0), (64, 64))},
    resource.getrlimit(resource.RLIMIT_FSIZE),
  )

  def wait(checkpoints):
    for _ in range(1000):
      checkpoints.check_last_save()
      time.sleep(0.01)

  with Checkpoints(tmp_path, max_to_keep=1) as checkpoints:
    checkpoints.save(1, model, {'count': np.array(1)})
  with Checkpoints(tmp_path, max_to_keep=1) as checkpoints:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
    try:
      checkpoints.save(2, model, {'count': np.array(2)})
      with pytest.raises(OSError, match='File too large'):
        wait(checkpoints)
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  with Checkpoints(tmp_path, max_to_keep=1) as checkpoints:
    assert checkpoints.restore(model=model)[1] == 1
  gc.collect()
  assert caplog.records == []


def test_a_read_only_directory_is_one_line(unbroken, make, tmp_path, monkeypatch):
  shutil.copytree(unbroken, tmp_path / 'run')
  opened = os.open

  def refuse(path, flags, *mode):
    if str(path).startswith(str(tmp_path)) and flags & os.O_CREAT:
      raise OSError(errno.EROFS, 'Read-only file system', str(path))
    return opened(path, flags, *mode)

  monkeypatch.setattr(os, 'open', refuse)
  for command, lock in ((loop.train, 'train.lock'), (evaluate.evaluate, 'eval.lock')):
    with pytest.raises(Stopped, match=rf'run/{lock}: Read-only file system; '):
      command(make(), tmp_path / 'run')


@pytest.mark.parametrize(
  ('command', 'lock'), [(loop.train, 'train.lock'), (evaluate.evaluate, 'eval.lock')]
)
def test_the_second_process_on_a_directory_is_refused_and_named_the_first(
  command, lock, unbroken, make
):
  before = {
    path: path.read_bytes() for path in unbroken.rglob('*') if path.is_file() and path.name != lock
  }
  with storage.file_lock(unbroken / lock):
    holder = f'process {os.getpid()} on '
    with pytest.raises(
      UserError, match=rf'another process is at work there \({holder}\S+\); allowed: one at a time'
    ):
      command(make(), unbroken)
  assert before == {
    path: path.read_bytes() for path in unbroken.rglob('*') if path.is_file() and path.name != lock
  }
  command(make(), unbroken)


def test_metrics_that_are_damaged_or_lost_are_named(stopped, make, tmp_path, capsys):
  rows = (stopped / 'metrics.jsonl').read_bytes().splitlines(keepends=True)
  (tmp_path / 'metrics.jsonl').write_bytes(rows[0] + b'\x00\x00\n' + rows[2])
  with pytest.raises(UserError, match=r'metrics\.jsonl:2: the line is damaged: it is no JSON'):
    training_log.Log(tmp_path, make().train, 7, 'bits/byte', [tmp_path])
  (tmp_path / 'metrics.jsonl').unlink()
  storage.append_rows(tmp_path / 'metrics.jsonl', [{'loss': 1.0}])
  with pytest.raises(UserError, match=r'metrics\.jsonl is damaged: a row has no step'):
    training_log.Log(tmp_path, make().train, 7, 'bits/byte', [tmp_path])
  (tmp_path / 'metrics.jsonl').write_bytes(b''.join(rows))
  training_log.Log(tmp_path, make().train, 7, 'bits/byte', [tmp_path])
  assert capsys.readouterr().out == ''
  (tmp_path / 'metrics.jsonl').write_bytes(b''.join(rows[2:]))
  training_log.Log(tmp_path, make().train, 7, 'bits/byte', [tmp_path])
  assert (
    'metrics.jsonl: 2 rows up to step 3 are lost and will not be made again'
    in capsys.readouterr().out
  )


def test_a_progress_bar_shows_any_name(make, tmp_path):
  folder = tmp_path / 'a{b}[c]'
  log = training_log.Log(folder, make().train, 0, 'bits/byte', [folder])
  segments = Console(width=120).render(log._bar.get_renderable())
  assert 'a{b}[c]' in ''.join(segment.text for segment in segments)


def test_damaged_metrics_are_refused_before_anything_is_compiled_or_on_record(
  stopped, make, tmp_path, monkeypatch
):
  shutil.copytree(stopped, tmp_path / 'run')
  (tmp_path / 'run' / 'metrics.jsonl').write_bytes(b'{"step": 1}\n')
  sessions = (tmp_path / 'run' / 'sessions.jsonl').read_bytes()
  monkeypatch.setattr(setup.Training, 'compile', lambda self: pytest.fail('compiled'))
  with pytest.raises(UserError, match=r'metrics\.jsonl:1: the line is damaged'):
    loop.train(make(), tmp_path / 'run')
  assert (tmp_path / 'run' / 'sessions.jsonl').read_bytes() == sessions


def test_a_damaged_config_is_named(make, tmp_path):
  (tmp_path / 'config.json').write_text('{"seed": ')
  with pytest.raises(
    UserError, match=r'config\.json is damaged: .*; allowed: the file that train\.py wrote'
  ):
    loop.train(make(), tmp_path)


# What is added to the loss of a batch that begins with this byte, which the text has not, and what
# its gradient is multiplied by.
NOT_FINITE = {200: (np.nan, np.nan), 201: (np.inf, 1.0), 202: (0.0, np.nan)}


@jax.custom_vjp
def times_gradient(x, factor):
  return x


times_gradient.defvjp(lambda x, factor: (x, factor), lambda factor, g: (factor * g, None))


@pytest.fixture
def not_finite(monkeypatch):
  """poison(*steps) makes the loss of these steps NaN, and its gradient."""
  read, nll = data.Batches.__getitem__, step.token_nll

  def poison(*steps):
    def getitem(self, n):
      batch = read(self, n)
      tokens_BT = batch.tokens_BT.copy()
      if n + 1 in steps and len(tokens_BT) == 4:
        tokens_BT[0, 0] = 200
      return batch._replace(tokens_BT=tokens_BT)

    def token_nll(model, tokens_BT, **options):
      nats_BT = nll(model, tokens_BT, **options)
      for mark, (more, factor) in NOT_FINITE.items():
        is_marked = tokens_BT[0, 0] == mark
        nats_BT = times_gradient(nats_BT, jnp.where(is_marked, factor, 1.0))
        nats_BT = nats_BT + jnp.where(is_marked, more, 0.0)
      return nats_BT

    monkeypatch.setattr(data.Batches, '__getitem__', getitem)
    monkeypatch.setattr(step, 'token_nll', token_nll)

  return poison


def test_updates_that_are_not_finite_are_left_out_so_many_times(make, tmp_path, not_finite, capsys):
  not_finite(5, 9)
  why = 'grad_norm is nan, loss is nan'
  two, one = (make(train__max_nonfinite_updates=n, train__validate_every=0) for n in (2, 1))
  loop.train(two, tmp_path / 'two')
  assert f'step 9/12  {why}: update left out (2 of 2)' in capsys.readouterr().out
  rows = storage.read_rows(tmp_path / 'two' / 'metrics.jsonl')
  assert [row for row in rows if 'skipped' in row] == [
    {'step': step, 'skipped': why} for step in (5, 9)
  ]
  assert [row['step'] for row in rows] == [1, 3, 5, 6, 9, 12, 12]
  for _ in range(2):  # what was left out before the checkpoint counts
    with pytest.raises(
      Stopped, match=f'step 9: {why}; 1 updates were left out before; training stopped'
    ):
      loop.train(one, tmp_path / 'one')
    assert storage.read_rows(tmp_path / 'one' / 'metrics.jsonl') == rows[:4]
    assert last_state(tmp_path / 'one', one)[1] == 8


def test_an_update_left_out_changes_the_count_of_steps_alone(make, not_finite):
  not_finite()
  c = make(train__max_nonfinite_updates=1)
  optimizer = make_optimizer(c.optim, STEPS)
  step_fn, _ = step.make_step_fns(c, optimizer)
  tokens_BT = jnp.arange(64).reshape(4, 16)
  start = build(c, data.VOCAB, nnx.Rngs(0))
  model, opt_state, _ = step_fn(start, optimizer.init(start), data.Batch(tokens_BT))
  before = jax.tree.map(np.array, (model, opt_state))
  for mark, (more, factor) in NOT_FINITE.items():
    model, opt_state, metrics = step_fn(
      *jax.tree.map(jnp.array, before), data.Batch(tokens_BT.at[0, 0].set(mark))
    )
    names = ('loss', 'grad_norm')
    assert [bool(np.isfinite(metrics[name])) for name in names] == [more == 0, factor == 1]
    jax.tree.map(
      np.testing.assert_array_equal, (model, opt_state[:-1]), (before[0], before[1][:-1])
    )
    assert (before[1][-1].count, opt_state[-1].count) == (1, 2)
  without, _, _ = step.make_step_fns(make(), optimizer)[0](
    *jax.tree.map(jnp.array, before), data.Batch(tokens_BT)
  )
  model, _, _ = step_fn(*jax.tree.map(jnp.array, before), data.Batch(tokens_BT))
  # what is finite is the same with the field and without
  jax.tree.map(np.testing.assert_array_equal, model, without)


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_parameters_that_are_not_finite_are_not_saved(tmp_path, value):
  good, bad = ({'w': jnp.array([1.0, x])} for x in (2.0, value))
  with Checkpoints(tmp_path, max_to_keep=1) as checkpoints:
    checkpoints.save(1, good, {'count': jnp.array(1)})
    with pytest.raises(Stopped, match='step 2: w is not finite; training stopped'):
      checkpoints.save(2, bad, {'count': jnp.array(2)})
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.restore(model=bad)[1] == 1


def test_a_validation_that_is_not_finite_stops_the_run(make, tmp_path):
  log = training_log.Log(tmp_path, make().train, 0, 'bits/byte', [tmp_path])
  with pytest.raises(Stopped, match='step 4: validation is nan; training stopped'):
    log.validation(4, [{'bpb': float('nan')}])
  assert not (tmp_path / 'metrics.jsonl').exists()


@pytest.mark.parametrize('seeds', [{}, {'seeds': (0,)}, {'seeds': (0,), 'vmap_seeds': True}])
def test_scores_of_parameters_that_are_gone_are_not_those_of_new_ones(
  unbroken, make, tmp_path, seeds
):
  c, name = make(eval__lengths=(16, 32), **seeds), 'run,seed=0' if seeds else 'run'
  shutil.copytree(unbroken, tmp_path / name)
  for path in (tmp_path / name / 'checkpoints').iterdir():
    shutil.rmtree(path)
  before = {path: path.read_bytes() for path in tmp_path.rglob('*.json*')}
  gone = f"{name}': its checkpoints are gone, but eval.jsonl and finished.json are of the model"
  with pytest.raises(UserError, match=re.escape(gone)):
    loop.train(c, tmp_path / 'run')
  assert {path: path.read_bytes() for path in tmp_path.rglob('*.json*')} == before
  (tmp_path / name / 'eval.jsonl').unlink()
  with pytest.raises(UserError, match=r'gone, but finished\.json .* without finished\.json there'):
    loop.train(c, tmp_path / 'run')


@pytest.mark.slow
def test_without_its_damaged_checkpoints_a_run_begins_anew(unbroken, make, tmp_path):
  shutil.copytree(unbroken, tmp_path / 'run')
  shutil.rmtree(tmp_path / 'run' / 'checkpoints' / str(STEPS))
  for name in run_dir.OF_PARAMETERS:
    (tmp_path / 'run' / name).unlink()
  loop.train(make(), tmp_path / 'run')
  assert_same_run(tmp_path / 'run', unbroken, make())


CONSTANT = {'optim__final_fraction': 1.0, 'optim__warmup': 2}


def due_rows(workdir, c):
  """The rows of metrics.jsonl without those of a last step that the config does not have."""
  rows = storage.read_rows(workdir / 'metrics.jsonl')
  is_due = lambda row: training_log.is_validated if 'split' in row else training_log.is_logged
  return [row for row in rows if is_due(row)(row['step'], c.train)]


@pytest.mark.ci
@pytest.mark.parametrize('seeds', [{}, {'seeds': (2, 0), 'vmap_seeds': True}])
def test_a_run_of_a_constant_rate_is_extended_to_what_the_longer_one_is(
  make, tmp_path, capsys, seeds
):
  short, long = (make(train__steps=steps, **CONSTANT, **seeds) for steps in (5, 9))
  names = ('run,seed=2', 'run,seed=0') if seeds else ('run',)
  loop.train(short, tmp_path / 'run')
  evaluate.evaluate(short, tmp_path / 'run')
  assert all((tmp_path / name / 'finished.json').exists() for name in ('run', *names))
  before = {name: (tmp_path / name / 'eval.jsonl').read_bytes() for name in names}
  loop.train(long, tmp_path / 'run')
  assert 'extended from 5 to 9 steps; its rate is constant' in capsys.readouterr().out
  assert not (tmp_path / 'run' / 'finished.json').exists()
  evaluate.evaluate(long, tmp_path / 'run')
  assert run_dir.is_finished(tmp_path / 'run', config.config_hash(long))
  loop.train(long, tmp_path / 'whole' / 'run')
  for name in names:
    extended, whole = tmp_path / name, tmp_path / 'whole' / name
    jax.tree.map(np.testing.assert_array_equal, last_state(extended, long), last_state(whole, long))
    assert due_rows(extended, long) == storage.read_rows(whole / 'metrics.jsonl')
    assert config.saved_config(extended).train.steps == 9
    after = (extended / 'eval.jsonl').read_bytes()
    assert after.startswith(before[name])
    steps = [row['step'] for row in storage.read_rows(extended / 'eval.jsonl')]
    assert steps.count(5) == steps.count(9) == len(steps) // 2


@pytest.mark.ci
def test_other_rates_are_those_of_the_new_length_from_there_on(make, tmp_path, capsys):
  short, long = (make(train__steps=steps, train__log_every=1) for steps in (4, STEPS))
  loop.train(short, tmp_path / 'run')
  loop.train(long, tmp_path / 'run')
  line = f'learning rates from here on are those of a schedule of {STEPS}, before of 4'
  assert f'{tmp_path}/run: extended from 4 to {STEPS} steps; {line}' in capsys.readouterr().out
  rows = storage.read_rows(tmp_path / 'run' / 'metrics.jsonl')
  rates = {row['step']: row['learning_rate'] for row in rows if 'loss' in row}
  for n, rate in rates.items():
    expected = learning_rate(short.optim, 4 if n <= 4 else STEPS, n)
    np.testing.assert_allclose(rate, expected, rtol=1e-6)


@pytest.mark.parametrize('seeds', [(), (0,)])
def test_a_run_that_is_refused_is_not_extended(unbroken, make, tmp_path, seeds):
  """Its documents are found to be others only when they are opened."""
  short, long = (make(train__steps=steps, seeds=seeds) for steps in (STEPS, STEPS + 1))
  run_dir.claim_run_dir(tmp_path / 'run', short)
  run_dir.mark_finished(tmp_path / 'run', config.config_hash(short))
  folder = tmp_path / ('run,seed=0' if seeds else 'run')
  shutil.copytree(unbroken, folder, dirs_exist_ok=True)
  tree = storage.read_json(folder / 'documents.json')
  storage.write_json(folder / 'documents.json', tree | {'sha256': {'train': 'f' * 64}})
  before = {path: path.read_bytes() for path in tmp_path.rglob('*.json')}
  assert {path.name for path in before} >= {'config.json', 'finished.json'}
  with pytest.raises(UserError, match=r'documents in train of data\.corpus: 3 when its run began'):
    loop.train(long, tmp_path / 'run')
  assert {path: path.read_bytes() for path in tmp_path.rglob('*.json')} == before


@pytest.mark.parametrize('changed', [{'train__steps': 3}, {'train__steps': 9, 'train__batch': 2}])
def test_a_run_gets_neither_shorter_nor_longer_and_another(make, tmp_path, changed):
  run_dir.claim_run_dir(tmp_path, make(train__steps=5))
  before = (tmp_path / 'config.json').read_bytes()
  with pytest.raises(UserError, match=r'another config: .*train\.steps \(there 5, here'):
    loop.train(make(**changed), tmp_path)
  assert (tmp_path / 'config.json').read_bytes() == before


def test_which_checkpoints_are_kept_and_how_a_folder_is_named_make_no_other_run(
  make, tmp_path, monkeypatch
):
  run, begun = tmp_path / 'run', make()
  run_dir.claim_run_dir(run, begun)
  before = (run / 'config.json').read_bytes()
  corpus = Path(begun.data.corpus)
  monkeypatch.chdir(corpus.parent)
  again = make(
    train__max_to_keep=5, train__checkpoint_every=7, data__corpus=f'{corpus.name}/../{corpus.name}/'
  )
  run_dir.claim_run_dir(run, again)
  assert (run / 'config.json').read_bytes() == before
  assert overrides_between(begun, again) == {}
  other = make(train__max_to_keep=5, data__corpus=str(corpus / 'train'))
  with pytest.raises(UserError, match=r'holds a run of another config: data\.corpus \(there') as e:
    run_dir.claim_run_dir(run, other)
  assert 'by a link' not in str(e.value)

  text = shutil.copytree(corpus, tmp_path / 'text')
  run_dir.claim_run_dir(tmp_path / 'of text', make(data__corpus=str(text)))
  moved = text.rename(tmp_path / 'moved')
  with pytest.raises(UserError, match='or the same text there again, such as by a link'):
    run_dir.claim_run_dir(tmp_path / 'of text', make(data__corpus=str(moved)))


def test_a_run_of_before_fields_were_added_goes_on_and_is_evaluated_as_ever(
  unbroken, stopped, make, tmp_path
):
  runs = [shutil.copytree(run, tmp_path / run.parent.name / 'run') for run in (unbroken, stopped)]
  for run in runs:
    tree = config.to_json(make())
    for path in serialization.ADDED | serialization.HASHED_ADDED:
      section, name = path.split('.')
      del tree[section][name]
    tree['data']['packed'] = False
    storage.write_json(run / 'config.json', tree)
    (run / 'built_in.json').unlink()
  done, broken_off = runs
  loop.train(make(), broken_off)
  assert_same_run(unbroken, broken_off, make())
  rows = (done / 'eval.jsonl').read_text()
  (done / 'eval.jsonl').unlink()
  evaluate.evaluate(config.trained_config(done, {}), done)
  assert (done / 'eval.jsonl').read_text() == rows


def test_a_run_that_began_with_another_default_does_not_go_on(unbroken, stopped, make, tmp_path):
  runs = [shutil.copytree(run, tmp_path / run.parent.name / 'run') for run in (unbroken, stopped)]
  for run in runs:
    values = storage.read_json(run / 'built_in.json')['values']
    assert values == {'t5.bidirectional': False, 't5.buckets': 32, 't5.max_distance': 128}
    storage.write_json(run / 'built_in.json', {'values': values | {'t5.buckets': 16}})
  done, broken_off = runs
  says = r't5\.buckets was 16 when its run began, and is 32 now; allowed: the version of posenc_jax'
  with pytest.raises(UserError, match=says):
    loop.train(make(), broken_off)
  (done / 'eval.jsonl').unlink()
  with pytest.raises(UserError, match=says):
    evaluate.evaluate(make(), done)
  assert preflight.check_all([(config.to_json(make()), [str(done)])])[0] == 0


def test_a_run_of_before_there_was_a_choice_of_optimizers_is_one_of_adamw(make, tmp_path):
  tree = config.to_json(make())
  del tree['optim']['name'], tree['train']['first_batch'], tree['train']['init_step']
  assert config.config_hash(config.from_json(tree)) == config.config_hash(make())
  storage.write_json(tmp_path / 'config.json', tree)
  run_dir.claim_run_dir(tmp_path, make())
  assert config.saved_config(tmp_path) == make()
  with pytest.raises(
    UserError, match=r"another config: optim\.name \(there 'adamw', here 'muon'\)"
  ):
    run_dir.claim_run_dir(tmp_path, make(optim__name='muon'))
  with pytest.raises(UserError, match=r'another config: train\.first_batch \(there 0, here 3\)'):
    run_dir.claim_run_dir(tmp_path, make(train__first_batch=3))


@pytest.mark.parametrize('steps', [None, 'many', True])
def test_a_config_without_a_number_of_steps_is_another_one(make, tmp_path, steps):
  tree = config.to_json(make(train__steps=9))
  tree['train'] |= {'steps': steps} if steps else {}
  if steps is None:
    del tree['train']['steps']
  storage.write_json(tmp_path / 'config.json', tree)
  with pytest.raises(UserError, match=r'another config: train\.steps \(there '):
    run_dir.claim_run_dir(tmp_path, make(train__steps=10))


def test_a_source_is_the_same_run_in_another_spelling_and_in_a_folder_that_moved(
  make, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  run_dir.claim_run_dir('old/source', make())
  run_dir.claim_run_dir('old/run', make(train__init_from='old/source'))
  again = make(train__init_from=str(tmp_path / 'old' / 'source'))
  run_dir.claim_run_dir('old/run', again)
  assert config.saved_config('old/run').train.init_from == again.train.init_from
  (tmp_path / 'old').rename('new')
  run_dir.claim_run_dir('new/run', make(train__init_from='new/source'))
  for other in ('', 'new/run', 'old/source'):
    with pytest.raises(UserError, match=r"there 'new/source', here '"):
      run_dir.claim_run_dir('new/run', make(train__init_from=other))
