"""Several seeds of one config are as many runs, one after another or together in one program."""

import os
import re
import shutil
import signal
from types import SimpleNamespace
from unittest.mock import Mock

import jax
import numpy as np
import pytest
from flax import nnx
from small_runs import BASE, TINY, tiny
from test_trainer import parameters

from posenc_jax import config, data, storage, sweep
from posenc_jax.errors import Stopped, UserError
from posenc_jax.evaluation import evaluate
from posenc_jax.evaluation.long_ppl_evaluator import check_evaluator
from posenc_jax.evaluation.runs import load_run
from posenc_jax.model.decoder import build
from posenc_jax.sweep import status
from posenc_jax.training import log as training_log
from posenc_jax.training import loop, setup
from posenc_jax.training.checkpoints import Checkpoints
from posenc_jax.training.init_from import finished_parameters
from posenc_jax.training.run_dir import claim_run_dir, is_finished

SEEDS = (3, 0)


@pytest.fixture(scope='module')
def make(corpus):
  # it draws at every step
  own = {'encoding.name': 'random_positions', 'train.max_to_keep': 1, 'data.corpus': corpus}
  return lambda **fields: tiny(own, **fields)


@pytest.fixture(scope='module')
def alone(make, tmp_path_factory):
  """The directory of a run of the second seed, trained by a config with `seeds`."""
  workdir = tmp_path_factory.mktemp('alone') / 'run'
  loop.train(make(seeds=SEEDS[1:]), workdir)
  return config.seed_workdir(workdir, SEEDS[1])


@pytest.fixture(scope='module')
def together(make, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('together') / 'run'
  loop.train(make(seeds=SEEDS, vmap_seeds=True), workdir)
  return workdir


def files(folder):
  return {name: (folder / name).read_bytes() for name in ('config.json', 'metrics.jsonl')}


def assert_close(folder, other):
  """Checks that the rows of two directories are equal, and their numbers up to rounding."""
  rows, wanted = (storage.read_rows(f / 'metrics.jsonl') for f in (folder, other))
  assert [row.keys() for row in rows] == [row.keys() for row in wanted]
  for row, like in zip(rows, wanted, strict=True):
    assert {k: v for k, v in row.items() if isinstance(v, str)} == {
      k: v for k, v in like.items() if isinstance(v, str)
    }
    numbers = [name for name, value in like.items() if not isinstance(value, str)]
    np.testing.assert_allclose([row[n] for n in numbers], [like[n] for n in numbers], rtol=1e-5)


def test_at_once_is_each_by_itself(make, alone, together, capsys):
  first, second = (config.seed_workdir(together, seed) for seed in SEEDS)
  assert (second / 'config.json').read_bytes() == (alone / 'config.json').read_bytes()
  assert_close(second, alone)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
    *(parameters(folder, make()) for folder in (second, alone)),
  )
  for seed, folder in zip(SEEDS, (first, second), strict=True):
    loop.train(make(seed=seed), folder)  # it is that run, and finished
    assert 'training is finished' in capsys.readouterr().out
  losses = [
    [row['loss'] for row in storage.read_rows(f / 'metrics.jsonl') if 'loss' in row]
    for f in (first, second)
  ]
  assert losses[0] != losses[1]


def test_costs_of_seeds_in_one_program_are_those_of_one(make):
  c = make(encoding__name='t5')
  one = nnx.eval_shape(lambda: build(c, data.VOCAB, nnx.Rngs(0)))
  two = jax.tree.map(lambda x: jax.ShapeDtypeStruct((2, *x.shape), x.dtype), one)
  train_step = Mock()
  train_step.memory_analysis().temp_size_in_bytes = 1000

  def costs(model, count, devices=1):
    training = SimpleNamespace(config=c, model=model, seed_runs=[None] * count)
    training.train_step, training.mesh = train_step, SimpleNamespace(size=devices)
    return loop._costs(training)

  of_one = costs(one, 1)
  assert (of_one['temporary_bytes'], of_one['encoding_parameters']) == (1000, 32 * c.model.heads)
  # which part of the memory of several is that of one run on one device, nobody knows
  assert costs(two, 2) == costs(one, 1, devices=4) == of_one | {'temporary_bytes': None}


def test_the_time_of_a_step_is_shared_by_the_seeds_of_a_program(make, tmp_path, monkeypatch):
  c, clock = make().train, SimpleNamespace(perf_counter=lambda: clock.now, now=100.0)
  monkeypatch.setattr(training_log, 'time', clock)
  folders = [tmp_path / 'a', tmp_path / 'b']
  for folder in folders:
    folder.mkdir()
  log = training_log.Log(tmp_path, c, 0, 'bits/byte', folders)
  log.start(0, {'model_flops_per_step': 600, 'peak_flops_per_second': 1000.0})
  clock.now += 6.0
  log.push(c.log_every, {'loss': np.ones(2), 'learning_rate': np.ones(2)}, [1.0, 1.0])
  log.flush()
  speed = {'seconds_per_step': 1.0, 'tokens_per_second': c.batch * c.length, 'mfu': 0.6}
  assert c.log_every == 3
  for folder in folders:
    row = storage.read_rows(folder / 'timing.jsonl')[-1]
    assert row | speed == row


@pytest.mark.ci
def test_one_after_another_is_each_by_itself_to_the_bit(make, alone, together, tmp_path):
  loop.train(make(seed=SEEDS[0]), tmp_path / 'first')
  loop.train(make(seeds=SEEDS), tmp_path / 'run')
  for seed, by_itself in zip(SEEDS, (tmp_path / 'first', alone), strict=True):
    assert files(config.seed_workdir(tmp_path / 'run', seed)) == files(by_itself)
  assert_close(config.seed_workdir(together, SEEDS[0]), tmp_path / 'first')


@pytest.fixture
def deaf():
  """A process that SIGTERM does not end where no training hears it."""
  before = signal.signal(signal.SIGTERM, lambda *_: None)
  yield
  signal.signal(signal.SIGTERM, before)


def test_each_seed_is_prepared_once(make, tmp_path, monkeypatch):
  """The first one before the directory of all is claimed."""
  run, done = tmp_path / 'run', []

  def prepare(c, folder):
    done.append(('prepared', c.seed, folder == config.seed_workdir(run, c.seed), run.exists()))
    return c.seed

  monkeypatch.setattr(loop.setup, 'prepare', prepare)
  monkeypatch.setattr(loop, '_train_one', lambda seed, *others: done.append(('trained', seed)))
  loop.train(make(seeds=SEEDS), run)
  of_each = [[('prepared', s, True, s != SEEDS[0]), ('trained', s)] for s in SEEDS]
  assert done == [step for steps in of_each for step in steps]


@pytest.mark.usefixtures('deaf')
@pytest.mark.parametrize('is_saving', [False, True])
def test_a_stop_in_the_last_step_of_a_seed_lets_no_other_begin(
  make, tmp_path, monkeypatch, is_saving
):
  push, close = training_log.Log.push, Checkpoints.close

  def stop_at_the_last_step(self, step, *args):
    push(self, step, *args)
    if step == make().train.steps:
      os.kill(os.getpid(), signal.SIGTERM)

  def stop_at_the_last_save(self):
    if self._is_saving:
      os.kill(os.getpid(), signal.SIGTERM)
    close(self)

  if is_saving:
    monkeypatch.setattr(Checkpoints, 'close', stop_at_the_last_save)
  else:
    monkeypatch.setattr(training_log.Log, 'push', stop_at_the_last_step)
  with pytest.raises(Stopped, match=r'SIGTERM: step .* is saved; go on with the same command'):
    loop.train(make(seeds=SEEDS), tmp_path / 'run')
  first, second = (config.seed_workdir(tmp_path / 'run', seed) for seed in SEEDS[:2])
  assert [path.name for path in (first / 'checkpoints').iterdir()]
  assert not (second / 'checkpoints').exists()


@pytest.mark.slow
def test_at_once_goes_on_after_a_stop_with_the_same_bits(
  make, together, tmp_path, monkeypatch, capsys
):
  c, workdir = make(seeds=SEEDS, vmap_seeds=True), tmp_path / 'run'
  push = training_log.Log.push

  def stop(self, step, *args):
    push(self, step, *args)
    if step == 7:
      raise Stopped('now')

  monkeypatch.setattr(training_log.Log, 'push', stop)
  with pytest.raises(Stopped, match='now'):
    loop.train(c, workdir)
  monkeypatch.undo()
  loop.train(c, workdir)
  assert 'going on from step 4' in capsys.readouterr().out
  for seed in SEEDS:
    assert files(config.seed_workdir(workdir, seed)) == files(config.seed_workdir(together, seed))
  # Killed while seeds got their checkpoints:
  shutil.rmtree(config.seed_workdir(workdir, SEEDS[1]) / 'checkpoints')
  loop.train(c, workdir)
  jax.tree.map(
    np.testing.assert_array_equal,
    *(parameters(config.seed_workdir(folder, SEEDS[1]), make()) for folder in (workdir, together)),
  )


def test_each_is_evaluated_and_starts_another_run(make, together, tmp_path):
  c = make(seeds=SEEDS, vmap_seeds=True)
  shutil.copytree(together.parent, tmp_path / 'runs')
  workdir = tmp_path / 'runs' / 'run'
  with pytest.raises(UserError, match='split'):  # this corpus has no test split
    evaluate.evaluate(c, workdir)
  c.eval.split, c.eval.protocols, c.eval.documents = 'validation', ('non_overlapping',), 1
  evaluate.evaluate(c, workdir)
  rows = [
    row
    for seed in SEEDS
    for row in storage.read_rows(config.seed_workdir(workdir, seed) / 'eval.jsonl')
  ]
  assert {(row['run'], row['seed']) for row in rows} == {
    (f'run,seed={seed}', seed) for seed in SEEDS
  }
  assert is_finished(workdir, config.config_hash(c))
  more = make(seeds=SEEDS[::-1], train__init_from=str(workdir), train__steps=0)
  loop.train(more, tmp_path / 'more')
  for seed in SEEDS:
    jax.tree.map(
      np.testing.assert_array_equal,
      *(last(config.seed_workdir(w, seed), more) for w in (workdir, tmp_path / 'more')),
    )


@pytest.mark.parametrize('vmap_seeds', [False, True])
def test_each_seed_begins_at_its_own_batch_of_that_number(make, tmp_path, vmap_seeds):
  c = make(seeds=SEEDS, vmap_seeds=vmap_seeds, train__first_batch=5)
  own = config.single_seed_runs(c, tmp_path / 'run')
  corpus, rows = data.opened(c.data, 'train'), (c.train.length, c.train.batch)
  expected = {seed: corpus.batches(*rows, seed)[5].tokens_BT for seed in SEEDS}
  for prepared in [(c, tmp_path / 'run')] if vmap_seeds else own:
    training = setup.prepare(*prepared)
    step, read = next(training.train_iter())
    assert step == 1
    for (run, _), batch in zip(training.seed_runs, read, strict=True):
      np.testing.assert_array_equal(batch.tokens_BT, expected[run.seed])


def test_where_one_model_is_wanted_the_directory_of_a_seed_is_named(make, together):
  one = config.seed_workdir(together, 3)
  several = f"'{together}': it holds the seeds 3, 0; allowed: the directory of one, such as {one}$"
  judged = make(eval__protocols=('long_ppl',), eval__long_ppl_evaluator=str(together))
  for function, *arguments in (
    (load_run, together),
    (finished_parameters, together, None, make(), None),
    (check_evaluator, judged, None),
  ):
    with pytest.raises(UserError, match=several):
      function(*arguments)
  assert load_run(one).step == make().train.steps


def test_a_seed_that_is_there_started_from_what_it_says(make, tmp_path, monkeypatch):
  """The directory it is evaluated from and the fate of the source make no difference."""
  monkeypatch.chdir(tmp_path)
  claim_run_dir('source', make(seeds=SEEDS))
  c = make(seeds=SEEDS, train__init_from='source')
  starts = lambda c, folder: [one.train.init_from for one, _ in config.single_seed_runs(c, folder)]
  of_each = [f'source,seed={seed}' for seed in SEEDS]
  assert starts(c, 'run') == of_each
  for one, folder in config.single_seed_runs(c, 'run'):
    claim_run_dir(folder, one)
  shutil.rmtree('source')
  assert starts(c, tmp_path / 'run') == of_each
  assert starts(c, 'new') == ['source'] * 2
  # which is refused
  assert starts(make(seeds=SEEDS, train__init_from='other'), 'run') == ['other'] * 2
  for one, folder in config.single_seed_runs(c, 'new'):
    claim_run_dir(folder, one)
  claim_run_dir('source', make(seeds=SEEDS))
  assert starts(c, 'new') == ['source'] * 2


def last(folder, c):
  model = build(c, data.VOCAB, nnx.Rngs(9))
  return finished_parameters(folder, model, c, lambda paths: {})


def test_a_seed_that_was_trained_alone_is_not_overwritten(make, alone, tmp_path):
  folder = tmp_path / 'run,seed=0'
  shutil.copytree(alone, folder)
  tree = storage.read_json(folder / 'documents.json')
  storage.write_json(folder / 'documents.json', tree | {'sha256': {'train': 'f' * 64}})
  before = {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}
  problem = 'run,seed=0 holds checkpoints of a run by itself; allowed: another workdir'
  with pytest.raises(UserError, match=problem):
    loop.train(make(seeds=SEEDS, vmap_seeds=True), tmp_path / 'run')
  assert {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()} == before


def test_checkpoints_between_are_of_seeds_one_after_another_alone(make):
  fields = {'seeds': SEEDS, 'train__keep_every': 500, 'train__checkpoint_every': 500}
  config.validate(make(**fields))
  with pytest.raises(UserError, match=r'keep_every=500; allowed: 0 with config\.vmap_seeds'):
    config.validate(make(**fields, vmap_seeds=True))


@pytest.mark.parametrize('vmap_seeds', [False, True])
def test_what_is_refused_leaves_no_directory(make, tmp_path, vmap_seeds):
  """It would refuse the command once that is corrected."""
  fields = {'seeds': SEEDS, 'vmap_seeds': vmap_seeds}
  with pytest.raises(UserError, match=r"'rops'.*did you mean 'rope'"):
    loop.train(make(**fields, encoding__name='rops'), tmp_path / 'run')
  with pytest.raises(UserError, match='splash'):
    loop.train(make(**fields, attention__backend='splash'), tmp_path / 'run')
  assert not [*tmp_path.iterdir()]
  last = config.seed_workdir(tmp_path / 'run', SEEDS[-1])
  claim_run_dir(last, make(seed=SEEDS[-1], optim__clip=2.0))
  with pytest.raises(UserError, match=r'run of another config: optim.clip \(there 2.0'):
    loop.train(make(**fields), tmp_path / 'run')
  assert [*tmp_path.iterdir()] == [last]


@pytest.mark.parametrize('vmap_seeds', [False, True])
def test_what_a_later_seed_cannot_begin_from_is_said_before_the_first(make, tmp_path, vmap_seeds):
  source = tmp_path / 'source'
  claim_run_dir(source, make(seeds=SEEDS[:1]))
  first = config.seed_workdir(source, SEEDS[0])
  claim_run_dir(first, make(seed=SEEDS[0]))
  (first / 'checkpoints' / str(make().train.steps)).mkdir(parents=True)
  c = make(seeds=SEEDS, vmap_seeds=vmap_seeds, train__init_from=str(source))
  last = config.seed_workdir(source, SEEDS[-1])
  study = tmp_path / 'study.py'
  study.write_text(
    f'from posenc_jax.config import *\ndef get_config(): return from_json({config.to_json(c)!r})\n'
    'def sweep(): return [{}]\n'
  )
  begin = (lambda: loop.train(c, tmp_path / 'run'), lambda: sweep.plan(study, tmp_path / 'out', {}))
  for function in begin:
    with pytest.raises(UserError, match=rf"init_from='{last}': no config\.json there"):
      function()
  claim_run_dir(last, make(seed=SEEDS[-1]))
  for function in begin:
    with pytest.raises(UserError, match=rf"init_from='{last}': its training is at step 0 of"):
      function()
  (last / 'checkpoints' / str(make().train.steps)).mkdir(parents=True)
  assert sweep.plan(study, tmp_path / 'out', {})
  for name in ('run', 'out/run'):
    there = config.seed_workdir(tmp_path / name, SEEDS[-1])
    there.mkdir(parents=True)
    (there / 'eval.jsonl').write_text('')
  for function in begin:
    with pytest.raises(UserError, match=f'seed={SEEDS[-1]}.: its checkpoints are gone, but eval'):
      function()
  assert not config.seed_workdir(tmp_path / 'run', SEEDS[0]).exists()


@pytest.mark.parametrize(
  ('fields', 'words'),
  [
    ({'seeds': (1, 1)}, r'config.seeds=\(1, 1\); allowed: whole numbers .* none twice'),
    ({'seeds': (-1,)}, r'config.seeds=\(-1,\); allowed: whole numbers'),
    ({'seeds': (1,), 'seed': 2}, r'config.seed=2; allowed: 0, since config.seeds=\(1,\)'),
    ({'vmap_seeds': True}, r'config.vmap_seeds=True; allowed: .* with config.seeds'),
    (
      {'seeds': (1, 2), 'mesh__seeds': 2},
      r'config.mesh.seeds=2; allowed: a divisor of the seeds at once, 1$',
    ),
    (
      {'seeds': (1, 2), 'vmap_seeds': True, 'mesh__seeds': 3},
      r'config.mesh.seeds=3; .* at once, 2$',
    ),
    (
      {'seeds': (1, 2), 'vmap_seeds': True, 'mesh__seeds': 2, 'mesh__context': 2},
      r'config.mesh.context=2; allowed: 1 with mesh.seeds=2$',
    ),
  ],
)
def test_seeds_that_cannot_be_are_one_line(make, fields, words):
  with pytest.raises(UserError, match=words):
    config.validate(make(**fields))


def test_one_seed_that_is_not_finite_is_named(make, tmp_path):
  folders = [tmp_path / name for name in 'ab']
  for folder in folders:
    folder.mkdir()
  train_config = make(train__max_nonfinite_updates=1, train__log_every=1).train
  log = training_log.Log(tmp_path / 'run', train_config, 0, 'bits/byte', folders)
  values = {'loss': np.array([1.0, np.nan]), 'grad_norm': np.ones(2), 'learning_rate': np.ones(2)}
  log.push(1, values, [1.0, 1.0])
  log.push(2, values, [1.0, 1.0])
  with pytest.raises(
    Stopped, match=re.escape('b: step 2: loss is nan; 1 updates were left out before')
  ):
    log.flush()
  assert [row['step'] for row in storage.read_rows(tmp_path / 'a' / 'metrics.jsonl')] == [1, 2]
  assert storage.read_rows(tmp_path / 'b' / 'metrics.jsonl') == [
    {'step': 1, 'skipped': 'loss is nan'}
  ]


def test_a_sweep_of_seeds_is_one_run_a_line(corpus, tmp_path):
  study = tmp_path / 'study.py'
  study.write_text(
    'from posenc_jax.config import load, product, vary\n'
    f'def get_config():\n  return load({str(BASE)!r}, { ({**TINY, "data.corpus": corpus})!r})\n'
    "def sweep():\n  return product(vary('seed', 0, 1), vary('encoding.name', 'nope', 'rope'))\n"
  )
  runs = sweep.plan(study, tmp_path / 'out', {'seeds': SEEDS})
  assert [run.name for run in runs] == ['encoding.name=nope', 'encoding.name=rope']
  assert [folder.name for folder in runs[0].results] == [
    'encoding.name=nope,seed=3',
    'encoding.name=nope,seed=0',
  ]
  assert all(
    '--config.seeds=(3, 0)' in command and '--config.seed=0' not in command
    for command in runs[0].commands
  )
  other = config.load(study, {'encoding.name': 'nope', 'seed': 3, 'optim.clip': 2.0})
  run = runs[0]
  claim_run_dir(run.results[0], other)
  with pytest.raises(
    UserError, match=r'nope,seed=3. holds a run of another config: optim.clip \(there 2.0, here'
  ):
    sweep.plan(study, tmp_path / 'out', {'seeds': SEEDS})
  for folder, steps in zip(run.results, (12, 4), strict=True):
    (folder / 'checkpoints' / str(steps)).mkdir(parents=True)
  assert (status.read_status(run).step, run.steps) == (16, 24)
